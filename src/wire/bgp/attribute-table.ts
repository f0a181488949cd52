/**
 * Path attributes, a row each: number, flags, allowed lengths, how the value stands in bytes, and what a malformed one is
 * answered with (RFC 7606). What needs other attributes or the context's session stands in attribute.ts.
 *
 * Sources: RFC 4271 sections 4.3 and 5, RFC 7606 section 7 (ORIGIN to EXTENDED_COMMUNITIES), RFC 7607 (AS 0), RFC 6793
 * sections 3 and 6 (AS4_*), RFC 8092 section 5 (LARGE_COMMUNITY), RFC 9234 section 5 (OTC), RFC 7311 section 3 (AIGP),
 * RFC 2545 section 3 and RFC 8950 section 3 (next hops of MP_REACH_NLRI).
 */
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import { Ip } from '../../net/ip.ts'
import { readAsPath, writeAsPath } from './as-path.ts'
import type { Aggregator, AsPathSegment, Attributes, LargeCommunity, NextHop } from './attributes.ts'
import { AS_TRANS, AttributeFlag, AttributeType, Origin, UpdateError } from './constants.ts'
import type { WireContext } from './context.ts'
import type { Fault } from './error.ts'
import { AFI_IPV4, type RouteFamily } from './family.ts'

/** Attributes while they are read: the two-octet speakers' additions are not merged yet. */
export interface RawAttributes extends Attributes {
  readonly as4Path?: readonly AsPathSegment[]
  readonly as4Aggregator?: Aggregator
}

export interface AttributeRow<T> {
  readonly type: number
  /** As the documents call it. */
  readonly name: string
  readonly key: keyof RawAttributes
  /** OPTIONAL and TRANSITIVE as they must be. */
  readonly flags: number
  readonly sizeAllowed: (bytes: number, context: WireContext) => boolean
  /** What a malformed value is answered with. */
  readonly malformed: Fault['reaction']
  /** What wrong flags are answered with, where it is not treat-as-withdraw. */
  readonly wrongFlags?: Fault['reaction']
  /** Subcode for a bad value of a right length. */
  readonly subcode: number
  /** From an external peer it is discarded unread (RFC 7606 sections 7.5, 7.9, 7.10). */
  readonly internalOnly?: true
  /** Throws DecodeError on a bad value. */
  decode(value: Reader, context: WireContext): T
  encode(writer: Writer, value: T, context: WireContext): void
}

const WELL_KNOWN = AttributeFlag.TRANSITIVE
const OPTIONAL = AttributeFlag.OPTIONAL
const OPTIONAL_TRANSITIVE = AttributeFlag.OPTIONAL | AttributeFlag.TRANSITIVE

const exactly = (size: number) => (bytes: number) => bytes === size
/** Not 0: an empty list is malformed. */
const severalOf = (size: number) => (bytes: number) => bytes > 0 && bytes % size === 0
const any = () => true

const u32 = {
  sizeAllowed: exactly(4),
  malformed: 'treatAsWithdraw',
  subcode: UpdateError.OPTIONAL_ATTRIBUTE,
  decode: (value: Reader) => value.u32be(),
  encode: (writer: Writer, value: number) => writer.u32be(value),
} as const

const u32List = {
  ...u32,
  sizeAllowed: severalOf(4),
  decode(value: Reader): number[] {
    const out: number[] = []
    while (value.remaining > 0) out.push(value.u32be())
    return out
  },
  encode(writer: Writer, values: readonly number[]) {
    for (const value of values) writer.u32be(value)
  },
} as const

const writeIp = (writer: Writer, ip: Ip) =>
  writer.place(ip.family === 4 ? 4 : 16, (out, offset) => void ip.writeTo(out, offset))

/** A host that packets can be sent to: not this network, loopback, multicast or class E. */
function isHost(ip: Ip): boolean {
  if (ip.family === 6) return !ip.isAny && !ip.isMulticast && !ip.isLoopback
  const first = ip.w3 >>> 24
  return first !== 0 && first !== 127 && first < 224
}

const readIp = (value: Reader, bytes: number): Ip => Ip.fromBytes(value.bytes(bytes))

/** Lengths of a next hop in MP_REACH_NLRI, by family and whether IPv4 may have IPv6 next hops. */
export function nextHopSizeAllowed(family: RouteFamily, bytes: number, context: WireContext): boolean {
  if (family >>> 8 !== AFI_IPV4) return bytes === 16 || bytes === 32
  return bytes === 4 || ((bytes === 16 || bytes === 32) && context.extendedNextHop.has(family))
}

