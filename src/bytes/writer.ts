/**
 * A growing byte buffer. Lengths that are known only afterwards are reserved and patched. `finish` hands out a view
 * of the writer's own memory: valid until the next write or `reset`.
 */
import { encodeUtf8 } from './text.ts'

export class Writer {
  #bytes: Uint8Array
  #view: DataView
  /** Count of bytes written. */
  length = 0

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = new DataView(this.#bytes.buffer)
  }

  /** Makes room for `count` bytes without clearing them and returns their offset. */
  #reserve(count: number): number {
    const at = this.length
    const needed = at + count
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, at))
      this.#bytes = grown
      this.#view = new DataView(grown.buffer)
    }
    this.length = needed
    return at
  }

  u8(value: number): void {
    const at = this.#reserve(1)
    this.#bytes[at] = value
  }
  u16le(value: number): void {
    const at = this.#reserve(2)
    this.#view.setUint16(at, value, true)
  }
  u16be(value: number): void {
    const at = this.#reserve(2)
    this.#view.setUint16(at, value)
  }
  u32le(value: number): void {
    const at = this.#reserve(4)
    this.#view.setUint32(at, value, true)
  }
  u32be(value: number): void {
    const at = this.#reserve(4)
    this.#view.setUint32(at, value)
  }
  i32le(value: number): void {
    const at = this.#reserve(4)
    this.#view.setInt32(at, value, true)
  }
  u64le(value: bigint): void {
    const at = this.#reserve(8)
    this.#view.setBigUint64(at, value, true)
  }
  u64be(value: bigint): void {
    const at = this.#reserve(8)
    this.#view.setBigUint64(at, value)
  }

  bytes(source: Uint8Array): void {
    const at = this.#reserve(source.length)
    this.#bytes.set(source, at)
  }

  /** `count` zero bytes; returns their offset. */
  zeros(count: number): number {
    const at = this.#reserve(count)
    this.#bytes.fill(0, at, at + count)
    return at
  }

  /** UTF-8 without a terminator. */
  text(value: string): void {
    this.bytes(encodeUtf8(value))
  }

  /** Zero bytes up to the next multiple of `size` counted from `base`. */
  align(size: number, base = 0): void {
    const over = (this.length - base) % size
    if (over) this.zeros(size - over)
  }

  /** Lets `put` write `count` bytes in place (an address's own writeTo). */
  place(count: number, put: (out: Uint8Array, offset: number) => void): void {
    const at = this.#reserve(count)
    put(this.#bytes, at)
  }

  patchU8(at: number, value: number): void {
    this.#bytes[at] = value
  }
  patchU16le(at: number, value: number): void {
    this.#view.setUint16(at, value, true)
  }
  patchU16be(at: number, value: number): void {
    this.#view.setUint16(at, value)
  }
  patchU32le(at: number, value: number): void {
    this.#view.setUint32(at, value, true)
  }
  patchU32be(at: number, value: number): void {
    this.#view.setUint32(at, value)
  }

  /** Forgets everything after `length` bytes. */
  truncate(length: number): void {
    if (length < this.length) this.length = length
  }

  reset(): void {
    this.length = 0
  }

  /** A view of what was written; the next write may change or abandon it. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.length)
  }
}
