/**
 * The decision process: which of a prefix's paths is best, which others are used beside it, and at which step each lost.
 *
 * Steps eliminate, as the RFC words them: whoever is not the least of those left is out. Pairwise comparison would not do: the
 * MULTI_EXIT_DISC counts only among paths of one neighbouring AS, so "better" is not transitive, and the outcome would depend
 * on the order of arrival. Nothing here looks at age or order: equal contents, equal outcome.
 *
 * Sources: RFC 4271 section 9.1 (degree of preference, phase 2, tie-breaking a–g), RFC 4456 section 9 (ORIGINATOR_ID, CLUSTER_LIST
 * length), RFC 5065 section 5.3 (confederation paths count as internal), RFC 9494 section 4.3 (stale paths last), RFC 7911 section 3
 * (path identifiers).
 */
import { type AttributeStore, NOT_OURS } from './attribute-store.ts'
import type { NextHopTable } from './next-hop-table.ts'
import type { PathTable } from './path-table.ts'
import type { PeerTable } from './peer-table.ts'
import { IntList } from './typed-array.ts'

/** In their order. `med` eliminates among paths of one neighbouring AS (or all); the others among all that are left. */
export const decisionSteps = [
  'long-lived stale',
  'local preference',
  'originated here',
  'AS path length',
  'origin',
  'MED',
  'external before internal',
  'metric to next hop',
  'router id',
  'cluster list length',
  'peer address',
  'path identifier',
] as const

export type DecisionStep = (typeof decisionSteps)[number]

const MED_STEP = decisionSteps.indexOf('MED')
/** Paths that are equal before this step may be used at once. */
const FIRST_TIE_BREAK = decisionSteps.indexOf('router id')

export interface DecisionOptions {
  /** MULTI_EXIT_DISC counts between paths of different neighbouring ASes too. */
  readonly alwaysCompareMed: boolean
  /** Equal external paths used at once; 1: the best alone. */
  readonly maxExternalPaths: number
  readonly maxInternalPaths: number
  /** External paths of one AS path length are equal, whatever stands in them. */
  readonly asPathRelax: boolean
}

export class Decision {
  readonly #options: DecisionOptions
  readonly #paths: PathTable
  readonly #attributes: AttributeStore
  readonly #nextHops: NextHopTable
  readonly #peers: PeerTable
  readonly #left = new IntList(16)
  readonly #leastMedOf = new Map<number, number>()
  /** After `choose`: the paths that are used at once, the best first. Valid until the next call. */
  readonly equal = new IntList(16)

  constructor(
    options: DecisionOptions,
    paths: PathTable,
    attributes: AttributeStore,
    nextHops: NextHopTable,
    peers: PeerTable,
  ) {
    this.#options = options
    this.#paths = paths
    this.#attributes = attributes
    this.#nextHops = nextHops
    this.#peers = peers
  }

  /** Phase 2 looks at paths that import let in and whose next hop is reachable (RFC 4271 section 9.1.2). */
  isCandidate(path: number): boolean {
    const imported = this.#paths.imported[path]!
    return imported > 0 && this.#nextHops.metrics[this.#attributes.nextHop[imported]!]! >= 0
  }

  /** The best path of a prefix, or 0. */
  choose(prefix: number): number {
    const left = this.#candidates(prefix)
    if (left.length === 2) return this.#better(left.items[0]!, left.items[1]!)
    return left.length > 1 ? this.#eliminate(left) : this.#alone(left)
  }

  /** The best `count` paths, in order: the best, then the best of the others, and so on (add-path). */
  chooseSeveral(prefix: number, count: number, out: IntList): void {
    out.length = 0
    const left = this.#candidates(prefix)
    const all = left.items.slice(0, left.length)
    let rest = all.length
    while (rest > 0 && out.length < count) {
      left.length = 0
      for (let i = 0; i < rest; i++) left.push(all[i]!)
      const best = rest > 1 ? this.#eliminate(left) : all[0]!
      out.push(best)
      const at = all.indexOf(best)
      all.copyWithin(at, at + 1, rest)
      rest--
    }
  }

  /** Each candidate with the step that it lost at; undefined for the best. */
  explain(prefix: number): Map<number, DecisionStep | undefined> {
    const left = this.#candidates(prefix)
    const answer = new Map<number, DecisionStep | undefined>()
    for (let i = 0; i < left.length; i++) answer.set(left.items[i]!, undefined)
    for (let step = 0; step < decisionSteps.length && left.length > 1; step++) {
      this.#keepLeast(left, step)
      const kept = new Set(left.items.subarray(0, left.length))
      for (const [path, lost] of answer)
        if (lost === undefined && !kept.has(path)) answer.set(path, decisionSteps[step]!)
    }
    return answer
  }

  #candidates(prefix: number): IntList {
    const left = this.#left
    left.length = 0
    for (let path = this.#paths.heads[prefix]!; path !== 0; path = this.#paths.next[path]!)
      if (this.isCandidate(path)) left.push(path)
    return left
  }

