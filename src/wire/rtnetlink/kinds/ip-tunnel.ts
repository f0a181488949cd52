/**
 * IP in IP (ipip), anything in IPv6 (ip6tnl) and IPv6 in IPv4 (sit): one table for the three, and for IPv6 one more row,
 * whose number means something else in the others.
 *
 * Sources: include/uapi/linux/if_tunnel.h (IFLA_IPTUN_*), ip6_tunnel.h (IP6_TNL_F_*); RFC 2003, RFC 2473.
 */
import { boolean8, u8, u16be, u16le, u32le } from '../../../bytes/codec.ts'
import { attributeTable, type Decoded, flag } from '../../netlink/attribute.ts'
import { ip } from '../../netlink/values.ts'
import * as k from '../constants.gen.ts'

const rows = {
  link: [k.IFLA_IPTUN_LINK, u32le],
  local: [k.IFLA_IPTUN_LOCAL, ip],
  remote: [k.IFLA_IPTUN_REMOTE, ip],
  ttl: [k.IFLA_IPTUN_TTL, u8],
  tos: [k.IFLA_IPTUN_TOS, u8],
  encapsulationLimit: [k.IFLA_IPTUN_ENCAP_LIMIT, u8],
  pmtuDiscovery: [k.IFLA_IPTUN_PMTUDISC, boolean8],
  protocol: [k.IFLA_IPTUN_PROTO, u8],
  /** TUNNEL_ENCAP_*. */
  encapsulationType: [k.IFLA_IPTUN_ENCAP_TYPE, u16le],
  /** TUNNEL_ENCAP_FLAG_*. */
  encapsulationFlags: [k.IFLA_IPTUN_ENCAP_FLAGS, u16le],
  encapsulationSourcePort: [k.IFLA_IPTUN_ENCAP_SPORT, u16be],
  encapsulationDestinationPort: [k.IFLA_IPTUN_ENCAP_DPORT, u16be],
  collectMetadata: [k.IFLA_IPTUN_COLLECT_METADATA, flag],
} as const

export const ipTunnel = attributeTable('ip tunnel', rows)
export type IpTunnelData = Decoded<typeof ipTunnel>

/** IP6_TNL_F_* of ip6tnl stand where sit has flags of another size. */
export const ip6Tunnel = attributeTable('ip6 tunnel', { ...rows, flags: [k.IFLA_IPTUN_FLAGS, u32le] })
export type Ip6TunnelData = Decoded<typeof ip6Tunnel>
