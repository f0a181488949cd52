/**
 * Sets, maps and their elements between the model and messages: types as nft numbers them, ranges as the kernel keeps
 * them. A set of lone ranges holds a start and an end element (the first key behind the range, flagged); a set of
 * concatenated ranges holds one element with a first and a last key.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h; datatype numbers of nftables include/datatype.h (TYPE_*), which
 * nft reads back from the kernel to know how to print keys.
 */
import type { NftElement, NftFamily, NftSelector, NftSet, NftType } from '../../../model/nft.ts'
import {
  formatKey,
  formatVerdict,
  isRawType,
  keyBytes,
  type LiteralRange,
  type LiteralType,
  literalBytes,
  NftLiteralError,
  parseKey,
  parseVerdict,
} from '../../../model/nft-literal.ts'
import * as n from '../../../wire/nftables/constants.gen.ts'
import {
  commentEntry,
  decodeComment,
  decodeUserdata,
  ELEMENT_COMMENT,
  encodeUserdata,
  SET_COMMENT,
  SET_DATA_BYTEORDER,
  SET_KEY_BYTEORDER,
  SET_KEY_TYPEOF,
  type UserdataEntry,
} from '../../../wire/nftables/data.ts'
import {
  type ElementMessage,
  familyNumbers,
  type SetMessage,
  type writeElement,
} from '../../../wire/nftables/message.ts'
import { type AnonymousSet, decodeVerdict, encodeVerdict } from './nft-compile.ts'
import { selectorRows } from './nft-selector.ts'
import { readTypeof, typeofEntry } from './nft-typeof.ts'

/** nft's datatype numbers; concatenations pack them six bits each. */
const typeNumbers: Readonly<Partial<Record<LiteralType, number>>> = {
  nf_proto: 2,
  ipv4_addr: 7,
  ipv6_addr: 8,
  ether_addr: 9,
  inet_proto: 12,
  inet_service: 13,
  icmp_type: 14,
  mark: 19,
  ct_state: 26,
  ct_dir: 27,
  ct_status: 28,
  icmpv6_type: 29,
  pkt_type: 31,
  fib_addrtype: 38,
  boolean: 39,
  ifname: 41,
}
/** Of everything that nft compares as the number that it is. */
const TYPE_INTEGER = 4
const TYPE_BITS = 6
const namesByNumber = new Map(Object.entries(typeNumbers).map(([name, number]) => [number, name as LiteralType]))

const packTypes = (types: readonly LiteralType[]): number =>
  types.reduce(
    (packed, type) => packed * (1 << TYPE_BITS) + (isRawType(type) ? TYPE_INTEGER : (typeNumbers[type] ?? 0)),
    0,
  )

/** Undefined when a number is not one of ours. */
function unpackTypes(packed: number): LiteralType[] | undefined {
  const types: LiteralType[] = []
  for (let rest = packed; rest > 0; rest = Math.floor(rest / (1 << TYPE_BITS))) {
    const type = namesByNumber.get(rest % (1 << TYPE_BITS))
    if (!type) return undefined
    types.unshift(type)
  }
  return types.length ? types : undefined
}

/** The types of what the selectors load; undefined when one is not ours, or the kernel's numbers say something else. */
function typesOf(selectors: readonly NftSelector[], packed: number): LiteralType[] | undefined {
  const types = selectors.flatMap((selector) =>
    Object.hasOwn(selectorRows, selector) ? selectorRows[selector].type : [],
  )
  return types.length === selectors.length && packTypes(types) === packed ? types : undefined
}

const BYTEORDER_HOST = 1
const BYTEORDER_BIG = 2

/** What nft wants to know for printing: 2 for network order, 1 for host order, 0 where it makes no difference. */
function byteorder(types: readonly LiteralType[] | undefined): number {
  if (types?.length !== 1) return 0
  const type = types[0]!
  if (type === 'mark' || type === 'ifname' || type.startsWith('ct_st') || type === 'fib_addrtype') return BYTEORDER_HOST
  return literalBytes(type) > 1 ? BYTEORDER_BIG : 0
}

const note = (type: number, value: number): UserdataEntry => ({ type, value: Uint8Array.of(value, 0, 0, 0) })

const flagBits = {
  constant: n.NFT_SET_CONSTANT,
  interval: n.NFT_SET_INTERVAL,
  timeout: n.NFT_SET_TIMEOUT,
  dynamic: n.NFT_SET_EVAL,
} as const
/** In the order in which nft prints them. */
const flagNames = ['constant', 'interval', 'dynamic', 'timeout'] as const

