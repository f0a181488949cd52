/**
 * An IP address as a value. The family is part of the value, never part of a variable's name.
 * Four unsigned 32-bit words hold either family; IPv4 uses the last word alone, so that arithmetic
 * and comparison are the same code for both.
 *
 * Sources: RFC 4291 section 2.2 (text forms), RFC 5952 (canonical IPv6 text), RFC 4291 section 2.5.5.2 (mapped form).
 */
export type Family = 4 | 6

/** Address width in bits: 32 or 128. */
export const bitsOf = (family: Family): number => (family === 4 ? 32 : 128)

/** Thrown by every text parser of this room; the message quotes the offending text. */
export class AddressSyntaxError extends Error {
  override readonly name = 'AddressSyntaxError'
}

export class Ip {
  readonly family: Family
  /** Words, most significant first, each an unsigned 32-bit integer. For IPv4 the first three are zero. */
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number

  constructor(family: Family, w0: number, w1: number, w2: number, w3: number) {
    this.family = family
    this.w0 = w0 >>> 0
    this.w1 = w1 >>> 0
    this.w2 = w2 >>> 0
    this.w3 = w3 >>> 0
  }

  static v4(word: number): Ip {
    return new Ip(4, 0, 0, 0, word)
  }

  /** The all-zero address of a family. */
  static any(family: Family): Ip {
    return new Ip(family, 0, 0, 0, 0)
  }

  /** Parses either family. Throws AddressSyntaxError on anything but a plain address (no prefix, no zone, no octal). */
  static parse(text: string): Ip {
    const ip = Ip.tryParse(text)
    if (!ip) throw new AddressSyntaxError(`Not an IP address: ${JSON.stringify(text)}`)
    return ip
  }

  static tryParse(text: string): Ip | undefined {
    return text.includes(':') ? parseV6(text) : parseV4(text)
  }

  /** Four or sixteen bytes, network byte order. */
  static fromBytes(bytes: Uint8Array): Ip {
    if (bytes.length === 4) return Ip.v4(wordAt(bytes, 0))
    if (bytes.length === 16) return new Ip(6, wordAt(bytes, 0), wordAt(bytes, 4), wordAt(bytes, 8), wordAt(bytes, 12))
    throw new AddressSyntaxError(`An IP address has 4 or 16 bytes, not ${bytes.length}`)
  }

  /** A new array of four or sixteen bytes, network byte order. */
  toBytes(): Uint8Array {
    const out = new Uint8Array(this.family === 4 ? 4 : 16)
    this.writeTo(out, 0)
    return out
  }

  /** Writes four or sixteen bytes in network byte order at an offset and returns the count written. */
  writeTo(out: Uint8Array, offset: number): number {
    if (this.family === 4) {
      putWord(out, offset, this.w3)
      return 4
    }
    putWord(out, offset, this.w0)
    putWord(out, offset + 4, this.w1)
    putWord(out, offset + 8, this.w2)
    putWord(out, offset + 12, this.w3)
    return 16
  }

  equals(other: Ip): boolean {
    return (
      this.family === other.family &&
      this.w3 === other.w3 &&
      this.w2 === other.w2 &&
      this.w1 === other.w1 &&
      this.w0 === other.w0
    )
  }

  /** Numeric order; IPv4 sorts before IPv6. */
  compare(other: Ip): number {
    return (
      this.family - other.family || this.w0 - other.w0 || this.w1 - other.w1 || this.w2 - other.w2 || this.w3 - other.w3
    )
  }

  /** The address as an unsigned integer. */
  toBigInt(): bigint {
    return (BigInt(this.w0) << 96n) | (BigInt(this.w1) << 64n) | (BigInt(this.w2) << 32n) | BigInt(this.w3)
  }

  static fromBigInt(family: Family, value: bigint): Ip {
    if (value < 0n || value >> BigInt(bitsOf(family)) !== 0n)
      throw new AddressSyntaxError(`${value} does not fit an IPv${family} address`)
    const word = (shift: bigint) => Number((value >> shift) & 0xffffffffn)
    return new Ip(family, word(96n), word(64n), word(32n), word(0n))
  }

