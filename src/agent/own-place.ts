/**
 * This node's own place in the network, put together from what the cluster gives it (subnets, identity), what the
 * configuration says (the networks), and what its kernel has (the external interface).
 */
import type { NetworkConfig } from '../config/config.ts'
import type { CalicoNode } from '../model/calico.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import type { Cidr } from '../net/cidr.ts'
import type { NodeAddresses } from './calico-addresses.ts'
import type { Detected } from './external-interface.ts'
import type { TunnelWords } from './tunnel-addresses.ts'

/** The node's subnets, parted by whether they are of the configured networks. Those of a family without network are neither. */
export function partSubnets(
  own: NodeInfo,
  { v4, v6 }: NetworkConfig,
): { readonly inside: readonly Cidr[]; readonly outside: readonly Cidr[] } {
  const networkOf = ({ family }: Cidr) => (family === 4 ? v4 : v6)
  const inside = own.podCidrs.filter((cidr) => networkOf(cidr)?.network.covers(cidr))
  const outside = own.podCidrs.filter((cidr) => !inside.includes(cidr) && networkOf(cidr))
  return { inside, outside }
}

/** The node with these subnets, as plans want it. */
export function contextWith(
  name: string,
  podCidrs: readonly Cidr[],
  detected: Detected,
  own: NodeInfo | undefined,
): NodeContext {
  const has = (family: 4 | 6) => podCidrs.some((cidr) => cidr.family === family)
  return {
    name,
    podCidrs,
    external: detected.external,
    ...(own?.uid === undefined ? {} : { uid: own.uid }),
    ...(detected.publicIp && has(4) ? { publicIp: detected.publicIp } : {}),
    ...(detected.publicIpv6 && has(6) ? { publicIpv6: detected.publicIpv6 } : {}),
    ...(own?.lease ? { lease: own.lease } : {}),
    ...(own?.weft ? { weft: own.weft } : {}),
  }
}

/**
 * The node as plans of address pools want it: by its own addresses in Calico's words. Undefined while it has none. Words of an
 * administrator's, and MACs that others know, stay as the store has them.
 */
export function poolContextOf(
  name: string,
  own: NodeInfo,
  found: NodeAddresses | undefined,
  tunnels: TunnelWords,
): NodeContext | undefined {
  const { v4, v6, external } = found ?? {}
  if (!external || !(v4 ?? v6)) return undefined
  const { asNumber, routeReflectorClusterId, vxlanTunnelMac, vxlanTunnelMacV6 } = own.calico ?? {}
  const calico: CalicoNode = {
    ...(v4 ? { ipv4: { ip: v4.ip, prefixLength: v4.prefixLength } } : {}),
    ...(v6 ? { ipv6: { ip: v6.ip, prefixLength: v6.prefixLength } } : {}),
    ...(asNumber === undefined ? {} : { asNumber }),
    ...(routeReflectorClusterId === undefined ? {} : { routeReflectorClusterId }),
    ...(vxlanTunnelMac ? { vxlanTunnelMac } : {}),
    ...(vxlanTunnelMacV6 ? { vxlanTunnelMacV6 } : {}),
    ...tunnels,
  }
  return {
    name,
    podCidrs: own.podCidrs,
    external,
    ...(own.uid === undefined ? {} : { uid: own.uid }),
    ...(v4 ? { publicIp: v4.ip } : {}),
    ...(v6 ? { publicIpv6: v6.ip } : {}),
    calico,
    ...(own.labels ? { labels: own.labels } : {}),
  }
}
