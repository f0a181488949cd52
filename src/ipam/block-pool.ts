/**
 * A network cut into blocks of one length, as nodes get them: who occupies which, and which free one is next.
 *
 * A block is never given again at once: every search starts after the last one given and walks on, around the end. What
 * occupies need not be one of the pool's own blocks: a smaller prefix or an address spoils the block that it lies in, a
 * larger one all blocks under it. Only what is occupied is kept, so that an IPv6 network costs no more than an IPv4 one; a
 * walk ends after at most as many steps as there are occupants.
 *
 * Sources: Kubernetes documentation, kube-controller-manager (--cluster-cidr, --node-cidr-mask-size-ipv4).
 */
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, type Ip } from '../net/ip.ts'

/** First and last block, both included, by distance from the network's beginning. */
interface Span {
  readonly first: bigint
  readonly last: bigint
}

export class BlockPool {
  readonly network: Cidr
  /** Prefix length of every block. */
  readonly length: number
  readonly #bounds: Span
  /** Owners of single blocks, and of spans of several. */
  readonly #single = new Map<bigint, Set<string>>()
  readonly #wide = new Map<string, Span[]>()
  readonly #held = new Map<string, readonly Cidr[]>()
  #next: bigint

  /** `length` is between the network's and the family's; blocks that begin before `min` or after `max` are not given. */
  constructor(network: Cidr, length: number, { min, max }: { readonly min?: Ip; readonly max?: Ip } = {}) {
    this.network = network
    this.length = length
    const last = (1n << BigInt(length - network.length)) - 1n
    this.#bounds = {
      first: min && network.contains(min) ? this.#roundUp(min) : 0n,
      last: max && network.contains(max) ? this.#indexOf(max) : last,
    }
    this.#next = this.#bounds.first
  }

  get family(): Family {
    return this.network.family
  }

  /** How many blocks may be given at most. */
  get total(): bigint {
    const { first, last } = this.#bounds
    return last >= first ? last - first + 1n : 0n
  }

  /** How many of them somebody occupies. */
  get occupied(): bigint {
    let count = 0n
    const wide = this.#wideSpans()
    for (const span of wide) count += this.#sizeWithin(span)
    for (const index of this.#single.keys())
      if (this.#isGiven(index) && !wide.some(({ first, last }) => first <= index && index <= last)) count++
    return count
  }

  /** What an owner occupies from now on, in place of what it occupied before. Prefixes outside the network do not count. */
  occupy(owner: string, prefixes: readonly Cidr[]): void {
    this.vacate(owner)
    const inside = prefixes.filter((each) => each.overlaps(this.network))
    if (inside.length === 0) return
    this.#held.set(owner, inside)
    for (const prefix of inside) {
      const span = this.#spanOf(prefix)
      if (span.first === span.last) this.#ownersAt(span.first).add(owner)
      else this.#wide.set(owner, [...(this.#wide.get(owner) ?? []), span])
    }
  }

  /** The owner occupies nothing any more. */
  vacate(owner: string): void {
    for (const prefix of this.#held.get(owner) ?? []) {
      const { first } = this.#spanOf(prefix)
      const owners = this.#single.get(first)
      owners?.delete(owner)
      if (owners?.size === 0) this.#single.delete(first)
    }
    this.#wide.delete(owner)
    this.#held.delete(owner)
  }

  /** Others whose prefixes overlap one of this owner's. */
  rivalsOf(owner: string): string[] {
    const own = this.#held.get(owner) ?? []
    const rivals = new Set<string>()
    for (const prefix of own) {
      const { first, last } = this.#spanOf(prefix)
      if (first === last) for (const other of this.#single.get(first) ?? []) rivals.add(other)
      else for (const other of this.#held.keys()) rivals.add(other)
    }
    for (const other of this.#wide.keys()) rivals.add(other)
    rivals.delete(owner)
    return [...rivals].filter((other) => this.#held.get(other)!.some((one) => own.some((each) => each.overlaps(one))))
  }

  /** The next free block after the last one given; it is taken once somebody occupies it. Undefined when all are occupied. */
  next(): Cidr | undefined {
    const { first, last } = this.#bounds
    const wide = this.#wideSpans()
    const found = this.#firstFree(this.#next, last, wide) ?? this.#firstFree(first, this.#next - 1n, wide)
    return found === undefined ? undefined : this.#blockAt(found)
  }

  /** The next search starts after this block; one that is not of the pool changes nothing. */
  rotateAfter(block: Cidr): void {
    if (!this.network.covers(block) || block.length < this.length) return
    const next = this.#indexOf(block.base) + 1n
    this.#next = next > this.#bounds.last || next < this.#bounds.first ? this.#bounds.first : next
  }

  /** True when the prefix is one of the blocks that this pool gives. */
  gives(block: Cidr): boolean {
    return block.length === this.length && this.network.covers(block) && this.#isGiven(this.#indexOf(block.base))
  }

  #firstFree(from: bigint, to: bigint, wide: readonly Span[]): bigint | undefined {
    let at = from
    while (at <= to) {
      const over = wide.find(({ first, last }) => first <= at && at <= last)
      if (over) at = over.last + 1n
      else if (this.#single.has(at)) at++
      else return at
    }
    return undefined
  }

  #isGiven(index: bigint): boolean {
    return this.#bounds.first <= index && index <= this.#bounds.last
  }

  #sizeWithin(span: Span): bigint {
    if (span.last < this.#bounds.first || span.first > this.#bounds.last) return 0n
    const first = this.#isGiven(span.first) ? span.first : this.#bounds.first
    const last = this.#isGiven(span.last) ? span.last : this.#bounds.last
    return last - first + 1n
  }

  /** Wide spans, in order, those that touch joined. */
  #wideSpans(): Span[] {
    const all = [...this.#wide.values()].flat().sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
    const joined: Span[] = []
    for (const span of all) {
      const before = joined.at(-1)
      if (!before || span.first > before.last + 1n) joined.push(span)
      else if (span.last > before.last) joined[joined.length - 1] = { first: before.first, last: span.last }
    }
    return joined
  }

  #ownersAt(index: bigint): Set<string> {
    let owners = this.#single.get(index)
    if (!owners) {
      owners = new Set()
      this.#single.set(index, owners)
    }
    return owners
  }

  #shift(): bigint {
    return BigInt(bitsOf(this.family) - this.length)
  }

  #indexOf(ip: Ip): bigint {
    return (ip.toBigInt() - this.network.base.toBigInt()) >> this.#shift()
  }

  #roundUp(ip: Ip): bigint {
    const index = this.#indexOf(ip)
    return this.#blockAt(index).base.equals(ip) ? index : index + 1n
  }

  #blockAt(index: bigint): Cidr {
    return Cidr.of(this.network.base.plus(index << this.#shift()), this.length)
  }

  #spanOf(prefix: Cidr): Span {
    if (prefix.covers(this.network)) return { first: 0n, last: (1n << BigInt(this.length - this.network.length)) - 1n }
    return { first: this.#indexOf(prefix.base), last: this.#indexOf(prefix.last) }
  }
}