  /** The address `count` further on (or back, when negative). Throws AddressSyntaxError when it leaves the family's range. */
  plus(count: number | bigint): Ip {
    if (typeof count === 'number' && count >= 0 && this.w3 + count <= 0xffffffff)
      return new Ip(this.family, this.w0, this.w1, this.w2, this.w3 + count)
    return Ip.fromBigInt(this.family, this.toBigInt() + BigInt(count))
  }

  /** The address with every bit after the first `length` cleared. */
  masked(length: number): Ip {
    if (this.family === 4) return Ip.v4(this.w3 & wordMask(length))
    return new Ip(
      6,
      this.w0 & wordMask(length),
      this.w1 & wordMask(length - 32),
      this.w2 & wordMask(length - 64),
      this.w3 & wordMask(length - 96),
    )
  }

  get isAny(): boolean {
    return (this.w0 | this.w1 | this.w2 | this.w3) === 0
  }

  get isLoopback(): boolean {
    return this.family === 4 ? this.w3 >>> 24 === 127 : this.w0 === 0 && this.w1 === 0 && this.w2 === 0 && this.w3 === 1
  }

  get isLinkLocal(): boolean {
    return this.family === 4 ? this.w3 >>> 16 === 0xa9fe : this.w0 >>> 22 === 0xfe80 >>> 6
  }

  get isMulticast(): boolean {
    return this.family === 4 ? this.w3 >>> 28 === 14 : this.w0 >>> 24 === 0xff
  }

  /** Canonical text; IPv6 as RFC 5952 says (lower case, longest zero run compressed, first one on a tie). */
  toString(): string {
    return this.family === 4 ? formatV4(this.w3) : formatV6([this.w0, this.w1, this.w2, this.w3])
  }

  toJSON(): string {
    return this.toString()
  }
}

const wordMask = (length: number): number => (length <= 0 ? 0 : length >= 32 ? 0xffffffff : ~(0xffffffff >>> length))

const wordAt = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

function putWord(out: Uint8Array, at: number, word: number): void {
  out[at] = word >>> 24
  out[at + 1] = word >>> 16
  out[at + 2] = word >>> 8
  out[at + 3] = word
}

const formatV4 = (word: number): string => `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`

function formatV6(words: readonly number[]): string {
  if (words[0] === 0 && words[1] === 0 && words[2] === 0xffff) return `::ffff:${formatV4(words[3]!)}`
  const groups = words.flatMap((word) => [word >>> 16, word & 0xffff])
  let bestStart = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && groups[end] === 0) end++
    if (end - i > bestLength) {
      bestStart = i
      bestLength = end - i
    }
    i = Math.max(i, end)
  }
  const text = (part: readonly number[]) => part.map((group) => group.toString(16)).join(':')
  if (bestStart < 0) return text(groups)
  return `${text(groups.slice(0, bestStart))}::${text(groups.slice(bestStart + bestLength))}`
}

function parseV4(text: string): Ip | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  let word = 0
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part)) return undefined
    const octet = Number(part)
    if (octet > 255) return undefined
    word = word * 256 + octet
  }
  return Ip.v4(word)
}

function parseV6(text: string): Ip | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const head = groupsOf(halves[0]!, halves.length === 1)
  const tail = halves.length === 2 ? groupsOf(halves[1]!, true) : []
  if (!head || !tail) return undefined
  const missing = 8 - head.length - tail.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  const all = [...head, ...new Array<number>(Math.max(missing, 0)).fill(0), ...tail]
  const word = (i: number) => all[i]! * 65536 + all[i + 1]!
  return new Ip(6, word(0), word(2), word(4), word(6))
}

function groupsOf(text: string, mayEndInV4: boolean): number[] | undefined {
  if (text === '') return []
  const out: number[] = []
  const parts = text.split(':')
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      out.push(Number.parseInt(part, 16))
    } else if (mayEndInV4 && i === parts.length - 1) {
      const v4 = parseV4(part)
      if (!v4) return undefined
      out.push(v4.w3 >>> 16, v4.w3 & 0xffff)
    } else {
      return undefined
    }
  }
  return out
}
