/**
 * What the speaker may ask of the RIB. Nothing here takes long: calls note what changed, and `work` does the rest in slices,
 * so that the owner's timers and sockets get their turn in between.
 *
 *   announce, withdraw, setLocal, nextHopsChanged, attach … ─► dirty prefixes ─► work(budget) ─► sink.chosen, sink.send
 *
 * Sources: RFC 4271 section 9 (UPDATE handling), RFC 4724, RFC 9494, RFC 7313 (stale routes), RFC 7911.
 */
import type { BgpFamily, LocalRoute, PrefixText, RibRoute } from '../../model/bgp.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'
import type { NlriRun } from '../../wire/bgp/nlri.ts'
import type { DecisionStep } from './decision.ts'
import type { PeerLoss, PeerRouteCounts, RibPeer } from './peer.ts'

/** One candidate of a prefix for `why`. */
export interface Candidate {
  readonly route: RibRoute
  /** The step of the decision that it lost at; undefined: it is the best, or was no candidate (`route.rejected` says why). */
  readonly lostAt: DecisionStep | undefined
}

export interface Rib {
  /**
   * A session is established; everything that it is to be told follows by `work`, then End-of-RIB. A peer that was lost with `keep stale`
   * finds its routes again by its name.
   */
  attach(peer: RibPeer): void
  /** Another policy, next-hop mode or limit on a living session: routes are judged again; what changes is told. */
  reconfigure(peer: RibPeer): void
  /** The session ended. `keep stale` for the families named (graceful restart), `withdraw` for all others. */
  lose(name: string, loss: PeerLoss, families?: readonly BgpFamily[]): void
  /** Is it attached, or are stale routes of it kept? */
  has(name: string): boolean

  /**
   * Prefixes that an attached peer announces with one attribute set, next hop included. The run is read at once; the object is kept and
   * known again: `AttributeCache` gives one object for equal blocks.
   */
  announce(name: string, run: NlriRun, attributes: Attributes): void
  /** Prefixes that it withdraws, or that count as withdrawn (RFC 7606). */
  withdraw(name: string, run: NlriRun): void
  /** The peer's End-of-RIB, or its End of route refresh: what is still stale goes. Also when the restart timer ran out. */
  sweepStale(name: string, family: BgpFamily): void
  /** Beginning of route refresh: everything that the peer sent is stale until sent again. */
  markStale(name: string, family: BgpFamily): void
  /** The restart timer ran out and long-lived restart begins: stale routes become least preferred (RFC 9494). */
  keepLongLived(name: string, family: BgpFamily): void
  /** ROUTE-REFRESH of the peer: everything once more, End-of-RIB at the end only when `endOfRib`. */
  refresh(name: string, family: BgpFamily): void
  /** After `sink.send` answered false: the peer takes more. */
  resume(name: string): void

  setLocal(route: LocalRoute): void
  removeLocal(prefix: PrefixText): void
  /** The kernel's routes changed: every next hop is resolved again, prefixes that depend on a changed one are decided again. */
  nextHopsChanged(): void
  /** Selection deferral after our own restart: nothing is chosen or sent until `release`. */
  hold(): void
  release(): void

  /** Does at most about `budget` prefixes' work. True: there is more. */
  work(budget: number): boolean

  counts(name: string, family: BgpFamily): PeerRouteCounts
  readonly size: Readonly<Record<BgpFamily, { readonly prefixes: number; readonly paths: number }>>
  readonly attributeSets: number
  /** As received, before import. */
  adjIn(name: string, family: BgpFamily): Generator<RibRoute>
  /** As sent. */
  adjOut(name: string, family: BgpFamily): Generator<RibRoute>
  /** All candidates, the best one first of each prefix. */
  local(family: BgpFamily): Generator<RibRoute>
  /** Every path of a prefix and what became of it. Empty: nobody has it. */
  why(prefix: PrefixText): readonly Candidate[]
}
