/**
 * BMP: what a speaker tells a monitoring station: which peers come and go, what they sent before and after policy, counters.
 *
 *   version 3 | length 4 | type 1 | [ per-peer header 42 ] | body
 *
 * BGP messages in it are whole, with their headers. Messages of types that are not known are kept as bytes.
 *
 * Sources: RFC 7854 section 4, RFC 8671 section 4 (Adj-RIB-Out), RFC 9069 sections 4 and 5 (Loc-RIB); IANA, BMP Parameters.
 */
import { DecodeError, EncodeError, inField } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { decodeUtf8, encodeUtf8 } from '../../bytes/text.ts'
import { Writer } from '../../bytes/writer.ts'
import { Ip } from '../../net/ip.ts'
import { HEADER_BYTES } from '../bgp/constants.ts'
import { afiOf, type RouteFamily, routeFamily, safiOf } from '../bgp/family.ts'

export const BMP_VERSION = 3
/** Longer ones nobody needs: two OPENs of extended length, or one message, and TLVs. */
export const BMP_MESSAGE_BYTES_MAX = 1 << 18
const COMMON_HEADER_BYTES = 6

export const BmpType = {
  ROUTE_MONITORING: 0,
  STATISTICS: 1,
  PEER_DOWN: 2,
  PEER_UP: 3,
  INITIATION: 4,
  TERMINATION: 5,
  ROUTE_MIRRORING: 6,
} as const

/** Whose routes: a peer's in the usual table, in a VPN's, in a private one; or those that were chosen. */
export const BmpPeerType = { GLOBAL: 0, RD: 1, LOCAL: 2, LOC_RIB: 3 } as const

/** Kinds of counters and gauges, RFC 7854 section 4.8 and 8671 section 6.2. */
export const BmpStatistic = {
  REJECTED_PREFIXES: 0,
  DUPLICATE_PREFIXES: 1,
  DUPLICATE_WITHDRAWS: 2,
  CLUSTER_LIST_LOOPS: 3,
  AS_PATH_LOOPS: 4,
  ORIGINATOR_LOOPS: 5,
  CONFEDERATION_LOOPS: 6,
  ADJ_RIB_IN: 7,
  LOC_RIB: 8,
  ADJ_RIB_IN_OF_FAMILY: 9,
  LOC_RIB_OF_FAMILY: 10,
  TREATED_AS_WITHDRAW_UPDATES: 11,
  TREATED_AS_WITHDRAW_PREFIXES: 12,
  DUPLICATE_UPDATES: 13,
  ADJ_RIB_OUT_BEFORE_POLICY: 14,
  ADJ_RIB_OUT: 15,
  ADJ_RIB_OUT_BEFORE_POLICY_OF_FAMILY: 16,
  ADJ_RIB_OUT_OF_FAMILY: 17,
} as const

export const BmpInformationType = { STRING: 0, SYS_DESCR: 1, SYS_NAME: 2, VRF_TABLE_NAME: 3, ADMIN_LABEL: 4 } as const

/** The per-peer header. */
export interface BmpPeer {
  /** `BmpPeerType`. */
  readonly type: number
  /** 0 for peers in the usual table. */
  readonly distinguisher: bigint
  readonly address: Ip
  /** The routes are those behind the policy (of the Loc-RIB: those that a filter left). */
  readonly postPolicy: boolean
  /** AS_PATH in UPDATEs has two octets a number. */
  readonly twoOctetAs: boolean
  /** Routes that are sent to the peer, not those that came from it. */
  readonly adjRibOut: boolean
  readonly asn: number
  readonly identifier: number
  /** Unix time; 0: unknown. */
  readonly seconds: number
  readonly microseconds: number
}

/** `type` is `BmpInformationType`, or that of the message it stands in. */
export interface BmpInformation {
  readonly type: number
  readonly value: Uint8Array
}

/** Text of an information, and an information of a text. */
export const informationText = ({ value }: BmpInformation): string => decodeUtf8(value)
export const informationOf = (type: number, text: string): BmpInformation => ({ type, value: encodeUtf8(text) })

export interface BmpCounter {
  /** `BmpStatistic`. */
  readonly type: number
  /** A counter of 32 bits is a number, a gauge of 64 bits a bigint; other lengths stay bytes. */
  readonly value: number | bigint | Uint8Array
  /** For gauges of a family. */
  readonly family?: RouteFamily
}

