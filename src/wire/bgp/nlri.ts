/**
 * Prefixes as they stand in an UPDATE, read into flat runs of integers: no object per prefix. A run has a fixed stride per
 * address family, whether or not path identifiers were negotiated:
 *
 *   IPv4, stride 3:  path id | length | word            IPv6, stride 6:  path id | length | word 0 | word 1 | word 2 | word 3
 *
 * Words are signed 32-bit integers, most significant first, host bits cleared; the path id is 0 without add-path.
 *
 * Sources: RFC 4271 section 4.3 (form), RFC 4760 section 5, RFC 7911 section 3, RFC 7606 section 5.3 (what is wrong).
 */

import type { Writer } from '../../bytes/writer.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { AFI_IPV4, AFI_IPV6, afiOf, type RouteFamily, SAFI_UNICAST, safiOf } from './family.ts'

export const IPV4_STRIDE = 3
export const IPV6_STRIDE = 6

/** Integers per prefix; 0: prefixes of this family are not read. */
export const strideOf = (family: RouteFamily): number =>
  safiOf(family) !== SAFI_UNICAST
    ? 0
    : afiOf(family) === AFI_IPV4
      ? IPV4_STRIDE
      : afiOf(family) === AFI_IPV6
        ? IPV6_STRIDE
        : 0

/** Prefixes of one family. */
export interface NlriRun {
  readonly family: RouteFamily
  /** How many prefixes. */
  readonly count: number
  /** `count * strideOf(family)` integers from the start on; what is behind them means nothing. */
  readonly words: Int32Array
}

/** Thrown by the readers below; `offset` is where the bad prefix begins. */
export class NlriError extends Error {
  override readonly name = 'NlriError'
  readonly offset: number
  constructor(problem: string, offset: number) {
    super(`${problem} at offset ${offset}`)
    this.offset = offset
  }
}

/** Room for prefixes that grows and is used again: what was read before is overwritten. */
export class NlriBuffer {
  words: Int32Array = new Int32Array(3 * 1024)

  /**
   * Reads the prefixes of `bytes[from, to)` into `words` and returns how many they are. Throws NlriError.
   */
  read(family: RouteFamily, bytes: Uint8Array, from: number, to: number, addPath: boolean): number {
    const stride = strideOf(family)
    // A prefix has one byte at least, behind four of path identifier.
    const most = Math.ceil((to - from) / (addPath ? 5 : 1)) * stride
    if (most > this.words.length) this.words = new Int32Array(Math.max(most, this.words.length * 2))
    return stride === IPV4_STRIDE
      ? readIpv4(this.words, bytes, from, to, addPath)
      : readIpv6(this.words, bytes, from, to, addPath)
  }
}

function readIpv4(words: Int32Array, bytes: Uint8Array, from: number, to: number, addPath: boolean): number {
  let at = from
  let out = 0
  while (at < to) {
    let pathId = 0
    if (addPath) {
      if (to - at < 5) throw new NlriError('path identifier is cut', at)
      pathId = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
      at += 4
    }
    const length = bytes[at]!
    if (length > 32) throw new NlriError(`prefix length ${length}`, at)
    const size = (length + 7) >>> 3
    if (to - at <= size) throw new NlriError('prefix is cut', at)
    let word = 0
    if (size === 3) word = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8)
    else if (size === 4) word = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!
    else if (size === 2) word = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16)
    else if (size === 1) word = bytes[at + 1]! << 24
    // Bits behind the length mean nothing (RFC 4271 section 4.3).
    words[out] = pathId
    words[out + 1] = length
    words[out + 2] = length === 0 ? 0 : word & (-1 << (32 - length))
    out += IPV4_STRIDE
    at += size + 1
  }
  return out / IPV4_STRIDE
}

function readIpv6(words: Int32Array, bytes: Uint8Array, from: number, to: number, addPath: boolean): number {
  let at = from
  let out = 0
  while (at < to) {
    let pathId = 0
    if (addPath) {
      if (to - at < 5) throw new NlriError('path identifier is cut', at)
      pathId = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
      at += 4
    }
    const length = bytes[at]!
    if (length > 128) throw new NlriError(`prefix length ${length}`, at)
    const size = (length + 7) >>> 3
    if (to - at <= size) throw new NlriError('prefix is cut', at)
    words[out] = pathId
    words[out + 1] = length
    at++
    for (let word = 0; word < 4; word++) {
      const bits = length - 32 * word
      let value = 0
      const left = size - 4 * word
      if (left > 0) {
        const start = at + 4 * word
        value = bytes[start]! << 24
        if (left > 1) value |= bytes[start + 1]! << 16
        if (left > 2) value |= bytes[start + 2]! << 8
        if (left > 3) value |= bytes[start + 3]!
        if (bits < 32) value &= -1 << (32 - bits)
      }
      words[out + 2 + word] = value
    }
    out += IPV6_STRIDE
    at += size
  }
  return out / IPV6_STRIDE
}

/** Bytes of the prefix at index `i` of a run. */
export function prefixBytes(words: Int32Array, stride: number, i: number, addPath: boolean): number {
  return ((words[i * stride + 1]! + 7) >>> 3) + (addPath ? 5 : 1)
}

/** Writes the prefix at index `i` of a run at `offset` and returns the offset behind it. */
export function putPrefix(
  out: Uint8Array,
  offset: number,
  words: Int32Array,
  stride: number,
  i: number,
  addPath: boolean,
): number {
  const from = i * stride
  let at = offset
  if (addPath) {
    const pathId = words[from]!
    out[at] = pathId >>> 24
    out[at + 1] = pathId >>> 16
    out[at + 2] = pathId >>> 8
    out[at + 3] = pathId
    at += 4
  }
  const length = words[from + 1]!
  out[at++] = length
  for (let bit = 0; bit < length; bit += 8) out[at++] = words[from + 2 + (bit >>> 5)]! >>> (24 - (bit & 31))
  return at
}

/** As `putPrefix`, for a whole run into a writer. */
export function writeRun(writer: Writer, run: NlriRun, addPath: boolean): void {
  const stride = strideOf(run.family)
  for (let i = 0; i < run.count; i++)
    writer.place(
      prefixBytes(run.words, stride, i, addPath),
      (out, offset) => void putPrefix(out, offset, run.words, stride, i, addPath),
    )
}

/** The prefix at index `i`, for people and tests. */
export function prefixAt(run: NlriRun, i: number): Cidr {
  const stride = strideOf(run.family)
  const at = i * stride
  const { words } = run
  const ip =
    stride === IPV4_STRIDE
      ? Ip.v4(words[at + 2]!)
      : new Ip(6, words[at + 2]!, words[at + 3]!, words[at + 4]!, words[at + 5]!)
  return Cidr.of(ip, words[at + 1]!)
}

/** The path identifier at index `i`, unsigned. */
export const pathIdAt = (run: NlriRun, i: number): number => run.words[i * strideOf(run.family)]! >>> 0

/** A run of prefixes of one family; `pathIds` stand beside them. */
export function runOf(family: RouteFamily, prefixes: readonly Cidr[], pathIds: readonly number[] = []): NlriRun {
  const stride = strideOf(family)
  const words = new Int32Array(prefixes.length * stride)
  for (const [i, { base, length }] of prefixes.entries()) {
    const own = stride === IPV4_STRIDE ? [base.w3] : [base.w0, base.w1, base.w2, base.w3]
    words.set([pathIds[i] ?? 0, length, ...own], i * stride)
  }
  return { family, count: prefixes.length, words }
}
