/**
 * kube-router's overlay: a tunnel of its own to each peer, IP in IP as it is or inside UDP (Generic UDP Encapsulation, which
 * kube-router calls FoU). IPv6 subnets go the same way by IPv6 tunnels.
 *
 *   10.244.2.0/24 dev tun-6f9d6b6a3a5 src 172.30.0.2          to the peer's pods
 *   172.30.1.3 dev tun-6f9d6b6a3a5 table 77                   and to the peer itself,
 *   32765: from 10.244.1.0/24 lookup 77                       for what pods send
 *
 * With `subnet` a peer on the external interface's link gets host-gw's route and no tunnel.
 *
 * What comes in does not depend on the tunnel to its sender: `tun-in` (and `tun-in6`) takes everything, wrapped in UDP or not,
 * so that either side may send first and tunnels come and go while packets arrive. Being bound to the external interface it
 * goes before the tunnels to peers; it has an address, because the kernel lets nothing in by a device without one that would
 * not go out by it. The packet rules say who may send. The path ids differ by what must be open to accept: the UDP port.
 *
 * Sources: kube-router docs/tunnels.md, pkg/tunnels/linux_tunnels.go, pkg/routes/pbr.go (table 77),
 * pkg/controllers/routing/network_routes_controller.go (injectRoute); net/ipv4/ip_tunnel.c (ip_tunnel_lookup), net/ipv4/fib_frontend.c
 * (__fib_validate_source: last_resort).
 */
import type { KubeRouterConfig } from '../../model/backend.ts'
import type { NodeContext, NodeInfo, PeerProblem } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Link, TunnelEncapsulation } from '../../model/link.ts'
import { type Route, WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { Datapath, TowardOptions } from '../datapath.ts'
import { plainRoute } from '../host-gw/host-gw.ts'
import { pathOf } from '../path.ts'
import { addressProblem, familiesOf, forwardingSysctls, isOnLink, ownIpOf, publicIpOf, subnetOf } from '../peer.ts'
import { otherTunnelName, tunnelName } from './tunnel-name.ts'

const TABLE = 77
/** Where kube-router's rules come to stand: before the main table. */
const RULE_PRIORITY = 32765
/** Of the outer header of `fou`; of `ipip` the inner packet's is taken. */
const FOU_TTL = 225

const inboundName = (family: Family): string => (family === 4 ? 'tun-in' : 'tun-in6')

/** The outer header, and with `fou` UDP and four bytes of GUE. */
const overheadBytes = ({ encap }: KubeRouterConfig, family: Family): number =>
  (family === 4 ? 20 : 40) + (encap === 'fou' ? 8 + 4 : 0)

/** Families that this node can wrap: it has a subnet and an address of them. */
const wrappedFamilies = (node: NodeContext): readonly Family[] =>
  familiesOf(node).filter((family) => ownIpOf(node, family))

const encapsulationOf = ({ encap, port }: KubeRouterConfig): TunnelEncapsulation | null =>
  encap === 'fou' ? { type: 'gue', destinationPort: port } : null

/** A tunnel from this node, to one peer or to none. */
function tunnel(config: KubeRouterConfig, node: NodeContext, name: string, family: Family, remote?: Ip): Link {
  const common = {
    kind: 'link',
    name,
    mtuBytes: node.external.mtuBytes - overheadBytes(config, family),
    addressGeneration: 'none',
    up: true,
    alias: remote ? 'weft:tun' : 'weft:tun/in',
  } as const
  const ends = { local: ownIpOf(node, family)!, ...(remote && { remote }) }
  const ttl = config.encap === 'fou' && remote ? FOU_TTL : 0
  const encapsulation = remote ? encapsulationOf(config) : null
  // By its device it is told apart from another that takes in everything, such as flannel.ipip.
  const lower = remote ? {} : { lower: node.external.device }
  return family === 4
    ? { ...common, type: 'ipip', settings: { ...lower, ...ends, ttl, pmtuDiscovery: true, encapsulation } }
    : {
        ...common,
        type: 'ip6tnl',
        settings: { ...lower, ...ends, hopLimit: ttl, mode: 'ip6ip6', encapsulationLimit: null, encapsulation },
      }
}

/** What one subnet of a peer costs by a tunnel. */
function wrap(
  config: KubeRouterConfig,
  node: NodeContext,
  peer: NodeInfo,
  destination: Cidr,
  remote: Ip,
  { ownsName }: TowardOptions,
): KernelObject[] {
  const { family } = destination
  const usual = tunnelName(remote)
  const device = !ownsName || ownsName(usual, peer.name) ? usual : otherTunnelName(remote)
  const own = ownIpOf(node, family)!
  const hasOwn = node.external.addresses.some(({ ip }) => ip.equals(own))
  const route: Route = {
    kind: 'route',
    destination,
    hops: [{ device }],
    ...(hasOwn && { source: own }),
    protocol: WEFT_ROUTE_PROTOCOL,
  }
  const toNode = Cidr.of(remote, bitsOf(family))
  return [
    tunnel(config, node, device, family, remote),
    route,
    { kind: 'route', destination: toNode, table: TABLE, hops: [{ device }], protocol: WEFT_ROUTE_PROTOCOL },
  ]
}

export const kubeRouter: Datapath<KubeRouterConfig> = {
  type: 'kube-router',

  local(config, node) {
    const objects: KernelObject[] = []
    for (const family of wrappedFamilies(node)) {
      if (config.encap === 'fou') objects.push({ kind: 'fou', family, port: config.port, type: 'gue', marked: true })
      // The same for every encapsulation: two paths may want it at once.
      objects.push(tunnel({ ...config, encap: 'ipip' }, node, inboundName(family), family))
      const [ip, prefixLength] = [subnetOf(node, family)!.base, bitsOf(family)]
      objects.push({
        kind: 'address',
        device: inboundName(family),
        ip,
        prefixLength,
        ...(family === 6 && { noDad: true }),
      })
      objects.push({
        kind: 'rule',
        family,
        priority: RULE_PRIORITY,
        from: subnetOf(node, family)!,
        table: TABLE,
        protocol: WEFT_ROUTE_PROTOCOL,
      })
    }
    const inbound = wrappedFamilies(node).includes(4) ? [inboundName(4)] : []
    objects.push(...forwardingSysctls(node, [node.external.device, ...inbound]))
    return { source: `path/${pathOf(config)}`, objects }
  },

  from(config, _node, peer) {
    return { source: `node/${peer.name}/from/${pathOf(config)}`, objects: [] }
  },

  toward(config, node, peer, options = {}) {
    const objects: KernelObject[] = []
    const problems: PeerProblem[] = []
    for (const family of wrappedFamilies(node)) {
      const subnet = subnetOf(peer, family)
      if (!subnet) continue
      const remote = publicIpOf(peer, family)
      if (!remote) problems.push(addressProblem(peer, family))
      else if (config.overlay === 'subnet' && options.direct && isOnLink(node, remote))
        objects.push(plainRoute(node, subnet, remote))
      else objects.push(...wrap(config, node, peer, subnet, remote, options))
    }
    return { fragment: { source: `node/${peer.name}`, objects }, problems }
  },

  endpoint(_config, node) {
    return familiesOf(node).includes(6) ? { data: null, v6Data: null } : { data: null }
  },

  mtuBytes(config, node) {
    if (!config.autoMtu) return node.external.mtuBytes
    return (
      node.external.mtuBytes - Math.max(...wrappedFamilies(node).map((family) => overheadBytes(config, family)), 20)
    )
  },

  // Those that it makes take in what comes by any of its paths, and stay for the other one.
  devices: () => [],
}
