/**
 * GRE devices. A key is used when GRE_KEY is set in the flags of its direction.
 *
 * Sources: include/uapi/linux/if_tunnel.h (IFLA_GRE_*, GRE_KEY); RFC 2784, RFC 2890.
 */
import { boolean8, u8, u16be, u32be, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../../netlink/attribute.ts'
import { ip } from '../../netlink/values.ts'
import * as k from '../constants.gen.ts'

/** The key bit of `inputFlags` and `outputFlags`. */
export const GRE_KEY = 0x2000

export const gre = attributeTable('gre', {
  link: [k.IFLA_GRE_LINK, u32le],
  inputFlags: [k.IFLA_GRE_IFLAGS, u16be],
  outputFlags: [k.IFLA_GRE_OFLAGS, u16be],
  inputKey: [k.IFLA_GRE_IKEY, u32be],
  outputKey: [k.IFLA_GRE_OKEY, u32be],
  local: [k.IFLA_GRE_LOCAL, ip],
  remote: [k.IFLA_GRE_REMOTE, ip],
  ttl: [k.IFLA_GRE_TTL, u8],
  pmtuDiscovery: [k.IFLA_GRE_PMTUDISC, boolean8],
})
export type GreData = Decoded<typeof gre>
