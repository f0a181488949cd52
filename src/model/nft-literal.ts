/**
 * Literals of nft: the text that stands in set elements and on the right side of a match, and the bytes that the kernel
 * compares. Text is canonical: what `formatLiteral` prints, `nft list` prints.
 *
 * Numbers that networks carry (addresses, ports) are big-endian; marks and connection-tracking bits are in the
 * machine's own order, which for every machine that weft runs on is little-endian.
 *
 * Sources: include/uapi/linux/netfilter/{nf_tables,nf_conntrack_common}.h, linux/rtnetlink.h (RTN_*), linux/if_packet.h;
 * nft(8) DATA TYPES; IANA protocol numbers and ICMP parameters.
 */
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import type { NftType } from './nft.ts'

/** Types of literals: those of sets, and those that only matches have. */
export type LiteralType =
  | NftType
  | 'nf_proto'
  | 'raw_u16'
  | 'pkt_type'
  | 'ct_state'
  | 'ct_status'
  | 'ct_dir'
  | 'fib_addrtype'
  | 'icmp_type'
  | 'icmpv6_type'
  | 'boolean'

/** An inclusive range of values; a single value has no `to`. */
export interface LiteralRange {
  readonly from: Uint8Array
  readonly to?: Uint8Array
}

/** Thrown on text that is no literal of its type. */
export class NftLiteralError extends Error {
  override readonly name = 'NftLiteralError'
}

const protocols: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  gre: 47,
  esp: 50,
  ah: 51,
  'ipv6-icmp': 58,
  sctp: 132,
}

const protocolNumbers = new Map(Object.entries(protocols))

/** Names of a type's values, and its width in bytes. `flags`: several names may be joined by commas. */
const named: Readonly<
  Partial<Record<LiteralType, { bytes: number; flags?: boolean; names: Readonly<Record<string, number>> }>>
> = {
  inet_proto: { bytes: 1, names: protocols },
  nf_proto: { bytes: 1, names: { ipv4: 2, ipv6: 10 } },
  pkt_type: { bytes: 1, names: { host: 0, broadcast: 1, multicast: 2, other: 3 } },
  ct_state: {
    bytes: 4,
    flags: true,
    names: { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 },
  },
  ct_status: {
    bytes: 4,
    flags: true,
    names: { expected: 1, 'seen-reply': 2, assured: 4, confirmed: 8, snat: 16, dnat: 32, dying: 512 },
  },
  ct_dir: { bytes: 1, names: { original: 0, reply: 1 } },
  fib_addrtype: {
    bytes: 4,
    names: {
      unspec: 0,
      unicast: 1,
      local: 2,
      broadcast: 3,
      anycast: 4,
      multicast: 5,
      blackhole: 6,
      unreachable: 7,
      prohibit: 8,
    },
  },
  icmp_type: {
    bytes: 1,
    names: {
      'echo-reply': 0,
      'destination-unreachable': 3,
      redirect: 5,
      'echo-request': 8,
      'time-exceeded': 11,
      'parameter-problem': 12,
    },
  },
  icmpv6_type: {
    bytes: 1,
    names: {
      'destination-unreachable': 1,
      'packet-too-big': 2,
      'time-exceeded': 3,
      'parameter-problem': 4,
      'echo-request': 128,
      'echo-reply': 129,
      'nd-router-solicit': 133,
      'nd-router-advert': 134,
      'nd-neighbor-solicit': 135,
      'nd-neighbor-advert': 136,
      'nd-redirect': 137,
    },
  },
  boolean: { bytes: 4, names: { missing: 0, exists: 1 } },
}

const widths: Readonly<Partial<Record<LiteralType, number>>> = {
  ipv4_addr: 4,
  ipv6_addr: 16,
  ether_addr: 6,
  inet_service: 2,
  raw_u16: 2,
  raw_u24: 3,
  raw_u32: 4,
  raw_u64: 8,
  raw_u128: 16,
  mark: 4,
  ifname: 16,
}

