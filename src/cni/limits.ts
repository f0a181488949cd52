/**
 * Native bandwidth limits. Towards the pod: a token bucket on the node's end of the veth. From the pod: what arrives
 * at the node's end is redirected to an ifb device of its own with a token bucket, because only a queue delays a sender
 * and a policer drops; and on the node's end, because a pod with NET_ADMIN could lift a limit inside its namespace.
 *
 *   pod eth0 ◄── tbf ── veth5a3e0f91            (ingressRate)
 *   pod eth0 ──► veth5a3e0f91 ─ mirred ─► ifb5a3e0f91 ── tbf ──► cni0   (egressRate)
 *
 * Sources: tc-tbf(8), tc-mirred(8), ifb in Documentation/networking; documentation of the reference bandwidth plugin.
 */
import type { KernelObject } from '../model/kernel-object.ts'
import type { Qdisc } from '../model/traffic.ts'
import type { Bandwidth } from './config.ts'

/** How long a packet may wait in the bucket's queue. */
const latencySeconds = 0.025

/** Runtimes write 2^31 - 1 bits and more where the user named no burst. */
const unstatedBurstBits = 2 ** 31 - 1

const ETH_P_ALL = 3

/** Burst in bytes: as stated, else a twentieth of a second at the rate, and never under 64 KiB (one offloaded packet). */
export function burstBytes(rateBits: number, burstBits: number): number {
  const stated = burstBits > 0 && burstBits < unstatedBurstBits
  return Math.ceil(stated ? burstBits / 8 : Math.max(65_536, rateBits / 8 / 20))
}

function planBucket(device: string, rateBits: number, burstBits: number): Qdisc {
  const burst = burstBytes(rateBits, burstBits)
  return {
    kind: 'qdisc',
    device,
    type: 'tbf',
    parent: 'root',
    handle: '1:',
    tbf: {
      rateBitsPerSecond: rateBits,
      burstBytes: burst,
      limitBytes: Math.min(0xffffffff, Math.ceil((rateBits / 8) * latencySeconds) + burst),
    },
  }
}

/** The ifb device beside a veth: same digits. */
export const ifbName = (hostDevice: string): string => `ifb${hostDevice.slice(-8)}`

/** Objects in the order in which they are to be made. */
export function planLimits(hostDevice: string, alias: string, mtuBytes: number, limits: Bandwidth): KernelObject[] {
  const objects: KernelObject[] = []
  if (limits.ingressRate > 0) objects.push(planBucket(hostDevice, limits.ingressRate, limits.ingressBurst))
  if (limits.egressRate > 0) {
    const ifb = ifbName(hostDevice)
    objects.push(
      { kind: 'link', name: ifb, type: 'ifb', up: true, alias, mtuBytes },
      planBucket(ifb, limits.egressRate, limits.egressBurst),
      { kind: 'qdisc', device: hostDevice, type: 'ingress', parent: 'ingress', handle: 'ffff:' },
      {
        kind: 'filter',
        device: hostDevice,
        parent: 'ffff:',
        priority: 1,
        protocol: ETH_P_ALL,
        action: { redirectTo: ifb },
      },
    )
  }
  return objects
}
