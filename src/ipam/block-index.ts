/**
 * Which blocks exist, by the addresses that they cover and not by their names: a pool whose blocks had another size once, or two
 * pools over one another, make blocks that overlap without being equal. And which block of a pool is the next to claim.
 *
 * A search begins at a place that follows from the node's name, so that nodes that look at the same time look at different
 * places, and walks on around the end. Blocks that are wholly reserved are left out before it begins, and a block that
 * exists is stepped over at once, whatever its size: a search takes no more steps than there are blocks in its way.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam_block_reader_writer.go (randomBlockGenerator: seed from the host's name).
 */
import type { IpPool } from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../net/ip.ts'
import { type AddressSet, type Span, spanOf } from './address-set.ts'

/** Prefixes of both families in order of their first addresses; those that overlap are kept side by side. */
export class BlockIndex {
  readonly #blocks: Record<Family, Cidr[]> = { 4: [], 6: [] }
  /** The shortest prefix ever seen bounds how far before an address a block that covers it may begin. */
  #shortest: Record<Family, number> = { 4: 32, 6: 128 }

  get size(): number {
    return this.#blocks[4].length + this.#blocks[6].length
  }

  add(cidr: Cidr): void {
    const { family, base, length } = cidr
    const blocks = this.#blocks[family]
    const at = this.#place(family, base)
    for (let i = at; blocks[i]?.base.equals(base); i++) if (blocks[i]!.length === length) return
    blocks.splice(at, 0, cidr)
    if (length < this.#shortest[family]) this.#shortest[family] = length
  }

  remove({ family, base, length }: Cidr): void {
    const blocks = this.#blocks[family]
    for (let i = this.#place(family, base); blocks[i]?.base.equals(base); i++)
      if (blocks[i]!.length === length) {
        blocks.splice(i, 1)
        return
      }
  }

  /** Blocks that have an address in common with the prefix, in order. */
  overlapping(cidr: Cidr): Cidr[] {
    const { family, base } = cidr
    const blocks = this.#blocks[family]
    const found: Cidr[] = []
    for (let i = this.#place(family, base.masked(this.#shortest[family])); i < blocks.length; i++) {
      const block = blocks[i]!
      if (block.overlaps(cidr)) found.push(block)
      else if (block.base.compare(base) > 0) break
    }
    return found
  }

  /** The first block that begins at or after an address. */
  #place(family: Family, at: Ip): number {
    const blocks = this.#blocks[family]
    let [from, to] = [0, blocks.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      if (blocks[middle]!.base.compare(at) < 0) from = middle + 1
      else to = middle
    }
    return from
  }
}

/** FNV-1a, 32 bits: spreads names. */
export function hashName(name: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash >>> 0
}

/** Places of whole blocks, by number within the pool, that are not wholly reserved. */
function openSpans(pool: IpPool, reserved: AddressSet): Span[] {
  const shift = BigInt(bitsOf(pool.cidr.family) - pool.blockSize)
  const base = pool.cidr.base.toBigInt()
  const blocks = 1n << BigInt(pool.blockSize - pool.cidr.length)
  const open: Span[] = []
  let next = 0n
  for (const { first, last } of reserved.within(pool.cidr)) {
    const from = (first - base + (1n << shift) - 1n) >> shift
    const to = ((last - base + 1n) >> shift) - 1n
    if (to < from) continue
    if (from > next) open.push({ first: next, last: from - 1n })
    next = to + 1n
  }
  if (next < blocks) open.push({ first: next, last: blocks - 1n })
  return open
}

/** Counts what a search looked at. */
export interface SearchSteps {
  steps: number
}

/** Blocks of a pool that overlap none that exists and are not wholly reserved, each once, from the node's own place on. */
export function* openBlocks(
  pool: IpPool,
  reserved: AddressSet,
  existing: BlockIndex,
  node: string,
  counted: SearchSteps = { steps: 0 },
): Generator<Cidr> {
  if (pool.blockSize < pool.cidr.length) return
  const { family, base } = pool.cidr
  const shift = BigInt(bitsOf(family) - pool.blockSize)
  const spans = openSpans(pool, reserved)
  const total = spans.reduce((sum, { first, last }) => sum + last - first + 1n, 0n)
  if (total === 0n) return
  const start = BigInt(hashName(node)) % total
  for (const { first, last } of rotated(spans, start))
    for (let at = first; at <= last; at++) {
      counted.steps++
      const block = Cidr.of(Ip.fromBigInt(family, base.toBigInt() + (at << shift)), pool.blockSize)
      const inTheWay = existing.overlapping(block)
      if (inTheWay.length === 0) yield block
      else
        for (const { last: end } of inTheWay.map(spanOf)) {
          const covered = (end - base.toBigInt()) >> shift
          if (covered > at) at = covered
        }
    }
}

/** The spans' places from the `start`th on, around the end. */
function rotated(spans: readonly Span[], start: bigint): Span[] {
  const after: Span[] = []
  const before: Span[] = []
  let seen = 0n
  for (const span of spans) {
    const size = span.last - span.first + 1n
    if (seen + size <= start) before.push(span)
    else if (seen >= start) after.push(span)
    else {
      const cut = span.first + (start - seen)
      before.push({ first: span.first, last: cut - 1n })
      after.push({ first: cut, last: span.last })
    }
    seen += size
  }
  return [...after, ...before]
}