/** Bytes of one value. Verdicts have none: they are not compared. */
export const literalBytes = (type: LiteralType): number => widths[type] ?? named[type]?.bytes ?? 0

/** Bytes of a key: fields of a concatenation are padded to words, a lone field is not. */
export function keyBytes(types: readonly LiteralType[]): number {
  if (types.length === 1) return literalBytes(types[0]!)
  return types.reduce((sum, type) => sum + paddedBytes(type), 0)
}

/** Bytes that a field takes in a concatenation and in registers. */
export const paddedBytes = (type: LiteralType): number => (literalBytes(type) + 3) & ~3

/** True for types whose literals are names of bits: `a,b` matches when any is set. */
export const isFlagType = (type: LiteralType): boolean => named[type]?.flags === true

const littleEndian = (type: LiteralType): boolean =>
  ['mark', 'ct_state', 'ct_status', 'fib_addrtype', 'boolean'].includes(type)

function numberToBytes(type: LiteralType, value: number): Uint8Array {
  const bytes = new Uint8Array(literalBytes(type))
  for (let i = 0; i < bytes.length; i++) {
    const at = littleEndian(type) ? i : bytes.length - 1 - i
    bytes[at] = Math.floor(value / 256 ** i) & 255
  }
  return bytes
}

function bytesToNumber(type: LiteralType, bytes: Uint8Array): number {
  let value = 0
  for (let i = 0; i < bytes.length; i++) value = value * 256 + bytes[littleEndian(type) ? bytes.length - 1 - i : i]!
  return value
}

function bad(type: LiteralType, text: string): never {
  throw new NftLiteralError(`Not ${/^[aei]/.test(type) ? 'an' : 'a'} ${type}: ${JSON.stringify(text.slice(0, 80))}`)
}

/** A number in decimal or `0x` form that fits the type. */
function parseNumber(type: LiteralType, text: string): Uint8Array {
  const value = /^(0x[0-9a-fA-F]{1,8}|\d{1,10})$/.test(text) ? Number(text) : Number.NaN
  if (!(value < 256 ** literalBytes(type))) bad(type, text)
  return numberToBytes(type, value)
}

const bytesToHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** True for payload that is compared as the number that it is, big-endian. */
export const isRawType = (type: LiteralType): boolean => type.startsWith('raw_u')

/** The bytes of a raw number; undefined when it is wider than the type. */
export function rawToBytes(type: LiteralType, value: bigint): Uint8Array | undefined {
  const width = literalBytes(type)
  const digits = value.toString(16).padStart(2 * width, '0')
  if (digits.length > 2 * width) return undefined
  return Uint8Array.from({ length: width }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16))
}

/** The number that raw bytes are. */
export const bytesToRaw = (bytes: Uint8Array): bigint => BigInt(`0x${bytesToHex(bytes)}`)

/** A raw number as nft prints it. */
export const formatRaw = (value: bigint): string => `0x${value.toString(16)}`

function parseRaw(type: LiteralType, text: string): Uint8Array {
  return (/^0x[\da-f]{1,32}$/i.test(text) && rawToBytes(type, BigInt(text))) || bad(type, text)
}

/** One value, or two with a dash in between. */
function parseRange(
  type: LiteralType,
  text: string,
  parse: (type: LiteralType, text: string) => Uint8Array,
): LiteralRange {
  const dash = text.indexOf('-')
  if (dash < 0) return { from: parse(type, text) }
  const from = parse(type, text.slice(0, dash))
  const to = parse(type, text.slice(dash + 1))
  const order = compareBytes(to, from)
  if (order < 0) bad(type, text)
  return order === 0 ? { from } : { from, to }
}

const compareBytes = (a: Uint8Array, b: Uint8Array): number => {
  const at = a.findIndex((octet, i) => octet !== b[i])
  return at < 0 ? 0 : a[at]! - b[at]!
}

