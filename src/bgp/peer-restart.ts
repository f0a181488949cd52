/**
 * What becomes of a peer's routes when its session ends: withdrawn, or kept stale over its restart. The timers of the
 * helping side; the RIB does the marking. The restarting side is the speaker's (restarted sessions, deferral).
 *
 *   session ends ─keep?─► restart timer ─► long-lived timer ─► withdrawn
 *                            │ session again           │
 *                            └────► stale timer ◄──────┘ ──End-of-RIB or timer──► what is still stale goes
 *
 * Sources: RFC 4724 section 4.2, RFC 8538 sections 4 and 5, RFC 9494 section 4.
 */
import type { BgpFamily } from '../model/bgp.ts'
import { CeaseCode, ErrorCode } from '../wire/bgp/constants.ts'
import { IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from '../wire/bgp/family.ts'
import type { EndCause } from './fsm.ts'
import type { Negotiated } from './negotiation.ts'
import type { Clock, Timer } from './transport.ts'

/** How long a peer that came back may take to send everything again ("an upper bound", RFC 4724 section 4.2). */
const STALE_SECONDS = 360

export const bgpFamilyOfRoutes = (family: RouteFamily): BgpFamily | undefined =>
  family === IPV4_UNICAST ? 'ipv4' : family === IPV6_UNICAST ? 'ipv6' : undefined
export const routeFamilyOf = (family: BgpFamily): RouteFamily => (family === 'ipv4' ? IPV4_UNICAST : IPV6_UNICAST)

/** What is done to the routes of the peer. */
export interface StaleRoutes {
  sweep(family: BgpFamily): void
  keepLongLived(family: BgpFamily): void
}

export class PeerRestart {
  readonly #clock: Clock
  readonly #routes: StaleRoutes
  readonly #timers = new Map<BgpFamily, Timer>()

  constructor(clock: Clock, routes: StaleRoutes) {
    this.#clock = clock
    this.#routes = routes
  }

  /** Families with stale routes. */
  get stale(): readonly BgpFamily[] {
    return [...this.#timers.keys()]
  }

  /** The families whose routes are kept when a session ends so; their timers start. */
  lost(negotiated: Negotiated, cause: EndCause): readonly BgpFamily[] {
    const before = this.stale
    this.forget()
    if (!negotiated.restart || !survives(negotiated, cause)) return []
    const { families, restartSeconds, longLived } = negotiated.restart
    const kept: BgpFamily[] = []
    for (const each of negotiated.context.families) {
      const family = bgpFamilyOfRoutes(each)
      const ordinary = families.has(each) && restartSeconds > 0
      const longSeconds = longLived.get(each) ?? 0
      if (!family || (!ordinary && longSeconds === 0)) continue
      kept.push(family)
      // RFC 4724 section 4.2: routes that were stale already when the session was lost again are the RIB's to delete.
      if (before.includes(family)) this.#routes.sweep(family)
      const longLivedBegins = (): void => this.#beginLongLived(family, longSeconds)
      if (ordinary) this.#set(family, restartSeconds, longLivedBegins)
      else longLivedBegins()
    }
    return kept
  }

  /** The session is there again: what the peer did not keep goes now, the rest waits for its End-of-RIB. */
  regained({ restart, context }: Negotiated): void {
    for (const family of this.stale) {
      const each = routeFamilyOf(family)
      const longLived = restart?.longLived.has(each) === true
      // RFC 4724 section 4.2: "If the Forwarding State bit … is not set in the newly received Graceful Restart Capability,
      // or if a specific address family is not included …, then the Receiving Speaker MUST immediately remove all the stale
      // routes". RFC 9494 section 4.2 says the same of its own.
      const kept = restart?.families.get(each) === true || (longLived && restart?.families.get(each) !== false)
      if (context.families.has(each) && kept) this.#set(family, STALE_SECONDS, () => this.swept(family))
      else this.swept(family)
    }
  }

  /** End-of-RIB, or the timer. */
  swept(family: BgpFamily): void {
    if (!this.#timers.has(family)) return
    this.#timers.get(family)?.cancel()
    this.#timers.delete(family)
    this.#routes.sweep(family)
  }

  /** Stops every timer and leaves the routes alone. */
  forget(): void {
    for (const timer of this.#timers.values()) timer.cancel()
    this.#timers.clear()
  }

  #beginLongLived(family: BgpFamily, seconds: number): void {
    if (seconds === 0) return this.swept(family)
    this.#set(family, seconds, () => this.swept(family))
    // After the session's own changes: `lost` has not told the RIB yet.
    this.#clock.soon(() => this.#routes.keepLongLived(family))
  }

  #set(family: BgpFamily, seconds: number, then: () => void): void {
    this.#timers.get(family)?.cancel()
    this.#timers.set(family, this.#clock.at(this.#clock.now() + seconds * 1000, then))
  }
}

/** Whether an end of this kind lets the peer's routes stay. */
function survives({ restart }: Negotiated, cause: EndCause): boolean {
  switch (cause.by) {
    // RFC 4724 section 4.2: "when the TCP connection … is terminated".
    case 'transport':
      return true
    // RFC 8538 section 4: with the N bit of both sides also when a NOTIFICATION was sent or received, the hold timer's
    // included, but not after a hard reset.
    case 'sent':
    case 'received': {
      const { code, subcode } = cause.notification
      if (code === ErrorCode.CEASE && subcode === CeaseCode.HARD_RESET) return false
      return restart?.notification === true
    }
    case 'collision':
      return false
  }
}
