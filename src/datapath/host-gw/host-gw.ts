/**
 * host-gw: packets go to the peer as they are, by a route through its node address. Nothing is wrapped, so the peer must
 * stand on the link of the external interface; a router in between knows no pod subnet. A peer beyond one gets no route
 * and a reason (flannel's kernel answers "network is unreachable" there).
 *
 *   10.244.2.0/24 via 172.30.0.3 dev eth0
 *
 * Sources: flannel Documentation/backends.md, pkg/backend/route_network.go.
 */
import type { HostGwConfig } from '../../model/backend.ts'
import type { NodeContext, NodeInfo, PeerProblem } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import { type Route, WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import type { Datapath } from '../datapath.ts'
import { pathOf } from '../path.ts'
import { addressProblem, familiesOf, forwardingSysctls, isOnLink, publicIpOf, subnetOf } from '../peer.ts'

/** The route that reaches a subnet without any wrapping; DirectRouting writes the same one. */
export const plainRoute = (node: NodeContext, destination: Cidr, via: Ip): Route => ({
  kind: 'route',
  destination,
  hops: [{ via, device: node.external.device }],
  protocol: WEFT_ROUTE_PROTOCOL,
})

export const hostGw: Datapath<HostGwConfig> = {
  type: 'host-gw',

  local(config, node) {
    return { source: `path/${pathOf(config)}`, objects: forwardingSysctls(node, [node.external.device]) }
  },

  from(config, _node, peer) {
    return { source: `node/${peer.name}/from/${pathOf(config)}`, objects: [] }
  },

  toward(_config, node, peer) {
    const objects: KernelObject[] = []
    const problems: PeerProblem[] = []
    for (const family of familiesOf(node)) {
      const subnet = subnetOf(peer, family)
      if (!subnet) continue
      const via = publicIpOf(peer, family)
      if (via && isOnLink(node, via)) objects.push(plainRoute(node, subnet, via))
      else problems.push(via ? notOnLink(node, peer, via) : addressProblem(peer, family))
    }
    return { fragment: { source: `node/${peer.name}`, objects }, problems }
  },

  endpoint(_config, node) {
    return familiesOf(node).includes(6) ? { data: null, v6Data: null } : { data: null }
  },

  mtuBytes: (_config, node) => node.external.mtuBytes,

  devices: () => [],
}

const notOnLink = (node: NodeContext, peer: NodeInfo, via: Ip): PeerProblem => ({
  node: peer.name,
  key: via.family === 4 ? 'public-ip' : 'public-ipv6',
  problem: `${via} is not on a subnet of ${node.external.device}: host-gw cannot cross a router, its pods are unreachable from node ${node.name}`,
})