function parseNamed(type: LiteralType, text: string): Uint8Array {
  const { names, flags } = named[type]!
  if (!flags) return Object.hasOwn(names, text) ? numberToBytes(type, names[text]!) : parseNumber(type, text)
  let bits = 0
  for (const name of text.split(',')) {
    if (!Object.hasOwn(names, name)) bad(type, text)
    bits |= names[name]!
  }
  return numberToBytes(type, bits)
}

const addressFamily = (type: LiteralType): Family => (type === 'ipv4_addr' ? 4 : 6)

function parseAddress(type: LiteralType, text: string): LiteralRange {
  const family = addressFamily(type)
  const one = (part: string): Ip => {
    const ip = Ip.tryParse(part)
    return ip?.family === family ? ip : bad(type, text)
  }
  if (text.includes('/')) {
    const cidr = Cidr.tryParse(text)
    if (cidr?.family !== family) bad(type, text)
    if (cidr.length === bitsOf(family)) return { from: cidr.base.toBytes() }
    return { from: cidr.base.toBytes(), to: cidr.last.toBytes() }
  }
  const dash = text.indexOf('-')
  if (dash < 0) return { from: one(text).toBytes() }
  const from = one(text.slice(0, dash))
  const to = one(text.slice(dash + 1))
  if (from.compare(to) > 0) bad(type, text)
  return from.equals(to) ? { from: from.toBytes() } : { from: from.toBytes(), to: to.toBytes() }
}

/** Sixteen bytes, zero padded. */
function parseInterfaceName(text: string): Uint8Array {
  const name = /^"([^"\s/]{1,15})"$/.exec(text)?.[1] ?? bad('ifname', text)
  const bytes = new Uint8Array(16)
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (code > 126 || code < 33) bad('ifname', text)
    bytes[i] = code
  }
  return bytes
}

/** Reads one literal. Throws NftLiteralError. */
export function parseLiteral(type: LiteralType, text: string): LiteralRange {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return parseAddress(type, text)
    case 'ether_addr':
      return { from: (Mac.tryParse(text) ?? bad(type, text)).bytes }
    case 'ifname':
      return { from: parseInterfaceName(text) }
    case 'mark':
      return { from: parseNumber(type, text) }
    case 'raw_u16':
    case 'raw_u24':
    case 'raw_u32':
    case 'raw_u64':
    case 'raw_u128':
      return parseRange(type, text, parseRaw)
    case 'inet_service':
      return parseRange(type, text, parseNumber)
    case 'verdict':
      return bad(type, text)
    default:
      return { from: parseNamed(type, text) }
  }
}

/** Prints the value or range of one type, canonically. The bytes are as wide as the type. */
export function formatLiteral(type: LiteralType, from: Uint8Array, to?: Uint8Array): string {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return formatAddressRange(Ip.fromBytes(from), to && Ip.fromBytes(to))
    case 'ether_addr':
      return new Mac(from).toString()
    case 'ifname': {
      const nul = from.indexOf(0)
      return JSON.stringify(String.fromCharCode(...(nul < 0 ? from : from.subarray(0, nul))))
    }
    case 'mark':
      return `0x${bytesToNumber(type, from).toString(16).padStart(8, '0')}`
    case 'raw_u16':
    case 'raw_u24':
    case 'raw_u32':
    case 'raw_u64':
    case 'raw_u128':
      return to && compareBytes(from, to) !== 0
        ? `${formatRaw(bytesToRaw(from))}-${formatRaw(bytesToRaw(to))}`
        : formatRaw(bytesToRaw(from))
    case 'inet_service':
      return to && bytesToNumber(type, to) !== bytesToNumber(type, from)
        ? `${bytesToNumber(type, from)}-${bytesToNumber(type, to)}`
        : `${bytesToNumber(type, from)}`
    default:
      return formatNamed(type, bytesToNumber(type, from))
  }
}

function formatAddressRange(from: Ip, to: Ip | undefined): string {
  if (!to || from.equals(to)) return from.toString()
  const length = bitsOf(from.family) - (from.toBigInt() ^ to.toBigInt()).toString(2).length
  const block = Cidr.of(from, length)
  return block.base.equals(from) && block.last.equals(to) ? block.toString() : `${from}-${to}`
}

