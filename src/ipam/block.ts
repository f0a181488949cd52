/**
 * One block of addresses as arithmetic: who has which, which is next, what a release leaves behind. Nothing here knows of stores,
 * clocks or other blocks; a draft takes one block, is changed in memory, and becomes the block to write.
 *
 *   unallocated (longest free first) ──take──► allocations[ordinal] = attribute ──release──► releasedAt ──cooldown over──► unallocated, at the end
 *
 * Objects are strangers' work. Where the tables of a block contradict each other an address counts as in use: it is given
 * only when it is in `unallocated` once or more, is null in `allocations`, and lies inside the block.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam_block.go, lib/backend/model/block.go, design/ipam/ipam-core-library.md: the order of
 * `unallocated`, sequence numbers (an allocation bears the number before its write), release marks, the block's life.
 */
import type { BlockAttribute, BlockOwner, IpamBlock } from '../model/calico.ts'
import type { Cidr } from '../net/cidr.ts'
import { bitsOf, type Ip } from '../net/ip.ts'

/** How many addresses a block has; blocks are /20../32 and /116../128. */
export const addressesIn = (cidr: Cidr): number => 2 ** (bitsOf(cidr.family) - cidr.length)

export const addressAt = (cidr: Cidr, ordinal: number): Ip => cidr.base.plus(ordinal)

/** The address's place in the block; undefined when it is not in it. */
export const ordinalOf = (cidr: Cidr, ip: Ip): number | undefined =>
  cidr.contains(ip) ? (ip.w3 - cidr.base.w3) >>> 0 : undefined

/** `host:<node>` or `virtual:<name>`. */
export const formatOwner = ({ type, name }: BlockOwner): string => `${type}:${name}`

export const sameOwner = (a: BlockOwner | undefined, b: BlockOwner | undefined): boolean =>
  a?.type === b?.type && a?.name === b?.name

/** Calico wrote handles with a line break and more after it once; what is before it counts. */
export const plainHandle = (handleId: string): string => handleId.split('\r', 1)[0]!

export interface NewBlock {
  readonly cidr: Cidr
  readonly owner: BlockOwner
  /** ISO 8601. */
  readonly at: string
  /** Greater than that of any earlier block of the same addresses. */
  readonly sequenceNumber: bigint
}

/** A block all of whose addresses are free, in order. */
export function newBlock({ cidr, owner, at, sequenceNumber }: NewBlock): IpamBlock {
  const size = addressesIn(cidr)
  return {
    cidr,
    owner,
    ownedSince: at,
    allocations: new Array<null>(size).fill(null),
    unallocated: Array.from({ length: size }, (_, ordinal) => ordinal),
    attributes: [],
    sequenceNumber,
    sequenceNumberForAllocation: {},
    deleted: false,
    // Nobody reads it any more: the settings say whether addresses are borrowed.
    strictAffinity: false,
  }
}

/** One address that is not free. */
export interface Allocation {
  readonly ordinal: number
  readonly ip: Ip
  /** Undefined when the block names no attribute that exists. */
  readonly attribute: BlockAttribute | undefined
  readonly handleId: string | undefined
  readonly sequenceNumber: bigint | undefined
}

/** Every address of the block that is given or cooling down, in order. */
export function* allocationsOf(block: IpamBlock): Generator<Allocation> {
  const size = addressesIn(block.cidr)
  for (let ordinal = 0; ordinal < size; ordinal++) {
    const index = block.allocations[ordinal]
    if (index === null || index === undefined) continue
    const attribute = block.attributes[index]
    yield {
      ordinal,
      ip: addressAt(block.cidr, ordinal),
      attribute,
      handleId: attribute?.handleId === undefined ? undefined : plainHandle(attribute.handleId),
      sequenceNumber: block.sequenceNumberForAllocation[ordinal],
    }
  }
}

/** Given out, and not released since. */
export const isInUse = ({ attribute }: Allocation): boolean => attribute?.releasedAt === undefined

/** No address is in use or cools down. A block whose tables are damaged is never empty. */
export const isEmpty = (block: IpamBlock): boolean =>
  block.allocations.length === addressesIn(block.cidr) && block.allocations.every((index) => index === null)