export type BmpPeerDownReason =
  /** This speaker ended the session, and told why. */
  | { readonly kind: 'localNotification'; readonly message: Uint8Array }
  /** This speaker ended it without a word: an event of RFC 4271 section 8.1, or 0. */
  | { readonly kind: 'localEvent'; readonly event: number }
  | { readonly kind: 'remoteNotification'; readonly message: Uint8Array }
  | { readonly kind: 'remoteClosed' | 'deconfigured' }
  /** Another reason, with its data. */
  | { readonly kind: 'unknown'; readonly reason: number; readonly data: Uint8Array }

export type BmpMessage =
  | { readonly kind: 'routeMonitoring'; readonly peer: BmpPeer; readonly update: Uint8Array }
  | { readonly kind: 'statistics'; readonly peer: BmpPeer; readonly counters: readonly BmpCounter[] }
  | { readonly kind: 'peerDown'; readonly peer: BmpPeer; readonly reason: BmpPeerDownReason }
  | BmpPeerUp
  | { readonly kind: 'initiation' | 'termination'; readonly information: readonly BmpInformation[] }
  | { readonly kind: 'routeMirroring'; readonly peer: BmpPeer; readonly information: readonly BmpInformation[] }
  | { readonly kind: 'unknown'; readonly type: number; readonly body: Uint8Array }

export interface BmpPeerUp {
  readonly kind: 'peerUp'
  readonly peer: BmpPeer
  readonly localAddress: Ip
  readonly localPort: number
  readonly remotePort: number
  /** Whole OPEN messages. */
  readonly sentOpen: Uint8Array
  readonly receivedOpen: Uint8Array
  readonly information: readonly BmpInformation[]
}

/** Flags of the per-peer header. */
const Flag = { IPV6: 0x80, POST_POLICY: 0x40, TWO_OCTET_AS: 0x20, ADJ_RIB_OUT: 0x10 } as const
/** Of the Loc-RIB's header, where no address says the family. */
const LOC_RIB_FILTERED = 0x80

/**
 * How long the message is that begins at `offset`: undefined while fewer than six bytes are there. Throws DecodeError on another
 * version and on a length that no message has.
 */
export function bmpMessageBytes(bytes: Uint8Array, offset = 0): number | undefined {
  if (bytes.length - offset < COMMON_HEADER_BYTES) return undefined
  const reader = new Reader(bytes, offset)
  const version = reader.u8()
  if (version !== BMP_VERSION) throw new DecodeError(`version ${version}`, offset)
  const length = reader.u32be()
  if (length < COMMON_HEADER_BYTES || length > BMP_MESSAGE_BYTES_MAX) throw new DecodeError(`length ${length}`, offset)
  return length
}

/** One whole message. What it holds are copies. Throws DecodeError. */
export function decodeBmp(bytes: Uint8Array): BmpMessage {
  const length = bmpMessageBytes(bytes)
  if (length !== bytes.length) throw new DecodeError(`length ${length} in ${bytes.length} bytes`, 0)
  const reader = new Reader(bytes, COMMON_HEADER_BYTES - 1)
  const type = reader.u8()
  const message = inField(`BMP ${type}`, () => decodeBody(reader, type))
  if (reader.remaining > 0) reader.fail(`${reader.remaining} bytes too many`)
  return message
}

function decodeBody(reader: Reader, type: number): BmpMessage {
  switch (type) {
    case BmpType.ROUTE_MONITORING:
      return { kind: 'routeMonitoring', peer: decodePeer(reader), update: decodePdu(reader) }
    case BmpType.STATISTICS:
      return { kind: 'statistics', peer: decodePeer(reader), counters: decodeCounters(reader) }
    case BmpType.PEER_DOWN:
      return { kind: 'peerDown', peer: decodePeer(reader), reason: decodeReason(reader) }
    case BmpType.PEER_UP:
      return decodePeerUp(reader)
    case BmpType.INITIATION:
      return { kind: 'initiation', information: decodeInformation(reader) }
    case BmpType.TERMINATION:
      return { kind: 'termination', information: decodeInformation(reader) }
    case BmpType.ROUTE_MIRRORING:
      return { kind: 'routeMirroring', peer: decodePeer(reader), information: decodeInformation(reader) }
    default:
      return { kind: 'unknown', type, body: reader.rest().slice() }
  }
}

