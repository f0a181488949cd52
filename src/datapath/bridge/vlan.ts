/**
 * VLANs of pods on one bridge: which a port lets through, and the device by which the node is a gateway inside one.
 *
 *   pod A ── veth (pvid 100 untagged) ─┐
 *   pod B ── veth (pvid 200 untagged) ─┼─ br1 (vlan_filtering) ── br1.100 10.1.0.1
 *   pod C ── veth (100,200 tagged) ────┘                       └─ br1.200 10.2.0.1
 *
 * Sources: bridge(8) "bridge vlan"; documentation of the reference bridge plugin (vlan, vlanTrunk, preserveDefaultVlan).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { BridgeVlan } from '../../model/link.ts'

/** First and last VLAN of a range, both included. */
export type VlanRange = readonly [first: number, last: number]

export interface PortVlans {
  /** The VLAN of the pod's untagged frames. */
  readonly access?: number
  /** VLANs that the pod speaks with tags; none twice, and not `access`. */
  readonly trunk: readonly VlanRange[]
  /** The port stays in the bridge's default VLAN too. */
  readonly keepDefault: boolean
}

/** What the port is given. Whether it keeps the default VLAN is not said here. */
export function planPortVlans(port: string, { access, trunk }: PortVlans): BridgeVlan[] {
  const vlan = (id: number): BridgeVlan => ({ kind: 'bridge-vlan', device: port, vlan: id })
  return [
    ...(access === undefined ? [] : [{ ...vlan(access), pvid: true, untagged: true }]),
    ...trunk.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, offset) => vlan(first + offset))),
  ]
}

/** The device of the node inside a VLAN of a bridge, as the reference plugin calls it. */
export const vlanDeviceOf = (bridge: string, vlan: number): string => `${bridge}.${vlan}`

/** The bridge hears the VLAN itself, and the device takes its frames. */
export function planVlanDevice(bridge: string, vlan: number, alias: string, mtuBytes?: number): KernelObject[] {
  return [
    { kind: 'bridge-vlan', device: bridge, vlan, self: true },
    {
      kind: 'link',
      name: vlanDeviceOf(bridge, vlan),
      type: 'vlan',
      alias,
      up: true,
      ...(mtuBytes ? { mtuBytes } : {}),
      settings: { id: vlan, lower: bridge },
    },
  ]
}
