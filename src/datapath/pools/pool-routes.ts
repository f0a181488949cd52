/**
 * What it costs to send to one peer by a path, and the routes to blocks. A block costs a route, an address that another node
 * borrowed of it one more:
 *
 *   calico/plain    172.26.1.0/26 via 172.30.0.2 dev eth0
 *   calico/ipip     172.26.1.0/26 via 172.30.0.2 dev tunl0 onlink
 *   calico/vxlan    172.26.1.0/26 via 172.26.1.0 dev vxlan.calico onlink        the peer's tunnel address, whose MAC is a
 *                                                                               neighbour, whose node a forwarding entry
 *   calico/geneve   172.26.1.0/26 encap ip id 4096 dst 172.30.0.2 ttl 64 via 172.30.0.2 dev geneve.weft onlink
 *   its own         blackhole 172.26.0.0/26        what finds no pod goes nowhere else
 *
 * For IPv6 the next hop is the link-local address of the peer's MAC instead, as in ../vxlan/vxlan.ts and for its reason.
 *
 * Sources: Calico felix/dataplane/linux/{route_mgr,vxlan_mgr,ipip_mgr}.go, felix/vxlanfdb (shapes of routes and entries).
 */
import type { BlockRoutes, FelixSettings } from '../../model/calico.ts'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Fragment } from '../../model/kernel-state.ts'
import { type NextHop, type Route, WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf, type Family, type Ip } from '../../net/ip.ts'
import type { Mac } from '../../net/mac.ts'
import type { PathId } from '../path.ts'
import { linkLocalOf } from '../vxlan/vtep.ts'
import { deviceOfPoolPath, type PoolPath, parsePoolPath } from './pool-path.ts'

/** Of packets that a route wraps: GENEVE devices in collect-metadata mode have none of their own. */
const OUTER_TTL = 64

/** One end of a tunnel that frames go through. */
export interface TunnelEnd {
  readonly mac: Mac
  /** Its tunnel address; undefined where next hops do not need one. */
  readonly ip?: Ip
}

/** How a peer is reached: its checked addresses, and its ends by path, those that are known and its own alone. */
export interface PoolPeer {
  readonly name: string
  readonly ipv4?: Ip
  readonly ipv6?: Ip
  endOf(path: PoolPath, family: Family): TunnelEnd | undefined
}

const ipOf = (peer: PoolPeer, family: Family): Ip | undefined => (family === 4 ? peer.ipv4 : peer.ipv6)

/** The next hop to a peer's addresses of a family; undefined where its words do not suffice for the path. */
export function hopToward(id: PathId, peer: PoolPeer, family: Family, external: string): NextHop | undefined {
  const path = parsePoolPath(id)!
  const remote = ipOf(peer, family)
  if (!remote) return undefined
  if (path.type === 'plain') return { via: remote, device: external }
  const device = deviceOfPoolPath(path)!
  if (path.type === 'ipip') return family === 4 ? { via: remote, device, onlink: true } : undefined
  if (path.type === 'vxlan' && path.family !== family) return undefined
  const end = peer.endOf(path, family)
  if (!end) return undefined
  const hop = family === 6 ? { via: linkLocalOf(end.mac), device } : { via: end.ip ?? remote, device, onlink: true }
  if (path.type === 'vxlan') return hop
  return { ...hop, encapsulation: { id: path.vni, destination: remote, ttl: OUTER_TTL } }
}

/** Neighbours and forwarding entries that the next hops by these paths need. Source is `calico/node/<name>`. */
export function planPeerEnds(peer: PoolPeer, paths: readonly PathId[]): Fragment {
  const objects: KernelObject[] = []
  for (const id of paths) {
    const path = parsePoolPath(id)!
    if (path.type !== 'vxlan' && path.type !== 'geneve') continue
    const device = deviceOfPoolPath(path)!
    for (const family of path.type === 'vxlan' ? [path.family] : ([4, 6] as const)) {
      const [remote, end] = [ipOf(peer, family), peer.endOf(path, family)]
      if (!remote || !end) continue
      const ip = family === 6 ? linkLocalOf(end.mac) : (end.ip ?? remote)
      objects.push({ kind: 'neighbour', device, ip, mac: end.mac, state: 'permanent' })
      if (path.type === 'vxlan')
        objects.push({ kind: 'fdb', device, mac: end.mac, remote, table: 'self', state: 'permanent' })
    }
  }
  return { source: peerEndsSource(peer.name), objects }
}

export const peerEndsSource = (peer: string): string => `calico/node/${peer}`
export const blockSource = (cidr: Cidr): string => `calico/block/${cidr}`

/** Next hop to a node's addresses in the block; undefined where there is none, and for this node. */
export type HopOf = (node: string) => NextHop | undefined

/**
 * Routes of one block. Source is `calico/block/<cidr>`. `isTaken` says that another block is exactly that address: its own
 * route stands for it.
 */
export function planBlock(
  { cidr, node, borrowed }: BlockRoutes,
  self: string,
  settings: FelixSettings,
  hopOf: HopOf,
  isTaken: (address: Cidr) => boolean,
): Fragment {
  const objects: KernelObject[] = []
  if (node === self) {
    // A block of one address is its pod's route, or nothing.
    if (cidr.length < bitsOf(cidr.family)) objects.push(routeTo(cidr, [], settings))
  } else if (node !== undefined) {
    const hop = hopOf(node)
    if (hop) objects.push(routeTo(cidr, [hop], settings))
  }
  for (const { ip, node: borrower } of borrowed) {
    const address = Cidr.host(ip)
    const hop = borrower === self || isTaken(address) ? undefined : hopOf(borrower)
    if (hop) objects.push(routeTo(address, [hop], settings))
  }
  return { source: blockSource(cidr), objects }
}

/** Calico's default priority: IPv6 routes have it without saying it, and for IPv4 nothing else of weft's is behind it. */
const USUAL_PRIORITY = 1024

function routeTo(destination: Cidr, hops: readonly NextHop[], settings: FelixSettings): Route {
  const isV4 = destination.family === 4
  const priority = isV4 ? settings.ipv4NormalRoutePriority : settings.ipv6NormalRoutePriority
  const source = isV4 ? settings.deviceRouteSourceAddress : settings.deviceRouteSourceAddressV6
  return {
    kind: 'route',
    destination,
    ...(hops.length === 0 && { type: 'blackhole' as const }),
    hops,
    ...(priority !== USUAL_PRIORITY && { metric: priority }),
    ...(source && hops.length > 0 && { source }),
    protocol: WEFT_ROUTE_PROTOCOL,
  }
}
