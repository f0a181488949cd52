/**
 * What two speakers have agreed upon and that changes how bytes are to be read and written. One per session and direction
 * of time: made when both OPENs are there, replaced when the session is.
 */
import type { RouteFamily } from './family.ts'

export interface WireContext {
  /** RFC 6793: both sides announced it; AS numbers in AS_PATH and AGGREGATOR have four octets. */
  readonly fourOctetAs: boolean
  /** Attributes that only one kind of peer may send are judged by this (RFC 7606 section 7). */
  readonly peerType: 'internal' | 'external' | 'confederation'
  /** Negotiated families; MP_REACH_NLRI of others is left out, with a fault. */
  readonly families: ReadonlySet<RouteFamily>
  /** Families in which what we receive has path identifiers (RFC 7911). */
  readonly addPathReceive: ReadonlySet<RouteFamily>
  /** Families in which what we send has path identifiers. */
  readonly addPathSend: ReadonlySet<RouteFamily>
  /** IPv4 families whose next hop may be an IPv6 address (RFC 8950). */
  readonly extendedNextHop: ReadonlySet<RouteFamily>
  /** 4096 or 65535 (RFC 8654), header included. */
  readonly messageBytesMax: number
}
