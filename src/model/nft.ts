/**
 * nftables objects. A chain is wanted whole, with its rules in order; a set's elements are wanted one by
 * one, so that a pod or a node costs an element and never a rule. Statements form a small tree that prints as
 * the line that nft itself lists (nft-format.ts) and compiles to the kernel's expressions.
 *
 * Text inside these objects (keys, values, right sides) is canonical, as `nft list` prints it, because text is identity:
 *
 *   ipv4_addr, ipv6_addr   10.244.1.7   fd00::7   in interval sets also 10.244.1.0/24, 10.0.0.5-10.0.0.9 (never /32, /128)
 *   ether_addr             0a:58:0a:f4:01:07
 *   inet_proto             tcp udp sctp icmp ipv6-icmp …, else the number      inet_service   80   30000-32767
 *   raw payload            0x800   0xaf40200-0xaf403ff (selectors `@base,offset,length`, in bits)
 *   mark                   0x00004000          ifname   "cni0", in matches also "veth*"
 *   verdict                accept   drop   return   continue   jump chain   goto chain
 *   concatenation          tcp . 8080 . 10.0.0.1
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; nft(8).
 */
import type { Family } from '../net/ip.ts'

export type NftFamily = 'ip' | 'ip6' | 'inet' | 'bridge' | 'netdev'

export interface NftTable {
  readonly kind: 'nft-table'
  readonly family: NftFamily
  readonly name: string
  readonly comment?: string
}

/** Types of set keys and map data, by nft's names; a concatenation is an array in order. Raw ones are `typeof` in nft. */
export type NftType =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'ifname'
  | 'raw_u24'
  | 'raw_u32'
  | 'raw_u64'
  | 'raw_u128'
  | 'verdict'

export interface NftSet {
  readonly kind: 'nft-set'
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  readonly type: readonly NftType[]
  /** What rules look keys up by, of the same types: nft then lists `typeof …`, and reads keys of raw payload back. */
  readonly typeof?: readonly NftSelector[]
  /** Present for a map: what an element leads to. */
  readonly data?: readonly NftType[]
  readonly flags?: readonly ('interval' | 'timeout' | 'constant' | 'dynamic')[]
  readonly comment?: string
}

export interface NftElement {
  readonly kind: 'nft-element'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  /** Canonical text, for identity. */
  readonly key: string
  /** For maps, canonical text: `10.244.1.7 . 80`, `goto pod-x`, … */
  readonly value?: string
  readonly comment?: string
}

/** A named counter. Its readings are not part of what is wanted: see NftCounterReading. */
export interface NftCounter {
  readonly kind: 'nft-counter'
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  readonly comment?: string
}

/** What a named counter has counted. */
export interface NftCounterReading {
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  readonly packets: bigint
  readonly bytes: bigint
}

export type NftHook = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting' | 'ingress'

export interface NftBase {
  readonly type: 'filter' | 'nat' | 'route'
  readonly hook: NftHook
  readonly priority: number
  /** Absent means accept. */
  readonly policy?: 'accept' | 'drop'
  /** For family netdev. */
  readonly device?: string
}

export interface NftChain {
  readonly kind: 'nft-chain'
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  /** Present for a base chain. */
  readonly base?: NftBase
  readonly rules: readonly NftRule[]
}

/** A rule: statements left to right. Its text (formatNftRule) is its identity; the kernel keeps a digest of it as userdata. */
export interface NftRule {
  readonly statements: readonly NftStatement[]
  /** At most 127 bytes. Shown by `nft list`. */
  readonly comment?: string
}

