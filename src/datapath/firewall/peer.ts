/**
 * What one other node costs in weft's table: elements, so that a thousand nodes are a thousand lines of a set.
 */
import type { NftElement } from '../../model/nft.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import type { Mac } from '../../net/mac.ts'
import { element } from './names.ts'
import { keyOfCidr } from './skeleton.ts'

export interface FirewallPeer {
  /** Every address that its tunnel packets may come from: the lease's public addresses and Node.status.addresses. */
  readonly addresses: readonly Ip[]
  /** Its pod subnets, checked: none overlaps another node's. */
  readonly podCidrs: readonly Cidr[]
  /** MACs of its VTEPs (of either family's device), as announced. */
  readonly vtepMacs: readonly Mac[]
}

/** Elements of one peer; the order and the source of the fragment are the caller's. */
export function planPeerElements({ addresses, podCidrs, vtepMacs }: FirewallPeer): NftElement[] {
  const distinct = new Map(addresses.map((ip) => [`${ip}`, ip]))
  const macs = [...new Set(vtepMacs.map((mac) => `${mac}`))]
  return [
    ...[...distinct.values()].map((ip) => element('nodes', ip.family, `${ip}`)),
    ...podCidrs.map((cidr) => element('peers', cidr.family, keyOfCidr(cidr))),
    ...podCidrs.flatMap((cidr) => macs.map((mac) => element('senders', cidr.family, `${mac} . ${keyOfCidr(cidr)}`))),
  ]
}
