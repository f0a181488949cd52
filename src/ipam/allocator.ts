/**
 * Which addresses are taken, and which one is next. Pure bookkeeping: who holds an address and how that survives a
 * crash is the journal's part.
 *
 * An address is never given again at once: every search starts after the last address given from the set and walks
 * on, around the end. Ranges up to 2^20 addresses are a bitmap searched a word at a time; larger ones (IPv6) keep the
 * taken addresses only, and a walk ends after at most as many steps as there are of those.
 */
import type { Ip } from '../net/ip.ts'
import { formatRange, type Range, type RangeSet, rangeHolds } from './range.ts'

/** Nothing is free. The message names the ranges and how many addresses they have. */
export class RangeFullError extends Error {
  override readonly name = 'RangeFullError'
}

const maxBitmapAddresses = 1 << 20

/** Addresses of one range by their distance from its first. */
interface Taken {
  readonly size: bigint
  /** How many are taken. */
  readonly count: number
  add(offset: bigint): void
  remove(offset: bigint): void
  has(offset: bigint): boolean
  /** The first free offset in [from, to), if any. */
  nextFree(from: bigint, to: bigint): bigint | undefined
}

class Bitmap implements Taken {
  readonly size: bigint
  count = 0
  readonly #words: Uint32Array

  constructor(size: number) {
    this.size = BigInt(size)
    this.#words = new Uint32Array(Math.ceil(size / 32))
  }

  add(offset: bigint): void {
    if (!this.has(offset)) this.count++
    this.#words[Number(offset) >>> 5]! |= 1 << (Number(offset) & 31)
  }

  remove(offset: bigint): void {
    if (this.has(offset)) this.count--
    this.#words[Number(offset) >>> 5]! &= ~(1 << (Number(offset) & 31))
  }

  has(offset: bigint): boolean {
    return (this.#words[Number(offset) >>> 5]! & (1 << (Number(offset) & 31))) !== 0
  }

  nextFree(from: bigint, to: bigint): bigint | undefined {
    const end = Number(to)
    for (let at = Number(from); at < end; at = (at | 31) + 1) {
      const free = ~this.#words[at >>> 5]! & (-1 << (at & 31))
      if (free === 0) continue
      const found = (at & ~31) + (31 - Math.clz32(free & -free))
      return found < end ? BigInt(found) : undefined
    }
    return undefined
  }
}

class Sparse implements Taken {
  readonly size: bigint
  readonly #taken = new Set<bigint>()

  constructor(size: bigint) {
    this.size = size
  }

  get count(): number {
    return this.#taken.size
  }

  add(offset: bigint): void {
    this.#taken.add(offset)
  }

  remove(offset: bigint): void {
    this.#taken.delete(offset)
  }

  has(offset: bigint): boolean {
    return this.#taken.has(offset)
  }

  nextFree(from: bigint, to: bigint): bigint | undefined {
    let at = from
    while (at < to && this.#taken.has(at)) at++
    return at < to ? at : undefined
  }
}

/** Addresses of one range, its gateway left out. */
export interface RangeUsage {
  readonly range: Range
  readonly taken: number
  readonly free: bigint
}

export class RangeSetAllocator {
  readonly ranges: RangeSet
  readonly #taken: readonly Taken[]
  /** Where the next search starts: just after the last address given. */
  #next: { index: number; offset: bigint } = { index: 0, offset: 0n }

  constructor(ranges: RangeSet) {
    this.ranges = ranges
    this.#taken = ranges.map(({ first, last }) => {
      const size = last.toBigInt() - first.toBigInt() + 1n
      return size <= maxBitmapAddresses ? new Bitmap(Number(size)) : new Sparse(size)
    })
    for (const { gateway } of ranges) this.take(gateway)
  }

  /** Marks an address as taken; addresses outside every range are nobody's concern. */
  take(ip: Ip): void {
    const place = this.#place(ip)
    if (place) this.#taken[place.index]!.add(place.offset)
  }

  /** Gives an address back. A range's gateway stays taken. */
  release(ip: Ip): void {
    const place = this.#place(ip)
    if (place && !this.ranges.some(({ gateway }) => gateway.equals(ip))) this.#taken[place.index]!.remove(place.offset)
  }

  /** The range that holds an address. */
  rangeOf(ip: Ip): Range | undefined {
    return this.ranges.find((range) => rangeHolds(range, ip))
  }

  /** How full each range is. A gateway inside the range is nobody's and counted as neither. */
  usage(): RangeUsage[] {
    return this.ranges.map((range, index) => {
      const { size, count } = this.#taken[index]!
      const gateways = this.ranges.filter(({ gateway }) => rangeHolds(range, gateway))
      const distinct = new Set(gateways.map(({ gateway }) => `${gateway}`)).size
      return { range, taken: count - distinct, free: size - BigInt(count) }
    })
  }

  isTaken(ip: Ip): boolean {
    const place = this.#place(ip)
    return place !== undefined && this.#taken[place.index]!.has(place.offset)
  }

  /** Continues the rotation after this address, if it is in a range. */
  rotateAfter(ip: Ip): void {
    const place = this.#place(ip)
    if (place) this.#next = { index: place.index, offset: place.offset + 1n }
  }

  /**
   * Takes the next free address after the last one given. `refuse` may veto a candidate (it is skipped, not taken).
   * Throws RangeFullError.
   */
  allocate(refuse: (ip: Ip) => boolean = () => false): { ip: Ip; range: Range } {
    for (const ip of this.#candidates()) {
      if (refuse(ip)) continue
      this.take(ip)
      this.rotateAfter(ip)
      return { ip, range: this.rangeOf(ip)! }
    }
    const count = this.#taken.reduce((sum, { size }) => sum + size, 0n)
    throw new RangeFullError(`No free address in ${this.ranges.map(formatRange).join(', ')} (${count} addresses)`)
  }

  /** Free addresses, each once: from the rotation's place to the end of its range, the other ranges, its beginning. */
  *#candidates(): Generator<Ip> {
    const start = this.#next
    const count = this.ranges.length
    for (let step = 0; step <= count; step++) {
      const index = (start.index + step) % count
      const taken = this.#taken[index]!
      const to = step === count && start.offset < taken.size ? start.offset : taken.size
      for (let at = step === 0 ? start.offset : 0n; ; at++) {
        const free = taken.nextFree(at, to)
        if (free === undefined) break
        yield this.ranges[index]!.first.plus(free)
        at = free
      }
    }
  }

  #place(ip: Ip): { index: number; offset: bigint } | undefined {
    const index = this.ranges.findIndex((range) => rangeHolds(range, ip))
    return index < 0 ? undefined : { index, offset: ip.toBigInt() - this.ranges[index]!.first.toBigInt() }
  }
}
