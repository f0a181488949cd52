/**
 * Generic netlink: four bytes behind the netlink header, and the controller that gives families their numbers.
 *
 *   ┌ command u8 ┬ version u8 ┬ reserved u16 ┬ attributes … ┐
 *
 * Sources: include/uapi/linux/genetlink.h.
 */
import { textZ, u16le, u32le } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import { attributeList, attributeTable, type Decoded, nested } from '../netlink/attribute.ts'
import * as n from './constants.gen.ts'

export function writeGenericHeader(writer: Writer, command: number, version = 1): void {
  writer.u8(command)
  writer.u8(version)
  writer.u16le(0)
}

export function readGenericHeader(reader: Reader): { readonly command: number; readonly version: number } {
  const command = reader.u8()
  const version = reader.u8()
  reader.skip(2)
  return { command, version }
}

/** What the controller says of a family: the message type to use, and its multicast groups. */
export const familyMessage = attributeTable('generic family', {
  id: [n.CTRL_ATTR_FAMILY_ID, u16le],
  name: [n.CTRL_ATTR_FAMILY_NAME, textZ],
  version: [n.CTRL_ATTR_VERSION, u32le],
  groups: nested(
    n.CTRL_ATTR_MCAST_GROUPS,
    attributeList(
      attributeTable('group', { name: [n.CTRL_ATTR_MCAST_GRP_NAME, textZ], id: [n.CTRL_ATTR_MCAST_GRP_ID, u32le] }),
    ),
  ),
})
export type FamilyMessage = Decoded<typeof familyMessage>
