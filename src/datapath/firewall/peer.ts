/**
 * What one other node costs in weft's table: elements of one set, so that a thousand nodes are a thousand lines of it and
 * a newcomer is one message.
 */
import type { NftElement } from '../../model/nft.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { element, hex, leadingBits, originBits } from './names.ts'

export interface FirewallPeer {
  /** Every address that its tunnel packets may come from: the lease's public addresses and Node.status.addresses. */
  readonly addresses: readonly Ip[]
  /** Its pod subnets, checked: none overlaps another node's. */
  readonly podCidrs: readonly Cidr[]
}

/**
 * Elements of one peer: from each of its addresses its own prefix, which says that it is a node at all, and its subnets of
 * that family. Node addresses lie outside the pod network, so their prefix lets no pod source in. The fragment is the caller's.
 */
export function planPeerElements({ addresses, podCidrs }: FirewallPeer): NftElement[] {
  const elements = addresses.flatMap((ip) => [
    planOrigin(ip, Cidr.of(ip, originBits(ip.family)), 'the node itself'),
    ...podCidrs.filter(({ family }) => family === ip.family).map((cidr) => planOrigin(ip, cidr, `${cidr}`)),
  ])
  return [...new Map(elements.map((each) => [`${each.set} ${each.key}`, each])).values()]
}

/** That `address` may send what has a source in `subnet` inside. */
function planOrigin(address: Ip, subnet: Cidr, comment: string): NftElement {
  const { family, length } = subnet
  if (length !== originBits(family))
    return element('origin-ranges', family, `${address} . ${rangeText(subnet)}`, { comment })
  return element('origins', family, `${address} . ${leadingBits(subnet.base, length)}`, { comment })
}

const rangeText = ({ base, last }: Cidr): string =>
  base.equals(last) ? hex(base.toBigInt()) : `${hex(base.toBigInt())}-${hex(last.toBigInt())}`
