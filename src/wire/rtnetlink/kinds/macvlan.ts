/**
 * MACVLAN devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_MACVLAN_*).
 */
import { u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const macvlan = attributeTable('macvlan', {
  /** MACVLAN_MODE_*. */
  mode: [k.IFLA_MACVLAN_MODE, u32le],
})
export type MacvlanData = Decoded<typeof macvlan>