/** Contradictions in the block's tables, in words; none for a sound block. */
export function findDamage(block: IpamBlock): string[] {
  const size = addressesIn(block.cidr)
  const { allocations, unallocated, attributes } = block
  const found: string[] = []
  if (allocations.length !== size) found.push(`allocations has ${allocations.length} entries, not ${size}`)
  const free = new Set<number>()
  for (const ordinal of unallocated) {
    if (!Number.isInteger(ordinal) || ordinal < 0 || ordinal >= size)
      found.push(`unallocated names ordinal ${ordinal}, which is not in the block`)
    else if (free.has(ordinal)) found.push(`unallocated names ordinal ${ordinal} twice`)
    else if ((allocations[ordinal] ?? null) !== null) found.push(`ordinal ${ordinal} is allocated and unallocated`)
    free.add(ordinal)
  }
  for (let ordinal = 0; ordinal < Math.min(size, allocations.length); ordinal++) {
    const index = allocations[ordinal]
    if (index === null || index === undefined) {
      if (!free.has(ordinal)) found.push(`ordinal ${ordinal} is neither allocated nor unallocated`)
    } else if (!attributes[index]) found.push(`ordinal ${ordinal} has attribute ${index}, which does not exist`)
  }
  const used = new Set(allocations)
  attributes.forEach((_, index) => {
    if (!used.has(index)) found.push(`attribute ${index} is nobody's`)
  })
  return found
}

/** Times as the block's cooldown is judged by. */
export interface Cooldown {
  readonly nowMilliseconds: number
  readonly seconds: number
}

/** A second is as fine as stores keep it. */
const formatSecond = (milliseconds: number): string => `${new Date(milliseconds).toISOString().slice(0, 19)}Z`

/** True when more than `taken` ordinals are free, or have cooled down, and are not refused. */
export function hasSpace(
  block: IpamBlock,
  cooldown: Cooldown,
  taken: number,
  refuse: (ordinal: number) => boolean,
): boolean {
  const size = addressesIn(block.cidr)
  const { allocations } = block
  let free = 0
  for (const ordinal of block.unallocated)
    if (ordinal < size && allocations[ordinal] === null && !refuse(ordinal) && ++free > taken) return true
  const cooled = block.attributes.map(
    ({ releasedAt }) =>
      releasedAt !== undefined && hasCooled(cooldown.nowMilliseconds - Date.parse(releasedAt), cooldown),
  )
  if (!cooled.includes(true)) return false
  return allocations.some((index, ordinal) => index !== null && cooled[index] && !refuse(ordinal) && ++free > taken)
}

/** The mark of a release has lost its fraction of a second. */
const hasCooled = (ageMilliseconds: number, { seconds }: Cooldown): boolean =>
  seconds === 0 || ageMilliseconds >= (seconds + 1) * 1000

/** A block being changed. Not to be used after `finish`. */
export class BlockDraft {
  readonly #from: IpamBlock
  readonly #allocations: (number | null)[]
  #unallocated: number[]
  #attributes: BlockAttribute[]
  readonly #numbers: Record<string, bigint>
  #owner: Pick<IpamBlock, 'owner' | 'ownedSince'>
  #changes = 0

