/**
 * RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH: struct ndmsg and the NDA_* attributes. The address family tells neighbour
 * entries (AF_INET, AF_INET6) from forwarding-database entries (AF_BRIDGE).
 *
 * Sources: include/uapi/linux/neighbour.h; rtnetlink(7).
 */
import { type Codec, rawBytes, u16be, u16le, u32le } from '../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../netlink/attribute.ts'
import { ip } from '../netlink/values.ts'
import * as k from './constants.gen.ts'

const neighbourAttributes = attributeTable('neighbour', {
  destination: [k.NDA_DST, ip],
  /** Six bytes on Ethernet; a tunnel without link-layer addresses has another length. */
  linkAddress: [k.NDA_LLADDR, rawBytes],
  vlan: [k.NDA_VLAN, u16le],
  port: [k.NDA_PORT, u16be],
  vni: [k.NDA_VNI, u32le],
  outDevice: [k.NDA_IFINDEX, u32le],
  master: [k.NDA_MASTER, u32le],
  flagsExtended: [k.NDA_FLAGS_EXT, u32le],
})
export type NeighbourAttributes = Decoded<typeof neighbourAttributes>

export interface NeighbourMessage {
  readonly family: number
  readonly index: number
  /** NUD_*. */
  readonly state: number
  /** NTF_*. */
  readonly flags: number
  /** RTN_*, in answers. */
  readonly type: number
  readonly attributes: NeighbourAttributes
}

export const neighbourMessage: Codec<NeighbourMessage> = {
  name: 'neighbour message',
  decode(reader) {
    const family = reader.u8()
    reader.skip(3)
    return {
      family,
      index: reader.i32le(),
      state: reader.u16le(),
      flags: reader.u8(),
      type: reader.u8(),
      attributes: neighbourAttributes.decode(reader),
    }
  },
  encode(writer, value) {
    writer.u32le(value.family)
    writer.i32le(value.index)
    writer.u16le(value.state)
    writer.u8(value.flags)
    writer.u8(value.type)
    neighbourAttributes.encode(writer, value.attributes)
  },
}
