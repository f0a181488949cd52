/**
 * What nft keeps with a set to list it as `typeof ip saddr . @th,336,24`: for each field of the key the expression that rules
 * load it by. Without it nft neither prints keys of raw payload nor takes them back.
 *
 *   type-length-value: TYPEOF { 0: expression, 1: { … } }; a concatenation's data has a field per number, each again { 0, 1 };
 *   payload's data is { 0: protocol, 1: field } for a header's field and { 0: 0, 1: 0, 2: base, 3: offset, 4: length } for raw bits.
 *
 * Sources: libnftnl include/libnftnl/udata.h (NFTNL_UDATA_SET_KEY_TYPEOF); nftables include/expression.h (enum expr_types),
 * include/proto.h (enum proto_desc_id, enum proto_bases), src/payload.c (payload_expr_build_udata); bytes that nft 1.0.6 writes.
 */
import type { NftSelector } from '../../../model/nft.ts'
import { decodeUserdata, encodeUserdata, type UserdataEntry } from '../../../wire/nftables/data.ts'

const EXPRESSION = 0
const EXPRESSION_DATA = 1
const EXPR_PAYLOAD = 7
const EXPR_CONCAT = 13
const PROTOCOL_RAW = 0
const PROTOCOL_IP = 12
const PROTOCOL_IP6 = 13
const BASE_NETWORK = 2
const BASE_TRANSPORT = 3

/** Protocol and number of the field, as nft counts them. */
const fields: Readonly<Partial<Record<NftSelector, readonly number[]>>> = {
  'ip saddr': [PROTOCOL_IP, 11],
  'ip daddr': [PROTOCOL_IP, 12],
  'ip6 saddr': [PROTOCOL_IP6, 8],
  'ip6 daddr': [PROTOCOL_IP6, 9],
}

/** The numbers behind a payload expression; undefined for what sets of weft are not keyed by. */
function payloadOf(selector: NftSelector): readonly number[] | undefined {
  const raw = /^@(nh|th),(\d+),(\d+)$/.exec(selector)
  if (!raw) return fields[selector]
  return [PROTOCOL_RAW, 0, raw[1] === 'nh' ? BASE_NETWORK : BASE_TRANSPORT, Number(raw[2]), Number(raw[3])]
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

const wordsOf = (bytes: Uint8Array | undefined): ReadonlyMap<number, number> =>
  new Map(
    [...decodeUserdata(bytes)]
      .filter(([, value]) => value.length === 4)
      .map(([type, value]) => [type, new DataView(value.buffer, value.byteOffset).getUint32(0, true)]),
  )

const nest = (type: number, entries: readonly UserdataEntry[]): UserdataEntry => ({
  type,
  value: encodeUserdata(entries),
})

const expression = (kind: number, entries: readonly UserdataEntry[]): UserdataEntry[] => [
  { type: EXPRESSION, value: word(kind) },
  nest(EXPRESSION_DATA, entries),
]

function payloadEntries(selector: NftSelector): UserdataEntry[] {
  const numbers = payloadOf(selector)
  if (!numbers) throw new RangeError(`Sets have no typeof ${selector}`)
  return expression(
    EXPR_PAYLOAD,
    numbers.map((value, type) => ({ type, value: word(value) })),
  )
}

/** The entry of a set's user data. Throws RangeError for selectors that sets of weft are not keyed by. */
export function typeofEntry(type: number, selectors: readonly NftSelector[]): UserdataEntry {
  if (selectors.length === 1) return nest(type, payloadEntries(selectors[0]!))
  return nest(
    type,
    expression(
      EXPR_CONCAT,
      selectors.map((selector, i) => nest(i, payloadEntries(selector))),
    ),
  )
}

const selectorsByNumbers = new Map<string, NftSelector>(
  (Object.keys(fields) as NftSelector[]).map((selector) => [`${fields[selector]}`, selector]),
)

function readPayload(entries: ReadonlyMap<number, Uint8Array>): NftSelector | undefined {
  const numbers = [...wordsOf(entries.get(EXPRESSION_DATA)).entries()]
    .sort(([a], [b]) => a - b)
    .map(([, value]) => value)
  const [protocol, , base, offset, length] = numbers
  if (protocol !== PROTOCOL_RAW) return selectorsByNumbers.get(`${numbers}`)
  if (base !== BASE_NETWORK && base !== BASE_TRANSPORT) return undefined
  return `@${base === BASE_NETWORK ? 'nh' : 'th'},${offset},${length}` as NftSelector
}

/** The selectors in the entry; undefined when there is none or it has what weft does not write. Never throws. */
export function readTypeof(value: Uint8Array | undefined): readonly NftSelector[] | undefined {
  if (!value) return undefined
  const outer = decodeUserdata(value)
  const isConcatenation = wordsOf(value).get(EXPRESSION) === EXPR_CONCAT
  const parts = isConcatenation ? [...decodeUserdata(outer.get(EXPRESSION_DATA))] : [[0, value] as const]
  const selectors = parts
    .sort(([a], [b]) => a - b)
    .map(([, part]) => (wordsOf(part).get(EXPRESSION) === EXPR_PAYLOAD ? readPayload(decodeUserdata(part)) : undefined))
  return selectors.length > 0 && selectors.every((selector) => selector !== undefined) ? selectors : undefined
}