function describe(types: readonly LiteralType[], flags: number): Partial<SetMessage> {
  const isRangeConcatenation = types.length > 1 && (flags & n.NFT_SET_INTERVAL) !== 0
  return {
    flags: (isRangeConcatenation ? flags | n.NFT_SET_CONCAT : flags) >>> 0,
    keyType: packTypes(types),
    keyLength: keyBytes(types),
    ...(isRangeConcatenation && { desc: { fields: types.map((type) => ({ length: literalBytes(type) })) } }),
  }
}

/** The message that makes a set or map. */
export function encodeSet(set: NftSet, id: number): SetMessage {
  let flags = set.data ? n.NFT_SET_MAP : 0
  for (const flag of set.flags ?? []) flags |= flagBits[flag]
  const isVerdict = set.data?.[0] === 'verdict'
  const userdata = [note(SET_KEY_BYTEORDER, byteorder(set.type))]
  if (set.data) userdata.push(note(SET_DATA_BYTEORDER, byteorder(set.data)))
  if (set.typeof) userdata.push(typeofEntry(SET_KEY_TYPEOF, set.typeof))
  if (set.comment !== undefined) userdata.push(commentEntry(SET_COMMENT, set.comment))
  return {
    table: set.table,
    name: set.name,
    ...describe(set.type, flags),
    ...(set.data && {
      dataType: isVerdict ? n.NFT_DATA_VERDICT : packTypes(set.data),
      dataLength: isVerdict ? 0 : keyBytes(set.data),
    }),
    id,
    userdata: encodeUserdata(userdata),
  }
}

/** The message that makes an anonymous set; the kernel names it. */
export function encodeAnonymousSet(table: string, set: AnonymousSet): SetMessage {
  const isRange = set.elements.some(({ to }) => to)
  const described = describe(set.types, n.NFT_SET_ANONYMOUS | n.NFT_SET_CONSTANT | (isRange ? n.NFT_SET_INTERVAL : 0))
  return {
    table,
    name: '__set%d',
    ...described,
    desc: { ...described.desc, ...(!isRange && { size: set.elements.length }) },
    id: set.id,
    userdata: encodeUserdata([note(SET_KEY_BYTEORDER, byteorder(set.types))]),
  }
}

/** Undefined for a set whose types are not ours. */
export function decodeSet(family: NftFamily, message: SetMessage): NftSet | undefined {
  const { table, name, flags = 0 } = message
  const userdata = decodeUserdata(message.userdata)
  const selectors = readTypeof(userdata.get(SET_KEY_TYPEOF))
  const type = selectors ? typesOf(selectors, message.keyType ?? 0) : unpackTypes(message.keyType ?? 0)
  if (table === undefined || name === undefined || !type || flags & n.NFT_SET_ANONYMOUS) return undefined
  let data: readonly LiteralType[] | undefined
  if (flags & n.NFT_SET_MAP) {
    data = message.dataType === n.NFT_DATA_VERDICT ? ['verdict'] : unpackTypes(message.dataType ?? 0)
    if (!data) return undefined
  }
  const names = flagNames.filter((flag) => flags & flagBits[flag])
  const comment = decodeComment(userdata, SET_COMMENT)
  return {
    kind: 'nft-set',
    family,
    table,
    name,
    type: type as NftType[],
    ...(selectors && { typeof: selectors }),
    ...(data && { data: data as NftType[] }),
    ...(names.length && { flags: names }),
    ...(comment !== undefined && { comment }),
  }
}

export type WrittenElement = Parameters<typeof writeElement>[1]

const isInterval = (set: NftSet): boolean => set.flags?.includes('interval') ?? false

/** The key after `key`, or undefined behind the last one. */
function successor(key: Uint8Array): Uint8Array | undefined {
  const next = key.slice()
  for (let i = next.length - 1; i >= 0; i--) {
    next[i] = (next[i]! + 1) & 255
    if (next[i] !== 0) return next
  }
  return undefined
}

/** A range as one or two elements. */
export function encodeRange(
  types: readonly LiteralType[],
  interval: boolean,
  { from, to }: LiteralRange,
): WrittenElement[] {
  if (!interval) {
    if (to) throw new NftLiteralError(`${formatKey(types, from, to)} is a range, the set holds single keys`)
    return [{ key: from }]
  }
  if (types.length > 1) return [{ key: from, keyEnd: to ?? from }]
  const end = successor(to ?? from)
  return end ? [{ key: from }, { key: end, flags: n.NFT_SET_ELEM_INTERVAL_END }] : [{ key: from }]
}

