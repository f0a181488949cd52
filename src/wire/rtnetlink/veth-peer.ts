/**
 * IFLA_INFO_DATA of a veth that is being created: its peer, a link message without a netlink header. The kernel never
 * reports it; the peer of an existing veth is its `link` in `linkNetnsId`.
 *
 * Sources: include/uapi/linux/veth.h (VETH_INFO_PEER); drivers/net/veth.c.
 */
import { Writer } from '../../bytes/writer.ts'
import { beginAttribute, endAttribute } from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import { VETH_INFO_PEER } from './constants.gen.ts'
import { type LinkMessage, linkMessage } from './link.ts'

/** The bytes of a veth's IFLA_INFO_DATA. */
export function encodeVethPeer(peer: LinkMessage): Uint8Array {
  const writer = new Writer(128)
  const start = beginAttribute(writer, VETH_INFO_PEER | NLA_F_NESTED)
  linkMessage.encode(writer, peer)
  endAttribute(writer, start)
  return writer.finish()
}
