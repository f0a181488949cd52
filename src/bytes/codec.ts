/**
 * A codec says how one value stands in bytes, both ways. Codecs compose into tables; this file has the scalar ones.
 * A codec reads from a Reader whose end is the value's end, when the surrounding format gives a length.
 */
import type { Reader } from './reader.ts'
import type { Writer } from './writer.ts'

export interface Codec<T> {
  /** For messages and field paths: `u32le`, `mac`, `route attributes`. */
  readonly name: string
  /** Throws DecodeError. */
  decode(reader: Reader): T
  /** Throws EncodeError on a value that the format cannot carry. */
  encode(writer: Writer, value: T): void
  /** Bytes that `encode` would write, where that is worth knowing before. */
  size?(value: T): number
}

const scalar = <T>(
  name: string,
  bytes: number,
  decode: (reader: Reader) => T,
  encode: (writer: Writer, value: T) => void,
): Codec<T> => ({ name, decode, encode, size: () => bytes })

export const u8: Codec<number> = scalar(
  'u8',
  1,
  (r) => r.u8(),
  (w, v) => w.u8(v),
)
export const u16le: Codec<number> = scalar(
  'u16le',
  2,
  (r) => r.u16le(),
  (w, v) => w.u16le(v),
)
export const u16be: Codec<number> = scalar(
  'u16be',
  2,
  (r) => r.u16be(),
  (w, v) => w.u16be(v),
)
export const u32le: Codec<number> = scalar(
  'u32le',
  4,
  (r) => r.u32le(),
  (w, v) => w.u32le(v),
)
export const u32be: Codec<number> = scalar(
  'u32be',
  4,
  (r) => r.u32be(),
  (w, v) => w.u32be(v),
)
export const i32le: Codec<number> = scalar(
  'i32le',
  4,
  (r) => r.i32le(),
  (w, v) => w.i32le(v),
)
export const u64le: Codec<bigint> = scalar(
  'u64le',
  8,
  (r) => r.u64le(),
  (w, v) => w.u64le(v),
)
export const u64be: Codec<bigint> = scalar(
  'u64be',
  8,
  (r) => r.u64be(),
  (w, v) => w.u64be(v),
)
/** One byte, 0 or 1. */
export const boolean8: Codec<boolean> = scalar(
  'boolean8',
  1,
  (r) => r.u8() !== 0,
  (w, v) => w.u8(v ? 1 : 0),
)
/** Everything up to the end; decoding copies. */
export const rawBytes: Codec<Uint8Array> = {
  name: 'bytes',
  decode: (reader) => reader.rest().slice(),
  encode: (writer, value) => writer.bytes(value),
  size: (value) => value.length,
}
/** UTF-8 up to the end or the first NUL; written with a NUL. */
export const textZ: Codec<string> = {
  name: 'textZ',
  decode: (reader) => reader.textZ(),
  encode(writer, value) {
    writer.text(value)
    writer.u8(0)
  },
}
