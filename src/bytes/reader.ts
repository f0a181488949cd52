/**
 * A bounds-checked cursor over bytes. Every read past the end throws DecodeError with the offset; nothing is ever
 * read as zero. `scoped` narrows the end for a length-prefixed part and puts it back, so that a nested structure
 * can never read its neighbour.
 *
 * Views handed out (`bytes`, `rest`) share the reader's buffer: copy what must outlive it.
 */
import { DecodeError } from './errors.ts'
import { decodeUtf8 } from './text.ts'

export class Reader {
  readonly buffer: Uint8Array
  /** Position of the next byte, relative to the buffer's start. */
  offset: number
  /** First position that may not be read. */
  end: number
  readonly #view: DataView

  constructor(buffer: Uint8Array, offset = 0, end = buffer.length) {
    if (offset < 0 || end > buffer.length || offset > end)
      throw new RangeError(`${offset}..${end} is outside a buffer of ${buffer.length} bytes`)
    this.buffer = buffer
    this.offset = offset
    this.end = end
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
  }

  get remaining(): number {
    return this.end - this.offset
  }

  /** Moves over `count` bytes and returns where they start. */
  take(count: number): number {
    const at = this.offset
    if (count < 0 || count > this.end - at) this.fail(`needs ${count} bytes, ${this.end - at} are left`)
    this.offset = at + count
    return at
  }

  skip(count: number): void {
    this.take(count)
  }

  /** Moves up to the next multiple of `size` counted from `base`, at most to the end. */
  align(size: number, base = 0): void {
    const over = (this.offset - base) % size
    if (over) this.offset = Math.min(this.offset + size - over, this.end)
  }

  u8(): number {
    return this.buffer[this.take(1)]!
  }
  u16le(): number {
    return this.#view.getUint16(this.take(2), true)
  }
  u16be(): number {
    return this.#view.getUint16(this.take(2))
  }
  u32le(): number {
    return this.#view.getUint32(this.take(4), true)
  }
  u32be(): number {
    return this.#view.getUint32(this.take(4))
  }
  i32le(): number {
    return this.#view.getInt32(this.take(4), true)
  }
  i32be(): number {
    return this.#view.getInt32(this.take(4))
  }
  u64le(): bigint {
    return this.#view.getBigUint64(this.take(8), true)
  }
  u64be(): bigint {
    return this.#view.getBigUint64(this.take(8))
  }

  /** A view of the next `count` bytes. */
  bytes(count: number): Uint8Array {
    const at = this.take(count)
    return this.buffer.subarray(at, at + count)
  }

  /** A view of everything up to the end. */
  rest(): Uint8Array {
    return this.bytes(this.remaining)
  }

  /** The next `count` bytes as UTF-8. */
  text(count: number): string {
    return decodeUtf8(this.bytes(count))
  }

  /** Everything up to the end as UTF-8, cut at the first NUL. */
  textZ(): string {
    const bytes = this.rest()
    const nul = bytes.indexOf(0)
    return decodeUtf8(nul < 0 ? bytes : bytes.subarray(0, nul))
  }

  /** Decodes the next `count` bytes on their own: the end is `count` bytes away, and the cursor stands there afterwards. */
  scoped<T>(count: number, decode: (reader: Reader) => T): T {
    const start = this.take(count)
    const outerEnd = this.end
    this.end = this.offset
    this.offset = start
    const value = decode(this)
    this.offset = this.end
    this.end = outerEnd
    return value
  }

  fail(problem: string): never {
    throw new DecodeError(problem, this.offset)
  }
}
