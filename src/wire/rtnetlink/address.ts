/**
 * RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR: struct ifaddrmsg and the IFA_* attributes. For IPv4 `local` is the address
 * itself and `address` the peer's or the same; IPv6 has `address` alone unless there is a peer.
 *
 * Sources: include/uapi/linux/if_addr.h; rtnetlink(7).
 */
import { type Codec, textZ, u8, u32le } from '../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../netlink/attribute.ts'
import { ip } from '../netlink/values.ts'
import * as k from './constants.gen.ts'

const addressAttributes = attributeTable('address', {
  local: [k.IFA_LOCAL, ip],
  address: [k.IFA_ADDRESS, ip],
  broadcast: [k.IFA_BROADCAST, ip],
  label: [k.IFA_LABEL, textZ],
  /** IFA_F_*, all 32 bits. */
  flags: [k.IFA_FLAGS, u32le],
  metric: [k.IFA_RT_PRIORITY, u32le],
  protocol: [k.IFA_PROTO, u8],
})
export type AddressAttributes = Decoded<typeof addressAttributes>

export interface AddressMessage {
  readonly family: number
  readonly prefixLength: number
  /** The low eight IFA_F_* bits. */
  readonly flags: number
  /** RT_SCOPE_*. */
  readonly scope: number
  readonly index: number
  readonly attributes: AddressAttributes
}

export const addressMessage: Codec<AddressMessage> = {
  name: 'address message',
  decode: (reader) => ({
    family: reader.u8(),
    prefixLength: reader.u8(),
    flags: reader.u8(),
    scope: reader.u8(),
    index: reader.u32le(),
    attributes: addressAttributes.decode(reader),
  }),
  encode(writer, value) {
    writer.u8(value.family)
    writer.u8(value.prefixLength)
    writer.u8(value.flags)
    writer.u8(value.scope)
    writer.u32le(value.index)
    addressAttributes.encode(writer, value.attributes)
  },
}
