/**
 * Communities between text and numbers: standard ones (RFC 1997), large ones (RFC 8092) and the two extended ones that
 * routers write by name, route target and route origin (RFC 4360, 5668).
 *
 *   65000:100   no-export   4259840100         standard, 32 bits
 *   65000:1:2                                  large, three words
 *   rt:65000:1   ro:10.0.0.1:5                 extended, 64 bits: type, subtype, administrator, number
 *
 * Sources: RFC 1997, 4360 section 3 and 4, 5668 (4-octet AS), 8092; IANA, BGP Extended Communities (types 0x00 to 0x02).
 */
import { Ip } from '../net/ip.ts'
import { type CommunityText, wellKnownCommunities } from './bgp.ts'

export type Community =
  | { readonly kind: 'standard'; readonly value: number }
  | { readonly kind: 'large'; readonly value: readonly [number, number, number] }
  /** Eight octets as an unsigned integer. */
  | { readonly kind: 'extended'; readonly value: bigint }

const WORD = 0xffffffff
const HALF = 0xffff
const subtypes: Readonly<Record<string, number>> = { rt: 2, ro: 3 }

const nameOfWellKnown = new Map(Object.entries(wellKnownCommunities).map(([name, value]) => [value, name]))

/** undefined for text that is no community. */
export function parseCommunity(text: CommunityText): Community | undefined {
  if (text.length > 40) return undefined
  const known = Object.hasOwn(wellKnownCommunities, text) ? wellKnownCommunities[text] : undefined
  if (known !== undefined) return { kind: 'standard', value: known }
  const [first = '', ...rest] = text.split(':')
  if (Object.hasOwn(subtypes, first)) return parseExtended(subtypes[first]!, rest)
  const numbers = [first, ...rest].map(parseNumber)
  const [a = -1, b = -1, c = -1] = numbers
  if (numbers.some((number) => number < 0 || number > WORD)) return undefined
  if (numbers.length === 1) return { kind: 'standard', value: a }
  if (numbers.length === 2) return a <= HALF && b <= HALF ? { kind: 'standard', value: a * 65536 + b } : undefined
  return numbers.length === 3 ? { kind: 'large', value: [a, b, c] } : undefined
}

/** Administrator and number: two octets and four, or the other way round. */
function parseExtended(
  subtype: number,
  [administrator = '', numberText = '', ...more]: string[],
): Community | undefined {
  const number = parseNumber(numberText)
  if (more.length > 0 || number < 0 || number > WORD) return undefined
  const community = (type: number, half: number, word: number): Community => ({
    kind: 'extended',
    value: (BigInt(((type << 24) | (subtype << 16) | half) >>> 0) << 32n) | BigInt(word >>> 0),
  })
  const address = Ip.tryParse(administrator)
  if (address) {
    if (address.family !== 4 || number > HALF) return undefined
    return community(1, address.w3 >>> 16, ((address.w3 & HALF) << 16) | number)
  }
  const asn = parseNumber(administrator)
  if (asn < 0 || asn > WORD) return undefined
  if (asn <= HALF) return community(0, asn, number)
  if (number > HALF) return undefined
  return community(2, asn >>> 16, ((asn & HALF) << 16) | number)
}

const parseNumber = (text: string): number => (/^(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : -1)

/** `65000:100`, or the name of a well-known one. */
export const formatStandardCommunity = (value: number): CommunityText =>
  nameOfWellKnown.get(value >>> 0) ?? `${value >>> 16}:${value & HALF}`

export const formatLargeCommunity = (a: number, b: number, c: number): CommunityText =>
  `${a >>> 0}:${b >>> 0}:${c >>> 0}`

/** Those without a name as 16 digits: `0x43000000000003e8`. */
export function formatExtendedCommunity(value: bigint): CommunityText {
  const high = Number(value >> 32n)
  const low = Number(value & 0xffffffffn)
  const type = high >>> 24
  const name = Object.keys(subtypes).find((each) => subtypes[each] === ((high >>> 16) & 0xff))
  const wide = ((high & HALF) * 65536 + (low >>> 16)) >>> 0
  if (name && type === 0) return `${name}:${high & HALF}:${low >>> 0}`
  if (name && type === 1) return `${name}:${Ip.v4(wide)}:${low & HALF}`
  if (name && type === 2) return `${name}:${wide}:${low & HALF}`
  return `0x${value.toString(16).padStart(16, '0')}`
}

export function formatCommunity(community: Community): CommunityText {
  if (community.kind === 'standard') return formatStandardCommunity(community.value)
  if (community.kind === 'large') return formatLargeCommunity(...community.value)
  return formatExtendedCommunity(community.value)
}
