/**
 * What a route carries, decoded: a plain frozen object per distinct set of attributes. Absent attributes are absent.
 *
 * Sources: RFC 4271 section 5, RFC 4456 section 8, RFC 1997, RFC 4360 section 2, RFC 8092 section 3, RFC 4760 section 3,
 * RFC 7311 section 3, RFC 9234 section 5.
 */
import type { Ip } from '../../net/ip.ts'

export type AsPathSegmentKind = 'set' | 'sequence' | 'confed-sequence' | 'confed-set'

export interface AsPathSegment {
  readonly kind: AsPathSegmentKind
  /** Four-octet AS numbers, one at least; any number: encoding splits segments beyond 255. */
  readonly asns: readonly number[]
}

/** Where to send what the route is for. */
export interface NextHop {
  readonly address: Ip
  /** The second address of an IPv6 next hop (RFC 2545 section 3). */
  readonly linkLocal?: Ip
}

export interface Aggregator {
  readonly asn: number
  /** Unsigned 32 bits. */
  readonly identifier: number
}

/** Three numbers of 32 bits: global administrator, local data 1 and 2. */
export type LargeCommunity = readonly [number, number, number]

/** An attribute that has no row, kept as it came, with the partial bit set when it is transitive. */
export interface UnknownAttribute {
  readonly type: number
  /** OPTIONAL, TRANSITIVE and PARTIAL of `AttributeFlag`. */
  readonly flags: number
  readonly value: Uint8Array
}

export interface Attributes {
  /** `Origin`. */
  readonly origin?: number
  readonly asPath?: readonly AsPathSegment[]
  /** Of NEXT_HOP or of MP_REACH_NLRI, whichever belongs to the routes. */
  readonly nextHop?: NextHop
  /** Unsigned 32 bits, as the numbers below. */
  readonly med?: number
  readonly localPreference?: number
  readonly atomicAggregate?: true
  readonly aggregator?: Aggregator
  readonly communities?: readonly number[]
  readonly originatorId?: number
  readonly clusterList?: readonly number[]
  /** Eight octets each, as an unsigned integer. */
  readonly extendedCommunities?: readonly bigint[]
  /** Accumulated metric; whether it may be used is a matter of configuration. */
  readonly aigp?: bigint
  readonly largeCommunities?: readonly LargeCommunity[]
  /** AS of RFC 9234. */
  readonly onlyToCustomer?: number
  readonly unknown?: readonly UnknownAttribute[]
}
