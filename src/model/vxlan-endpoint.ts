/**
 * What a VXLAN peer says about itself in flannel's backend-data: `{"VNI":1,"VtepMAC":"…"}`.
 *
 * Sources: flannel pkg/backend/vxlan/vxlan.go (vxlanLeaseAttrs).
 */
import { Mac } from '../net/mac.ts'

export interface VxlanEndpoint {
  /** Undefined where the peer does not say (older flannel). */
  readonly vni?: number
  readonly mac: Mac
}

/** Reads one peer's parsed JSON. A string says what is wrong with it. */
export function decodeVxlanEndpoint(value: unknown): VxlanEndpoint | string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'is not an object with a VtepMAC'
  const { VNI: vni, VtepMAC: text } = value as { VNI?: unknown; VtepMAC?: unknown }
  if (vni !== undefined && !(Number.isInteger(vni) && (vni as number) >= 0 && (vni as number) <= 0xffffff))
    return 'VNI is not a number in 0..16777215'
  if (typeof text !== 'string' || text.length > 32) return 'VtepMAC is missing'
  const mac = Mac.tryParse(text)
  if (!mac || mac.isZero || mac.isMulticast) return `VtepMAC ${JSON.stringify(text)} is not a unicast Ethernet address`
  return vni === undefined ? { mac } : { vni: vni as number, mac }
}

/** The JSON value that flannel writes, its keys in flannel's order. */
export const encodeVxlanEndpoint = (vni: number, mac: Mac): { VNI: number; VtepMAC: string } => ({
  VNI: vni,
  VtepMAC: mac.toString(),
})
