/**
 * The bridge and its ports. The hairpin mode of a port is called `mode` by the kernel.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_BR_*, IFLA_BRPORT_*).
 */
import { boolean8, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import * as k from '../constants.gen.ts'

export const bridge = attributeTable('bridge', {
  /** USER_HZ (1/100 s). */
  forwardDelay: [k.IFLA_BR_FORWARD_DELAY, u32le],
  /** USER_HZ (1/100 s). */
  ageingTime: [k.IFLA_BR_AGEING_TIME, u32le],
  stpState: [k.IFLA_BR_STP_STATE, u32le],
  vlanFiltering: [k.IFLA_BR_VLAN_FILTERING, boolean8],
  multicastSnooping: [k.IFLA_BR_MCAST_SNOOPING, boolean8],
})
export type BridgeData = Decoded<typeof bridge>

export const bridgePort = attributeTable('bridge port', {
  hairpin: [k.IFLA_BRPORT_MODE, boolean8],
  guard: [k.IFLA_BRPORT_GUARD, boolean8],
  learning: [k.IFLA_BRPORT_LEARNING, boolean8],
  unicastFlood: [k.IFLA_BRPORT_UNICAST_FLOOD, boolean8],
  isolated: [k.IFLA_BRPORT_ISOLATED, boolean8],
  neighbourSuppression: [k.IFLA_BRPORT_NEIGH_SUPPRESS, boolean8],
})
export type BridgePortData = Decoded<typeof bridgePort>
