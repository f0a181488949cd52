/**
 * MRT: what a speaker was told, and what it knows, in files that every tool of the trade reads. Messages and state changes
 * (BGP4MP, with seconds, and BGP4MP_ET, with microseconds), and tables (TABLE_DUMP_V2), both also with path identifiers. Other
 * records are kept as bytes.
 *
 *   seconds 4 | type 2 | subtype 2 | length 4 | [ microseconds 4 ] | body
 *
 * Sources: RFC 6396 sections 2 to 4, RFC 8050 sections 3 and 4 (path identifiers); IANA, MRT Parameters.
 */
import { DecodeError, EncodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import { Cidr } from '../../net/cidr.ts'
import { bitsOf, Ip } from '../../net/ip.ts'

const MrtType = { TABLE_DUMP_V2: 13, BGP4MP: 16, BGP4MP_ET: 17 } as const
const PEER_INDEX_TABLE = 1
const AFI_IPV4 = 1
const AFI_IPV6 = 2

interface MrtTime {
  /** Unix time. */
  readonly seconds: number
  /** Present in BGP4MP_ET. */
  readonly microseconds?: number
}

/** The two ends of a session. */
export interface MrtSession extends MrtTime {
  /** Whether AS numbers of the record, and of the message in it, have four octets. */
  readonly fourOctetAs: boolean
  readonly peerAsn: number
  readonly localAsn: number
  /** 0: unknown. */
  readonly interfaceIndex: number
  /** Of one family. */
  readonly peerAddress: Ip
  readonly localAddress: Ip
}

export interface MrtMessage extends MrtSession {
  readonly kind: 'message'
  /** Sent by the collector itself, not by the peer. */
  readonly local: boolean
  /** Prefixes of the message have path identifiers. */
  readonly addPath: boolean
  /** With its header. */
  readonly message: Uint8Array
}

/** States are RFC 6396's numbers: Idle 1, Connect 2, Active 3, OpenSent 4, OpenConfirm 5, Established 6. */
export interface MrtStateChange extends MrtSession {
  readonly kind: 'stateChange'
  readonly oldState: number
  readonly newState: number
}

export interface MrtPeer {
  readonly identifier: number
  readonly address: Ip
  readonly asn: number
}

/** Leads a table; entries name peers by their place in it. */
export interface MrtPeerIndexTable extends MrtTime {
  readonly kind: 'peerIndexTable'
  readonly collectorIdentifier: number
  readonly viewName: string
  readonly peers: readonly MrtPeer[]
}

export interface MrtRibEntry {
  readonly peerIndex: number
  /** Unix time in seconds. */
  readonly originatedSeconds: number
  /** With `addPath`. */
  readonly pathId?: number
  /** Four-octet AS numbers; of MP_REACH_NLRI there is the next hop alone: see rib-attributes.ts. */
  readonly attributes: Uint8Array
}

/** Every path of one prefix. */
export interface MrtRib extends MrtTime {
  readonly kind: 'rib'
  readonly addPath: boolean
  readonly sequence: number
  readonly prefix: Cidr
  readonly entries: readonly MrtRibEntry[]
}

/** A record of another type, or one that contradicts itself: frr writes state changes of peers without an address so. */
export interface MrtUnknown extends MrtTime {
  readonly kind: 'unknown'
  /** What is wrong with it; undefined: nothing is known of its type. */
  readonly problem?: string
  readonly type: number
  readonly subtype: number
  readonly body: Uint8Array
}

export type MrtRecord = MrtMessage | MrtStateChange | MrtPeerIndexTable | MrtRib | MrtUnknown

/** BGP4MP's subtypes of messages; the two of state changes are 0 and, with four octets, 5. */
const messageSubtypes: readonly Pick<MrtMessage, 'fourOctetAs' | 'local' | 'addPath'>[] = Array.from(
  { length: 12 },
  (_, subtype) => ({
    fourOctetAs: [4, 7, 9, 11].includes(subtype),
    local: [6, 7, 10, 11].includes(subtype),
    addPath: subtype >= 8,
  }),
)
const MESSAGE_SUBTYPES = [1, 4, 6, 7, 8, 9, 10, 11]
const STATE_CHANGE = 0
const STATE_CHANGE_AS4 = 5

/** TABLE_DUMP_V2's subtypes of unicast tables. */
const ribSubtypes = [
  { subtype: 2, family: 4, addPath: false },
  { subtype: 4, family: 6, addPath: false },
  { subtype: 8, family: 4, addPath: true },
  { subtype: 10, family: 6, addPath: true },
] as const

/** Every record of a file, one after the other. Throws DecodeError on a record that is cut by the file's end. */
export function* readMrt(bytes: Uint8Array): Generator<MrtRecord> {
  const reader = new Reader(bytes)
  while (reader.remaining > 0) yield decodeMrt(reader)
}

/** The record at the reader's position. What it holds are copies. Throws DecodeError when its end is not there. */
export function decodeMrt(reader: Reader): MrtRecord {
  const seconds = reader.u32be()
  const type = reader.u16be()
  const subtype = reader.u16be()
  const bytes = reader.bytes(reader.u32be())
  const body = new Reader(bytes)
  try {
    const time = type === MrtType.BGP4MP_ET ? { seconds, microseconds: body.u32be() } : { seconds }
    const record = decodeBody(body, type, subtype, time)
    if (body.remaining > 0) body.fail(`${body.remaining} bytes too many`)
    return record
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    return { kind: 'unknown', seconds, type, subtype, body: bytes.slice(), problem: error.message }
  }
}

function decodeBody(body: Reader, type: number, subtype: number, time: MrtTime): MrtRecord {
  if (type === MrtType.BGP4MP || type === MrtType.BGP4MP_ET) {
    if (subtype === STATE_CHANGE || subtype === STATE_CHANGE_AS4) {
      const session = decodeSession(body, subtype === STATE_CHANGE_AS4, time)
      return { kind: 'stateChange', ...session, oldState: body.u16be(), newState: body.u16be() }
    }
    if (MESSAGE_SUBTYPES.includes(subtype)) {
      const { fourOctetAs, local, addPath } = messageSubtypes[subtype]!
      const session = decodeSession(body, fourOctetAs, time)
      return { kind: 'message', ...session, local, addPath, message: body.rest().slice() }
    }
  }
  if (type === MrtType.TABLE_DUMP_V2) {
    if (subtype === PEER_INDEX_TABLE) return decodePeers(body, time)
    const rib = ribSubtypes.find((candidate) => candidate.subtype === subtype)
    if (rib) return decodeRib(body, rib, time)
  }
  return { kind: 'unknown', ...time, type, subtype, body: body.rest().slice() }
}

const readIp = (reader: Reader, family: 4 | 6): Ip => Ip.fromBytes(reader.bytes(bitsOf(family) / 8))

function decodeSession(body: Reader, fourOctetAs: boolean, time: MrtTime): MrtSession {
  const asn = () => (fourOctetAs ? body.u32be() : body.u16be())
  const peerAsn = asn()
  const localAsn = asn()
  const interfaceIndex = body.u16be()
  const afi = body.u16be()
  if (afi !== AFI_IPV4 && afi !== AFI_IPV6) body.fail(`address family ${afi}`)
  const family = afi === AFI_IPV4 ? 4 : 6
  const peerAddress = readIp(body, family)
  return { ...time, fourOctetAs, peerAsn, localAsn, interfaceIndex, peerAddress, localAddress: readIp(body, family) }
}

const PEER_IPV6 = 1
const PEER_AS4 = 2

function decodePeers(body: Reader, time: MrtTime): MrtPeerIndexTable {
  const collectorIdentifier = body.u32be()
  const viewName = body.text(body.u16be())
  const peers: MrtPeer[] = []
  for (let n = body.u16be(); n > 0; n--) {
    const type = body.u8()
    const identifier = body.u32be()
    const address = readIp(body, type & PEER_IPV6 ? 6 : 4)
    peers.push({ identifier, address, asn: type & PEER_AS4 ? body.u32be() : body.u16be() })
  }
  return { kind: 'peerIndexTable', ...time, collectorIdentifier, viewName, peers }
}

function decodeRib(body: Reader, { family, addPath }: (typeof ribSubtypes)[number], time: MrtTime): MrtRib {
  const sequence = body.u32be()
  const length = body.u8()
  if (length > bitsOf(family)) body.fail(`prefix length ${length}`)
  const base = new Uint8Array(bitsOf(family) / 8)
  base.set(body.bytes((length + 7) >>> 3))
  const entries: MrtRibEntry[] = []
  for (let n = body.u16be(); n > 0; n--) {
    const peerIndex = body.u16be()
    const originatedSeconds = body.u32be()
    const path = addPath ? { pathId: body.u32be() } : {}
    entries.push({ peerIndex, originatedSeconds, ...path, attributes: body.bytes(body.u16be()).slice() })
  }
  return { kind: 'rib', ...time, addPath, sequence, prefix: Cidr.of(Ip.fromBytes(base), length), entries }
}

/** A whole record in memory of its own. Throws EncodeError on what its form cannot hold. */
export function encodeMrt(record: MrtRecord): Uint8Array {
  const writer = new Writer()
  writer.u32be(record.seconds)
  const { type, subtype } = numbersOf(record)
  writer.u16be(type)
  writer.u16be(subtype)
  writer.u32be(0)
  const start = writer.length
  if (type === MrtType.BGP4MP_ET && (record.kind !== 'unknown' || record.microseconds !== undefined))
    writer.u32be(record.microseconds ?? 0)
  encodeBody(writer, record)
  writer.patchU32be(start - 4, writer.length - start)
  return writer.finish().slice()
}

function numbersOf(record: MrtRecord): { type: number; subtype: number } {
  const bgp4mp = record.microseconds === undefined ? MrtType.BGP4MP : MrtType.BGP4MP_ET
  switch (record.kind) {
    case 'unknown':
      return record
    case 'stateChange':
      return { type: bgp4mp, subtype: record.fourOctetAs ? STATE_CHANGE_AS4 : STATE_CHANGE }
    case 'message': {
      const { fourOctetAs, local, addPath } = record
      const subtype = MESSAGE_SUBTYPES.find((candidate) => {
        const row = messageSubtypes[candidate]!
        return row.fourOctetAs === fourOctetAs && row.local === local && row.addPath === addPath
      })
      return { type: bgp4mp, subtype: subtype! }
    }
    case 'peerIndexTable':
      return { type: MrtType.TABLE_DUMP_V2, subtype: PEER_INDEX_TABLE }
    case 'rib': {
      const { prefix, addPath } = record
      const row = ribSubtypes.find((candidate) => candidate.family === prefix.family && candidate.addPath === addPath)
      return { type: MrtType.TABLE_DUMP_V2, subtype: row!.subtype }
    }
  }
}

function encodeBody(writer: Writer, record: MrtRecord): void {
  switch (record.kind) {
    case 'unknown':
      writer.bytes(record.body)
      break
    case 'stateChange':
      encodeSession(writer, record)
      writer.u16be(record.oldState)
      writer.u16be(record.newState)
      break
    case 'message':
      encodeSession(writer, record)
      writer.bytes(record.message)
      break
    case 'peerIndexTable':
      encodePeers(writer, record)
      break
    case 'rib':
      encodeRib(writer, record)
  }
}

function encodeSession(writer: Writer, session: MrtSession): void {
  const { fourOctetAs, peerAddress, localAddress } = session
  if (peerAddress.family !== localAddress.family)
    throw new EncodeError(`a session between ${peerAddress} and ${localAddress}`)
  for (const asn of [session.peerAsn, session.localAsn])
    if (fourOctetAs) writer.u32be(asn)
    else if (asn <= 0xffff) writer.u16be(asn)
    else throw new EncodeError(`AS ${asn} in two octets`)
  writer.u16be(session.interfaceIndex)
  writer.u16be(peerAddress.family === 4 ? AFI_IPV4 : AFI_IPV6)
  writer.bytes(peerAddress.toBytes())
  writer.bytes(localAddress.toBytes())
}

function encodePeers(writer: Writer, { collectorIdentifier, viewName, peers }: MrtPeerIndexTable): void {
  writer.u32be(collectorIdentifier)
  const at = writer.zeros(2)
  writer.text(viewName)
  writer.patchU16be(at, writer.length - at - 2)
  if (peers.length > 0xffff) throw new EncodeError(`${peers.length} peers`)
  writer.u16be(peers.length)
  for (const { identifier, address, asn } of peers) {
    writer.u8((address.family === 6 ? PEER_IPV6 : 0) | PEER_AS4)
    writer.u32be(identifier)
    writer.bytes(address.toBytes())
    writer.u32be(asn)
  }
}

function encodeRib(writer: Writer, { sequence, prefix, addPath, entries }: MrtRib): void {
  writer.u32be(sequence)
  writer.u8(prefix.length)
  writer.bytes(prefix.base.toBytes().subarray(0, (prefix.length + 7) >>> 3))
  if (entries.length > 0xffff) throw new EncodeError(`${entries.length} paths of ${prefix}`)
  writer.u16be(entries.length)
  for (const { peerIndex, originatedSeconds, pathId = 0, attributes } of entries) {
    writer.u16be(peerIndex)
    writer.u32be(originatedSeconds)
    if (addPath) writer.u32be(pathId)
    if (attributes.length > 0xffff) throw new EncodeError(`${attributes.length} bytes of attributes`)
    writer.u16be(attributes.length)
    writer.bytes(attributes)
  }
}
