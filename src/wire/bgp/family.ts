/**
 * A kind of routes: address family (AFI) and subsequent address family (SAFI) in one number, `afi << 8 | safi`, so that
 * sets of them are sets of numbers and unknown ones keep their place.
 *
 * Sources: RFC 4760 section 6; IANA, Address Family Numbers and SAFI Namespace.
 */
import type { Family } from '../../net/ip.ts'

/** `afi << 8 | safi`. */
export type RouteFamily = number

export const AFI_IPV4 = 1
export const AFI_IPV6 = 2
export const SAFI_UNICAST = 1

export const IPV4_UNICAST: RouteFamily = 0x0101
export const IPV6_UNICAST: RouteFamily = 0x0201

export const routeFamily = (afi: number, safi: number): RouteFamily => afi * 256 + safi
export const afiOf = (family: RouteFamily): number => family >>> 8
export const safiOf = (family: RouteFamily): number => family & 0xff

/** Unicast of an address family. */
export const unicastOf = (family: Family): RouteFamily => (family === 4 ? IPV4_UNICAST : IPV6_UNICAST)

const safiNames: Readonly<Record<number, string>> = {
  1: 'unicast',
  2: 'multicast',
  4: 'labeled-unicast',
  128: 'vpn-unicast',
  133: 'flowspec',
}

/** `ipv4 unicast`; numbers where there is no name. */
export function formatRouteFamily(family: RouteFamily): string {
  const afi = afiOf(family)
  const name = afi === AFI_IPV4 ? 'ipv4' : afi === AFI_IPV6 ? 'ipv6' : `afi ${afi}`
  return `${name} ${safiNames[safiOf(family)] ?? `safi ${safiOf(family)}`}`
}