  #alone(left: IntList): number {
    this.equal.length = 0
    if (left.length === 0) return 0
    this.equal.push(left.items[0]!)
    return left.items[0]!
  }

  /** `#eliminate` of two: the same steps, without lists. */
  #better(a: number, b: number): number {
    const { imported } = this.#paths
    const { equal } = this
    equal.length = 0
    const lead = this.#leading(a) - this.#leading(b)
    let best = lead === 0 ? 0 : lead < 0 ? a : b
    for (let step = MED_STEP; best === 0; step++) {
      if (step === FIRST_TIE_BREAK) {
        equal.push(a)
        equal.push(b)
      }
      if (step === MED_STEP && !this.#options.alwaysCompareMed) {
        const { neighborAs } = this.#attributes
        if (neighborAs[imported[a]!] !== neighborAs[imported[b]!]) continue
      }
      const difference = this.#rank(step, a) - this.#rank(step, b)
      if (difference !== 0) best = difference < 0 ? a : b
    }
    this.#orderEqual(best)
    return best
  }

  /** All steps before the MED's in one number. */
  #leading(path: number): number {
    return this.#attributes.leading[this.#paths.imported[path]!]! + (this.#paths.peer[path] === 0 ? 0 : NOT_OURS)
  }

  #eliminate(left: IntList): number {
    for (let step = 0; step < FIRST_TIE_BREAK && left.length > 1; step++) this.#keepLeast(left, step)
    const equal = this.equal
    equal.length = 0
    for (let i = 0; i < left.length; i++) equal.push(left.items[i]!)
    for (let step = FIRST_TIE_BREAK; left.length > 1; step++) this.#keepLeast(left, step)
    const best = left.items[0]!
    this.#orderEqual(best)
    return best
  }

  /** Leaves in `equal` the best and those that may be used beside it: each next hop once, at most so many. */
  #orderEqual(best: number): void {
    const { equal } = this
    const external = this.#peers.external[this.#paths.peer[best]!] === 1
    const limit = external ? this.#options.maxExternalPaths : this.#options.maxInternalPaths
    const bestSet = this.#paths.imported[best]!
    if (limit === 1 || equal.length < 2 || this.#attributes.nextHop[bestSet] === 0) {
      equal.length = 0
      equal.push(best)
      return
    }
    const others = equal.items.slice(0, equal.length)
    equal.length = 0
    equal.push(best)
    const relaxed = external && this.#options.asPathRelax
    const { nextHop, asPath } = this.#attributes
    const used = new Set([nextHop[bestSet]!])
    // By next hop, so that which ones are taken depends on the contents alone.
    const ordered = others.sort((a, b) =>
      this.#nextHops.compare(nextHop[this.#paths.imported[a]!]!, nextHop[this.#paths.imported[b]!]!),
    )
    for (const path of ordered) {
      const set = this.#paths.imported[path]!
      if (equal.length >= limit || used.has(nextHop[set]!) || (!relaxed && asPath[set] !== asPath[bestSet])) continue
      used.add(nextHop[set]!)
      equal.push(path)
    }
  }

  #keepLeast(left: IntList, step: number): void {
    if (step === MED_STEP && !this.#options.alwaysCompareMed) return this.#keepLeastMed(left)
    const { items } = left
    let least = this.#rank(step, items[0]!)
    let kept = 1
    for (let i = 1; i < left.length; i++) {
      const path = items[i]!
      const rank = this.#rank(step, path)
      if (rank > least) continue
      if (rank < least) {
        least = rank
        kept = 0
      }
      items[kept++] = path
    }
    left.length = kept
  }

  /** RFC 4271 section 9.1.2.2 c: out is whoever has a rival from the same neighbouring AS with a lower MULTI_EXIT_DISC. */
  #keepLeastMed(left: IntList): void {
    const { med, neighborAs } = this.#attributes
    const { imported } = this.#paths
    const { items } = left
    if (left.length === 2) {
      const a = imported[items[0]!]!
      const b = imported[items[1]!]!
      if (neighborAs[a] !== neighborAs[b] || med[a] === med[b]) return
      if (med[b]! < med[a]!) items[0] = items[1]!
      left.length = 1
      return
    }
    const least = this.#leastMedOf
    least.clear()
    for (let i = 0; i < left.length; i++) {
      const set = imported[items[i]!]!
      const known = least.get(neighborAs[set]!)
      if (known === undefined || med[set]! < known) least.set(neighborAs[set]!, med[set]!)
    }
    let kept = 0
    for (let i = 0; i < left.length; i++) {
      const set = imported[items[i]!]!
      if (med[set] === least.get(neighborAs[set]!)) items[kept++] = items[i]!
    }
    left.length = kept
  }

  /** What counts at a step; less is better. */
  #rank(step: number, path: number): number {
    const set = this.#paths.imported[path]!
    const peer = this.#paths.peer[path]!
    switch (step) {
      case 0:
        return this.#attributes.longLivedStale[set]!
      case 1:
        return -this.#attributes.localPreference[set]!
      case 2:
        return peer === 0 ? 0 : 1
      case 3:
        return this.#attributes.asPathLength[set]!
      case 4:
        return this.#attributes.origin[set]!
      case 5:
        return this.#attributes.med[set]!
      case 6:
        return this.#peers.external[peer] === 1 ? 0 : 1
      case 7:
        return this.#nextHops.metrics[this.#attributes.nextHop[set]!]!
      case 8:
        return this.#attributes.originatorId[set]! || this.#peers.routerId[peer]!
      case 9:
        return this.#attributes.clusterListLength[set]!
      case 10:
        return this.#peers.addressRank[peer]!
      default:
        return this.#paths.pathId[path]! >>> 0
    }
  }
}
