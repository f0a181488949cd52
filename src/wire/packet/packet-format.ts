/**
 * One line for a packet, innermost addresses first, then what it is wrapped in: what a reader of a packet's walk looks at.
 *
 *     10.244.1.2 → 10.244.2.3 ICMP echo request id 7 seq 1, TTL 62, 84 bytes | VXLAN VNI 1, UDP 41234 → 8472, 172.30.1.2 → 172.30.1.3
 *     172.26.0.2 → 172.26.0.66 ICMP echo request id 7 seq 1, TTL 63, 84 bytes | IPIP, 172.30.0.11 → 172.30.0.12
 */
import type { IpLayer, Layer } from './packet.ts'

const icmpNames: Readonly<Record<string, string>> = {
  '4/0': 'echo reply',
  '4/3': 'destination unreachable',
  '4/8': 'echo request',
  '4/11': 'time exceeded',
  '6/1': 'destination unreachable',
  '6/2': 'packet too big',
  '6/3': 'time exceeded',
  '6/128': 'echo request',
  '6/129': 'echo reply',
  '6/133': 'router solicitation',
  '6/134': 'router advertisement',
  '6/135': 'neighbour solicitation',
  '6/136': 'neighbour advertisement',
}
const tcpFlags = ['FIN', 'SYN', 'RST', 'PSH', 'ACK'] as const

/** The whole line; tunnels after ` | `, innermost first. */
export function formatPacket(layers: readonly Layer[]): string {
  const groups = splitByTunnel(layers)
  const inner = formatPlain(groups.at(-1)!)
  const outer = groups.slice(0, -1).reverse().map(formatOuter)
  return [inner, ...outer].join(' | ')
}

/** The IP layer that the two ends see: the innermost one. */
export function innermostIp(layers: readonly Layer[]): IpLayer | undefined {
  return layers.findLast((layer): layer is IpLayer => layer.layer === 'ip')
}

/** How the packet is wrapped: `VXLAN VNI 1, UDP 41234 → 8472, 172.30.1.2 → 172.30.1.3`, or undefined when it is bare. */
export function formatEncapsulation(layers: readonly Layer[]): string | undefined {
  const groups = splitByTunnel(layers)
  return groups.length > 1 ? groups.slice(0, -1).reverse().map(formatOuter).join(' | ') : undefined
}

const isTunnel = ({ layer }: Layer) => ['vxlan', 'geneve', 'udp-tunnel', 'ip-tunnel'].includes(layer)

function splitByTunnel(layers: readonly Layer[]): Layer[][] {
  const groups: Layer[][] = [[]]
  for (const layer of layers) {
    groups.at(-1)!.push(layer)
    if (isTunnel(layer)) groups.push([])
  }
  return groups
}

function formatOuter(layers: readonly Layer[]): string {
  const words = layers.toReversed().flatMap((layer) => {
    if (layer.layer === 'vxlan') return [`VXLAN VNI ${layer.vni}`]
    if (layer.layer === 'geneve') return [`GENEVE VNI ${layer.vni}`]
    if (layer.layer === 'ip-tunnel') return ['IPIP']
    if (layer.layer === 'udp') return [`UDP ${layer.sourcePort} → ${layer.destinationPort}`]
    if (layer.layer === 'ip') return [`${layer.source} → ${layer.destination}`]
    return []
  })
  return words.join(', ')
}

function formatPlain(layers: readonly Layer[]): string {
  const ip = layers.find((layer) => layer.layer === 'ip')
  const words: string[] = []
  for (const layer of layers) {
    if (layer.layer === 'arp')
      words.push(
        layer.operation === 1 ? `ARP who has ${layer.target}, tell ${layer.sender}` : `ARP ${layer.sender} answers`,
      )
    if (layer.layer === 'icmp') words.push(formatIcmp(layer))
    if (layer.layer === 'udp') words.push(`UDP ${layer.sourcePort} → ${layer.destinationPort}`)
    if (layer.layer === 'tcp') {
      const flags = tcpFlags.filter((_, bit) => layer.flags & (1 << bit)).join(',')
      words.push(`TCP ${layer.sourcePort} → ${layer.destinationPort} ${flags}`)
    }
    if (layer.layer === 'bytes' && layer.problem) words.push(`(${layer.problem})`)
  }
  if (!ip) return words.join(' ') || 'no IP packet'
  return `${ip.source} → ${ip.destination} ${[...words, `TTL ${ip.ttl}`, `${ip.totalLength} bytes`].join(', ')}`
}

function formatIcmp(layer: Extract<Layer, { layer: 'icmp' }>): string {
  const name = icmpNames[`${layer.version}/${layer.type}`] ?? `type ${layer.type} code ${layer.code}`
  const echo = name.startsWith('echo') ? ` id ${layer.identifier} seq ${layer.sequence}` : ''
  return `ICMP${layer.version === 6 ? 'v6' : ''} ${name}${echo}`
}