/** Sixteen bytes, of which IPv4 uses the last four. */
function decodeAddress(reader: Reader, ipv6: boolean): Ip {
  const bytes = reader.bytes(16)
  return Ip.fromBytes(ipv6 ? bytes : bytes.subarray(12))
}

function decodePeer(reader: Reader): BmpPeer {
  const type = reader.u8()
  const flags = reader.u8()
  const locRib = type === BmpPeerType.LOC_RIB
  return {
    type,
    distinguisher: reader.u64be(),
    address: decodeAddress(reader, !locRib && (flags & Flag.IPV6) !== 0),
    postPolicy: (flags & (locRib ? LOC_RIB_FILTERED : Flag.POST_POLICY)) !== 0,
    twoOctetAs: !locRib && (flags & Flag.TWO_OCTET_AS) !== 0,
    adjRibOut: !locRib && (flags & Flag.ADJ_RIB_OUT) !== 0,
    asn: reader.u32be(),
    identifier: reader.u32be(),
    seconds: reader.u32be(),
    microseconds: reader.u32be(),
  }
}

/** A BGP message, as long as its header says. */
function decodePdu(reader: Reader): Uint8Array {
  const at = reader.offset
  reader.skip(HEADER_BYTES)
  const length = (reader.buffer[at + 16]! << 8) | reader.buffer[at + 17]!
  if (length < HEADER_BYTES) reader.fail(`BGP message of ${length} bytes`)
  reader.skip(length - HEADER_BYTES)
  return reader.buffer.slice(at, at + length)
}

function decodeInformation(reader: Reader): BmpInformation[] {
  const information: BmpInformation[] = []
  while (reader.remaining > 0) {
    const type = reader.u16be()
    information.push({ type, value: reader.bytes(reader.u16be()).slice() })
  }
  return information
}

function decodeCounters(reader: Reader): BmpCounter[] {
  const counters: BmpCounter[] = []
  for (let n = reader.u32be(); n > 0; n--) {
    const type = reader.u16be()
    counters.push(
      reader.scoped(reader.u16be(), (value): BmpCounter => {
        if (value.remaining === 4) return { type, value: value.u32be() }
        if (value.remaining === 8) return { type, value: value.u64be() }
        if (value.remaining === 11)
          return { type, family: routeFamily(value.u16be(), value.u8()), value: value.u64be() }
        return { type, value: value.rest().slice() }
      }),
    )
  }
  return counters
}

const reasons: Readonly<Record<Exclude<BmpPeerDownReason['kind'], 'unknown'>, number>> = {
  localNotification: 1,
  localEvent: 2,
  remoteNotification: 3,
  remoteClosed: 4,
  deconfigured: 5,
}

function decodeReason(reader: Reader): BmpPeerDownReason {
  const reason = reader.u8()
  switch (reason) {
    case reasons.localNotification:
      return { kind: 'localNotification', message: decodePdu(reader) }
    case reasons.localEvent:
      return { kind: 'localEvent', event: reader.u16be() }
    case reasons.remoteNotification:
      return { kind: 'remoteNotification', message: decodePdu(reader) }
    case reasons.remoteClosed:
      return { kind: 'remoteClosed' }
    case reasons.deconfigured:
      return { kind: 'deconfigured' }
    default:
      return { kind: 'unknown', reason, data: reader.rest().slice() }
  }
}

function decodePeerUp(reader: Reader): BmpPeerUp {
  const peer = decodePeer(reader)
  return {
    kind: 'peerUp',
    peer,
    localAddress: decodeAddress(reader, peer.address.family === 6),
    localPort: reader.u16be(),
    remotePort: reader.u16be(),
    sentOpen: decodePdu(reader),
    receivedOpen: decodePdu(reader),
    information: decodeInformation(reader),
  }
}

/** A whole message in memory of its own. Throws EncodeError on addresses of two families in one message. */
export function encodeBmp(message: BmpMessage): Uint8Array {
  const writer = new Writer()
  writer.u8(BMP_VERSION)
  writer.u32be(0)
  writer.u8(typeOf(message))
  encodeBody(writer, message)
  writer.patchU32be(1, writer.length)
  return writer.finish().slice()
}

