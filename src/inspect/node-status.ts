/**
 * `weft node status`: what the agent of this node says of itself, as operators of Calico ask for it: is it running, who is this
 * node, which pools stand, and by which way each peer is reached. The agent's answer is read loosely: another version of weft may
 * have made it.
 *
 * Sources: Calico calicoctl/commands/node/status.go (the first line; tables of peers).
 */
import { formatTable } from './table.ts'

type Json = Readonly<Record<string, unknown>>
const asJson = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})
const asList = (value: unknown): readonly Json[] => (Array.isArray(value) ? value.map(asJson) : [])
const asText = (value: unknown): string => (value === undefined || value === null ? '' : String(value))

/** The lines for an agent's `/state` and the body of its `/readyz`. */
export function formatNodeStatus(state: unknown, readiness: string): string[] {
  const { wiring, calico, peers, config } = asJson(state)
  return [
    'weft process is running.',
    '',
    ...readiness.trimEnd().split('\n'),
    '',
    ...(wiring === undefined ? [] : [`Wiring of new pods: ${asText(wiring)}`, '']),
    ...(calico === undefined ? [] : formatPools(asJson(calico))),
    ...(config === undefined ? [] : formatPeers(asList(peers))),
  ]
}

function formatPools({ node, pools, peersByPath, mtuBytes, remarks, problems }: Json): string[] {
  const words = asJson(asJson(node).calico)
  const place = (value: unknown) => {
    const { ip, prefixLength } = asJson(value)
    return ip === undefined ? undefined : `${asText(ip)}/${asText(prefixLength)}`
  }
  const own = [
    ['IPv4 address', place(words.ipv4)],
    ['IPv6 address', place(words.ipv6)],
    ['tunl0', words.ipv4IpipTunnelAddr],
    ['vxlan.calico', words.ipv4VxlanTunnelAddr],
    ['vxlan-v6.calico', words.ipv6VxlanTunnelAddr],
    ['MTU of pods', mtuBytes],
  ].filter(([, value]) => value !== undefined)
  const modes = asList(pools).map((pool) => {
    const mode = ['ipipMode', 'vxlanMode', 'geneveMode'].find((key) => pool[key] !== undefined && pool[key] !== 'Never')
    const shown = mode === undefined ? 'no encapsulation' : `${mode.slice(0, -4)} ${asText(pool[mode])}`
    return [asText(pool.name), asText(pool.cidr), shown, pool.disabled === true ? 'disabled' : 'enabled']
  })
  const ways = Object.entries(asJson(peersByPath)).map(([path, count]) => [path, asText(count)])
  return [
    ...formatTable(
      ['NODE', ''],
      own.map(([key, value]) => [asText(key), asText(value)]),
    ),
    '',
    ...formatTable(['IP POOL', 'CIDR', 'ENCAPSULATION', 'STATE'], modes),
    '',
    ...formatTable(['WAY TO BLOCKS', 'FLOWS'], ways, { right: [1] }),
    '',
    ...[...(Array.isArray(remarks) ? remarks : [])].map(
      (remark) => `Warning: ${asText(asJson(remark).message ?? remark)}`,
    ),
    ...asList(problems).map(
      ({ node: peer, key, problem }) => `Warning: Node ${asText(peer)}: ${asText(key)}: ${asText(problem)}`,
    ),
  ]
}

function formatPeers(peers: readonly Json[]): string[] {
  const rows = peers.map(({ name, podCidrs, lease, by }) => {
    const { publicIp, publicIpv6 } = asJson(lease)
    const { path, direct } = asJson(by)
    const cidrs = Array.isArray(podCidrs) ? podCidrs.join(' ') : ''
    const way = path === undefined ? 'none' : `${asText(path)}${direct === true ? ' direct' : ''}`
    return [asText(publicIp ?? publicIpv6), asText(name), cidrs, way]
  })
  return formatTable(['PEER ADDRESS', 'NODE', 'POD CIDRS', 'WAY'], rows)
}
