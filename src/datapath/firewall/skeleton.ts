/**
 * The fixed part of `table inet weft`: chains and sets that stand as long as the agent's settings do. Nodes and pods
 * cost elements, never rules.
 *
 *   prerouting -300 guard ──► tunnel chains                      forged packets; tunnels from strangers
 *              -100 prerouting ─► hostport                       port mappings
 *   output     -300 untracked                                    tunnel packets of this node
 *              -100 output ──────► hostport                      the node's own use of port mappings
 *   postrouting 100 postrouting                                  masquerading
 *
 * Masquerading has flannel's meaning, in this order (an operator sees the comments in `nft list`):
 *
 *   from            to                        source address
 *   pod network     pod network               kept
 *   pod network     elsewhere, no multicast   the node's
 *   elsewhere       this node's pods          kept
 *   elsewhere       other nodes' pods         the node's
 *
 * What kube-proxy has marked for masquerading (0x4000) is left to kube-proxy.
 *
 * There is no forward chain: flannel's rules there accept, and nftables has no way for an accept in one table to overrule
 * a drop in another (such as Docker's FORWARD policy). They would decide nothing and cost every packet.
 *
 * Forged packets are dropped before connection tracking and counted:
 *   - a packet with a source in this node's pod subnets that does not come from a pod device;
 *   - a tunnel packet whose outer source is no known node;
 *   - a VXLAN packet with a pod source inside that is not of the node that the outer source belongs to. Both addresses are
 *     looked up at once while the packet is still wrapped: the inner one is read from behind the UDP header. An inner
 *     source of the other family than the outer one's is no node's. Sources outside the pod network are not judged:
 *     peers need not masquerade.
 * The user-space tunnel's process checks the same by itself and counts what it drops.
 * Plain routing (host-gw) has no sender to check: behind a router every packet carries the router's MAC, and neighbours'
 * MACs are not announced. There only the first applies.
 *
 * Every packet of a pod passes here, so the rules are in the order of what is asked most, and ask sets last; figures are
 * in docs/decisions/0008. Wrapped packets are not tracked: what is inside is, and the wrapping is nobody's connection.
 *
 * Sources: flannel pkg/trafficmngr/iptables/iptables.go (rules and their order); the fourth seed's captured rules;
 * reference portmap plugin (mark bit 13); kernel Documentation/networking/ip-sysctl.rst (route_localnet), CVE-2020-8558;
 * RFC 7348 section 5 (VXLAN header).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { NftChain, NftRule, NftSelector, NftStatement } from '../../model/nft.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Family } from '../../net/ip.ts'
import {
  chain,
  counter,
  daddr,
  element,
  families,
  firewallTable,
  inSet,
  keyOfCidr,
  multicast,
  notInSet,
  planPodDevice,
  planSets,
  podDevices,
  rule,
  saddr,
  setName,
} from './names.ts'

/** A tunnel that this node accepts packets from. */
export interface FirewallTunnel {
  readonly type: 'vxlan' | 'udp'
  readonly device: string
  /** UDP port that it listens on. */
  readonly port: number
}

export interface FirewallOptions {
  /** The pod networks of the cluster, both families (flannel's Network and IPv6Network, and any further cluster CIDRs). */
  readonly clusterCidrs: readonly Cidr[]
  /** This node's own pod subnets. */
  readonly localCidrs: readonly Cidr[]
  /** flannel's --ip-masq. */
  readonly masquerade: boolean
  /** Random source ports (default), unless flannel's --ip-masq-fully-random-disable. */
  readonly fullyRandom?: boolean
  readonly tunnels: readonly FirewallTunnel[]
  /** Devices that this node's pods hang on (planPodDevice adds more). Default `cni0`. */
  readonly podDevices?: readonly string[]
}

/** kube-proxy's "masquerade me". */
const SERVICE_MARK = 0x4000
/** Set while a port mapping of a local client is being translated; the reference portmap plugin's bit. */
const HAIRPIN_MARK = 0x2000

const accept: NftStatement = { verdict: 'accept' }
const drop: NftStatement = { verdict: 'drop' }
const keep: NftStatement = { verdict: 'return' }
const count = (name: string): NftStatement => ({ counter: name })

/** Counters of forged packets, by what they are about. */
export const strangerCounter = 'forged-tunnel-source'
export const ownSourceCounter = 'forged-local-source'
export const loopbackCounter = 'forged-loopback'
export const innerCounter = 'forged-inner-source'

