/**
 * Packet rules of pools, in `table inet weft` beside all others, with chains and sets of their own:
 *
 *   prerouting  -300 calico-guard        who may send tunnel packets: nodes of the cluster (and externalNodes), no pods
 *   output      -300 calico-untracked    this node's own tunnel packets
 *   postrouting   95 calico-postrouting  natOutgoing, and the source of what the node itself sends into tunnels
 *
 * Sets, per family: `calico-pools` (all pools, and other networks of the cluster), `calico-nat-pools` (those with
 * natOutgoing), `calico-nodes` (addresses of nodes, one element each, so that a newcomer is one message),
 * `calico-external` (externalNodes, only where there are any).
 *
 * natOutgoing: a packet from a pool that has it, to an address of no pool, leaves with the node's address. With
 * natOutgoingExclusions=IPPoolsAndHostIPs not to nodes either. Pools that are disabled count: their pods live on.
 *
 * A process of the node that talks to a service has chosen its source before the service became a pod behind a tunnel.
 * Answers to that source would come back beside the tunnel, so it is changed to the tunnel's address.
 *
 * Tunnel packets that strangers send are dropped before connection tracking, and counted; those of nodes are not tracked:
 * what is inside is, and the wrapping is nobody's connection.
 *
 * Sources: Calico felix/rules/{nat,static}.go, felix/dataplane/linux/masq_mgr.go (meaning of natOutgoing, of the tunnel's
 * source, who may send); FelixConfiguration reference (natOutgoing…, externalNodesList).
 */
import type { FelixSettings, IpPool } from '../../model/calico.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Fragment } from '../../model/kernel-state.ts'
import type { NftChain, NftElement, NftRule, NftSet, NftStatement } from '../../model/nft.ts'
import { type Cidr, disjointCidrs } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'
import {
  chain,
  counter,
  daddr,
  families,
  firewallTable,
  keyOfCidr,
  podDevices,
  rule,
  saddr,
} from '../firewall/names.ts'

/** A tunnel that this node accepts packets from. */
export interface PoolTunnel {
  readonly type: 'ipip' | 'vxlan' | 'geneve'
  readonly device: string
  /** UDP port that it listens on; undefined for IPIP. */
  readonly port?: number
  /** This node's tunnel addresses on it. */
  readonly addresses: readonly Ip[]
}

export interface PoolRuleOptions {
  readonly pools: readonly IpPool[]
  /** Further networks of the cluster, to which natOutgoing does nothing. */
  readonly otherNetworks: readonly Cidr[]
  /** This node's addresses. */
  readonly nodeAddresses: readonly Ip[]
  readonly tunnels: readonly PoolTunnel[]
  readonly settings: FelixSettings
  /** Random source ports for masqueraded packets. */
  readonly fullyRandom: boolean
}

type PoolSet = 'calico-pools' | 'calico-nat-pools' | 'calico-nodes' | 'calico-external'

const inTable = { family: 'inet', table: 'weft' } as const
const nameOf = (set: PoolSet, family: Family): string => `${set}${family}`

const planSet = (set: PoolSet, family: Family): NftSet => ({
  kind: 'nft-set',
  ...inTable,
  name: nameOf(set, family),
  type: [family === 4 ? 'ipv4_addr' : 'ipv6_addr'],
  ...(set === 'calico-nodes' ? {} : { flags: ['interval'] }),
})

const element = (set: PoolSet, family: Family, key: string): NftElement => ({
  kind: 'nft-element',
  ...inTable,
  set: nameOf(set, family),
  key,
})

const ranges = (set: PoolSet, cidrs: Iterable<Cidr>): NftElement[] =>
  disjointCidrs(cidrs).map((cidr) => element(set, cidr.family, keyOfCidr(cidr)))

const isIn = (set: PoolSet, side: typeof saddr | typeof daddr, family: Family): NftStatement => ({
  match: [side(family)],
  right: `@${nameOf(set, family)}`,
})
const isNotIn = (set: PoolSet, side: typeof saddr | typeof daddr, family: Family): NftStatement => ({
  match: [side(family)],
  op: '!=',
  right: `@${nameOf(set, family)}`,
})

