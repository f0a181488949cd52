/**
 * What nodes call a way between them. A path id names everything that both ends must agree on, so that "I accept
 * vxlan/1/8472" has one meaning; it travels in node annotations and is checked when read.
 *
 *   host-gw    vxlan/<VNI>/<port>    vxlan/<VNI>/<port>/gbp    udp/<port>    ipip    tun/ipip    tun/fou/<port>
 */
import type { BackendConfig } from '../model/backend.ts'

export type PathId = string

/** What the transition must know of the ids of one dialect. */
export interface PathWords {
  /** True for an id of this dialect; others are passed over. */
  isKnown(id: PathId): boolean
  /** True when two different paths cannot stand side by side on one node. */
  exclude(a: PathId, b: PathId): boolean
  /** A way to get by while `goal` cannot stand yet; all nodes with one goal find the same one. */
  detourOf(goal: PathId): PathId | undefined
  /** Paths that this node prepares for as soon as a peer sends by them, whatever its configuration says. */
  readonly defaults: readonly PathId[]
}

/** The id of the path that packets take under these settings (DirectRouting's plain routes are `host-gw` beside it). */
export function pathOf(config: BackendConfig): PathId {
  switch (config.type) {
    case 'host-gw':
      return 'host-gw'
    case 'vxlan':
      return `vxlan/${config.vni}/${config.port}${config.gbp ? '/gbp' : ''}`
    case 'udp':
      return `udp/${config.port}`
    case 'ipip':
      return 'ipip'
    case 'kube-router':
      return config.encap === 'fou' ? `tun/fou/${config.port}` : 'tun/ipip'
  }
}

/** kube-router's port of `fou`. */
export const OVERLAY_PORT = 5555
const overlay = { type: 'kube-router', overlay: 'full', autoMtu: true } as const

/** Settings that carry a path, everything the id does not say at its default; undefined for what is no path id of ours. */
export function configOfPath(id: PathId): BackendConfig | undefined {
  if (id === 'host-gw') return { type: 'host-gw' }
  if (id === 'ipip') return { type: 'ipip', directRouting: false }
  if (id === 'tun/ipip') return { ...overlay, encap: 'ipip', port: OVERLAY_PORT }
  const overlayPort = /^tun\/fou\/([1-9]\d{3,4})$/.exec(id)?.[1]
  if (overlayPort !== undefined)
    return Number(overlayPort) <= 65535 && Number(overlayPort) >= 1024
      ? { ...overlay, encap: 'fou', port: Number(overlayPort) }
      : undefined
  const match = /^(?:vxlan\/(0|[1-9]\d{0,7})|udp)\/([1-9]\d{0,4})(\/gbp)?$/.exec(id)
  if (!match) return undefined
  const port = Number(match[2])
  if (port > 65535) return undefined
  if (match[1] === undefined) return match[3] ? undefined : { type: 'udp', port }
  const vni = Number(match[1])
  if (vni > 0xffffff) return undefined
  return { type: 'vxlan', vni, port, gbp: match[3] !== undefined, learning: false, directRouting: false }
}

/**
 * True when two different paths cannot stand side by side on one node: they need one device (VXLAN on one VNI with another
 * port), or one UDP port in two manners (the kernel shares a VXLAN port among devices with equal flags only, and with a
 * user-space tunnel not at all).
 */
export function exclude(a: PathId, b: PathId): boolean {
  const [first, second] = [configOfPath(a), configOfPath(b)]
  if (a === b || !first || !second) return false
  if (first.type === 'vxlan' && second.type === 'vxlan')
    return first.vni === second.vni || (first.port === second.port && first.gbp !== second.gbp)
  return udpPortOf(first) !== undefined && udpPortOf(first) === udpPortOf(second)
}

/** The UDP port that a path listens on. */
export function udpPortOf(config: BackendConfig): number | undefined {
  switch (config.type) {
    case 'vxlan':
    case 'udp':
      return config.port
    case 'kube-router':
      return config.encap === 'fou' ? config.port : undefined
    default:
      return undefined
  }
}

/** VNIs whose device names have room for `flannel-v6.`. */
const NAMEABLE_VNIS = 10_000

/**
 * A way to get by while `goal` cannot stand yet because a path that it excludes is still in use: the same port, which
 * whoever chose it has opened between the nodes, under another VNI. All nodes with one goal find the same one; those of two
 * ports can stand side by side.
 */
export function detourOf(goal: PathId): PathId | undefined {
  const config = configOfPath(goal)
  if (config?.type !== 'vxlan') return undefined
  const step = 1 + (config.port % (NAMEABLE_VNIS - 1))
  return pathOf({ ...config, vni: ((config.vni % NAMEABLE_VNIS) + step) % NAMEABLE_VNIS })
}

/** flannel's. */
export const flannelPaths: PathWords = {
  isKnown: (id) => configOfPath(id) !== undefined,
  exclude,
  detourOf,
  defaults: ['host-gw', 'vxlan/1/8472', 'udp/8285'],
}
