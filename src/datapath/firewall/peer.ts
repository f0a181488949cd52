/**
 * What one other node costs in weft's table: elements of one set, so that a thousand nodes are a thousand lines of it and
 * a newcomer is one message.
 */
import type { NftElement } from '../../model/nft.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { element, keyOfCidr } from './names.ts'

export interface FirewallPeer {
  /** Every address that its tunnel packets may come from: the lease's public addresses and Node.status.addresses. */
  readonly addresses: readonly Ip[]
  /** Its pod subnets, checked: none overlaps another node's. */
  readonly podCidrs: readonly Cidr[]
}

/** Elements of one peer: from each of its addresses, itself and its subnets of that family. The fragment is the caller's. */
export function planPeerElements({ addresses, podCidrs }: FirewallPeer): NftElement[] {
  const distinct = new Map(addresses.map((ip) => [`${ip}`, ip]))
  return [...distinct.values()].flatMap((ip) => [
    element('origins', ip.family, `${ip} . ${ip}`),
    ...podCidrs
      .filter(({ family }) => family === ip.family)
      .map((cidr) => element('origins', ip.family, `${ip} . ${keyOfCidr(cidr)}`)),
  ])
}