/** Counts tunnel packets that strangers sent. */
export const tunnelStrangerCounter = 'calico-forged-tunnel-source'
/** Counts those of pods of this node: masquerading would make them the node's own, and another node would believe it. */
export const podTunnelCounter = 'calico-tunnel-from-pod'

export const POOL_RULES_SOURCE = 'calico/rules'
export const poolNodeSource = (peer: string): string => `calico/node/${peer}/from`

/** A peer's addresses, from which tunnel packets may come. Source is `calico/node/<name>/from`. */
export function planPoolNode(name: string, addresses: readonly Ip[]): Fragment {
  return { source: poolNodeSource(name), objects: planNodeElements(addresses) }
}

function planNodeElements(addresses: readonly Ip[]): NftElement[] {
  const byKey = new Map(addresses.map((ip) => [`${ip}`, element('calico-nodes', ip.family, `${ip}`)]))
  return [...byKey.values()]
}

/** Chains, sets and what the options say of their elements. Source is `calico/rules`. */
export function planPoolRules(options: PoolRuleOptions): Fragment {
  const { pools, otherNetworks, nodeAddresses, tunnels, settings } = options
  const hasExternal = settings.externalNodes.length > 0
  const names: readonly PoolSet[] = ['calico-pools', 'calico-nat-pools', 'calico-nodes']
  const objects: KernelObject[] = [
    firewallTable,
    ...families.flatMap((family) => names.map((name) => planSet(name, family))),
    ...ranges('calico-pools', [...pools.map(({ cidr }) => cidr), ...otherNetworks]),
    ...ranges(
      'calico-nat-pools',
      pools.filter(({ natOutgoing }) => natOutgoing).map(({ cidr }) => cidr),
    ),
    ...planNodeElements(nodeAddresses),
    ...(hasExternal ? families.map((family) => planSet('calico-external', family)) : []),
    ...ranges('calico-external', settings.externalNodes),
  ]
  if (tunnels.length > 0) {
    objects.push(counter(tunnelStrangerCounter), counter(podTunnelCounter), podDevices)
    objects.push(...kindsOf(tunnels).map((kind) => planSenders(kind, settings)))
    objects.push(planGuard(tunnels), planUntracked(tunnels))
  }
  objects.push(planPostrouting(options))
  return { source: POOL_RULES_SOURCE, objects }
}

interface TunnelKind {
  readonly type: PoolTunnel['type']
  readonly chain: string
  /** What tells its packets from others. */
  readonly isIts: readonly NftStatement[]
  readonly families: readonly Family[]
}

/** IP protocol number of IPv4 in IPv4. */
const IPIP = '4'

function kindOf({ type, port }: PoolTunnel): TunnelKind {
  if (type === 'ipip')
    return {
      type,
      chain: 'calico-ipip',
      isIts: [
        { match: ['meta l4proto'], right: IPIP },
        { match: ['meta nfproto'], right: 'ipv4' },
      ],
      families: [4],
    }
  return {
    type,
    chain: `calico-${type}-${port}`,
    isIts: [
      { match: ['th dport'], right: `${port}` },
      { match: ['meta l4proto'], right: 'udp' },
    ],
    families,
  }
}

/** Devices that share a port share its chain. */
const kindsOf = (tunnels: readonly PoolTunnel[]): TunnelKind[] => [
  ...new Map(tunnels.map(kindOf).map((kind) => [kind.chain, kind])).values(),
]

function planSenders(kind: TunnelKind, settings: FelixSettings): NftChain {
  const let_in: NftStatement[] = [{ notrack: true }, { verdict: 'accept' }]
  const { families: its } = kind
  return chain(kind.chain, undefined, [
    ...planPodsDo(kind, settings),
    ...its.map((family) => rule('from nodes', isIn('calico-nodes', saddr, family), ...let_in)),
    rule('passes through', { match: ['fib daddr type'], op: '!=', right: 'local' }, { verdict: 'return' }),
    ...(settings.externalNodes.length > 0
      ? its.map((family) => rule('from external nodes', isIn('calico-external', saddr, family), ...let_in))
      : []),
    rule('from no known node', { counter: tunnelStrangerCounter }, { verdict: 'drop' }),
  ])
}

