/**
 * Routes and routing-policy rules.
 *
 * Sources: include/uapi/linux/rtnetlink.h, fib_rules.h; ip-route(8), ip-rule(8).
 */
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'

/** What a route tells a device in collect-metadata mode about each packet (LWTUNNEL_ENCAP_IP, LWTUNNEL_ENCAP_IP6). */
export interface HopEncapsulation {
  /** VNI or key. */
  readonly id: number
  /** The remote end; its family decides the outer one. */
  readonly destination: Ip
  readonly source?: Ip
  /** TTL or hop limit of the outer packets, 1..255; left out, some devices send 0, which no router passes on. */
  readonly ttl?: number
}

export interface NextHop {
  readonly device?: string
  readonly via?: Ip
  readonly onlink?: boolean
  /** Relative weight of a multipath hop, 1..256. */
  readonly weight?: number
  readonly encapsulation?: HopEncapsulation
}

export type RouteType = 'unicast' | 'local' | 'blackhole' | 'unreachable' | 'prohibit' | 'throw'

export interface Route {
  readonly kind: 'route'
  readonly destination: Cidr
  /** 254 (main) when left out. */
  readonly table?: number
  /** Priority; 0 for IPv4 and 1024 for IPv6 when left out, as the kernel does. */
  readonly metric?: number
  readonly type?: RouteType
  /** One hop, or several for a multipath route; empty for blackhole and its kin. */
  readonly hops: readonly NextHop[]
  readonly source?: Ip
  readonly scope?: 'global' | 'link' | 'host' | 'site' | 'nowhere'
  /** rtm_protocol; WEFT_ROUTE_PROTOCOL marks the route as ours. */
  readonly protocol?: number
  readonly mtuBytes?: number
  readonly advertisedMssBytes?: number
}

/** rtm_protocol and fra_protocol of everything weft writes ('w'; unassigned in iproute2's rt_protos). */
export const WEFT_ROUTE_PROTOCOL = 119

export interface Rule {
  readonly kind: 'rule'
  readonly family: Family
  readonly priority: number
  readonly from?: Cidr
  readonly to?: Cidr
  readonly inDevice?: string
  readonly outDevice?: string
  readonly mark?: number
  readonly markMask?: number
  readonly table?: number
  readonly action?: 'lookup' | 'blackhole' | 'unreachable' | 'prohibit'
  readonly suppressPrefixLength?: number
  readonly protocol?: number
}
