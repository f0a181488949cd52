/**
 * Sorts prefixes of one family into classes: prefixes that the same of many ranges match, and that belong to the same owner,
 * are of one class. A policy is then evaluated once per class, not once per prefix.
 *
 *   ranges  0: 10.0.0.0/8 16..24     1: 10.1.0.0/16 16..32
 *   10.1.2.0/24 ─► {0, 1} ─► class 3        10.2.0.0/16 ─► {0} ─► class 1        8.8.8.0/24 ─► {} ─► class 0
 *
 * Ranges stand in a hash table for each length of their prefixes; a prefix is looked up in the tables of lengths up to its
 * own. What was matched on the way is a state, whose transitions are remembered, so that no object is made per prefix.
 * Classes are numbered as they are met: a number means something to the object alone that gave it.
 */
import type { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family } from '../net/ip.ts'

/** Prefixes within `cidr` whose length is from `minLength` to `maxLength`. */
export interface ClassRange {
  readonly cidr: Cidr
  readonly minLength: number
  readonly maxLength: number
  /** What is known of a prefix that is in the range: index of a condition. */
  readonly condition: number
}

export interface ClassOwner {
  readonly cidr: Cidr
  /** Index of whose it is; of several the longest prefix counts. */
  readonly owner: number
}

/** What all prefixes of a class have in common. */
export interface PrefixClass {
  /** Conditions that hold. */
  readonly holds: ReadonlySet<number>
  /** Undefined: nobody's. */
  readonly owner: number | undefined
}

export const MAX_PREFIX_CLASSES = 65535

/** Of a prefix that came when there were `MAX_PREFIX_CLASSES` others. */
export const OVERFLOW_CLASS = MAX_PREFIX_CLASSES

/** One prefix of the table: what it says of prefixes within it. */
interface Entry {
  readonly ranges: readonly ClassRange[]
  readonly owner: number | undefined
}

export class PrefixClasses {
  readonly #isIpv4: boolean
  readonly #tables: readonly LengthTable[]
  readonly #entries: readonly Entry[]
  /** By state and entry: state × entries + entry, and whether the ranges hold differs by length: one map for each length. */
  readonly #next: Map<number, number>[] = []
  readonly #states: {
    readonly holds: ReadonlySet<number>
    readonly owner: number | undefined
    readonly class: number
  }[] = []
  readonly #classes: PrefixClass[] = []
  readonly #classByKey = new Map<string, number>()

  /** All of one family. */
  constructor(family: Family, ranges: readonly ClassRange[], owners: readonly ClassOwner[] = []) {
    this.#isIpv4 = family === 4
    const entries = new Map<string, { cidr: Cidr; ranges: ClassRange[]; owner?: number }>()
    const entryOf = (cidr: Cidr) => {
      const key = `${cidr}`
      const entry = entries.get(key) ?? { cidr, ranges: [] }
      entries.set(key, entry)
      return entry
    }
    for (const range of ranges) entryOf(range.cidr).ranges.push(range)
    for (const { cidr, owner } of owners) entryOf(cidr).owner = owner
    const all = [...entries.values()]
    this.#entries = all.map(({ ranges: own, owner }) => ({ ranges: own, owner }))
    this.#tables = tablesOf(
      family,
      all.map(({ cidr }) => cidr),
    )
    for (let length = 0; length <= bitsOf(family); length++) this.#next.push(new Map())
    this.#stateOf(new Set(), undefined)
  }

  /** The class of a prefix; words as `Ip` has them, signed or unsigned (IPv4: `w3` alone). */
  classOf(length: number, w0: number, w1: number, w2: number, w3: number): number {
    let state = 0
    const next = this.#next[length]!
    for (const table of this.#tables) {
      if (table.length > length) break
      const entry = this.#isIpv4 ? table.find4(w3) : table.find6(w0, w1, w2, w3)
      if (entry < 0) continue
      const key = state * this.#entries.length + entry
      state = next.get(key) ?? this.#step(next, key, state, entry, length)
    }
    return this.#states[state]!.class
  }

  /** Undefined for `OVERFLOW_CLASS`. */
  describe(prefixClass: number): PrefixClass | undefined {
    return this.#classes[prefixClass]
  }

  #step(next: Map<number, number>, key: number, from: number, entry: number, length: number): number {
    const { holds, owner } = this.#states[from]!
    const { ranges, owner: closer } = this.#entries[entry]!
    const more = ranges.filter(({ minLength, maxLength }) => length >= minLength && length <= maxLength)
    const state = this.#stateOf(new Set([...holds, ...more.map(({ condition }) => condition)]), closer ?? owner)
    next.set(key, state)
    return state
  }

  /** States are classes, until there are too many of these. */
  #stateOf(holds: ReadonlySet<number>, owner: number | undefined): number {
    const key = `${[...holds].sort((a, b) => a - b).join()}|${owner ?? ''}`
    const known = this.#classByKey.get(key)
    if (known !== undefined) return known
    const number = this.#states.length
    const isClass = number < MAX_PREFIX_CLASSES
    this.#states.push({ holds, owner, class: isClass ? number : OVERFLOW_CLASS })
    this.#classByKey.set(key, number)
    if (isClass) this.#classes.push({ holds, owner })
    return number
  }
}

