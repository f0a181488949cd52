/**
 * A set of addresses given as prefixes, kept as what it covers: sorted spans that neither overlap nor touch. A prefix of any
 * size costs one span, so a reservation of half a pool is asked as cheaply as one of a single address.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'

/** First and last address, both included, as numbers. */
export interface Span {
  readonly first: bigint
  readonly last: bigint
}

export const spanOf = (cidr: Cidr): Span => ({ first: cidr.base.toBigInt(), last: cidr.last.toBigInt() })

export class AddressSet {
  readonly #spans: Readonly<Record<Family, readonly Span[]>>

  private constructor(spans: Readonly<Record<Family, readonly Span[]>>) {
    this.#spans = spans
  }

  static of(cidrs: Iterable<Cidr>): AddressSet {
    const all: Record<Family, Span[]> = { 4: [], 6: [] }
    for (const cidr of cidrs) all[cidr.family].push(spanOf(cidr))
    return new AddressSet({ 4: joined(all[4]), 6: joined(all[6]) })
  }

  get isEmpty(): boolean {
    return this.#spans[4].length + this.#spans[6].length === 0
  }

  has(ip: Ip): boolean {
    const at = ip.toBigInt()
    const span = this.#firstEndingAtOrAfter(ip.family, at)
    return span !== undefined && span.first <= at
  }

  /** True when every address of the prefix is in the set. */
  covers(cidr: Cidr): boolean {
    const { first, last } = spanOf(cidr)
    const span = this.#firstEndingAtOrAfter(cidr.family, first)
    return span !== undefined && span.first <= first && last <= span.last
  }

  /** True when some address of the prefix is in the set. */
  overlaps(cidr: Cidr): boolean {
    const { first, last } = spanOf(cidr)
    const span = this.#firstEndingAtOrAfter(cidr.family, first)
    return span !== undefined && span.first <= last
  }

  /** Spans of the set within a prefix, cut to it, in order. */
  within(cidr: Cidr): Span[] {
    const bounds = spanOf(cidr)
    return this.#spans[cidr.family]
      .filter(({ first, last }) => first <= bounds.last && bounds.first <= last)
      .map(({ first, last }) => ({ first: greater(first, bounds.first), last: lesser(last, bounds.last) }))
  }

  /** How many addresses of the prefix are in the set. */
  countIn(cidr: Cidr): bigint {
    return this.within(cidr).reduce((sum, { first, last }) => sum + last - first + 1n, 0n)
  }

  #firstEndingAtOrAfter(family: Family, at: bigint): Span | undefined {
    const spans = this.#spans[family]
    let [from, to] = [0, spans.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      if (spans[middle]!.last < at) from = middle + 1
      else to = middle
    }
    return spans[from]
  }
}

// Math.min takes no bigints.
const lesser = (a: bigint, b: bigint): bigint => (a < b ? a : b)
const greater = (a: bigint, b: bigint): bigint => (a < b ? b : a)

function joined(spans: readonly Span[]): Span[] {
  const sorted = [...spans].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
  const out: Span[] = []
  for (const span of sorted) {
    const before = out.at(-1)
    if (!before || span.first > before.last + 1n) out.push(span)
    else if (span.last > before.last) out[out.length - 1] = { first: before.first, last: span.last }
  }
  return out
}
