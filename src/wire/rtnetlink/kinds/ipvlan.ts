/**
 * IPVLAN devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_IPVLAN_*).
 */
import { u16le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const ipvlan = attributeTable('ipvlan', {
  /** IPVLAN_MODE_*. */
  mode: [k.IFLA_IPVLAN_MODE, u16le],
})
export type IpvlanData = Decoded<typeof ipvlan>
