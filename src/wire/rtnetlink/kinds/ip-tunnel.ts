/**
 * IP in IP (ipip), anything in IPv6 (ip6tnl) and IPv6 in IPv4 (sit): one table for the three.
 *
 * Sources: include/uapi/linux/if_tunnel.h (IFLA_IPTUN_*); RFC 2003, RFC 2473.
 */
import { boolean8, u8, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded, flag } from '../../netlink/attribute.ts'
import { ip } from '../../netlink/values.ts'
import * as k from '../constants.gen.ts'

export const ipTunnel = attributeTable('ip tunnel', {
  link: [k.IFLA_IPTUN_LINK, u32le],
  local: [k.IFLA_IPTUN_LOCAL, ip],
  remote: [k.IFLA_IPTUN_REMOTE, ip],
  ttl: [k.IFLA_IPTUN_TTL, u8],
  tos: [k.IFLA_IPTUN_TOS, u8],
  encapsulationLimit: [k.IFLA_IPTUN_ENCAP_LIMIT, u8],
  pmtuDiscovery: [k.IFLA_IPTUN_PMTUDISC, boolean8],
  protocol: [k.IFLA_IPTUN_PROTO, u8],
  collectMetadata: [k.IFLA_IPTUN_COLLECT_METADATA, flag],
})
export type IpTunnelData = Decoded<typeof ipTunnel>