/** Chains, sets, counters and the elements that the options themselves say. The table comes first. */
export function planFirewallSkeleton(options: FirewallOptions): KernelObject[] {
  const podDeviceNames = options.podDevices ?? ['cni0']
  const tunnels = distinctTunnels(options.tunnels)
  return [
    firewallTable,
    ...[strangerCounter, ownSourceCounter, innerCounter, loopbackCounter].map(counter),
    ...families.flatMap(planSets),
    podDevices,
    ...podDeviceNames.map(planPodDevice),
    ...disjoint(options.clusterCidrs).map((cidr) => element('cluster', cidr.family, keyOfCidr(cidr))),
    ...disjoint(options.localCidrs).map((cidr) => element('local', cidr.family, keyOfCidr(cidr))),
    planHostportChain(),
    ...tunnels.map(planTunnel),
    planGuard(disjoint(options.localCidrs), podDeviceNames, tunnels),
    planUntracked(tunnels, options.localCidrs),
    planPrerouting(),
    planOutput(),
    planPostrouting(options),
  ]
}

/** Devices that share a port share its chain. */
function distinctTunnels(tunnels: readonly FirewallTunnel[]): FirewallTunnel[] {
  const byChain = new Map(tunnels.map((tunnel) => [tunnelChain(tunnel), tunnel]))
  return [...byChain.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, tunnel]) => tunnel)
}

const tunnelChain = ({ type, port }: FirewallTunnel): string => `${type}-${port}`

/** Without blocks that another one covers: ranges of a set may not overlap. */
function disjoint(cidrs: readonly Cidr[]): Cidr[] {
  const sorted = [...cidrs].sort((a, b) => a.compare(b))
  return sorted.filter(
    (cidr, i) => !sorted.some((other, j) => j !== i && other.covers(cidr) && (j < i || !cidr.covers(other))),
  )
}

function planGuard(
  localCidrs: readonly Cidr[],
  podDeviceNames: readonly string[],
  tunnels: readonly FirewallTunnel[],
): NftChain {
  const notBy = (device: string): NftStatement => ({ match: ['meta iifname'], op: '!=', right: device })
  const own = localCidrs.map((cidr) =>
    rule(
      'claims a pod address of this node',
      { match: [saddr(cidr.family)], right: keyOfCidr(cidr) },
      // The usual devices by name: comparing costs less than a look into the set.
      ...podDeviceNames.map((device) => notBy(`"${device}"`)),
      notBy(`@${podDevices.name}`),
      notBy('"lo"'),
      count(ownSourceCounter),
      drop,
    ),
  )
  // A pod device may carry loopback addresses only because port mappings are reachable by 127.0.0.1 (route_localnet).
  const loopback = rule(
    'loopback is not for pods',
    { match: ['ip daddr'], right: '127.0.0.0/8' },
    { match: ['meta iifname'], right: `@${podDevices.name}` },
    count(loopbackCounter),
    drop,
  )
  const toTunnels = tunnels.map((tunnel) =>
    rule(undefined, { match: ['udp dport'], right: `${tunnel.port}` }, { jump: tunnelChain(tunnel) }),
  )
  return chain('guard', { type: 'filter', hook: 'prerouting', priority: -300 }, [...toTunnels, ...own, loopback])
}

/** EtherType, and where the inner source stands behind the outer UDP header: 8 of UDP, 8 of VXLAN, 14 of Ethernet. */
const innerPackets = { 4: ['0x800', '@th,336,32'], 6: ['0x86dd', '@th,304,128'] } as const

const isInner = (family: Family): NftStatement => ({ match: ['@th,224,16'], right: innerPackets[family][0] })

const notrack: NftStatement = { notrack: true }

/** What packets to a tunnel's port go through. The first rules let in what a node's pods send; all else ends up behind them. */
function planTunnel(tunnel: FirewallTunnel): NftChain {
  const isVxlan = tunnel.type === 'vxlan'
  const fromNodesPods = (family: Family): NftRule =>
    rule(
      "of the sender's pods",
      isInner(family),
      { match: [saddr(family), innerPackets[family][1]], right: `@${setName('origins', family)}` },
      notrack,
      accept,
    )
  const fromNoNode = (family: Family): NftRule =>
    rule(
      'from no known node',
      { match: [saddr(family), saddr(family)], op: '!=', right: `@${setName('origins', family)}` },
      count(strangerCounter),
      drop,
    )
  const fromOtherPods = (family: Family): NftRule =>
    rule(
      'not a subnet of its sender',
      isInner(family),
      { match: [innerPackets[family][1]], right: `@${setName('cluster', family)}` },
      count(innerCounter),
      drop,
    )
  return chain(tunnelChain(tunnel), undefined, [
    ...(isVxlan ? families.map(fromNodesPods) : []),
    rule('passes through', { match: ['fib daddr type'], op: '!=', right: 'local' }, keep),
    ...families.map(fromNoNode),
    ...(isVxlan ? families.map(fromOtherPods) : []),
    rule(undefined, notrack),
  ])
}

