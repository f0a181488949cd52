/**
 * Attribute sets as small numbers: each distinct set once, however many prefixes carry it, with what the decision reads in
 * columns. Sets are never counted by reference: when many new ones have come, the RIB marks those in use and the others go.
 * Ids begin at 1: 0 means none.
 *
 * Sources: RFC 4271 section 9.1.2.2 (what counts of a path), RFC 5065 section 5.3 (length without confederation segments),
 * RFC 9494 section 4.2 (LLGR_STALE), RFC 2545 section 3 (next hops with a link-local address).
 */
import type { AsPathSegment, Attributes } from '../../wire/bgp/attributes.ts'
import { equalAttributes, hashAttributes } from './attribute-identity.ts'
import type { NextHopTable } from './next-hop-table.ts'
import { grown } from './typed-array.ts'

export const DEFAULT_LOCAL_PREFERENCE = 100
export const LLGR_STALE = 0xffff0006

/** The bit in `leading` of paths that we do not originate. */
export const NOT_OURS = 2 ** 18

const FIRST_CAPACITY = 64
const INCOMPLETE = 2

export class AttributeStore {
  /**
   * What the first steps of the decision look at, in one number; less is better. From the top: long-lived stale, local preference,
   * one bit for the path's origin (0 here), AS path length, origin.
   */
  leading = new Float64Array(FIRST_CAPACITY)
  localPreference = new Uint32Array(FIRST_CAPACITY)
  asPathLength = new Uint16Array(FIRST_CAPACITY)
  origin = new Uint8Array(FIRST_CAPACITY)
  med = new Uint32Array(FIRST_CAPACITY)
  /** Leftmost AS outside of confederation segments; 0: ours. */
  neighborAs = new Uint32Array(FIRST_CAPACITY)
  /** Id in the next-hop table. */
  nextHop = new Int32Array(FIRST_CAPACITY)
  /** Sets with one number here have equal AS paths. */
  asPath = new Int32Array(FIRST_CAPACITY)
  /** 0: none. */
  originatorId = new Uint32Array(FIRST_CAPACITY)
  clusterListLength = new Uint16Array(FIRST_CAPACITY)
  /** 1: has the community LLGR_STALE. */
  longLivedStale = new Uint8Array(FIRST_CAPACITY)
  /** Ids are below this. */
  end = 1
  /** How many sets were added since the last sweep. */
  added = 0
  readonly #nextHops: NextHopTable
  readonly #objects: (Attributes | undefined)[] = [undefined]
  readonly #devices: (string | undefined)[] = [undefined]
  #hashes = new Int32Array(FIRST_CAPACITY)
  #slots = new Int32Array(FIRST_CAPACITY * 2)
  #live = 0
  readonly #free: number[] = []
  #known = new WeakMap<Attributes, number>()
  #asPaths = new Map<string, number>()
  #nextAsPath = 1

  constructor(nextHops: NextHopTable) {
    this.#nextHops = nextHops
  }

  get size(): number {
    return this.#live
  }

  get(id: number): Attributes {
    return this.#objects[id]!
  }

