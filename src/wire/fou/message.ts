/**
 * The generic netlink family of Foo over UDP: UDP ports whose packets the kernel unwraps.
 *
 * Sources: include/uapi/linux/fou.h; net/ipv4/fou.c (fou_nl_policy).
 */
import { u8, u16be } from '../../bytes/codec.ts'
import { attributeTable, type Decoded, flag } from '../netlink/attribute.ts'
import * as f from './constants.gen.ts'

export const FOU_FAMILY = 'fou'

export const fouMessage = attributeTable('fou', {
  port: [f.FOU_ATTR_PORT, u16be],
  /** AF_INET or AF_INET6. */
  addressFamily: [f.FOU_ATTR_AF, u8],
  protocol: [f.FOU_ATTR_IPPROTO, u8],
  /** FOU_ENCAP_*. */
  type: [f.FOU_ATTR_TYPE, u8],
  noPartialRemoteChecksum: [f.FOU_ATTR_REMCSUM_NOPARTIAL, flag],
})
export type FouMessage = Decoded<typeof fouMessage>
