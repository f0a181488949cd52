/**
 * What the RIB asks of a policy, and nothing of how a policy is written. A policy sorts prefixes into a few classes (all
 * prefixes that its rules cannot tell apart) and answers once per attribute set and class: the answer is remembered, so
 * that a million prefixes with five thousand attribute sets cost five thousand evaluations.
 *
 *   prefix ── classOf ──► class ─┐
 *   attribute set ───────────────┴─ evaluate ──► attribute set | refusal (remembered per set, class and source)
 */

import type { LocalRouteKind } from '../../model/bgp.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'

/** Where a route that is looked at comes from. */
export interface PolicySource {
  /** Undefined: originated here, and `localKind` says for what. */
  readonly fromPeer: string | undefined
  readonly localKind: LocalRouteKind | undefined
  /** Outgoing interface of a local route. */
  readonly device: string | undefined
}

/** A refusal, with the rule's name for people. */
export interface Refusal {
  readonly refused: string
}

export const isRefusal = (verdict: Attributes | Refusal): verdict is Refusal => 'refused' in verdict

export interface RoutePolicy {
  /** Policies with one key answer alike: peers that share them share their remembered answers and update groups. */
  readonly key: string
  /**
   * The class of a prefix, 0 to 65535. Words as `Ip` has them (IPv4: `w3` alone), as signed or unsigned integers. Undefined: the policy
   * does not look at prefixes, and every prefix is in class 0.
   */
  readonly classOf?: ((length: number, w0: number, w1: number, w2: number, w3: number) => number) | undefined
  /** The policy looks at `source`; otherwise answers are shared over sources. */
  readonly looksAtSource: boolean
  /** Returns the same object when nothing changes. Must depend on its arguments alone. */
  evaluate(attributes: Attributes, prefixClass: number, source: PolicySource): Attributes | Refusal
}

/** Takes every route as it is. */
export const acceptAll: RoutePolicy = {
  key: 'accept',
  looksAtSource: false,
  evaluate: (attributes) => attributes,
}

/** Refuses every route: what an external peer without a policy gets (RFC 8212). */
export const refuseAll: RoutePolicy = {
  key: 'refuse',
  looksAtSource: false,
  evaluate: () => ({ refused: 'no policy' }),
}
