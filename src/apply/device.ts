/**
 * Which device an object lives and dies with.
 */
import type { KernelObject } from '../model/kernel-object.ts'

/**
 * The device whose removal takes the object along: the kernel flushes addresses, neighbours, forwarding entries, routes,
 * qdiscs and per-device variables of a device that goes. Undefined for a link itself and for what no device carries.
 * A multipath route is counted to its first hop's device.
 */
export function deviceOf(object: KernelObject): string | undefined {
  switch (object.kind) {
    case 'address':
    case 'neighbour':
    case 'fdb':
    case 'bridge-vlan':
    case 'qdisc':
    case 'class':
    case 'filter':
    case 'offload':
      return object.device
    case 'route':
      return object.hops[0]?.device
    case 'sysctl':
      return /^net\/ipv[46]\/(?:conf|neigh)\/(?!all\/|default\/)([^/]+)\//.exec(object.path)?.[1]
    default:
      return undefined
  }
}
