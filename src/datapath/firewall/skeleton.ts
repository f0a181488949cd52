/**
 * The fixed part of `table inet weft`: chains and sets that stand as long as the agent's settings do. Nodes and pods
 * cost elements, never rules.
 *
 *   prerouting -300 guard ──► -100 prerouting ─► hostport        what may come in at all; then port mappings
 *   input         0 input                                        tunnels from strangers
 *   forward       0 forward                                      the pod network may pass
 *   output     -100 output ──────────────────► hostport          the node's own use of port mappings
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
 * The forward rules accept in this table only. A drop in another table, such as a FORWARD policy of DROP that Docker
 * sets, still drops: nftables has no way for one table to overrule another.
 *
 * Forged packets are dropped before connection tracking and counted:
 *   - a tunnel packet whose outer source is no known node (input);
 *   - a packet with a source in this node's pod subnets that does not come from a pod device (guard);
 *   - from a VXLAN device, a pod source that does not belong to the VTEP whose MAC the frame carries (guard). The outer
 *     source is not visible any more there: a node can still pretend to be another node's VTEP;
 *   - from the user-space tunnel, a pod source of no peer's subnet; the tunnel itself has checked which peer.
 * Plain routing (host-gw) has no sender to check: behind a router every packet carries the router's MAC, and neighbours'
 * MACs are not announced. There only the first two apply.
 *
 * Sources: flannel pkg/trafficmngr/iptables/iptables.go (rules and their order); the fourth seed's captured rules;
 * reference portmap plugin (mark bit 13); kernel Documentation/networking/ip-sysctl.rst (route_localnet), CVE-2020-8558.
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
  /** flannel's --iptables-forward-rules. Default true. */
  readonly forward?: boolean
  readonly tunnels: readonly FirewallTunnel[]
  /** Devices that this node's pods hang on (planPodDevice adds more). Default `cni0`. */
  readonly podDevices?: readonly string[]
  /** Whether tunnel packets must come from an address that the cluster knows. Default true. */
  readonly knownTunnelSources?: boolean
}

/** kube-proxy's "masquerade me". */
const SERVICE_MARK = 0x4000
/** Set while a port mapping of a local client is being translated; the reference portmap plugin's bit. */
export const HAIRPIN_MARK = 0x2000

const accept: NftStatement = { verdict: 'accept' }
const drop: NftStatement = { verdict: 'drop' }
const keep: NftStatement = { verdict: 'return' }
const count = (name: string): NftStatement => ({ counter: name })

/** Counters of forged packets, by what they are about. */
export const strangerCounter = 'forged-tunnel-source'
export const ownSourceCounter = 'forged-local-source'
export const loopbackCounter = 'forged-loopback'
export const innerCounter = (device: string): string => `forged-${device}`

/** Chains, sets, counters and the elements that the options themselves say. The table comes first. */
export function planFirewallSkeleton(options: FirewallOptions): KernelObject[] {
  const tunnels = [...options.tunnels].sort((a, b) => (a.device < b.device ? -1 : 1))
  const counters = [
    strangerCounter,
    ownSourceCounter,
    loopbackCounter,
    ...tunnels.map(({ device }) => innerCounter(device)),
  ]
  return [
    firewallTable,
    ...[...new Set(counters)].map(counter),
    ...families.flatMap(planSets),
    podDevices,
    ...(options.podDevices ?? ['cni0']).map(planPodDevice),
    ...disjoint(options.clusterCidrs).map((cidr) => element('cluster', cidr.family, keyOfCidr(cidr))),
    ...disjoint(options.localCidrs).map((cidr) => element('local', cidr.family, keyOfCidr(cidr))),
    planHostportChain(),
    planGuard(tunnels),
    planInput(options, tunnels),
    planForward(options),
    planPrerouting(),
    planOutput(),
    planPostrouting(options),
  ]
}

/** nft prints a block of one address without its length. */
export const keyOfCidr = (cidr: Cidr): string =>
  cidr.length === (cidr.family === 4 ? 32 : 128) ? `${cidr.base}` : `${cidr}`

/** Without blocks that another one covers: ranges of a set may not overlap. */
function disjoint(cidrs: readonly Cidr[]): Cidr[] {
  const sorted = [...cidrs].sort((a, b) => a.compare(b))
  return sorted.filter(
    (cidr, i) => !sorted.some((other, j) => j !== i && other.covers(cidr) && (j < i || !cidr.covers(other))),
  )
}

function planGuard(tunnels: readonly FirewallTunnel[]): NftChain {
  const byPods = (op: '==' | '!='): NftStatement => ({
    match: ['meta iifname'],
    ...(op === '!=' && { op }),
    right: `@${podDevices.name}`,
  })
  const notByLoopback: NftStatement = { match: ['meta iifname'], op: '!=', right: '"lo"' }
  const own = families.map((family) =>
    rule(
      'claims a pod address of this node',
      inSet(saddr(family), 'local', family),
      byPods('!='),
      notByLoopback,
      count(ownSourceCounter),
      drop,
    ),
  )
  // A pod device may carry loopback addresses only because port mappings are reachable by 127.0.0.1 (route_localnet).
  const loopback = rule(
    'loopback is not for pods',
    { match: ['ip daddr'], right: '127.0.0.0/8' },
    byPods('=='),
    count(loopbackCounter),
    drop,
  )
  return chain('guard', { type: 'filter', hook: 'prerouting', priority: -300 }, [
    ...own,
    ...tunnels.flatMap(planInnerChecks),
    loopback,
  ])
}

/** A pod source must belong to the sender. Sources outside the pod network are not judged: peers need not masquerade. */
function planInnerChecks({ type, device }: FirewallTunnel): NftRule[] {
  return families.map((family) => {
    const sender: NftStatement =
      type === 'vxlan'
        ? { match: ['ether saddr', saddr(family)], op: '!=', right: `@${setName('senders', family)}` }
        : notInSet(saddr(family), 'peers', family)
    return rule(
      type === 'vxlan' ? 'not a subnet of its sender' : 'no subnet of a peer',
      { match: ['meta iifname'], right: `"${device}"` },
      inSet(saddr(family), 'cluster', family),
      sender,
      count(innerCounter(device)),
      drop,
    )
  })
}

function planInput({ knownTunnelSources = true }: FirewallOptions, tunnels: readonly FirewallTunnel[]): NftChain {
  const ports = [...new Set(tunnels.map(({ port }) => `${port}`))].sort()
  const rules =
    knownTunnelSources && ports.length > 0
      ? families.map((family) =>
          rule(
            'tunnel from no known node',
            { match: ['udp dport'], right: ports.length === 1 ? ports[0]! : ports },
            notInSet(saddr(family), 'nodes', family),
            count(strangerCounter),
            drop,
          ),
        )
      : []
  return chain('input', { type: 'filter', hook: 'input', priority: 0 }, rules)
}

function planForward({ forward = true }: FirewallOptions): NftChain {
  const rules = forward
    ? families.flatMap((family) => [
        rule('from pods', inSet(saddr(family), 'cluster', family), accept),
        rule('to pods', inSet(daddr(family), 'cluster', family), accept),
      ])
    : []
  return chain('forward', { type: 'filter', hook: 'forward', priority: 0 }, rules)
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
