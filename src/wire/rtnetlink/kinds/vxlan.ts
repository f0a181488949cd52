/**
 * VXLAN devices.
 *
 * Sources: include/uapi/linux/if_link.h (IFLA_VXLAN_*); RFC 7348.
 */
import { boolean8, u8, u16be, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded, flag } from '../../netlink/attribute.ts'
import { ip } from '../../netlink/values.ts'
import * as k from '../constants.gen.ts'

export const vxlan = attributeTable('vxlan', {
  vni: [k.IFLA_VXLAN_ID, u32le],
  link: [k.IFLA_VXLAN_LINK, u32le],
  local: [k.IFLA_VXLAN_LOCAL, ip],
  local6: [k.IFLA_VXLAN_LOCAL6, ip],
  group: [k.IFLA_VXLAN_GROUP, ip],
  group6: [k.IFLA_VXLAN_GROUP6, ip],
  ttl: [k.IFLA_VXLAN_TTL, u8],
  learning: [k.IFLA_VXLAN_LEARNING, boolean8],
  ageing: [k.IFLA_VXLAN_AGEING, u32le],
  port: [k.IFLA_VXLAN_PORT, u16be],
  collectMetadata: [k.IFLA_VXLAN_COLLECT_METADATA, boolean8],
  udpChecksum: [k.IFLA_VXLAN_UDP_CSUM, boolean8],
  zeroChecksum6Tx: [k.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, boolean8],
  zeroChecksum6Rx: [k.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, boolean8],
  gbp: [k.IFLA_VXLAN_GBP, flag],
})
export type VxlanData = Decoded<typeof vxlan>
