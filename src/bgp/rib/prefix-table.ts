/**
 * Prefixes as small numbers: open addressing over typed arrays, so that a million prefixes cost some 13 bytes each and no
 * object. An id stays until `release`; released ids are given again. Ids begin at 1: 0 means none.
 *
 * Addresses are 32-bit words as `Ip` has them, kept signed (small integers stay out of V8's heap): IPv4 has one word a prefix,
 * IPv6 four, most significant first. Host bits must be clear: the decoder of NLRI masks them.
 *
 * Sources: RFC 4271 section 4.3 (prefixes), Knuth volume 3 section 6.4 (linear probing and deletion, algorithm R); the
 * finalizer of MurmurHash3 mixes.
 */
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { grown } from './typed-array.ts'

const FIRST_CAPACITY = 64
/** Stands as the length of ids that were taken back. */
const RELEASED = 255

export class PrefixTable {
  readonly family: Family
  /** 32-bit words of an address: 1 or 4. */
  readonly wordsEach: number
  /** Words of prefix `id` begin at `id * wordsEach`. */
  words: Int32Array
  /** Length of prefix `id` in bits. */
  lengths: Uint8Array
  /** Ids are below this. */
  end = 1
  #slots: Int32Array
  #mask: number
  #live = 0
  readonly #free: number[] = []

  constructor(family: Family) {
    this.family = family
    this.wordsEach = family === 4 ? 1 : 4
    this.words = new Int32Array(FIRST_CAPACITY * this.wordsEach)
    this.lengths = new Uint8Array(FIRST_CAPACITY)
    this.#slots = new Int32Array(FIRST_CAPACITY * 2)
    this.#mask = this.#slots.length - 1
  }

  /** Prefixes that have an id. */
  get size(): number {
    return this.#live
  }

  /** The id of the prefix, given now if it has none. `at` is where its words begin in `words`. */
  intern(words: Int32Array, at: number, length: number): number {
    const mask = this.#mask
    let slot = this.#hash(words, at, length) & mask
    for (;;) {
      const id = this.#slots[slot]!
      if (id === 0) break
      if (this.#equal(id, words, at, length)) return id
      slot = (slot + 1) & mask
    }
    return this.#add(slot, words, at, length)
  }

  /** The id of the prefix, or 0. */
  find(words: Int32Array, at: number, length: number): number {
    const mask = this.#mask
    let slot = this.#hash(words, at, length) & mask
    for (;;) {
      const id = this.#slots[slot]!
      if (id === 0 || this.#equal(id, words, at, length)) return id
      slot = (slot + 1) & mask
    }
  }

  /** Takes an id back. The caller has forgotten it everywhere. */
  release(id: number): void {
    const mask = this.#mask
    const slots = this.#slots
    let hole = this.#hash(this.words, id * this.wordsEach, this.lengths[id]!) & mask
    while (slots[hole] !== id) hole = (hole + 1) & mask
    // Whoever probed past the hole moves into it, so that no search ends too early.
    for (let slot = (hole + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const other = slots[slot]!
      const home = this.#hash(this.words, other * this.wordsEach, this.lengths[other]!) & mask
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue
      slots[hole] = other
      hole = slot
    }
    slots[hole] = 0
    this.lengths[id] = RELEASED
    this.#free.push(id)
    this.#live--
  }

  isLive(id: number): boolean {
    return this.lengths[id] !== RELEASED
  }

  cidr(id: number): Cidr {
    return Cidr.of(ipOfWords(this.family, this.words, id * this.wordsEach), this.lengths[id]!)
  }

  /** The id of a prefix as value; `add` gives one if it has none, otherwise the answer is then 0. */
  idOf(cidr: Cidr, add = false): number {
    const { base, length } = cidr
    const words = this.family === 4 ? Int32Array.of(base.w3) : Int32Array.of(base.w0, base.w1, base.w2, base.w3)
    return add ? this.intern(words, 0, length) : this.find(words, 0, length)
  }

  /**
   * Every bit of the words counts. Four neighbours of one length are beside each other in IPv4, so that prefixes in their order cost
   * one miss of the cache for four of them.
   */
  #hash(words: Int32Array, at: number, length: number): number {
    const first = words[at]!
    if (this.wordsEach === 1) {
      const number = length === 0 ? 0 : first >>> (32 - length)
      return (mixed((number >>> 2) ^ (length << 25)) << 2) | (number & 3)
    }
    let h = Math.imul(first ^ length, 0x2c1b3c6d) ^ words[at + 1]!
    h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d) ^ words[at + 2]!
    h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d) ^ words[at + 3]!
    return mixed(h)
  }

  #equal(id: number, words: Int32Array, at: number, length: number): boolean {
    const each = this.wordsEach
    const own = id * each
    if (this.lengths[id] !== length || this.words[own] !== words[at]) return false
    return (
      each === 1 ||
      (this.words[own + 1] === words[at + 1] &&
        this.words[own + 2] === words[at + 2] &&
        this.words[own + 3] === words[at + 3])
    )
  }

  #add(slot: number, words: Int32Array, at: number, length: number): number {
    const id = this.#free.pop() ?? this.end++
    if (id >= this.lengths.length) {
      this.lengths = grown(this.lengths, id + 1)
      this.words = grown(this.words, this.lengths.length * this.wordsEach)
    }
    const own = id * this.wordsEach
    for (let i = 0; i < this.wordsEach; i++) this.words[own + i] = words[at + i]!
    this.lengths[id] = length
    this.#slots[slot] = id
    // At most three of five slots are taken.
    if (++this.#live * 5 > this.#slots.length * 3) this.#rehash()
    return id
  }

  #rehash(): void {
    const old = this.#slots
    const slots = new Int32Array(old.length * (old.length < 1 << 19 ? 4 : 2))
    const mask = slots.length - 1
    for (let i = 0; i < old.length; i++) {
      const id = old[i]!
      if (id === 0) continue
      let slot = this.#hash(this.words, id * this.wordsEach, this.lengths[id]!) & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = id
    }
    this.#slots = slots
    this.#mask = mask
  }
}

function mixed(value: number): number {
  let h = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

/** The address whose words begin at `at`. */
export const ipOfWords = (family: Family, words: Int32Array, at: number): Ip =>
  family === 4 ? Ip.v4(words[at]!) : new Ip(6, words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!)