/** Routed pods send none at all, as with Calico; bridged ones none to nodes. */
function planPodsDo({ type, families: its }: TunnelKind, settings: FelixSettings): NftRule[] {
  const allowed = type === 'ipip' ? settings.allowIpipPacketsFromWorkloads : settings.allowVxlanPacketsFromWorkloads
  if (allowed) return []
  const refuse: NftStatement[] = [{ counter: podTunnelCounter }, { verdict: 'drop' }]
  return [
    rule('from a pod', { match: ['meta iifname'], right: `"${settings.interfacePrefix}*"` }, ...refuse),
    ...its.map((family) =>
      rule(
        'from a bridged pod',
        { match: ['meta iifname'], right: `@${podDevices.name}` },
        isIn('calico-nodes', daddr, family),
        ...refuse,
      ),
    ),
  ]
}

const planGuard = (tunnels: readonly PoolTunnel[]): NftChain =>
  chain(
    'calico-guard',
    { type: 'filter', hook: 'prerouting', priority: -300 },
    kindsOf(tunnels).map((kind) => rule(undefined, ...kind.isIts, { jump: kind.chain })),
  )

const planUntracked = (tunnels: readonly PoolTunnel[]): NftChain =>
  chain(
    'calico-untracked',
    { type: 'filter', hook: 'output', priority: -300 },
    kindsOf(tunnels).flatMap((kind) =>
      kind.families.map((family) =>
        rule('tunnels to nodes', ...kind.isIts, isIn('calico-nodes', daddr, family), { notrack: true }),
      ),
    ),
  )

function planPostrouting(options: PoolRuleOptions): NftChain {
  const { tunnels, pools } = options
  const masquerade: NftStatement = { masquerade: options.fullyRandom ? { fullyRandom: true } : {} }
  const ofNode = tunnels.flatMap(({ device, addresses }) =>
    addresses.map((ip) =>
      rule(
        'the node itself into a tunnel',
        { match: ['meta oifname'], right: `"${device}"` },
        { match: [saddr(ip.family)], op: '!=', right: `${ip}` },
        { match: ['fib saddr type'], right: 'local' },
        masquerade,
      ),
    ),
  )
  const natFamilies = families.filter((family) =>
    pools.some(({ natOutgoing, cidr }) => natOutgoing && cidr.family === family),
  )
  return chain('calico-postrouting', { type: 'nat', hook: 'postrouting', priority: 95 }, [
    ...ofNode,
    ...natFamilies.flatMap((family) => planNatOutgoing(family, options, masquerade)),
  ])
}

function planNatOutgoing(family: Family, { settings }: PoolRuleOptions, masquerade: NftStatement): NftRule[] {
  const { natOutgoingAddress: address, natOutgoingInterfaceFilter: device, natPortRange } = settings
  const matches: NftStatement[] = [
    isIn('calico-nat-pools', saddr, family),
    isNotIn('calico-pools', daddr, family),
    ...(settings.natOutgoingExclusions === 'IPPoolsAndHostIPs' ? [isNotIn('calico-nodes', daddr, family)] : []),
    // Calico's `+` at the end is nft's `*`.
    ...(device === undefined ? [] : [{ match: ['meta oifname'], right: `"${device.replace(/\+$/, '*')}"` } as const]),
  ]
  const to = address?.family === family ? `${address}` : undefined
  const change = (ports?: string): NftStatement => {
    if (to !== undefined) return { snat: ports === undefined ? { to } : { to, ports } }
    return ports === undefined ? masquerade : { masquerade: { ports } }
  }
  const ranged = natPortRange
    ? (['tcp', 'udp'] as const).map((protocol) =>
        rule(
          'pool to elsewhere',
          ...matches,
          { match: ['meta l4proto'], right: protocol },
          change(`${natPortRange.first}-${natPortRange.last}`),
        ),
      )
    : []
  return [...ranged, rule('pool to elsewhere', ...matches, change())]
}