/** An IPv6 next hop may be followed by the link-local one; some speakers leave the first one empty then. */
function readReachNextHop(value: Reader, bytes: number): NextHop {
  const first = readIp(value, bytes === 4 ? 4 : 16)
  const second = bytes === 32 ? readIp(value, 16) : undefined
  const linkLocal = second?.isLinkLocal ? second : undefined
  const address = first.isAny && linkLocal ? linkLocal : first
  if (!isHost(address)) value.fail(`next hop ${first}`)
  return linkLocal ? { address, linkLocal } : { address }
}

const AIGP_TLV = 1
const AIGP_TLV_BYTES = 11

/** The metric of the first TLV of its type; lengths must add up, and there must be one. */
function readAigp(value: Reader): bigint {
  let metric: bigint | undefined
  while (value.remaining > 0) {
    const type = value.u8()
    const length = value.u16be()
    if (length < 3 || (type === AIGP_TLV && length !== AIGP_TLV_BYTES)) value.fail(`TLV ${type} of ${length} bytes`)
    value.scoped(length - 3, (tlv) => {
      if (type === AIGP_TLV) metric ??= tlv.u64be()
      else tlv.skip(tlv.remaining)
    })
  }
  return metric ?? value.fail('no metric')
}

const row = <K extends keyof RawAttributes>(
  key: K,
  rest: Omit<AttributeRow<NonNullable<RawAttributes[K]>>, 'key'>,
): AttributeRow<unknown> => ({ key, ...rest })