  /**
   * The id of a set. The same object is found at once, an equal one by its contents. `device`: where its next hop is meant
   * to be, when that is a link-local address.
   */
  intern(attributes: Attributes, device?: string): number {
    if (device === undefined) {
      const known = this.#known.get(attributes)
      if (known !== undefined) return known
    }
    const hash = hashAttributes(attributes)
    const mask = this.#slots.length - 1
    let slot = hash & mask
    for (let id = this.#slots[slot]!; id !== 0; id = this.#slots[slot]!) {
      if (
        this.#hashes[id] === hash &&
        this.#devices[id] === device &&
        equalAttributes(this.#objects[id]!, attributes)
      ) {
        if (device === undefined) this.#known.set(attributes, id)
        return id
      }
      slot = (slot + 1) & mask
    }
    const id = this.#add(attributes, device, hash)
    this.#slots[slot] = id
    if (device === undefined) this.#known.set(attributes, id)
    if (++this.#live * 2 > this.#slots.length) this.#rehash(this.#slots.length * 2)
    return id
  }

  /** Forgets every set whose mark is 0, and next hops that no set has; ids are given again afterwards. */
  sweep(marks: Uint8Array): void {
    for (let id = 1; id < this.end; id++) {
      if (marks[id] !== 0 || this.#objects[id] === undefined) continue
      this.#objects[id] = undefined
      this.#devices[id] = undefined
      this.#free.push(id)
      this.#live--
    }
    this.#known = new WeakMap()
    this.added = 0
    this.#rehash(this.#slots.length)
    this.#renumberAsPaths()
    const used = new Set<number>()
    for (let id = 1; id < this.end; id++) if (this.#objects[id] !== undefined) used.add(this.nextHop[id]!)
    this.#nextHops.sweep(used)
  }

  #add(attributes: Attributes, device: string | undefined, hash: number): number {
    const id = this.#free.pop() ?? this.end++
    this.added++
    if (id >= this.origin.length) this.#grow(id + 1)
    this.#objects[id] = attributes
    this.#devices[id] = device
    this.#hashes[id] = hash
    const { asPath = [], nextHop, communities, med } = attributes
    this.localPreference[id] = attributes.localPreference ?? DEFAULT_LOCAL_PREFERENCE
    this.asPathLength[id] = asPathLength(asPath)
    this.origin[id] = attributes.origin ?? INCOMPLETE
    this.med[id] = med ?? 0
    this.neighborAs[id] = neighborAs(asPath)
    this.originatorId[id] = attributes.originatorId ?? 0
    this.clusterListLength[id] = attributes.clusterList?.length ?? 0
    this.longLivedStale[id] = communities?.includes(LLGR_STALE) ? 1 : 0
    this.asPath[id] = this.#internAsPath(asPath)
    this.leading[id] =
      (this.longLivedStale[id]! * 2 ** 32 + (0xffffffff - this.localPreference[id]!)) * NOT_OURS * 2 +
      this.asPathLength[id]! * 4 +
      this.origin[id]!
    const meant = device !== undefined && nextHop?.linkLocal ? nextHop.linkLocal : nextHop?.address
    this.nextHop[id] = meant ? this.#nextHops.intern(meant, device) : 0
    return id
  }

  #internAsPath(asPath: readonly AsPathSegment[]): number {
    const key = formatKey(asPath)
    let id = this.#asPaths.get(key)
    if (id === undefined) {
      id = this.#nextAsPath++
      this.#asPaths.set(key, id)
    }
    return id
  }

  #renumberAsPaths(): void {
    this.#asPaths = new Map()
    this.#nextAsPath = 1
    for (let id = 1; id < this.end; id++) {
      const attributes = this.#objects[id]
      if (attributes) this.asPath[id] = this.#internAsPath(attributes.asPath ?? [])
    }
  }

  #rehash(length: number): void {
    const slots = new Int32Array(length)
    const mask = length - 1
    for (let id = 1; id < this.end; id++) {
      if (this.#objects[id] === undefined) continue
      let slot = this.#hashes[id]! & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = id
    }
    this.#slots = slots
  }

  #grow(length: number): void {
    this.leading = grown(this.leading, length)
    this.localPreference = grown(this.localPreference, length)
    this.asPathLength = grown(this.asPathLength, length)
    this.origin = grown(this.origin, length)
    this.med = grown(this.med, length)
    this.neighborAs = grown(this.neighborAs, length)
    this.nextHop = grown(this.nextHop, length)
    this.asPath = grown(this.asPath, length)
    this.originatorId = grown(this.originatorId, length)
    this.clusterListLength = grown(this.clusterListLength, length)
    this.longLivedStale = grown(this.longLivedStale, length)
    this.#hashes = grown(this.#hashes, length)
  }
}

/** A set counts as one, confederation segments as nothing. */
export function asPathLength(asPath: readonly AsPathSegment[]): number {
  let length = 0
  for (const { kind, asns } of asPath) length += kind === 'sequence' ? asns.length : kind === 'set' ? 1 : 0
  return length
}

/** 0 where the path begins within our AS or confederation, or with a set. */
function neighborAs(asPath: readonly AsPathSegment[]): number {
  const first = asPath.find(({ kind }) => kind === 'sequence' || kind === 'set')
  return first?.kind === 'sequence' ? first.asns[0]! : 0
}

const formatKey = (asPath: readonly AsPathSegment[]): string =>
  asPath.map(({ kind, asns }) => `${kind[0]}${kind.length}:${asns.join(' ')}`).join('|')
