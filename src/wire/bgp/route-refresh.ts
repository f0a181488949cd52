/**
 * ROUTE-REFRESH: send me the routes of a family again; and, enhanced, the marks around them.
 *
 * Sources: RFC 2918 section 3, RFC 7313 section 3.2.
 */
import { ErrorCode, MessageType, RouteRefreshError } from './constants.ts'
import { BgpError } from './error.ts'
import { afiOf, type RouteFamily, routeFamily, safiOf } from './family.ts'
import { beginMessage, endMessage } from './header.ts'

/** `begin` and `end` enclose what a request is answered with. */
export type RefreshKind = 'request' | 'begin' | 'end'
const kinds: readonly RefreshKind[] = ['request', 'begin', 'end']

export interface RouteRefresh {
  readonly family: RouteFamily
  /** undefined: a subtype that is not known; the message is to be ignored. */
  readonly kind: RefreshKind | undefined
}

/**
 * The body of a ROUTE-REFRESH, four bytes or more: what follows a request may be filters (RFC 5291), which nobody
 * negotiates here. Throws BgpError on a mark of a wrong length.
 */
export function decodeRouteRefresh(body: Uint8Array): RouteRefresh {
  const kind = kinds[body[2]!]
  if (body.length !== 4 && kind !== 'request' && kind !== undefined) {
    // The NOTIFICATION holds the whole message.
    const writer = beginMessage(MessageType.ROUTE_REFRESH)
    writer.bytes(body)
    throw new BgpError(
      ErrorCode.ROUTE_REFRESH_MESSAGE,
      RouteRefreshError.INVALID_MESSAGE_LENGTH,
      `ROUTE-REFRESH mark with ${body.length} bytes`,
      endMessage(writer),
    )
  }
  return { family: routeFamily((body[0]! << 8) | body[1]!, body[3]!), kind }
}

/** A whole message. */
export function encodeRouteRefresh(family: RouteFamily, kind: RefreshKind = 'request'): Uint8Array {
  const writer = beginMessage(MessageType.ROUTE_REFRESH, 32)
  writer.u16be(afiOf(family))
  writer.u8(kinds.indexOf(kind))
  writer.u8(safiOf(family))
  return endMessage(writer)
}
