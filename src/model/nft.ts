/**
 * nftables objects. A chain is wanted whole, with its rules in order; a set's elements are wanted one by
 * one, so that a pod or a node costs an element and never a rule. Statements form a small tree that prints as
 * the nft line an operator would type and compiles to the kernel's expressions.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; nft(8).
 */
export type NftFamily = 'ip' | 'ip6' | 'inet' | 'bridge' | 'netdev'

export interface NftTable {
  readonly kind: 'nft-table'
  readonly family: NftFamily
  readonly name: string
  readonly comment?: string
}

/** Element types by nft's names; a concatenation is an array in order. */
export type NftType =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'ifname'
  | 'verdict'

export interface NftSet {
  readonly kind: 'nft-set'
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  readonly type: readonly NftType[]
  /** Present for a map: what an element leads to. */
  readonly data?: readonly NftType[]
  readonly flags?: readonly ('interval' | 'timeout' | 'constant' | 'dynamic')[]
}

export interface NftElement {
  readonly kind: 'nft-element'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  /** As nft prints it: `10.244.1.0/24`, `tcp . 8080`, `"cni0"`. Canonical, for identity. */
  readonly key: string
  /** For maps: `10.244.1.7 . 80`, `goto pod-x`, … */
  readonly value?: string
  readonly comment?: string
}

export interface NftChain {
  readonly kind: 'nft-chain'
  readonly family: NftFamily
  readonly table: string
  readonly name: string
  /** Present for a base chain. */
  readonly base?: {
    readonly type: 'filter' | 'nat' | 'route'
    readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting' | 'ingress'
    readonly priority: number
    readonly policy?: 'accept' | 'drop'
    readonly device?: string
  }
  readonly rules: readonly NftRule[]
}

/** A rule: statements left to right. Its text (formatNftRule) is its identity; the kernel keeps a digest of it as userdata. */
export interface NftRule {
  readonly statements: readonly NftStatement[]
  readonly comment?: string
}

/** What a match looks at. */
export type NftSelector =
  | 'ip saddr'
  | 'ip daddr'
  | 'ip6 saddr'
  | 'ip6 daddr'
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
  | 'th dport'
  | 'th sport'
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
  /** `selector & mask op value`, numbers for marks. */
  | { readonly masked: NftSelector; readonly mask: number; readonly op?: '==' | '!='; readonly value: number }
  | { readonly vmap: readonly NftSelector[]; readonly map: string }
  | { readonly counter: string | true }
  | { readonly setMark: number; readonly keepMask?: number }
  | { readonly masquerade: { readonly fullyRandom?: boolean } }
  | { readonly snat: { readonly to: string } }
  /** Destination NAT to a literal `address[:port]`, or to what a map says about a concatenation. */
  | { readonly dnat: { readonly to: string } | { readonly map: string; readonly by: readonly NftSelector[] } }
  | { readonly limit: { readonly perSecond: number; readonly burst?: number } }
  | { readonly log: { readonly group?: number; readonly prefix?: string } }
  | { readonly verdict: 'accept' | 'drop' | 'return' | 'continue' }
  | { readonly jump: string }
  | { readonly goto: string }
  | { readonly reject: 'icmp-port-unreachable' | 'tcp-reset' | 'icmp-admin-prohibited' }
