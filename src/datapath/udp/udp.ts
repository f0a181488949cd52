/**
 * udp: packets go inside UDP by way of a process of ours on a TUN device, in flannel's wire format (the bare IP packet is
 * the payload). Slower than the kernel's tunnels; it is there for kernels and networks that allow nothing else.
 *
 *   10.244.2.0/24 dev flannel0        and the process sends what it finds there to 172.30.0.3:8285
 *
 * The process takes packets only from nodes that it was told of, with inner sources of their subnets. flannel routes the
 * whole pod network to the device; weft routes peer by peer, so that a switch can go peer by peer too. Each port has a
 * device and a process of its own, so that a switch from one to another loses nothing either.
 *
 * Sources: flannel Documentation/backends.md, pkg/backend/udp (device name, port, payload).
 */
import type { UdpConfig } from '../../model/backend.ts'
import type { NodeContext, PeerProblem } from '../../model/cluster.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import { WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { Datapath } from '../datapath.ts'
import { pathOf } from '../path.ts'
import { addressProblem, familiesOf, forwardingSysctls, ownIpOf, publicIpOf, subnetOf } from '../peer.ts'

const USUAL_PORT = 8285

/** flannel's name with its usual port; with another one a name that says which. */
const deviceOf = ({ port }: UdpConfig): string => (port === USUAL_PORT ? 'flannel0' : `flannel0-${port}`)

/** The tunnel has one socket: IPv4 where the node has such an address, both families of pods inside it. */
const outerFamily = (node: NodeContext): Family => (node.publicIp ? 4 : 6)

const overheadBytes = (node: NodeContext): number => (outerFamily(node) === 4 ? 20 : 40) + 8

const mtuBytes = (_config: UdpConfig, node: NodeContext): number => node.external.mtuBytes - overheadBytes(node)

export const udp: Datapath<UdpConfig> = {
  type: 'udp',

  local(config, node) {
    const source = `path/${pathOf(config)}`
    const local: Ip | undefined = ownIpOf(node, outerFamily(node))
    if (!local) return { source, objects: [] }
    const mtu = mtuBytes(config, node)
    const subnets = familiesOf(node).map((family) => subnetOf(node, family)!)
    const device = deviceOf(config)
    const objects: KernelObject[] = [
      {
        kind: 'link',
        name: device,
        type: 'tun',
        settings: { mode: 'tun', vnetHeader: true, persist: true },
        mtuBytes: mtu,
        up: true,
        addressGeneration: 'none',
        alias: 'weft:udp',
      },
      { kind: 'tunnel', device, mtuBytes: mtu, local, port: config.port, subnets },
      ...familiesOf(node).map(
        (family): KernelObject => ({
          kind: 'address',
          device,
          ip: subnetOf(node, family)!.base,
          prefixLength: bitsOf(family),
          ...(family === 6 && { noDad: true }),
        }),
      ),
      ...forwardingSysctls(node, [node.external.device, device]),
    ]
    return { source, objects }
  },

  from(config, node, peer) {
    const remote = publicIpOf(peer, outerFamily(node))
    const objects = remote
      ? familiesOf(node).flatMap((family): KernelObject[] => {
          const subnet = subnetOf(peer, family)
          return subnet ? [{ kind: 'tunnel-peer', device: deviceOf(config), subnet, remote, port: config.port }] : []
        })
      : []
    return { source: `node/${peer.name}/from/${pathOf(config)}`, objects }
  },

  toward(config, node, peer) {
    const objects: KernelObject[] = []
    const problems: PeerProblem[] = []
    const remote = publicIpOf(peer, outerFamily(node))
    if (!remote) problems.push(addressProblem(peer, outerFamily(node)))
    for (const family of remote ? familiesOf(node) : []) {
      const destination = subnetOf(peer, family)
      if (destination)
        objects.push({
          kind: 'route',
          destination,
          hops: [{ device: deviceOf(config) }],
          protocol: WEFT_ROUTE_PROTOCOL,
        })
    }
    return { fragment: { source: `node/${peer.name}`, objects }, problems }
  },

  endpoint(_config, node) {
    return familiesOf(node).includes(6) ? { data: null, v6Data: null } : { data: null }
  },

  mtuBytes,

  devices: (config) => [deviceOf(config)],
}