/** In the order in which they are written: MP_REACH_NLRI leads (RFC 7606 section 5.1), then by number. */
export const attributeRows: readonly AttributeRow<unknown>[] = [
  row('nextHop', {
    type: AttributeType.MP_REACH_NLRI,
    name: 'MP_REACH_NLRI',
    flags: OPTIONAL,
    // Without its prefixes: family, next hop and the reserved octet. update.ts has seen to the lengths.
    sizeAllowed: any,
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode(value) {
      value.skip(3)
      return value.scoped(value.u8(), (nextHop) => readReachNextHop(nextHop, nextHop.remaining))
    },
    encode() {
      throw new Error('MP_REACH_NLRI is written with its family')
    },
  }),
  row('origin', {
    type: AttributeType.ORIGIN,
    name: 'ORIGIN',
    flags: WELL_KNOWN,
    sizeAllowed: exactly(1),
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.INVALID_ORIGIN,
    decode(value) {
      const origin = value.u8()
      return origin <= Origin.INCOMPLETE ? origin : value.fail(`value ${origin}`)
    },
    encode: (writer, origin) => writer.u8(origin),
  }),
  row('asPath', {
    type: AttributeType.AS_PATH,
    name: 'AS_PATH',
    flags: WELL_KNOWN,
    sizeAllowed: any,
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.MALFORMED_AS_PATH,
    decode: (value, { fourOctetAs }) => readAsPath(value, fourOctetAs),
    encode: (writer, segments, { fourOctetAs }) => writeAsPath(writer, segments, fourOctetAs),
  }),
  row('nextHop', {
    type: AttributeType.NEXT_HOP,
    name: 'NEXT_HOP',
    flags: WELL_KNOWN,
    sizeAllowed: exactly(4),
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.INVALID_NEXT_HOP,
    decode(value) {
      const address = readIp(value, 4)
      return isHost(address) ? { address } : value.fail(`address ${address}`)
    },
    encode: (writer, { address }) => writeIp(writer, address),
  }),
  row('med', { ...u32, type: AttributeType.MULTI_EXIT_DISC, name: 'MULTI_EXIT_DISC', flags: OPTIONAL }),
  row('localPreference', {
    ...u32,
    type: AttributeType.LOCAL_PREF,
    name: 'LOCAL_PREF',
    flags: WELL_KNOWN,
    internalOnly: true,
  }),
  row('atomicAggregate', {
    type: AttributeType.ATOMIC_AGGREGATE,
    name: 'ATOMIC_AGGREGATE',
    flags: WELL_KNOWN,
    sizeAllowed: exactly(0),
    malformed: 'discardAttribute',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode: () => true,
    encode: () => {},
  }),
  row('aggregator', {
    type: AttributeType.AGGREGATOR,
    name: 'AGGREGATOR',
    flags: OPTIONAL_TRANSITIVE,
    sizeAllowed: (bytes, { fourOctetAs }) => bytes === (fourOctetAs ? 8 : 6),
    malformed: 'discardAttribute',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode: (value, { fourOctetAs }) => readAggregator(value, fourOctetAs),
    encode(writer, { asn, identifier }, { fourOctetAs }) {
      if (fourOctetAs) writer.u32be(asn)
      else writer.u16be(asn > 0xffff ? AS_TRANS : asn)
      writer.u32be(identifier)
    },
  }),
  row('communities', {
    ...u32List,
    type: AttributeType.COMMUNITIES,
    name: 'COMMUNITIES',
    flags: OPTIONAL_TRANSITIVE,
  }),
  row('originatorId', {
    ...u32,
    type: AttributeType.ORIGINATOR_ID,
    name: 'ORIGINATOR_ID',
    flags: OPTIONAL,
    internalOnly: true,
  }),
  row('clusterList', {
    ...u32List,
    type: AttributeType.CLUSTER_LIST,
    name: 'CLUSTER_LIST',
    flags: OPTIONAL,
    internalOnly: true,
  }),
  row('extendedCommunities', {
    type: AttributeType.EXTENDED_COMMUNITIES,
    name: 'EXTENDED_COMMUNITIES',
    flags: OPTIONAL_TRANSITIVE,
    sizeAllowed: severalOf(8),
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode(value) {
      const out: bigint[] = []
      while (value.remaining > 0) out.push(value.u64be())
      return out
    },
    encode(writer, communities) {
      for (const community of communities) writer.u64be(community)
    },
  }),
  row('as4Path', {
    type: AttributeType.AS4_PATH,
    name: 'AS4_PATH',
    flags: OPTIONAL_TRANSITIVE,
    sizeAllowed: any,
    malformed: 'discardAttribute',
    subcode: UpdateError.MALFORMED_AS_PATH,
    decode: (value) => readAsPath(value, true),
    encode: (writer, segments) => writeAsPath(writer, segments, true),
  }),
  row('as4Aggregator', {
    type: AttributeType.AS4_AGGREGATOR,
    name: 'AS4_AGGREGATOR',
    flags: OPTIONAL_TRANSITIVE,
    sizeAllowed: exactly(8),
    malformed: 'discardAttribute',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode: (value) => readAggregator(value, true),
    encode(writer, { asn, identifier }) {
      writer.u32be(asn)
      writer.u32be(identifier)
    },
  }),
  row('aigp', {
    type: AttributeType.AIGP,
    name: 'AIGP',
    flags: OPTIONAL,
    sizeAllowed: any,
    malformed: 'discardAttribute',
    wrongFlags: 'discardAttribute',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode: readAigp,
    encode(writer, metric) {
      writer.u8(AIGP_TLV)
      writer.u16be(AIGP_TLV_BYTES)
      writer.u64be(metric)
    },
  }),
  row('largeCommunities', {
    type: AttributeType.LARGE_COMMUNITY,
    name: 'LARGE_COMMUNITY',
    flags: OPTIONAL_TRANSITIVE,
    sizeAllowed: severalOf(12),
    malformed: 'treatAsWithdraw',
    subcode: UpdateError.OPTIONAL_ATTRIBUTE,
    decode(value) {
      const out: LargeCommunity[] = []
      while (value.remaining > 0) out.push([value.u32be(), value.u32be(), value.u32be()])
      return out
    },
    encode(writer, communities) {
      for (const community of communities) for (const part of community) writer.u32be(part)
    },
  }),
  row('onlyToCustomer', {
    ...u32,
    type: AttributeType.ONLY_TO_CUSTOMER,
    name: 'ONLY_TO_CUSTOMER',
    flags: OPTIONAL_TRANSITIVE,
  }),
]

function readAggregator(value: Reader, fourOctetAs: boolean): Aggregator {
  const asn = fourOctetAs ? value.u32be() : value.u16be()
  return asn === 0 ? value.fail('AS 0') : { asn, identifier: value.u32be() }
}

/** By attribute type; undefined: no row. */
export const rowOfType: readonly (AttributeRow<unknown> | undefined)[] = Array.from({ length: 256 }, (_, type) =>
  attributeRows.find((candidate) => candidate.type === type),
)