const types: Readonly<Record<Exclude<BmpMessage['kind'], 'unknown'>, number>> = {
  routeMonitoring: BmpType.ROUTE_MONITORING,
  statistics: BmpType.STATISTICS,
  peerDown: BmpType.PEER_DOWN,
  peerUp: BmpType.PEER_UP,
  initiation: BmpType.INITIATION,
  termination: BmpType.TERMINATION,
  routeMirroring: BmpType.ROUTE_MIRRORING,
}

const typeOf = (message: BmpMessage): number => (message.kind === 'unknown' ? message.type : types[message.kind])

function encodeBody(writer: Writer, message: BmpMessage): void {
  switch (message.kind) {
    case 'unknown':
      writer.bytes(message.body)
      break
    case 'initiation':
    case 'termination':
      encodeInformation(writer, message.information)
      break
    case 'routeMirroring':
      encodePeer(writer, message.peer)
      encodeInformation(writer, message.information)
      break
    case 'routeMonitoring':
      encodePeer(writer, message.peer)
      writer.bytes(message.update)
      break
    case 'statistics':
      encodePeer(writer, message.peer)
      encodeCounters(writer, message.counters)
      break
    case 'peerDown':
      encodePeer(writer, message.peer)
      encodeReason(writer, message.reason)
      break
    case 'peerUp':
      if (message.localAddress.family !== message.peer.address.family)
        throw new EncodeError(`a session between ${message.localAddress} and ${message.peer.address}`)
      encodePeer(writer, message.peer)
      encodeAddress(writer, message.localAddress)
      writer.u16be(message.localPort)
      writer.u16be(message.remotePort)
      writer.bytes(message.sentOpen)
      writer.bytes(message.receivedOpen)
      encodeInformation(writer, message.information)
  }
}

function encodeAddress(writer: Writer, address: Ip): void {
  if (address.family === 4) writer.zeros(12)
  writer.bytes(address.toBytes())
}

function encodePeer(writer: Writer, peer: BmpPeer): void {
  const locRib = peer.type === BmpPeerType.LOC_RIB
  writer.u8(peer.type)
  writer.u8(
    locRib
      ? peer.postPolicy
        ? LOC_RIB_FILTERED
        : 0
      : (peer.address.family === 6 ? Flag.IPV6 : 0) |
          (peer.postPolicy ? Flag.POST_POLICY : 0) |
          (peer.twoOctetAs ? Flag.TWO_OCTET_AS : 0) |
          (peer.adjRibOut ? Flag.ADJ_RIB_OUT : 0),
  )
  writer.u64be(peer.distinguisher)
  encodeAddress(writer, peer.address)
  writer.u32be(peer.asn)
  writer.u32be(peer.identifier)
  writer.u32be(peer.seconds)
  writer.u32be(peer.microseconds)
}

function encodeInformation(writer: Writer, information: readonly BmpInformation[]): void {
  for (const { type, value } of information) {
    if (value.length > 0xffff) throw new EncodeError(`${value.length} bytes of information`)
    writer.u16be(type)
    writer.u16be(value.length)
    writer.bytes(value)
  }
}

function encodeCounters(writer: Writer, counters: readonly BmpCounter[]): void {
  writer.u32be(counters.length)
  for (const { type, value, family } of counters) {
    writer.u16be(type)
    const at = writer.zeros(2)
    if (family !== undefined) {
      writer.u16be(afiOf(family))
      writer.u8(safiOf(family))
    }
    if (typeof value === 'number') writer.u32be(value)
    else if (typeof value === 'bigint') writer.u64be(value)
    else writer.bytes(value)
    writer.patchU16be(at, writer.length - at - 2)
  }
}

function encodeReason(writer: Writer, reason: BmpPeerDownReason): void {
  writer.u8(reason.kind === 'unknown' ? reason.reason : reasons[reason.kind])
  if (reason.kind === 'unknown') writer.bytes(reason.data)
  else if (reason.kind === 'localEvent') writer.u16be(reason.event)
  else if (reason.kind === 'localNotification' || reason.kind === 'remoteNotification') writer.bytes(reason.message)
}
