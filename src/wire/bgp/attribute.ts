/**
 * A block of path attributes in bytes and as an object. The block is what UPDATEs with one set of attributes have in common,
 * and what sets are told apart by: the attributes as they came, without MP_UNREACH_NLRI; routes of MP_REACH_NLRI have it in
 * front without its prefixes and have no NEXT_HOP, so that the next hop belongs to the set either way.
 *
 * Sources: RFC 4271 sections 4.3 and 5, RFC 7606 sections 3 to 5, RFC 6793 section 4.2 (two-octet speakers), RFC 4271 section 9
 * and 5 (unknown attributes: transitive ones are kept with PARTIAL set, others go).
 */
import { DecodeError, EncodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import { hasAsZero, isConfederation, mergeAs4Path, needsFourOctets } from './as-path.ts'
import { type AttributeRow, attributeRows, type RawAttributes, rowOfType } from './attribute-table.ts'
import type { Attributes, NextHop, UnknownAttribute } from './attributes.ts'
import { AS_TRANS, AttributeFlag, AttributeType, UpdateError } from './constants.ts'
import type { WireContext } from './context.ts'
import { type Fault, strongestReaction } from './error.ts'
import { AFI_IPV4, afiOf, IPV4_UNICAST, type RouteFamily, safiOf } from './family.ts'

export interface DecodedAttributes {
  /** Without what was discarded. When the reaction is treatAsWithdraw it is incomplete and for the log only. */
  readonly attributes: Attributes
  readonly faults: readonly Fault[]
  /** The strongest reaction of the faults. */
  readonly reaction: Fault['reaction'] | undefined
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Flags that the documents fix. */
const FIXED_FLAGS = AttributeFlag.OPTIONAL | AttributeFlag.TRANSITIVE

/**
 * The attributes of a block that `decodeUpdate` made, for routes that are announced with it. Never throws: a block is
 * decoded once, and its faults are kept with it. The result holds nothing of the block's memory. It depends on
 * `fourOctetAs` and `peerType` of the context alone.
 */
export function decodeAttributes(block: Uint8Array, context: WireContext): DecodedAttributes {
  const faults: Fault[] = []
  const raw: Mutable<RawAttributes> = {}
  const unknown: UnknownAttribute[] = []
  const seen = new Set<number>()
  for (let at = 0; at < block.length; ) {
    const flags = block[at]!
    const type = block[at + 1]!
    const long = (flags & AttributeFlag.EXTENDED_LENGTH) !== 0
    const start = at + (long ? 4 : 3)
    at = start + (long ? (block[at + 2]! << 8) | block[at + 3]! : block[at + 2]!)
    const row = rowOfType[type]
    // The first one counts (RFC 7606 section 3.g).
    if (seen.has(type)) {
      faults.push(fault(type, 'discardAttribute', UpdateError.MALFORMED_ATTRIBUTE_LIST, 'stands there twice'))
    } else if (row) {
      decodeKnown(row, flags, new Reader(block, start, at), context, raw, faults)
    } else if (flags & AttributeFlag.TRANSITIVE) {
      // Whoever passes on what it does not know says so (RFC 4271 section 5).
      unknown.push({ type, flags: (flags & FIXED_FLAGS) | AttributeFlag.PARTIAL, value: block.slice(start, at) })
    }
    seen.add(type)
  }
  if (unknown.length > 0) raw.unknown = unknown
  checkAsZero(raw, context, faults)
  const attributes = mergeFourOctets(raw, context)
  checkWhole(attributes, seen, context, faults)
  return Object.freeze({ attributes: Object.freeze(attributes), faults, reaction: strongestReaction(faults) })
}

const nameOf = (type: number): string => rowOfType[type]?.name ?? `attribute ${type}`

const fault = (type: number, reaction: Fault['reaction'], subcode: number, problem: string): Fault => ({
  reaction,
  attribute: type,
  subcode,
  problem: `${nameOf(type)}: ${problem}`,
})

function decodeKnown(
  row: AttributeRow<unknown>,
  flags: number,
  value: Reader,
  context: WireContext,
  raw: Mutable<RawAttributes>,
  faults: Fault[],
): void {
  const { type } = row
  if ((flags & FIXED_FLAGS) !== row.flags) {
    const reaction = row.wrongFlags ?? 'treatAsWithdraw'
    faults.push(fault(type, reaction, UpdateError.ATTRIBUTE_FLAGS, `flags 0x${flags.toString(16)}`))
    return
  }
  if (row.internalOnly && context.peerType === 'external') {
    faults.push(fault(type, 'discardAttribute', UpdateError.OPTIONAL_ATTRIBUTE, 'from an external peer'))
    return
  }
  if (!row.sizeAllowed(value.remaining, context)) {
    faults.push(fault(type, row.malformed, UpdateError.ATTRIBUTE_LENGTH, `${value.remaining} bytes`))
    return
  }
  try {
    Object.assign(raw, { [row.key]: row.decode(value, context) })
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    faults.push(fault(type, row.malformed, row.subcode, error.problem))
  }
}

/** RFC 7607 section 2: AS 0 in a path takes its routes, also in AS4_PATH, which is otherwise left out when it is wrong. */
function checkAsZero({ asPath, as4Path }: RawAttributes, { fourOctetAs }: WireContext, faults: Fault[]): void {
  const found = (type: number) => faults.push(fault(type, 'treatAsWithdraw', UpdateError.MALFORMED_AS_PATH, 'AS 0'))
  if (asPath && hasAsZero(asPath)) found(AttributeType.AS_PATH)
  if (as4Path && !fourOctetAs && hasAsZero(as4Path)) found(AttributeType.AS4_PATH)
}

/** Takes AS4_PATH and AS4_AGGREGATOR into what they complete; between two four-octet speakers they mean nothing. */
function mergeFourOctets(raw: Mutable<RawAttributes>, { fourOctetAs }: WireContext): Mutable<Attributes> {
  const { as4Path, as4Aggregator, ...attributes } = raw
  if (fourOctetAs) return attributes
  // An aggregator that needed no fourth octet is younger than AS4_*: somebody who does not know them made it.
  const outdated = attributes.aggregator !== undefined && attributes.aggregator.asn !== AS_TRANS
  if (as4Aggregator && attributes.aggregator?.asn === AS_TRANS) attributes.aggregator = as4Aggregator
  if (as4Path && attributes.asPath && !(outdated && as4Aggregator))
    attributes.asPath = mergeAs4Path(attributes.asPath, as4Path)
  return attributes
}

/** What only the whole set tells. */
function checkWhole(
  attributes: Attributes,
  seen: ReadonlySet<number>,
  { peerType }: WireContext,
  faults: Fault[],
): void {
  const missing = (type: number) =>
    faults.push(fault(type, 'treatAsWithdraw', UpdateError.MISSING_WELL_KNOWN, 'is missing'))
  if (!seen.has(AttributeType.ORIGIN)) missing(AttributeType.ORIGIN)
  if (!seen.has(AttributeType.AS_PATH)) missing(AttributeType.AS_PATH)
  if (!seen.has(AttributeType.NEXT_HOP) && !seen.has(AttributeType.MP_REACH_NLRI)) missing(AttributeType.NEXT_HOP)
  // RFC 5065 section 5: confederation segments stay within the confederation.
  if (peerType === 'external' && attributes.asPath?.some(isConfederation))
    faults.push(
      fault(
        AttributeType.AS_PATH,
        'treatAsWithdraw',
        UpdateError.MALFORMED_AS_PATH,
        'confederation segment from an external peer',
      ),
    )
}

/**
 * The block of routes of `family` with these attributes, in the form that `decodeAttributes` reads and `packReach` sends.
 * IPv4 unicast with an IPv4 next hop has NEXT_HOP; all else has MP_REACH_NLRI. Toward a two-octet speaker AS4_PATH and
 * AS4_AGGREGATOR stand in for what does not fit.
 */
export function encodeAttributes(attributes: Attributes, family: RouteFamily, context: WireContext): Uint8Array {
  const writer = new Writer()
  const { nextHop, unknown = [], ...plain } = attributes
  const raw: RawAttributes = context.fourOctetAs ? plain : splitFourOctets(plain)
  const classic = isClassic(family, nextHop)
  if (nextHop && !classic) writeReachHead(writer, family, nextHop)
  const rest = [...unknown]
  for (const row of attributeRows) {
    if (row.type === AttributeType.MP_REACH_NLRI) continue
    const value = row.type === AttributeType.NEXT_HOP ? (classic ? nextHop : undefined) : raw[row.key]
    if (value === undefined) continue
    while (rest.length > 0 && rest[0]!.type < row.type) writeUnknown(writer, rest.shift()!)
    writeAttribute(writer, row.flags, row.type, () => row.encode(writer, value, context))
  }
  for (const attribute of rest) writeUnknown(writer, attribute)
  return writer.finish().slice()
}

/** Does the next hop stand in NEXT_HOP, and the prefixes at the end of the UPDATE? */
export const isClassic = (family: RouteFamily, nextHop: NextHop | undefined): boolean =>
  family === IPV4_UNICAST && (nextHop === undefined || nextHop.address.family === 4)

const writeUnknown = (writer: Writer, { type, flags, value }: UnknownAttribute): void =>
  writeAttribute(writer, flags, type, () => writer.bytes(value))

/** Flags, type, length in one octet or two, value. */
function writeAttribute(writer: Writer, flags: number, type: number, value: () => void): void {
  const at = writer.length
  writer.u8(flags)
  writer.u8(type)
  writer.u8(0)
  const start = writer.length
  value()
  const length = writer.length - start
  if (length <= 0xff) {
    writer.patchU8(start - 1, length)
    return
  }
  if (length > 0xffff) throw new EncodeError(`${nameOf(type)} of ${length} bytes`)
  // One octet was not enough: make room for the second.
  const bytes = writer.finish().slice(start)
  writer.patchU8(at, flags | AttributeFlag.EXTENDED_LENGTH)
  writer.truncate(start - 1)
  writer.u16be(length)
  writer.bytes(bytes)
}

function writeReachHead(writer: Writer, family: RouteFamily, { address, linkLocal }: NextHop): void {
  if (address.family === 4 && afiOf(family) !== AFI_IPV4)
    throw new EncodeError(`next hop ${address} for routes of AFI ${afiOf(family)}`)
  writeAttribute(writer, AttributeFlag.OPTIONAL, AttributeType.MP_REACH_NLRI, () => {
    writer.u16be(afiOf(family))
    writer.u8(safiOf(family))
    const addresses = linkLocal && address.family === 6 ? [address, linkLocal] : [address]
    writer.u8(addresses.length * (address.family === 4 ? 4 : 16))
    for (const ip of addresses) writer.bytes(ip.toBytes())
    writer.u8(0)
  })
}

/** For a two-octet speaker: AS4_PATH without confederation segments, and AS4_AGGREGATOR, where a number does not fit. */
function splitFourOctets(attributes: Attributes): RawAttributes {
  const { asPath = [], aggregator } = attributes
  const as4Path = asPath.filter((segment) => !isConfederation(segment))
  return {
    ...attributes,
    ...(needsFourOctets(as4Path) ? { as4Path } : {}),
    ...(aggregator && aggregator.asn > 0xffff ? { as4Aggregator: aggregator } : {}),
  }
}
