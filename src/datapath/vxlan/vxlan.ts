/**
 * vxlan: packets go inside UDP, one device per address family, nothing learnt from traffic. Every peer costs one route,
 * one neighbour and one forwarding entry, each known from the store:
 *
 *   10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink         the peer's end is the first address of its subnet
 *   10.244.2.0 lladdr 0e:…:02 dev flannel.1 PERMANENT         whose MAC its lease tells
 *   0e:…:02 dev flannel.1 dst 172.30.0.3 self permanent       and which is wrapped to its node's address
 *
 * For IPv6 the next hop is the peer's link-local address (of its MAC) instead: the kernel refuses an onlink IPv6 gateway
 * inside a subnet that another device's route covers, which is exactly the state in the middle of a switch. Nobody
 * outside this node can tell the difference.
 *
 * With DirectRouting a peer on the external interface's link gets host-gw's route and nothing else.
 *
 * Sources: flannel Documentation/backends.md, pkg/backend/vxlan; RFC 7348; ip6_route_check_nh_onlink in net/ipv6/route.c.
 */
import type { VxlanConfig } from '../../model/backend.ts'
import type { NodeContext, NodeInfo, PeerProblem } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Link } from '../../model/link.ts'
import { WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import { decodeVxlanEndpoint, encodeVxlanEndpoint, type VxlanEndpoint } from '../../model/vxlan-endpoint.ts'
import type { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { Datapath } from '../datapath.ts'
import { plainRoute } from '../host-gw/host-gw.ts'
import { pathOf } from '../path.ts'
import { addressProblem, familiesOf, forwardingSysctls, isOnLink, ownIpOf, publicIpOf, subnetOf } from '../peer.ts'
import { linkLocalOf, storedEndpoint, vtepMac, vtepName } from './vtep.ts'

/** Outer Ethernet payload that wrapping costs: IP, UDP 8, VXLAN 8, inner Ethernet 14. */
const overheadBytes = (family: Family): number => (family === 4 ? 20 : 40) + 8 + 8 + 14

const deviceMtuBytes = (config: VxlanConfig, node: NodeContext, family: Family): number =>
  Math.min(config.mtuBytes ?? node.external.mtuBytes, node.external.mtuBytes) - overheadBytes(family)

/** Families that this node can wrap: it has a subnet and an address of them. */
const wrappedFamilies = (node: NodeContext): readonly Family[] =>
  familiesOf(node).filter((family) => ownIpOf(node, family))

export const vxlan: Datapath<VxlanConfig> = {
  type: 'vxlan',

  local(config, node) {
    const families = wrappedFamilies(node)
    const devices = families.filter((family) => family === 4).map((family) => vtepName(config, family))
    const objects: KernelObject[] = families.flatMap((family) => [
      vtep(config, node, family),
      {
        kind: 'address',
        device: vtepName(config, family),
        ip: subnetOf(node, family)!.base,
        prefixLength: bitsOf(family),
        ...(family === 6 && { noDad: true }),
      },
    ])
    objects.push(...forwardingSysctls(node, [node.external.device, ...devices]))
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
      if (!remote) {
        problems.push(addressProblem(peer, family))
      } else if (config.directRouting && options.direct && isOnLink(node, remote)) {
        objects.push(plainRoute(node, subnet, remote))
      } else {
        const endpoint = endpointOf(config, peer, family)
        if ('problem' in endpoint) problems.push(endpoint)
        else objects.push(...wrap(vtepName(config, family), subnet, remote, endpoint))
      }
    }
    return { fragment: { source: `node/${peer.name}`, objects }, problems }
  },

  endpoint(config, node) {
    const of = (family: Family) =>
      wrappedFamilies(node).includes(family) ? encodeVxlanEndpoint(config.vni, vtepMac(config, node, family)) : null
    return familiesOf(node).includes(6) ? { data: of(4), v6Data: of(6) } : { data: of(4) }
  },

  mtuBytes: (config, node) =>
    Math.min(...wrappedFamilies(node).map((family) => deviceMtuBytes(config, node, family)), node.external.mtuBytes),

  devices: (config, node) => wrappedFamilies(node).map((family) => vtepName(config, family)),
}

/** This node's end of the tunnel. */
function vtep(config: VxlanConfig, node: NodeContext, family: Family): Link {
  return {
    kind: 'link',
    name: vtepName(config, family),
    type: 'vxlan',
    settings: {
      vni: config.vni,
      port: config.port,
      lower: node.external.device,
      local: ownIpOf(node, family)!,
      learning: config.learning,
      ...(config.gbp && { gbp: true }),
    },
    mac: vtepMac(config, node, family),
    mtuBytes: deviceMtuBytes(config, node, family),
    addressGeneration: 'none',
    up: true,
    alias: 'weft:vxlan',
  }
}

function wrap(device: string, subnet: Cidr, remote: Ip, { mac }: VxlanEndpoint): KernelObject[] {
  const via = subnet.family === 4 ? subnet.base : linkLocalOf(mac)
  return [
    {
      kind: 'route',
      destination: subnet,
      hops: [subnet.family === 4 ? { via, device, onlink: true } : { via, device }],
      protocol: WEFT_ROUTE_PROTOCOL,
    },
    { kind: 'neighbour', device, ip: via, mac, state: 'permanent' },
    { kind: 'fdb', device, mac, remote, table: 'self', state: 'permanent' },
  ]
}

function endpointOf(config: VxlanConfig, peer: NodeInfo, family: Family): VxlanEndpoint | PeerProblem {
  const problem = (problem: string): PeerProblem => ({
    node: peer.name,
    key: family === 4 ? 'backend-data' : 'backend-v6-data',
    problem,
  })
  const endpoint = decodeVxlanEndpoint(storedEndpoint(config, peer, family))
  if (typeof endpoint === 'string') return problem(endpoint)
  if (endpoint.vni !== undefined && endpoint.vni !== config.vni)
    return problem(`VNI is ${endpoint.vni} and this node's is ${config.vni}: neither would take the other's packets`)
  return endpoint
}
