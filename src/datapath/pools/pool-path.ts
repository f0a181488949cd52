/**
 * What nodes call a way to addresses of pools. As in ../path.ts an id names everything that both ends must agree on:
 *
 *   calico/plain                      as they are, to a node on the same link
 *   calico/ipip                       IPv4 in IPv4
 *   calico/vxlan/<VNI>/<port>         IPv4 by vxlan.calico
 *   calico/vxlan-v6/<VNI>/<port>      IPv6 by vxlan-v6.calico
 *   calico/geneve/<VNI>/<port>        both by geneve.weft
 *
 * VXLAN has an id for each family, because the two have devices of their own and pools of each family are switched by
 * themselves. An id that ends in `/detour` is the way round while VNI or port change, by a device of its own: there can be
 * one vxlan.calico only.
 */
import type { Family } from '../../net/ip.ts'
import type { PathId, PathWords } from '../path.ts'

export type PoolPath =
  | { readonly type: 'plain' }
  | { readonly type: 'ipip' }
  | {
      readonly type: 'vxlan'
      readonly family: Family
      readonly vni: number
      /** UDP destination port. */
      readonly port: number
      readonly detour: boolean
    }
  | { readonly type: 'geneve'; readonly vni: number; readonly port: number }

export function formatPoolPath(path: PoolPath): PathId {
  switch (path.type) {
    case 'plain':
    case 'ipip':
      return `calico/${path.type}`
    case 'vxlan':
      return `calico/vxlan${path.family === 6 ? '-v6' : ''}/${path.vni}/${path.port}${path.detour ? '/detour' : ''}`
    case 'geneve':
      return `calico/geneve/${path.vni}/${path.port}`
  }
}

/** Ids that were parsed: a cluster has a handful, and each is asked for again and again. */
const parsed = new Map<PathId, PoolPath | undefined>()
const MAX_PARSED = 256

/** Undefined for what is no path id of Calico's. */
export function parsePoolPath(id: PathId): PoolPath | undefined {
  if (parsed.has(id)) return parsed.get(id)
  const path = parse(id)
  // Others' statuses may name anything.
  if (parsed.size < MAX_PARSED) parsed.set(id, path)
  return path
}

function parse(id: PathId): PoolPath | undefined {
  if (id === 'calico/plain') return { type: 'plain' }
  if (id === 'calico/ipip') return { type: 'ipip' }
  const match = /^calico\/(vxlan|vxlan-v6|geneve)\/(0|[1-9]\d{0,7})\/([1-9]\d{0,4})(\/detour)?$/.exec(id)
  if (!match) return undefined
  const [type, vni, port, detour] = [match[1]!, Number(match[2]), Number(match[3]), match[4] !== undefined]
  if (vni > 0xffffff || port > 65535) return undefined
  if (type === 'geneve') return detour ? undefined : { type, vni, port }
  return { type: 'vxlan', family: type === 'vxlan' ? 4 : 6, vni, port, detour }
}

/** The device that packets of a path go by; undefined for plain ones. */
export function deviceOfPoolPath(path: PoolPath): string | undefined {
  switch (path.type) {
    case 'plain':
      return undefined
    case 'ipip':
      return 'tunl0'
    case 'vxlan':
      // One for each VNI, as somebody may change his mind half-way. A name has room for fifteen characters.
      if (path.detour) return `vxlan${path.family === 6 ? '6' : ''}.${path.vni.toString(16)}.d`
      return `vxlan${path.family === 6 ? '-v6' : ''}.calico`
    case 'geneve':
      return 'geneve.weft'
  }
}

/** Two that need one device, or one UDP port and VNI, or one port for two encapsulations. */
function exclude(a: PathId, b: PathId): boolean {
  const [first, second] = [parsePoolPath(a), parsePoolPath(b)]
  if (a === b || !first || !second || !('port' in first) || !('port' in second)) return false
  if (first.type !== second.type) return first.port === second.port
  if (first.type === 'geneve' || second.type === 'geneve') return true
  if (first.family !== second.family) return false
  if (first.detour !== second.detour) return first.port === second.port && first.vni === second.vni
  return !first.detour || first.vni === second.vni
}

const VNIS = 2 ** 24

/** The goal's port, which whoever chose it has opened between the nodes, under another VNI and by another device. */
function detourOf(goal: PathId): PathId | undefined {
  const path = parsePoolPath(goal)
  if (path?.type !== 'vxlan' || path.detour) return undefined
  return formatPoolPath({ ...path, vni: (path.vni + 1 + (path.port % 997)) % VNIS, detour: true })
}

/** Calico's. */
export const poolPaths: PathWords = {
  isKnown: (id) => parsePoolPath(id) !== undefined,
  exclude,
  detourOf,
  // What a real Calico node goes by without any settings.
  defaults: ['calico/plain', 'calico/ipip', 'calico/vxlan/4096/4789', 'calico/vxlan-v6/4096/4789'],
}

/** GENEVE is weft's own beside Calico's encapsulations, with VXLAN's default VNI and the port of RFC 8926. */
export const genevePath: PathId = 'calico/geneve/4096/6081'