/** What a match looks at. */
export type NftSelector =
  | 'ip saddr'
  | 'ip daddr'
  | 'ip protocol'
  | 'ip6 saddr'
  | 'ip6 daddr'
  | 'ip6 nexthdr'
  | 'ether saddr'
  | 'meta iifname'
  | 'meta oifname'
  | 'meta l4proto'
  | 'meta nfproto'
  | 'meta mark'
  | 'meta pkttype'
  | 'tcp dport'
  | 'tcp sport'
  | 'udp dport'
  | 'udp sport'
  | 'sctp dport'
  | 'th dport'
  | 'th sport'
  /** Inside VXLAN: the frame's EtherType, the source address of an IPv4 or IPv6 packet in it, and its first 24 or 64 bits. */
  | '@th,224,16'
  | '@th,336,32'
  | '@th,304,128'
  | '@th,336,24'
  | '@th,304,64'
  /** Inside IP in IP: the source address of an IPv4 or IPv6 packet in it, and its first 24 or 64 bits. */
  | '@th,96,32'
  | '@th,64,128'
  | '@th,96,24'
  | '@th,64,64'
  /** Behind UDP: the first half word of GUE, and the source address of an IPv4 or IPv6 packet in it, likewise. */
  | '@th,64,16'
  | '@th,192,32'
  | '@th,160,128'
  | '@th,192,24'
  | '@th,160,64'
  /** Words of the network header, from its source addresses on: of IPv4 the source and the destination are the second and third. */
  | '@nh,64,32'
  | '@nh,96,32'
  | '@nh,128,32'
  | '@nh,160,32'
  /** The first 24 bits of an IPv4 source and destination, the first 64 of IPv6 ones. */
  | '@nh,96,24'
  | '@nh,128,24'
  | '@nh,64,64'
  | '@nh,192,64'
  | 'icmp type'
  | 'icmpv6 type'
  | 'ct state'
  | 'ct status'
  | 'ct mark'
  | 'ct direction'
  | 'fib daddr type'
  | 'fib saddr type'
  | 'fib saddr . iif oif'

export type NftStatement =
  /** `left op right`: right is a literal as nft prints it, `@set`, or an anonymous set's members. A concatenation is several selectors. */
  | {
      readonly match: readonly NftSelector[]
      readonly op?: '==' | '!='
      readonly right: string | readonly string[]
    }
  /** `selector & mask op value`: numbers for marks, bigints for raw payload. */
  | {
      readonly masked: NftSelector
      readonly mask: number | bigint
      readonly op?: '==' | '!='
      readonly value: number | bigint
    }
  | { readonly vmap: readonly NftSelector[]; readonly map: string }
  /** Connection tracking is to leave the packet alone. */
  | { readonly notrack: true }
  /** Anonymous, or the name of an NftCounter of the same table. */
  | { readonly counter: string | true }
  /** mark = (mark & keepMask) | setMark; without keepMask the whole mark is replaced. */
  | { readonly setMark: number; readonly keepMask?: number }
  /** `ports`: `1024-65535`, the source ports to choose from; the rule must have matched a protocol that has ports. */
  | { readonly masquerade: { readonly fullyRandom?: boolean; readonly ports?: string } }
  | { readonly snat: { readonly to: string; readonly ports?: string } }
  /**
   * Destination NAT to a literal `address`, `address:port` or `[v6]:port`, or to what a map says about a concatenation:
   * the map's data is an address of `family`, followed by a port when `port` is set.
   */
  | {
      readonly dnat:
        | { readonly to: string }
        | {
            readonly family: Family
            readonly map: string
            readonly by: readonly NftSelector[]
            readonly port?: boolean
          }
    }
  | { readonly limit: { readonly perSecond: number; readonly burst?: number } }
  | { readonly log: { readonly group?: number; readonly prefix?: string } }
  | { readonly verdict: 'accept' | 'drop' | 'return' | 'continue' }
  | { readonly jump: string }
  | { readonly goto: string }
  | { readonly reject: 'icmp-port-unreachable' | 'tcp-reset' | 'icmp-admin-prohibited' }
  /** Read from the kernel only: an expression that weft does not write, by its kernel name. Such a rule equals none of ours. */
  | { readonly foreign: string }