  constructor(from: IpamBlock) {
    this.#from = from
    this.#allocations = [...from.allocations]
    this.#unallocated = [...from.unallocated]
    this.#attributes = [...from.attributes]
    this.#numbers = { ...from.sequenceNumberForAllocation }
    this.#owner = {
      ...(from.owner ? { owner: from.owner } : {}),
      ...(from.ownedSince === undefined ? {} : { ownedSince: from.ownedSince }),
    }
  }

  get cidr(): Cidr {
    return this.#from.cidr
  }

  get owner(): BlockOwner | undefined {
    return this.#owner.owner
  }

  /** The number that addresses given in this draft bear. */
  get sequenceNumber(): bigint {
    return this.#from.sequenceNumber
  }

  /** Rises with every change. */
  get changes(): number {
    return this.#changes
  }

  isFree(ordinal: number): boolean {
    return this.#allocations[ordinal] === null && this.#unallocated.includes(ordinal)
  }

  /** The ordinal that has been free the longest, and is not refused. Undefined when there is none. */
  nextFree(refuse: (ordinal: number) => boolean): number | undefined {
    const size = addressesIn(this.cidr)
    return this.#unallocated.find(
      (ordinal) => ordinal < size && this.#allocations[ordinal] === null && !refuse(ordinal),
    )
  }

  /** How many ordinals are free, and not refused. */
  countFree(refuse: (ordinal: number) => boolean): number {
    return this.#unallocated.filter((ordinal) => this.#allocations[ordinal] === null && !refuse(ordinal)).length
  }

  /** Who has the ordinal now, if anybody has. */
  attributeOf(ordinal: number): BlockAttribute | undefined {
    const index = this.#allocations[ordinal]
    return index === null || index === undefined ? undefined : this.#attributes[index]
  }

  /** The number that the ordinal was given with. */
  numberOf(ordinal: number): bigint | undefined {
    return this.#numbers[ordinal]
  }

  /** Ordinals in use under a handle. */
  ordinalsOf(handleId: string): number[] {
    const wanted = plainHandle(handleId)
    const indexes = new Set<number | null>()
    this.#attributes.forEach((each, index) => {
      if (each.handleId !== undefined && each.releasedAt === undefined && plainHandle(each.handleId) === wanted)
        indexes.add(index)
    })
    if (indexes.size === 0) return []
    return this.#allocations.flatMap((index, ordinal) => (index !== null && indexes.has(index) ? [ordinal] : []))
  }

  /** Gives a free ordinal to a handle. */
  take(ordinal: number, handleId: string, secondary: Readonly<Record<string, string>>): void {
    this.#allocations[ordinal] = this.#attributeFor({ handleId, secondary })
    this.#unallocated = this.#unallocated.filter((each) => each !== ordinal)
    this.#numbers[ordinal] = this.sequenceNumber
    this.#changes++
  }

  /** Passes an ordinal that is not free on to a handle; it begins another life. */
  pass(ordinal: number, handleId: string, secondary: Readonly<Record<string, string>>): void {
    this.#allocations[ordinal] = this.#attributeFor({ handleId, secondary })
    this.#numbers[ordinal] = this.sequenceNumber
    this.#changes++
  }

  /** Frees ordinals that nobody has used: there is nothing to cool down. */
  vacate(ordinals: readonly number[]): void {
    if (ordinals.length > 0) this.#free(ordinals)
  }

  /** Takes ordinals from whoever has them; they are given again after the cooldown. Ordinals that are free or cool down stay so. */
  release(ordinals: readonly number[], cooldown: Cooldown): void {
    const held = ordinals.filter((ordinal) => {
      const index = this.#allocations[ordinal]
      return index !== null && index !== undefined && this.#attributes[index]?.releasedAt === undefined
    })
    if (held.length === 0) return
    const index = this.#attributes.push({ secondary: {}, releasedAt: formatSecond(cooldown.nowMilliseconds) }) - 1
    for (const ordinal of held) {
      this.#allocations[ordinal] = index
      this.#numbers[ordinal] = this.sequenceNumber
    }
    this.#changes++
    if (cooldown.seconds === 0) this.#free(held)
  }

  /**
   * Frees what has cooled down. A release that lies in the future, because a clock was wrong, counts from now.
   */
  settle(cooldown: Cooldown): void {
    const { nowMilliseconds } = cooldown
    const over: number[] = []
    this.#allocations.forEach((index, ordinal) => {
      if (index === null) return
      const releasedAt = this.#attributes[index]?.releasedAt
      if (releasedAt === undefined) return
      const age = nowMilliseconds - Date.parse(releasedAt)
      if (!(age >= 0)) {
        this.#attributes[index] = { secondary: {}, releasedAt: formatSecond(nowMilliseconds) }
        this.#changes++
      }
      if (hasCooled(age, cooldown)) over.push(ordinal)
    })
    if (over.length > 0) this.#free(over)
  }

  /** The block is somebody's, or nobody's, from now on. */
  setOwner(owner: BlockOwner | undefined, at: string): void {
    this.#owner = owner ? { owner, ownedSince: at } : {}
    this.#changes++
  }

  /** Changes nothing but the sequence number: what others write on the block as it was is refused. */
  touch(): void {
    this.#changes++
  }

  /** The block to write; the very one it was made from when nothing changed. */
  finish(): IpamBlock {
    if (this.#changes === 0) return this.#from
    this.#prune()
    const { owner: _owner, ownedSince: _ownedSince, ...rest } = this.#from
    return {
      ...rest,
      ...this.#owner,
      allocations: this.#allocations,
      unallocated: this.#unallocated,
      attributes: this.#attributes,
      sequenceNumber: this.#from.sequenceNumber + 1n,
      sequenceNumberForAllocation: this.#numbers,
    }
  }

  #free(ordinals: readonly number[]): void {
    for (const ordinal of ordinals) {
      this.#allocations[ordinal] = null
      delete this.#numbers[ordinal]
      if (!this.#unallocated.includes(ordinal)) this.#unallocated.push(ordinal)
    }
    this.#changes++
  }

  #attributeFor(wanted: { readonly handleId: string; readonly secondary: Readonly<Record<string, string>> }): number {
    const found = this.#attributes.findIndex(
      ({ handleId, secondary, releasedAt, further }) =>
        handleId === wanted.handleId &&
        releasedAt === undefined &&
        further === undefined &&
        sameRecord(secondary, wanted.secondary),
    )
    return found >= 0 ? found : this.#attributes.push(wanted) - 1
  }

  /** Leaves out attributes that nobody has. In a damaged block indexes mean something else after that, so nothing is left out. */
  #prune(): void {
    const used = new Set(this.#allocations)
    for (const index of used) if (index !== null && !this.#attributes[index]) return
    if (this.#attributes.every((_, index) => used.has(index))) return
    const moved = new Map<number, number>()
    this.#attributes.forEach((_, index) => {
      if (used.has(index)) moved.set(index, moved.size)
    })
    this.#attributes = this.#attributes.filter((_, index) => moved.has(index))
    this.#allocations.forEach((index, ordinal) => {
      if (index !== null) this.#allocations[ordinal] = moved.get(index)!
    })
  }
}

function sameRecord(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key])
}
