/**
 * Netlink attributes (type-length-value, padded to 4) as tables: a row per attribute gives its number and its codec,
 * and the table is a codec for a plain object with those keys. Attributes that a table does not know are kept as
 * bytes under `unknown` and written back, so that decoding and encoding loses nothing.
 *
 *   const neighbour = attributeTable('neighbour', { destination: [NDA_DST, ip], mac: [NDA_LLADDR, mac] })
 *   neighbour.decode(reader)   // { destination?: Ip, mac?: Mac, unknown?: [{ type, bytes }] }
 *
 * An attribute longer than its codec reads is accepted (kernels append fields); a shorter one is an error with
 * offset and field path. Repeated attributes: the last one counts.
 *
 * Sources: include/uapi/linux/netlink.h (struct nlattr, NLA_F_NESTED, NLA_F_NET_BYTEORDER).
 */
import type { Codec } from '../../bytes/codec.ts'
import { DecodeError } from '../../bytes/errors.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import { NLA_F_NESTED } from './constants.gen.ts'

const TYPE_BITS = 0x3fff

/** An attribute that no table row names. `bytes` is a copy. */
export interface UnknownAttribute {
  readonly type: number
  readonly bytes: Uint8Array
}

/** A table row: number, codec, and the flag bits to set on writing (NLA_F_NESTED where the kernel insists). */
// biome-ignore lint/suspicious/noExplicitAny: a row of any value type; AttributesOf recovers it
export type AttributeRow = readonly [type: number, codec: Codec<any>, flags?: number]
type AttributeRows = Readonly<Record<string, AttributeRow>>
type ValueOf<Row> = Row extends readonly [number, Codec<infer T>, ...unknown[]] ? T : never

/** The object that a table of rows decodes to: every key optional. */
export type AttributesOf<Rows extends AttributeRows> = {
  -readonly [K in keyof Rows]?: ValueOf<Rows[K]> | undefined
} & { unknown?: readonly UnknownAttribute[] | undefined }

export interface AttributeTable<Rows extends AttributeRows> extends Codec<AttributesOf<Rows>> {
  readonly rows: Rows
}

/** The value type of a table or of any codec. */
export type Decoded<C> = C extends Codec<infer T> ? T : never

/** Makes a codec of a table. Reads to the reader's end. */
export function attributeTable<const Rows extends AttributeRows>(name: string, rows: Rows): AttributeTable<Rows> {
  const byType = new Map<number, { name: string; codec: Codec<unknown> }>()
  for (const [field, [type, codec]] of Object.entries(rows)) byType.set(type & TYPE_BITS, { name: field, codec })
  const table: Readonly<Record<string, AttributeRow | undefined>> = rows
  return {
    name,
    rows,
    decode(reader) {
      const values: Record<string, unknown> = {}
      let unknown: UnknownAttribute[] | undefined
      readAttributes(reader, (rawType) => {
        const type = rawType & TYPE_BITS
        const row = byType.get(type)
        if (!row) {
          unknown ??= []
          unknown.push({ type: rawType, bytes: reader.rest().slice() })
          return
        }
        try {
          values[row.name] = row.codec.decode(reader)
        } catch (error) {
          throw error instanceof DecodeError ? error.within(row.name) : error
        }
      })
      if (unknown) values.unknown = unknown
      return values as AttributesOf<Rows>
    },
    encode(writer, value) {
      const fields = value as Readonly<Record<string, unknown>>
      for (const field in fields) {
        const content = fields[field]
        if (content === undefined || field === 'unknown') continue
        const row = table[field]
        if (!row) throw new TypeError(`${name} has no attribute ${field}`)
        const start = beginAttribute(writer, row[0] | (row[2] ?? 0))
        row[1].encode(writer, content)
        endAttribute(writer, start)
      }
      if (value.unknown)
        for (const { type, bytes } of value.unknown) {
          const start = beginAttribute(writer, type)
          writer.bytes(bytes)
          endAttribute(writer, start)
        }
    },
  }
}

/**
 * Calls back for each attribute up to the reader's end, with the raw type (flag bits included); the same reader is
 * narrowed to the attribute's value during the call. Bytes that the callback leaves unread are skipped.
 */
export function readAttributes(reader: Reader, visit: (rawType: number) => void): void {
  const end = reader.end
  while (end - reader.offset >= 4) {
    const start = reader.offset
    const length = reader.u16le()
    const type = reader.u16le()
    if (length < 4 || length > end - start)
      throw new DecodeError(`attribute ${type & TYPE_BITS} has length ${length}, ${end - start} bytes are left`, start)
    reader.end = start + length
    visit(type)
    reader.end = end
    reader.offset = Math.min(start + ((length + 3) & ~3), end)
  }
  if (reader.offset < end) {
    const left = reader.bytes(end - reader.offset)
    if (left.some((byte) => byte !== 0))
      throw new DecodeError('stray bytes after the last attribute', end - left.length)
  }
}

/** Starts an attribute by hand; returns the offset for `endAttribute`. */
export function beginAttribute(writer: Writer, type: number): number {
  const start = writer.length
  writer.u16le(0)
  writer.u16le(type)
  return start
}

/** Completes the attribute that `beginAttribute` started at `start`. Throws RangeError over 65,535 bytes. */
export function endAttribute(writer: Writer, start: number): void {
  const length = writer.length - start
  if (length > 0xffff) throw new RangeError(`attribute of ${length} bytes: at most 65535 fit`)
  writer.patchU16le(start, length)
  writer.align(4, start)
}

/** A nested table's row: sets NLA_F_NESTED on writing. */
export const nested = <T>(type: number, codec: Codec<T>): readonly [number, Codec<T>, number] => [
  type,
  codec,
  NLA_F_NESTED,
]

/** A list: every attribute inside is one element, whatever its number; elements are numbered from 1 on writing. */
export function attributeList<T>(element: Codec<T>, elementType?: number): Codec<T[]> {
  return {
    name: `list of ${element.name}`,
    decode(reader) {
      const out: T[] = []
      readAttributes(reader, () => {
        try {
          out.push(element.decode(reader))
        } catch (error) {
          throw error instanceof DecodeError ? error.within(`[${out.length}]`) : error
        }
      })
      return out
    },
    encode(writer, values) {
      for (const [i, value] of values.entries()) {
        const start = beginAttribute(writer, elementType ?? i + 1)
        element.encode(writer, value)
        endAttribute(writer, start)
      }
    },
  }
}

/** An attribute without a value, whose presence says it all. Written when true; `false` cannot be written. */
export const flag: Codec<true> = {
  name: 'flag',
  decode(reader) {
    reader.rest()
    return true
  },
  encode() {},
}
