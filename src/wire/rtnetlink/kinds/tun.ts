/**
 * TUN and TAP devices, as the kernel reports them; they are made with an ioctl, not with netlink.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_TUN_*), if_tun.h (IFF_TUN, IFF_TAP).
 */
import { boolean8, u8, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const IFF_TUN = 1
export const IFF_TAP = 2

export const tun = attributeTable('tun', {
  owner: [k.IFLA_TUN_OWNER, u32le],
  group: [k.IFLA_TUN_GROUP, u32le],
  /** IFF_TUN or IFF_TAP. */
  mode: [k.IFLA_TUN_TYPE, u8],
  packetInformation: [k.IFLA_TUN_PI, boolean8],
  vnetHeader: [k.IFLA_TUN_VNET_HDR, boolean8],
  persist: [k.IFLA_TUN_PERSIST, boolean8],
  multiQueue: [k.IFLA_TUN_MULTI_QUEUE, boolean8],
})
export type TunData = Decoded<typeof tun>
