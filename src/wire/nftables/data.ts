/**
 * Small pieces that nftables messages share: values in registers and set elements, and user data, the bytes that the
 * kernel keeps for user space (type-length-value with one-byte lengths, as nft itself writes its comments).
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h (nft_data_attributes, nft_verdict_attributes); libnftnl udata.h.
 */
import { type Codec, rawBytes, textZ, u32be } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import { decodeUtf8, encodeUtf8 } from '../../bytes/text.ts'
import type { Writer } from '../../bytes/writer.ts'
import { attributeTable, beginAttribute, endAttribute, nested, readAttributes } from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import * as n from './constants.gen.ts'

/** A register's content: bytes, or a verdict. */
export const data = attributeTable('data', {
  value: [n.NFTA_DATA_VALUE, rawBytes],
  verdict: nested(
    n.NFTA_DATA_VERDICT,
    attributeTable('verdict', { code: [n.NFTA_VERDICT_CODE, u32be], chain: [n.NFTA_VERDICT_CHAIN, textZ] }),
  ),
})

/** A register's content that must be bytes. */
const valueData: Codec<Uint8Array> = {
  name: 'value',
  decode(reader: Reader) {
    let bytes: Uint8Array | undefined
    readAttributes(reader, (type) => {
      if ((type & 0x3fff) === n.NFTA_DATA_VALUE) bytes = reader.rest().slice()
    })
    return bytes ?? reader.fail('a value is missing')
  },
  encode(writer: Writer, value: Uint8Array) {
    const start = beginAttribute(writer, n.NFTA_DATA_VALUE)
    writer.bytes(value)
    endAttribute(writer, start)
  },
}

/** A row whose codec is `valueData`. */
export const valueRow = (type: number): readonly [number, Codec<Uint8Array>, number] => [type, valueData, NLA_F_NESTED]

/** Verdict codes of netfilter itself (linux/netfilter.h); those of nftables are negative. */
export const NF_DROP = 0
export const NF_ACCEPT = 1

/** The kernel keeps at most this many bytes for a rule or an element. */
const USERDATA_BYTES_MAX = 256
/** nft prints comments up to this length, without the NUL. */
const COMMENT_BYTES_MAX = 127

/** Where nft keeps comments: each object has its own numbering. */
export const RULE_COMMENT = 0
export const ELEMENT_COMMENT = 0
export const TABLE_COMMENT = 0
export const OBJECT_COMMENT = 0
export const SET_COMMENT = 7
/** nft's notes on how to print a set: byte order of its keys (2 = big-endian, 1 = host) and of its data. */
export const SET_KEY_BYTEORDER = 0
export const SET_DATA_BYTEORDER = 1
/** And the expressions that keys come from. */
export const SET_KEY_TYPEOF = 3
/** weft's own: a digest of the rule's text. nft skips numbers that it does not know. */
export const RULE_DIGEST = 119

export interface UserdataEntry {
  readonly type: number
  readonly value: Uint8Array
}

/** A text entry, with the NUL that nft expects. Throws RangeError over COMMENT_BYTES_MAX bytes. */
export function commentEntry(type: number, text: string): UserdataEntry {
  const bytes = encodeUtf8(`${text}\0`)
  if (bytes.length > COMMENT_BYTES_MAX + 1)
    throw new RangeError(`A comment has at most ${COMMENT_BYTES_MAX} bytes, not ${bytes.length - 1}`)
  return { type, value: bytes }
}

/** Throws RangeError when the entries do not fit. */
export function encodeUserdata(entries: readonly UserdataEntry[]): Uint8Array {
  const out: number[] = []
  for (const { type, value } of entries) out.push(type, value.length, ...value)
  if (out.length > USERDATA_BYTES_MAX)
    throw new RangeError(`User data has at most ${USERDATA_BYTES_MAX} bytes, not ${out.length}`)
  return Uint8Array.from(out)
}

/** Foreign programs put anything there: reads as far as it makes sense, never throws. */
export function decodeUserdata(bytes: Uint8Array | undefined): Map<number, Uint8Array> {
  const entries = new Map<number, Uint8Array>()
  for (let at = 0; bytes && at + 2 <= bytes.length; ) {
    const end = at + 2 + bytes[at + 1]!
    if (end > bytes.length) break
    entries.set(bytes[at]!, bytes.slice(at + 2, end))
    at = end
  }
  return entries
}

/** The comment in user data, without its NUL. */
export function decodeComment(entries: ReadonlyMap<number, Uint8Array>, type: number): string | undefined {
  const bytes = entries.get(type)
  if (!bytes) return undefined
  const nul = bytes.indexOf(0)
  return decodeUtf8(nul < 0 ? bytes : bytes.subarray(0, nul))
}