/** The source prefix inside VXLAN as raw payload, for the lengths that nodes' subnets usually have. */
function innerPrefix({ family, length, base }: Cidr): NftStatement | undefined {
  if (length !== (family === 4 ? 24 : 64)) return undefined
  const digits = Array.from(base.toBytes().subarray(0, length / 8), (byte) => byte.toString(16).padStart(2, '0')).join(
    '',
  )
  return { match: [family === 4 ? '@th,336,24' : '@th,304,64'], right: `0x${digits.replace(/^0+(?=.)/, '')}` }
}

/**
 * What this node sends with an own pod source inside is its own wrapping: a comparison tells, and no set is asked. Else to
 * nodes only: anything else on these ports may be a service's, which connection tracking translates.
 */
function planUntracked(tunnels: readonly FirewallTunnel[], localCidrs: readonly Cidr[]): NftChain {
  const own = tunnels
    .filter(({ type }) => type === 'vxlan')
    .flatMap(({ port }) =>
      localCidrs.flatMap((cidr) => {
        const prefix = innerPrefix(cidr)
        const wrapped: NftStatement = { match: ['udp dport'], right: `${port}` }
        return prefix ? [rule('own pods, wrapped', wrapped, isInner(cidr.family), prefix, notrack, accept)] : []
      }),
    )
  const ports = [...new Set(tunnels.map(({ port }) => `${port}`))].sort()
  const rules = families.map((family) =>
    rule(
      'tunnels to nodes',
      { match: ['udp dport'], right: ports.length === 1 ? ports[0]! : ports },
      { match: [daddr(family), daddr(family)], right: `@${setName('origins', family)}` },
      notrack,
    ),
  )
  return chain(
    'untracked',
    { type: 'filter', hook: 'output', priority: -300 },
    ports.length > 0 ? [...own, ...rules] : [],
  )
}

const toLocalAddress: NftStatement = { match: ['fib daddr type'], right: 'local' }

const planPrerouting = (): NftChain =>
  chain('prerouting', { type: 'nat', hook: 'prerouting', priority: -100 }, [
    rule('port mappings', toLocalAddress, { jump: 'hostport' }),
  ])

const planOutput = (): NftChain =>
  chain('output', { type: 'nat', hook: 'output', priority: -100 }, [
    rule('port mappings', toLocalAddress, { jump: 'hostport' }),
  ])

/**
 * Translates to the pod. Clients whose answer would not come back through this node's translation (pods of the same
 * bridge, the mapped pod itself, and 127.0.0.1) are marked, to be masqueraded on the way out. A translation ends the
 * chain; where none happened the mark goes again.
 */
function planHostportChain(): NftChain {
  const markHairpin: NftStatement = { setMark: HAIRPIN_MARK, keepMask: 0xffffffff }
  const unmark: NftStatement = { setMark: 0, keepMask: ~HAIRPIN_MARK >>> 0 }
  const translate = (family: Family): NftRule[] => {
    const port: readonly NftSelector[] = ['meta l4proto', 'th dport']
    const isFamily: NftStatement = { match: ['meta nfproto'], right: family === 4 ? 'ipv4' : 'ipv6' }
    return [
      rule(undefined, {
        dnat: { family, map: setName('hostport-addresses', family), by: [daddr(family), ...port], port: true },
      }),
      rule(undefined, isFamily, { dnat: { family, map: setName('hostports', family), by: port, port: true } }),
    ]
  }
  return chain('hostport', undefined, [
    ...families.map((family) => rule('pods of this node', inSet(saddr(family), 'local', family), markHairpin)),
    rule('this node by loopback', { match: ['ip saddr'], right: '127.0.0.0/8' }, markHairpin),
    ...families.flatMap(translate),
    rule(undefined, unmark),
  ])
}

function planPostrouting({ masquerade, fullyRandom = true }: FirewallOptions): NftChain {
  const change: NftStatement = { masquerade: fullyRandom ? { fullyRandom: true } : {} }
  const isMarked = (bit: number): NftStatement => ({ masked: 'meta mark', mask: bit, value: bit })
  const flannel = (family: Family): NftRule[] => [
    rule('pod to pod', inSet(saddr(family), 'cluster', family), inSet(daddr(family), 'cluster', family), keep),
    rule(
      'pod to elsewhere',
      inSet(saddr(family), 'cluster', family),
      { match: [daddr(family)], op: '!=', right: multicast(family) },
      change,
    ),
    rule(
      'elsewhere to own pods',
      notInSet(saddr(family), 'cluster', family),
      inSet(daddr(family), 'local', family),
      keep,
    ),
    rule(
      'elsewhere to pods',
      notInSet(saddr(family), 'cluster', family),
      inSet(daddr(family), 'cluster', family),
      change,
    ),
  ]
  return chain('postrouting', { type: 'nat', hook: 'postrouting', priority: 100 }, [
    rule('left to kube-proxy', isMarked(SERVICE_MARK), keep),
    rule('port mapping of a local client', isMarked(HAIRPIN_MARK), change),
    ...(masquerade ? families.flatMap(flannel) : []),
  ])
}