/** Prefixes of one length: open addressing over their words, half full at most. Of IPv4 one word is kept, of IPv6 four. */
class LengthTable {
  readonly length: number
  readonly #mask: readonly [number, number, number, number]
  readonly #keys: Int32Array
  /** Entry, or -1 where the slot is free. */
  readonly #entries: Int32Array
  readonly #slotMask: number

  constructor(length: number, family: Family, cidrs: readonly { readonly cidr: Cidr; readonly entry: number }[]) {
    this.length = length
    const maskBits = (from: number) =>
      length <= from ? 0 : length >= from + 32 ? -1 : ~(0xffffffff >>> (length - from))
    this.#mask = family === 4 ? [0, 0, 0, maskBits(0)] : [maskBits(0), maskBits(32), maskBits(64), maskBits(96)]
    let slots = 4
    while (slots < 2 * cidrs.length) slots *= 2
    this.#slotMask = slots - 1
    this.#keys = new Int32Array(family === 4 ? slots : 4 * slots)
    this.#entries = new Int32Array(slots).fill(-1)
    for (const { cidr, entry } of cidrs) this.#insert(cidr, entry)
  }

  #insert({ base, family }: Cidr, entry: number): void {
    const hash = family === 4 ? mix(base.w3) : slotOf(base.w0, base.w1, base.w2, base.w3)
    let slot = hash & this.#slotMask
    while (this.#entries[slot] !== -1) slot = (slot + 1) & this.#slotMask
    this.#entries[slot] = entry
    if (family === 4) this.#keys[slot] = base.w3
    else this.#keys.set([base.w0, base.w1, base.w2, base.w3], 4 * slot)
  }

  /** The entry that an IPv4 prefix's first bits are, or -1. */
  find4(w3: number): number {
    const word = w3 & this.#mask[3]
    for (let slot = mix(word) & this.#slotMask; ; slot = (slot + 1) & this.#slotMask) {
      const entry = this.#entries[slot]!
      if (entry === -1 || this.#keys[slot] === word) return entry
    }
  }

  /** The entry that an IPv6 prefix's first bits are, or -1. */
  find6(w0: number, w1: number, w2: number, w3: number): number {
    const mask = this.#mask
    const a = w0 & mask[0]
    const b = w1 & mask[1]
    const c = w2 & mask[2]
    const d = w3 & mask[3]
    const keys = this.#keys
    for (let slot = slotOf(a, b, c, d) & this.#slotMask; ; slot = (slot + 1) & this.#slotMask) {
      const entry = this.#entries[slot]!
      if (entry === -1) return -1
      const at = 4 * slot
      if (keys[at + 3] === d && keys[at + 2] === c && keys[at + 1] === b && keys[at] === a) return entry
    }
  }
}

const slotOf = (w0: number, w1: number, w2: number, w3: number): number =>
  mix(w3 ^ Math.imul(w2, 0x85ebca6b) ^ Math.imul(w1, 0xc2b2ae35) ^ w0)

/** Mixes so that the low bits differ also where prefixes differ in their high bits alone. */
function mix(word: number): number {
  let hash = Math.imul(word, 0x9e3779b1)
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x2c1b3c6d)
  return hash ^ (hash >>> 13)
}

/** Shorter lengths first. */
function tablesOf(family: Family, cidrs: readonly Cidr[]): readonly LengthTable[] {
  const byLength = new Map<number, { cidr: Cidr; entry: number }[]>()
  for (const [entry, cidr] of cidrs.entries()) {
    const list = byLength.get(cidr.length) ?? []
    list.push({ cidr, entry })
    byLength.set(cidr.length, list)
  }
  return [...byLength].sort(([a], [b]) => a - b).map(([length, list]) => new LengthTable(length, family, list))
}
