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
 * Pods of other networks (address pools) are translated by rules of their own, and nothing that goes to them is here.
 *
 * What kube-proxy has marked for masquerading (0x4000) is left to kube-proxy.
 *
 * There is no forward chain: flannel's rules there accept, and nftables has no way for an accept in one table to overrule
 * a drop in another (such as Docker's FORWARD policy). They would decide nothing and cost every packet.
 *
 * Forged packets are dropped before connection tracking and counted:
 *   - a packet with a source in this node's pod subnets that does not come from a pod device;
 *   - a tunnel packet whose outer source is no known node;
 *   - a tunnel packet with a pod source inside that is not of the node that the outer source belongs to (tunnel.ts).
 * The user-space tunnel's process checks the same by itself and counts what it drops.
 * Plain routing (host-gw) has no sender to check: behind a router every packet carries the router's MAC, and neighbours'
 * MACs are not announced. There only the first applies.
 *
 * Every packet of a pod passes here, so each rule begins with what tells most packets apart for the least: an aligned word or
 * half word of a header, which the kernel loads and compares without a call. What it means is said behind it, in nft's own words,
 * and holds alone: a word of an IPv6 header may look like an IPv4 address. Names of devices and sets are asked last. Figures are in
 * docs/decisions/0014. Wrapped packets are not tracked: what is inside is, and the wrapping is nobody's connection.
 *
 * Sources: flannel pkg/trafficmngr/iptables/iptables.go (rules and their order); the fourth seed's captured rules;
 * reference portmap plugin (mark bit 13); kernel Documentation/networking/ip-sysctl.rst (route_localnet), CVE-2020-8558;
 * RFC 7348 section 5 (VXLAN header).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { NftChain, NftRule, NftSelector, NftStatement } from '../../model/nft.ts'
import { Cidr, disjointCidrs } from '../../net/cidr.ts'
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
  planOthersSet,
  planPodDevice,
  planSets,
  podDevices,
  rule,
  saddr,
  setName,
} from './names.ts'
import {
  beginsWith,
  distinctTunnels,
  type FirewallTunnel,
  innerCounter,
  packetsOf,
  planTunnel,
  planUntracked,
  strangerCounter,
  tunnelChain,
} from './tunnel.ts'

export interface FirewallOptions {
  /** The pod networks of the cluster, both families (flannel's Network and IPv6Network, and any further cluster CIDRs). */
  readonly clusterCidrs: readonly Cidr[]
  /** This node's own pod subnets. */
  readonly localCidrs: readonly Cidr[]
  /** Pod networks that masquerading here leaves alone, in both directions. */
  readonly otherCidrs?: readonly Cidr[]
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

const drop: NftStatement = { verdict: 'drop' }
const keep: NftStatement = { verdict: 'return' }
const count = (name: string): NftStatement => ({ counter: name })

/** Counters of forged packets, by what they are about; those of tunnels are in tunnel.ts. */
export const ownSourceCounter = 'forged-local-source'
export const loopbackCounter = 'forged-loopback'

/** Chains, sets, counters and the elements that the options themselves say. The table comes first. */
export function planFirewallSkeleton(options: FirewallOptions): KernelObject[] {
  const podDeviceNames = options.podDevices ?? ['cni0']
  const tunnels = distinctTunnels(options.tunnels)
  const others = options.masquerade ? disjointCidrs(options.otherCidrs ?? []) : []
  return [
    firewallTable,
    ...[strangerCounter, ownSourceCounter, innerCounter, loopbackCounter].map(counter),
    ...families.flatMap(planSets),
    podDevices,
    ...podDeviceNames.map(planPodDevice),
    ...disjointCidrs(options.clusterCidrs).map((cidr) => element('cluster', cidr.family, keyOfCidr(cidr))),
    ...disjointCidrs(options.localCidrs).map((cidr) => element('local', cidr.family, keyOfCidr(cidr))),
    ...familiesIn(others).map(planOthersSet),
    ...others.map((cidr) => element('others', cidr.family, keyOfCidr(cidr))),
    planHostportChain(),
    ...tunnels.map((tunnel) => planTunnel(tunnel, disjointCidrs(options.clusterCidrs))),
    planGuard(disjointCidrs(options.localCidrs), podDeviceNames, tunnels),
    planUntracked(tunnels, options.localCidrs),
    planPrerouting(),
    planOutput(),
    planPostrouting(options),
  ]
}

/**
 * What port mappings need where the rest of the table is not wanted: the same objects as the skeleton's. They lack masquerading,
 * for clients of this node.
 */
export const planHostPortRules = (): KernelObject[] => [
  firewallTable,
  ...families.flatMap(planSets),
  planHostportChain(),
  planPrerouting(),
  planOutput(),
]

/** The word of the header in which the block's prefix ends: of those that all its addresses share it tells most apart. */
function sourceWord(cidr: Cidr): NftStatement {
  const words = ['@nh,64,32', '@nh,96,32', '@nh,128,32', '@nh,160,32'] as const
  const index = Math.max(0, Math.ceil(cidr.length / 32) - 1)
  return beginsWith(cidr.family === 4 ? '@nh,96,32' : words[index]!, cidr, 32 * index, 32)
}

const loopbackNet = Cidr.parse('127.0.0.0/8')

function planGuard(
  localCidrs: readonly Cidr[],
  podDeviceNames: readonly string[],
  tunnels: readonly FirewallTunnel[],
): NftChain {
  const notBy = (device: string): NftStatement => ({ match: ['meta iifname'], op: '!=', right: device })
  const own = localCidrs.map((cidr) =>
    rule(
      'claims a pod address of this node',
      sourceWord(cidr),
      // The usual devices by name: comparing costs less than a look into the set.
      ...podDeviceNames.map((device) => notBy(`"${device}"`)),
      notBy(`@${podDevices.name}`),
      notBy('"lo"'),
      { match: [saddr(cidr.family)], right: keyOfCidr(cidr) },
      count(ownSourceCounter),
      drop,
    ),
  )
  // A pod device may carry loopback addresses only because port mappings are reachable by 127.0.0.1 (route_localnet).
  const loopback = rule(
    'loopback is not for pods',
    beginsWith('@nh,128,32', loopbackNet, 0, 32),
    { match: ['meta iifname'], right: `@${podDevices.name}` },
    { match: ['ip daddr'], right: keyOfCidr(loopbackNet) },
    count(loopbackCounter),
    drop,
  )
  const toTunnels = tunnels.flatMap((tunnel) =>
    packetsOf(tunnel).map((isIts) => rule(undefined, ...isIts, { jump: tunnelChain(tunnel) })),
  )
  return chain('guard', { type: 'filter', hook: 'prerouting', priority: -300 }, [...toTunnels, ...own, loopback])
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

const familiesIn = (cidrs: readonly Cidr[]): Family[] =>
  families.filter((family) => cidrs.some((cidr) => cidr.family === family))

function planPostrouting({ masquerade, fullyRandom = true, otherCidrs = [] }: FirewallOptions): NftChain {
  const change: NftStatement = { masquerade: fullyRandom ? { fullyRandom: true } : {} }
  const isMarked = (bit: number): NftStatement => ({ masked: 'meta mark', mask: bit, value: bit })
  const others = (family: Family): NftRule[] => [
    rule('pods of another network', inSet(saddr(family), 'others', family), keep),
    rule('to pods of another network', inSet(daddr(family), 'others', family), keep),
  ]
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
    ...(masquerade ? [...familiesIn(otherCidrs).flatMap(others), ...families.flatMap(flannel)] : []),
  ])
}
