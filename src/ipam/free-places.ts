/**
 * A block of another node, as far as it concerns this one: whose it is, since when, and which of its places are free. A cluster
 * has thousands of them for each that a node has itself, and the tables of a block are most of what an agent would hold: of
 * these a bit for each address is left. Whoever writes to such a block reads it first.
 */
import type { BlockOwner, IpamBlock } from '../model/calico.ts'
import type { Cidr } from '../net/cidr.ts'

const none: readonly never[] = []
const noNumbers = {}

export class FreePlaces implements IpamBlock {
  readonly cidr: Cidr
  readonly owner?: BlockOwner
  readonly ownedSince?: string
  readonly sequenceNumber: bigint
  readonly strictAffinity: boolean
  readonly deleted: boolean
  /** A bit for each ordinal, set where it is free. */
  readonly #free: bigint
  readonly #size: number

  constructor({ cidr, owner, ownedSince, sequenceNumber, strictAffinity, deleted, allocations }: IpamBlock) {
    this.cidr = cidr
    if (owner) this.owner = owner
    if (ownedSince !== undefined) this.ownedSince = ownedSince
    this.sequenceNumber = sequenceNumber
    this.strictAffinity = strictAffinity
    this.deleted = deleted
    this.#size = allocations.length
    let bits = ''
    for (const index of allocations) bits = `${index === null ? 1 : 0}${bits}`
    this.#free = BigInt(`0b0${bits}`)
  }

  /** Whose an address is, is not known: every one in use names an attribute that is not there. */
  get allocations(): readonly (number | null)[] {
    const bits = this.#free.toString(2).padStart(this.#size, '0')
    return Array.from({ length: this.#size }, (_, ordinal) => (bits[this.#size - 1 - ordinal] === '1' ? null : 0))
  }

  /** In order, whatever order they are to be given in. */
  get unallocated(): readonly number[] {
    return this.allocations.flatMap((index, ordinal) => (index === null ? [ordinal] : []))
  }

  get attributes(): readonly never[] {
    return none
  }

  get sequenceNumberForAllocation(): Readonly<Record<string, never>> {
    return noNumbers
  }
}