/** The messages' elements for one element of the model. `remove` leaves out what deleting does not need. Throws NftLiteralError. */
export function encodeElement(set: NftSet, element: NftElement, remove: boolean): WrittenElement[] {
  const written = encodeRange(set.type, isInterval(set), parseKey(set.type, element.key))
  if (remove) return written
  const first = { ...written[0]! }
  if (set.data) {
    if (element.value === undefined) throw new NftLiteralError(`${set.name} is a map: ${element.key} has no value`)
    if (set.data[0] === 'verdict') first.verdict = encodeVerdict(parseVerdict(element.value))
    else {
      const value = parseKey(set.data, element.value)
      if (value.to) throw new NftLiteralError(`The value ${element.value} is a range`)
      first.value = value.from
    }
  } else if (element.value !== undefined) throw new NftLiteralError(`${set.name} is a set: ${element.key} has a value`)
  if (element.comment !== undefined) first.userdata = encodeUserdata([commentEntry(ELEMENT_COMMENT, element.comment)])
  return [first, ...written.slice(1)]
}

const compareBytes = (a: Uint8Array, b: Uint8Array): number => {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return a.length - b.length
}

const isEnd = (message: ElementMessage): boolean => ((message.flags ?? 0) & n.NFT_SET_ELEM_INTERVAL_END) !== 0

/** Starts with the last key of their range. Lone ranges are put together from starts and ends. */
export function pairRanges(
  interval: boolean,
  fields: number,
  messages: readonly ElementMessage[],
): { message: ElementMessage; range: LiteralRange }[] {
  const withKey = messages.filter((message) => message.key)
  if (!interval || fields > 1)
    return withKey.map((message) => {
      const from = message.key!
      const to = message.keyEnd
      return { message, range: to && compareBytes(from, to) !== 0 ? { from, to } : { from } }
    })
  const sorted = [...withKey].sort((a, b) => compareBytes(a.key!, b.key!) || Number(isEnd(b)) - Number(isEnd(a)))
  const out: { message: ElementMessage; range: LiteralRange }[] = []
  for (const [i, message] of sorted.entries()) {
    if (isEnd(message)) continue
    const from = message.key!
    // Without an end the range reaches the next start, or the last key of all.
    const next = sorted[i + 1]?.key
    const to = next ? predecessor(next) : new Uint8Array(from.length).fill(255)
    out.push({ message, range: compareBytes(from, to) === 0 ? { from } : { from, to } })
  }
  return out
}

function predecessor(key: Uint8Array): Uint8Array {
  const previous = key.slice()
  for (let i = previous.length - 1; i >= 0; i--) {
    previous[i] = (previous[i]! - 1) & 255
    if (previous[i] !== 255) break
  }
  return previous
}

/** Elements of the model from a whole dump of a set. Elements that cannot be read as the set's types are left out. */
export function decodeElements(set: NftSet, messages: readonly ElementMessage[]): NftElement[] {
  const out: NftElement[] = []
  for (const { message, range } of pairRanges(isInterval(set), set.type.length, messages)) {
    const element = decodeElement(set, message, range)
    if (element) out.push(element)
  }
  return out
}

/** One element whose range is known. */
export function decodeElement(set: NftSet, message: ElementMessage, range: LiteralRange): NftElement | undefined {
  const comment = decodeComment(decodeUserdata(message.userdata), ELEMENT_COMMENT)
  try {
    const value = set.data && valueText(set.data, message)
    return {
      kind: 'nft-element',
      family: set.family,
      table: set.table,
      set: set.name,
      key: formatKey(set.type, range.from, range.to),
      ...(value !== undefined && { value }),
      ...(comment !== undefined && { comment }),
    }
  } catch (error) {
    if (error instanceof NftLiteralError) return undefined
    throw error
  }
}

function valueText(types: readonly LiteralType[], { data }: ElementMessage): string | undefined {
  if (data?.verdict?.code !== undefined) {
    const verdict = decodeVerdict(data.verdict.code, data.verdict.chain)
    return verdict && formatVerdict(verdict)
  }
  return data?.value && formatKey(types, data.value)
}

const familiesByNumber = new Map(Object.entries(familyNumbers).map(([name, number]) => [number, name as NftFamily]))

/** Table family of an nfgenmsg. */
export const familyOf = (number: number): NftFamily | undefined => familiesByNumber.get(number as 1)
