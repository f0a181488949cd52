/**
 * ipip: IPv4 packets go inside IPv4 packets, twenty bytes more and nothing else. One device for all peers; the gateway of a
 * route says whom to send to, and needs to be reachable by nothing but the device:
 *
 *   10.244.2.0/24 via 172.30.0.3 dev flannel.ipip onlink
 *
 * The device has this node's address as its own end, so that it is told apart from `tunl0`, which the kernel makes and which
 * others may use. Only IPv4 goes in. With DirectRouting a peer on the external interface's link gets host-gw's route instead.
 *
 * Sources: flannel Documentation/backends.md, pkg/backend/ipip/ipip.go; RFC 2003.
 */
import type { IpipConfig } from '../../model/backend.ts'
import type { NodeContext, PeerProblem } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import { WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import type { Datapath } from '../datapath.ts'
import { plainRoute } from '../host-gw/host-gw.ts'
import { pathOf } from '../path.ts'
import { addressProblem, familiesOf, forwardingSysctls, isOnLink, publicIpOf, subnetOf } from '../peer.ts'

const DEVICE = 'flannel.ipip'
const OVERHEAD_BYTES = 20

const mtuBytes = (_config: IpipConfig, node: NodeContext): number => node.external.mtuBytes - OVERHEAD_BYTES

export const ipip: Datapath<IpipConfig> = {
  type: 'ipip',

  local(config, node) {
    const source = `path/${pathOf(config)}`
    const subnet = subnetOf(node, 4)
    if (!subnet || !node.publicIp) return { source, objects: [] }
    const objects: KernelObject[] = [
      {
        kind: 'link',
        name: DEVICE,
        type: 'ipip',
        settings: { local: node.publicIp, ttl: 0, pmtuDiscovery: true, encapsulation: null },
        mtuBytes: mtuBytes(config, node),
        addressGeneration: 'none',
        up: true,
        alias: 'weft:ipip',
      },
      { kind: 'address', device: DEVICE, ip: subnet.base, prefixLength: 32 },
      ...forwardingSysctls(node, [node.external.device, DEVICE]),
    ]
    return { source, objects }
  },

  from(config, _node, peer) {
    return { source: `node/${peer.name}/from/${pathOf(config)}`, objects: [] }
  },

  toward(config, node, peer, options = {}) {
    const objects: KernelObject[] = []
    const problems: PeerProblem[] = []
    const subnet = subnetOf(node, 4) && subnetOf(peer, 4)
    const remote = publicIpOf(peer, 4)
    if (subnet && !remote) problems.push(addressProblem(peer, 4))
    if (subnet && remote && node.publicIp) {
      if (config.directRouting && options.direct && isOnLink(node, remote))
        objects.push(plainRoute(node, subnet, remote))
      else
        objects.push({
          kind: 'route',
          destination: subnet,
          hops: [{ via: remote, device: DEVICE, onlink: true }],
          protocol: WEFT_ROUTE_PROTOCOL,
        })
    }
    return { fragment: { source: `node/${peer.name}`, objects }, problems }
  },

  endpoint(_config, node) {
    return familiesOf(node).includes(6) ? { data: null, v6Data: null } : { data: null }
  },

  mtuBytes,

  devices: () => [DEVICE],
}
