/**
 * The identity of a VXLAN tunnel end: device names as flannel's, and a MAC that follows from the node alone, so that it
 * survives restarts, reboots and re-made devices, and no udev policy can race for it.
 *
 * Sources: flannel pkg/backend/vxlan (device names); RFC 4291 appendix A (EUI-64); FNV-1a, draft-eastlake-fnv.
 */
import type { VxlanConfig } from '../../model/backend.ts'
import type { NodeContext } from '../../model/cluster.ts'
import { decodeVxlanEndpoint } from '../../model/vxlan-endpoint.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { pathOf } from '../path.ts'

/** `flannel.1`, `flannel-v6.1`. */
export const vtepName = (config: VxlanConfig, family: Family): string =>
  `${family === 4 ? 'flannel' : 'flannel-v6'}.${config.vni}`

/** What is known of a node, this one or a peer, that decides its MACs. */
export type VtepHolder = Pick<NodeContext, 'name' | 'uid' | 'lease' | 'weft'>

/**
 * The MAC of a node's end: what the store already says, else derived from its uid (its name without one). A peer's is known
 * by this before the peer has said it, so its first packet by a new path finds it expected.
 */
export function vtepMac(config: VxlanConfig, node: VtepHolder, family: Family): Mac {
  const stored = decodeVxlanEndpoint(storedEndpoint(config, node, family))
  if (typeof stored === 'object' && (stored.vni ?? config.vni) === config.vni) return stored.mac
  return Mac.local(digest(`${node.uid ?? node.name}/${vtepName(config, family)}`))
}

/**
 * A node's words about its VXLAN end: flannel's own where they are about this VNI, else those that it keeps beside its
 * backend for the path; without those whatever flannel's say, for the message about it.
 */
export function storedEndpoint(
  config: VxlanConfig,
  holder: Pick<NodeContext, 'lease' | 'weft'>,
  family: Family,
): unknown {
  const { lease, weft } = holder
  const leased = lease?.backendType === 'vxlan' ? (family === 4 ? lease.backendData : lease.backendV6Data) : undefined
  const vni = typeof leased === 'object' && leased !== null ? (leased as { VNI?: unknown }).VNI : undefined
  const kept = weft?.endpoints?.[pathOf(config)]
  const isAboutOther = vni !== undefined && vni !== config.vni
  if ((leased === undefined || leased === null || isAboutOther) && typeof kept === 'object' && kept !== null)
    return (family === 4 ? (kept as { data?: unknown }).data : (kept as { v6Data?: unknown }).v6Data) ?? leased
  return leased
}

/** The link-local address that belongs to a MAC: fe80::/64 and the modified EUI-64. */
export function linkLocalOf(mac: Mac): Ip {
  const [a, b, c, d, e, f] = mac.bytes as unknown as [number, number, number, number, number, number]
  return new Ip(
    6,
    0xfe800000,
    0,
    ((a ^ 2) << 24) | (b << 16) | (c << 8) | 0xff,
    (0xfe << 24) | (d << 16) | (e << 8) | f,
  )
}

/** 64 bits of FNV-1a, each half with its own start, mixed at the end: eight bytes. */
function digest(text: string): Uint8Array {
  const out = new Uint8Array(8)
  for (const [half, start] of [0x811c9dc5, 0x1b873593].entries()) {
    let hash = start
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
    hash ^= hash >>> 16
    for (let i = 0; i < 4; i++) out[half * 4 + i] = hash >>> (8 * i)
  }
  return out
}
