/**
 * A prefix (CIDR block): a masked base address and a length in bits.
 * `Cidr.parse` refuses host bits, `Cidr.of` masks them: the caller says which it means.
 *
 * Sources: RFC 4632 section 3.1, RFC 4291 section 2.3.
 */
import { AddressSyntaxError, bitsOf, type Family, Ip } from './ip.ts'

export class Cidr {
  /** The first address of the block. */
  readonly base: Ip
  /** Prefix length in bits. */
  readonly length: number

  private constructor(base: Ip, length: number) {
    this.base = base
    this.length = length
  }

  /** The block of `length` bits that holds `ip`. */
  static of(ip: Ip, length: number): Cidr {
    if (!Number.isInteger(length) || length < 0 || length > bitsOf(ip.family))
      throw new AddressSyntaxError(`Prefix length ${length} is outside 0..${bitsOf(ip.family)}`)
    return new Cidr(ip.masked(length), length)
  }

  /** One address as a block: /32 or /128. */
  static host(ip: Ip): Cidr {
    return new Cidr(ip, bitsOf(ip.family))
  }

  /** 0.0.0.0/0 or ::/0. */
  static all(family: Family): Cidr {
    return new Cidr(Ip.any(family), 0)
  }

  /** Parses `address/length`; throws AddressSyntaxError on host bits, a missing length or bad text. */
  static parse(text: string): Cidr {
    const { ip, length } = parsePrefixed(text)
    const cidr = Cidr.of(ip, length)
    if (!cidr.base.equals(ip))
      throw new AddressSyntaxError(`${JSON.stringify(text)} has host bits set; the block is ${cidr}`)
    return cidr
  }

  static tryParse(text: string): Cidr | undefined {
    try {
      return Cidr.parse(text)
    } catch {
      return undefined
    }
  }

  get family(): Family {
    return this.base.family
  }

  /** The last address of the block (for IPv4 the broadcast address of a subnet). */
  get last(): Ip {
    const hostBits = BigInt(bitsOf(this.family) - this.length)
    return Ip.fromBigInt(this.family, this.base.toBigInt() | ((1n << hostBits) - 1n))
  }

  /** How many addresses the block holds. */
  get size(): bigint {
    return 1n << BigInt(bitsOf(this.family) - this.length)
  }

  contains(ip: Ip): boolean {
    return ip.family === this.family && ip.masked(this.length).equals(this.base)
  }

  /** True when every address of `other` is in this block. */
  covers(other: Cidr): boolean {
    return other.length >= this.length && this.contains(other.base)
  }

  overlaps(other: Cidr): boolean {
    return this.covers(other) || other.covers(this)
  }

  equals(other: Cidr): boolean {
    return this.length === other.length && this.base.equals(other.base)
  }

  /** By base address, shorter prefix first. */
  compare(other: Cidr): number {
    return this.base.compare(other.base) || this.length - other.length
  }

  toString(): string {
    return `${this.base}/${this.length}`
  }

  toJSON(): string {
    return this.toString()
  }
}

/** Sorted, each once, without blocks that another one covers. */
export function disjointCidrs(cidrs: Iterable<Cidr>): Cidr[] {
  const out: Cidr[] = []
  // A block comes right behind those that cover it: by base address, the shorter prefix first.
  for (const cidr of [...cidrs].sort((a, b) => a.compare(b))) if (!out.at(-1)?.covers(cidr)) out.push(cidr)
  return out
}

/** Parses `address/length` and keeps the host bits: an interface address. Throws AddressSyntaxError. */
export function parsePrefixed(text: string): { ip: Ip; length: number } {
  const slash = text.indexOf('/')
  const ip = slash < 0 ? undefined : Ip.tryParse(text.slice(0, slash))
  const lengthText = text.slice(slash + 1)
  const length = Number(lengthText)
  if (!ip || !/^(0|[1-9]\d{0,2})$/.test(lengthText) || length > bitsOf(ip.family))
    throw new AddressSyntaxError(`Not an address with a prefix length: ${JSON.stringify(text)}`)
  return { ip, length }
}
