/**
 * VRF devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_VRF_*).
 */
import { u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const vrf = attributeTable('vrf', { table: [k.IFLA_VRF_TABLE, u32le] })
export type VrfData = Decoded<typeof vrf>