function formatNamed(type: LiteralType, value: number): string {
  const row = named[type]
  if (!row) throw new NftLiteralError(`Values of type ${type} have no text`)
  const entries = Object.entries(row.names)
  if (!row.flags) return entries.find(([, number]) => number === value)?.[0] ?? `${value}`
  const set = entries.filter(([, bit]) => value & bit)
  const rest = set.reduce((left, [, bit]) => left & ~bit, value)
  return rest || !set.length ? `0x${value.toString(16)}` : set.map(([name]) => name).join(',')
}

/** Writes the kinds of single values that sets have by the ten thousand in place; false for everything else. */
function writePlain(type: LiteralType, text: string, out: Uint8Array, at: number): boolean {
  if (type === 'ipv4_addr' || type === 'ipv6_addr') {
    const ip = Ip.tryParse(text)
    if (ip?.family !== addressFamily(type)) return false
    ip.writeTo(out, at)
    return true
  }
  if (type === 'inet_service') {
    const port = Number(text)
    if (!/^\d{1,5}$/.test(text) || port > 65535) return false
    out[at] = port >> 8
    out[at + 1] = port & 255
    return true
  }
  const protocol = type === 'inet_proto' ? protocolNumbers.get(text) : undefined
  if (protocol === undefined) return false
  out[at] = protocol
  return true
}

/**
 * Reads a whole key: one literal, or literals joined by ` . `, each padded to words. A range in any field makes the
 * whole key a range (`to` present). Throws NftLiteralError.
 */
export function parseKey(types: readonly LiteralType[], text: string): LiteralRange {
  const parts = types.length === 1 ? [text] : text.split(' . ')
  if (parts.length !== types.length)
    throw new NftLiteralError(`${JSON.stringify(text.slice(0, 120))} has ${parts.length} fields, not ${types.length}`)
  const from = new Uint8Array(keyBytes(types))
  let to: Uint8Array | undefined
  let at = 0
  for (let i = 0; i < types.length; i++) {
    const type = types[i]!
    if (!writePlain(type, parts[i]!, from, at)) {
      const field = parseLiteral(type, parts[i]!)
      from.set(field.from, at)
      if (field.to) {
        to ??= from.slice()
        to.set(field.to, at)
      } else to?.set(field.from, at)
    } else to?.set(from.subarray(at, at + literalBytes(type)), at)
    at += paddedBytes(type)
  }
  return to ? { from, to } : { from }
}

/** Prints a whole key. Throws NftLiteralError when the bytes are not as many as the types need. */
export function formatKey(types: readonly LiteralType[], from: Uint8Array, to?: Uint8Array): string {
  // The kernel gives back what was sent: a lone field may arrive padded or not.
  if (from.length < keyBytes(types) || (to && to.length < keyBytes(types)))
    throw new NftLiteralError(`A key of ${from.length} bytes is too short for ${types.join(' . ')}`)
  const parts: string[] = []
  let at = 0
  for (const type of types) {
    const end = at + literalBytes(type)
    parts.push(formatLiteral(type, from.subarray(at, end), to?.subarray(at, end)))
    at += paddedBytes(type)
  }
  return parts.join(' . ')
}

export interface NftVerdict {
  readonly verdict: 'accept' | 'drop' | 'return' | 'continue' | 'jump' | 'goto'
  readonly chain?: string
}

/** Reads `accept`, `jump chain`, … Throws NftLiteralError. */
export function parseVerdict(text: string): NftVerdict {
  const parts = /^(?:(accept|drop|return|continue)|(jump|goto) ([A-Za-z_][\w/\\.-]{0,126}))$/.exec(text)
  if (!parts) return bad('verdict', text)
  if (parts[1]) return { verdict: parts[1] as 'accept' }
  return { verdict: parts[2] as 'jump', chain: parts[3]! }
}

export const formatVerdict = ({ verdict, chain }: NftVerdict): string => (chain ? `${verdict} ${chain}` : verdict)
