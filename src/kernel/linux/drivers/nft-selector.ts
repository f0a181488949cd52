/**
 * What nft rules look at, a row per selector: the type of its values, the expression that loads it, and what must have
 * been checked before (an IPv4 address may be read from IPv4 packets only).
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; header layouts of RFC 791, RFC 8200, RFC 9293, RFC 768; the
 * expressions that nft 1.0.6 writes (`nft --debug=netlink`).
 */
import type { NftSelector } from '../../../model/nft.ts'
import type { LiteralType } from '../../../model/nft-literal.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import type { NftExpression } from '../../../wire/nftables/expression.ts'

/** A check that must come before a load, and the meta key and value that make it. */
export type Dependency = 'ipv4' | 'ipv6' | 'tcp' | 'udp' | 'sctp' | 'icmp' | 'icmpv6' | 'ether'

export interface DependencyRow {
  readonly key: number
  readonly value: Uint8Array
  /** The selector that a rule would name to check the same, when there is one. */
  readonly selector?: NftSelector
}

const nfproto = (number: number): DependencyRow => ({
  key: n.NFT_META_NFPROTO,
  value: Uint8Array.of(number),
  selector: 'meta nfproto',
})
const l4proto = (number: number): DependencyRow => ({
  key: n.NFT_META_L4PROTO,
  value: Uint8Array.of(number),
  selector: 'meta l4proto',
})

export const dependencyRows: Readonly<Record<Dependency, DependencyRow>> = {
  ipv4: nfproto(2),
  ipv6: nfproto(10),
  tcp: l4proto(6),
  udp: l4proto(17),
  sctp: l4proto(132),
  icmp: l4proto(1),
  icmpv6: l4proto(58),
  ether: { key: n.NFT_META_IIFTYPE, value: Uint8Array.of(1, 0) },
}

export interface SelectorRow {
  readonly type: LiteralType
  readonly needs: readonly Dependency[]
  load(dreg: number): NftExpression
}

function payload(type: LiteralType, base: number, offset: number, length: number, ...needs: Dependency[]): SelectorRow {
  return { type, needs, load: (dreg) => ({ name: 'payload', data: { dreg, base, offset, length } }) }
}
const network = (type: LiteralType, offset: number, length: number, ...needs: Dependency[]): SelectorRow =>
  payload(type, n.NFT_PAYLOAD_NETWORK_HEADER, offset, length, ...needs)
const transport = (type: LiteralType, offset: number, length: number, ...needs: Dependency[]): SelectorRow =>
  payload(type, n.NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, ...needs)
const meta = (type: LiteralType, key: number): SelectorRow => ({
  type,
  needs: [],
  load: (dreg) => ({ name: 'meta', data: { key, dreg } }),
})
const ct = (type: LiteralType, key: number): SelectorRow => ({
  type,
  needs: [],
  load: (dreg) => ({ name: 'ct', data: { key, dreg } }),
})
const fib = (type: LiteralType, flags: number, result: number): SelectorRow => ({
  type,
  needs: [],
  load: (dreg) => ({ name: 'fib', data: { flags, result, dreg } }),
})

export const selectorRows: Readonly<Record<NftSelector, SelectorRow>> = {
  'ip saddr': network('ipv4_addr', 12, 4, 'ipv4'),
  'ip daddr': network('ipv4_addr', 16, 4, 'ipv4'),
  'ip protocol': network('inet_proto', 9, 1, 'ipv4'),
  'ip6 saddr': network('ipv6_addr', 8, 16, 'ipv6'),
  'ip6 daddr': network('ipv6_addr', 24, 16, 'ipv6'),
  'ip6 nexthdr': network('inet_proto', 6, 1, 'ipv6'),
  'ether saddr': payload('ether_addr', n.NFT_PAYLOAD_LL_HEADER, 6, 6, 'ether'),
  'meta iifname': meta('ifname', n.NFT_META_IIFNAME),
  'meta oifname': meta('ifname', n.NFT_META_OIFNAME),
  'meta l4proto': meta('inet_proto', n.NFT_META_L4PROTO),
  'meta nfproto': meta('nf_proto', n.NFT_META_NFPROTO),
  'meta mark': meta('mark', n.NFT_META_MARK),
  'meta pkttype': meta('pkt_type', n.NFT_META_PKTTYPE),
  'tcp dport': transport('inet_service', 2, 2, 'tcp'),
  'tcp sport': transport('inet_service', 0, 2, 'tcp'),
  'udp dport': transport('inet_service', 2, 2, 'udp'),
  'udp sport': transport('inet_service', 0, 2, 'udp'),
  'sctp dport': transport('inet_service', 2, 2, 'sctp'),
  'th dport': transport('inet_service', 2, 2),
  'th sport': transport('inet_service', 0, 2),
  '@th,224,16': transport('raw_u16', 28, 2),
  '@th,336,32': transport('raw_u32', 42, 4),
  '@th,304,128': transport('raw_u128', 38, 16),
  '@th,336,24': transport('raw_u24', 42, 3),
  '@th,304,64': transport('raw_u64', 38, 8),
  '@th,96,32': transport('raw_u32', 12, 4),
  '@th,64,128': transport('raw_u128', 8, 16),
  '@th,96,24': transport('raw_u24', 12, 3),
  '@th,64,64': transport('raw_u64', 8, 8),
  '@th,64,16': transport('raw_u16', 8, 2),
  '@th,192,32': transport('raw_u32', 24, 4),
  '@th,160,128': transport('raw_u128', 20, 16),
  '@th,192,24': transport('raw_u24', 24, 3),
  '@th,160,64': transport('raw_u64', 20, 8),
  '@nh,64,32': network('raw_u32', 8, 4),
  '@nh,96,32': network('raw_u32', 12, 4),
  '@nh,128,32': network('raw_u32', 16, 4),
  '@nh,160,32': network('raw_u32', 20, 4),
  '@nh,96,24': network('raw_u24', 12, 3),
  '@nh,128,24': network('raw_u24', 16, 3),
  '@nh,64,64': network('raw_u64', 8, 8),
  '@nh,192,64': network('raw_u64', 24, 8),
  'icmp type': transport('icmp_type', 0, 1, 'ipv4', 'icmp'),
  'icmpv6 type': transport('icmpv6_type', 0, 1, 'ipv6', 'icmpv6'),
  'ct state': ct('ct_state', n.NFT_CT_STATE),
  'ct status': ct('ct_status', n.NFT_CT_STATUS),
  'ct mark': ct('mark', n.NFT_CT_MARK),
  'ct direction': ct('ct_dir', n.NFT_CT_DIRECTION),
  'fib daddr type': fib('fib_addrtype', n.NFTA_FIB_F_DADDR, n.NFT_FIB_RESULT_ADDRTYPE),
  'fib saddr type': fib('fib_addrtype', n.NFTA_FIB_F_SADDR, n.NFT_FIB_RESULT_ADDRTYPE),
  'fib saddr . iif oif': fib(
    'boolean',
    n.NFTA_FIB_F_SADDR | n.NFTA_FIB_F_IIF | n.NFTA_FIB_F_PRESENT,
    n.NFT_FIB_RESULT_OIF,
  ),
}

/** Registers are counted in words from NFT_REG32_00; the kernel reports the first of four by its old name 1..4. */
export const wordOf = (register: number): number =>
  register >= n.NFT_REG32_00 ? register - n.NFT_REG32_00 : (register - 1) * 4

export const registerOf = (word: number): number => n.NFT_REG32_00 + word
