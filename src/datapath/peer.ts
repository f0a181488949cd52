/**
 * Words that all data paths share about peers: where a peer is reached, whether it stands on the same link, and the
 * settings that any forwarding node needs.
 */
import type { NodeContext, NodeInfo, PeerProblem } from '../model/cluster.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'

/** The peer's address towards others in a family (flannel's PublicIP), as its lease says. */
export const publicIpOf = (peer: NodeInfo, family: Family): Ip | undefined =>
  family === 4 ? peer.lease?.publicIp : peer.lease?.publicIpv6

/** This node's own. */
export const ownIpOf = (node: NodeContext, family: Family): Ip | undefined =>
  family === 4 ? node.publicIp : node.publicIpv6

/** The first subnet of a family: the one that carries the node's tunnel address. */
export const subnetOf = (holder: { readonly podCidrs: readonly Cidr[] }, family: Family): Cidr | undefined =>
  holder.podCidrs.find((cidr) => cidr.family === family)

/** Families that this node has a subnet of. */
export const familiesOf = (holder: { readonly podCidrs: readonly Cidr[] }): readonly Family[] =>
  ([4, 6] as const).filter((family) => subnetOf(holder, family))

/** True when packets to `ip` leave the external interface without a router in between. */
export function isOnLink(node: NodeContext, ip: Ip): boolean {
  return node.external.addresses.some(
    (address) =>
      ip.family === address.ip.family &&
      ip.masked(address.prefixLength).equals(address.ip.masked(address.prefixLength)),
  )
}

/**
 * Kernel variables of a node that forwards between pods and peers. The reverse path is checked loosely on the devices
 * named: in a switch, and with DirectRouting, packets may come in by another way than answers go out.
 */
export function forwardingSysctls(node: NodeContext, devices: readonly string[]): KernelObject[] {
  const out: KernelObject[] = []
  const families = familiesOf(node)
  if (families.includes(4)) {
    out.push({ kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' })
    for (const device of devices) out.push({ kind: 'sysctl', path: `net/ipv4/conf/${device}/rp_filter`, value: '2' })
  }
  if (families.includes(6)) out.push({ kind: 'sysctl', path: 'net/ipv6/conf/all/forwarding', value: '1' })
  return out
}

/** For a peer that has a subnet of a family and no address that packets could be sent to. */
export const addressProblem = (peer: NodeInfo, family: Family): PeerProblem => ({
  node: peer.name,
  key: family === 4 ? 'public-ip' : 'public-ipv6',
  problem: `the node has an IPv${family} pod subnet and no IPv${family} address: that subnet is unreachable`,
})
