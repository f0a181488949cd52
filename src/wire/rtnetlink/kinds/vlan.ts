/**
 * VLAN devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_VLAN_*); IEEE 802.1Q.
 */
import { u16be, u16le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const vlan = attributeTable('vlan', {
  id: [k.IFLA_VLAN_ID, u16le],
  /** Ethertype of the tag, 0x8100 or 0x88a8. */
  protocol: [k.IFLA_VLAN_PROTOCOL, u16be],
})
export type VlanData = Decoded<typeof vlan>
