/**
 * BFD control packets: the mandatory section and, when there is one, the authentication section.
 *
 *      0                   1                   2                   3
 *     |vers |  diag   |sta|P|F|C|A|D|M| detect mult   |    length     |
 *     |                      my discriminator                        |
 *     |                     your discriminator                       |
 *     |          desired min TX interval, microseconds               |
 *     |          required min RX interval, microseconds              |
 *     |        required min echo RX interval, microseconds           |
 *
 * Decoding checks what section 6.8.6 has a receiver check before it looks for the session; what it throws is a packet to
 * be dropped and counted, never an end of anything.
 *
 * Sources: RFC 5880 sections 4.1 to 4.4 and 6.8.6.
 */
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'

export const BFD_VERSION = 1
const HEADER_BYTES = 24
/** Type and length of an authentication section. */
const AUTHENTICATION_HEADER_BYTES = 2

export const BfdState = { AdminDown: 0, Down: 1, Init: 2, Up: 3 } as const
export type BfdState = (typeof BfdState)[keyof typeof BfdState]

/** Why the session last left Up (section 4.1). Numbers that are not here may be received. */
export const BfdDiagnostic = {
  None: 0,
  DetectionTimeExpired: 1,
  EchoFailed: 2,
  NeighborSignaledDown: 3,
  ForwardingPlaneReset: 4,
  PathDown: 5,
  ConcatenatedPathDown: 6,
  AdministrativelyDown: 7,
  ReverseConcatenatedPathDown: 8,
} as const

/** One of the types of section 4.1 with its bytes; whoever knows the key judges them. */
export interface BfdAuthentication {
  /** 1: password, 2 and 3: keyed MD5, 4 and 5: keyed SHA1. */
  readonly type: number
  /** What follows type and length. */
  readonly body: Uint8Array
}

export interface BfdPacket {
  /** 0 to 31. */
  readonly diagnostic: number
  readonly state: BfdState
  /** P: an answer with `final` is wanted. */
  readonly poll: boolean
  /** F: answers a poll. */
  readonly final: boolean
  /** C: the sender's BFD outlives its control plane. */
  readonly controlPlaneIndependent: boolean
  /** D: the sender would rather be sent nothing while Up. */
  readonly demand: boolean
  /** 1 to 255. */
  readonly detectMultiplier: number
  /** The sender's name for the session; never 0. */
  readonly myDiscriminator: number
  /** What the receiver called itself; 0 as long as the sender does not know. */
  readonly yourDiscriminator: number
  readonly desiredMinTransmitMicroseconds: number
  readonly requiredMinReceiveMicroseconds: number
  /** 0: the sender reflects no echo packets. */
  readonly requiredMinEchoReceiveMicroseconds: number
  readonly authentication?: BfdAuthentication
}

const POLL = 0x20
const FINAL = 0x10
const CONTROL_PLANE_INDEPENDENT = 0x08
const AUTHENTICATION = 0x04
const DEMAND = 0x02
const MULTIPOINT = 0x01

/** Throws DecodeError for what must be dropped before its session is known. */
export function decodeBfdPacket(bytes: Uint8Array): BfdPacket {
  const reader = new Reader(bytes)
  const first = reader.u8()
  const second = reader.u8()
  const detectMultiplier = reader.u8()
  const length = reader.u8()
  const refuse = (problem: string): never => reader.fail(problem)
  const version = first >> 5
  if (version !== BFD_VERSION) refuse(`version ${version}`)
  const authenticated = (second & AUTHENTICATION) !== 0
  const least = HEADER_BYTES + (authenticated ? AUTHENTICATION_HEADER_BYTES : 0)
  if (length < least) refuse(`length ${length}, at least ${least} are needed`)
  if (length > bytes.length) refuse(`length ${length} in a datagram of ${bytes.length}`)
  if (detectMultiplier === 0) refuse('detect multiplier 0')
  if (second & MULTIPOINT) refuse('multipoint bit set')
  const packet = {
    diagnostic: first & 0x1f,
    state: (second >> 6) as BfdState,
    poll: (second & POLL) !== 0,
    final: (second & FINAL) !== 0,
    controlPlaneIndependent: (second & CONTROL_PLANE_INDEPENDENT) !== 0,
    demand: (second & DEMAND) !== 0,
    detectMultiplier,
    myDiscriminator: reader.u32be(),
    yourDiscriminator: reader.u32be(),
    desiredMinTransmitMicroseconds: reader.u32be(),
    requiredMinReceiveMicroseconds: reader.u32be(),
    requiredMinEchoReceiveMicroseconds: reader.u32be(),
  }
  if (packet.myDiscriminator === 0) refuse('my discriminator 0')
  const mayBeUnknown = packet.state === BfdState.Down || packet.state === BfdState.AdminDown
  if (packet.yourDiscriminator === 0 && !mayBeUnknown) refuse(`your discriminator 0 in state ${packet.state}`)
  if (!authenticated) return packet
  const type = reader.u8()
  const authenticationBytes = reader.u8()
  if (authenticationBytes < AUTHENTICATION_HEADER_BYTES || HEADER_BYTES + authenticationBytes > length)
    refuse(`authentication of ${authenticationBytes} bytes in a packet of ${length}`)
  return {
    ...packet,
    authentication: { type, body: reader.bytes(authenticationBytes - AUTHENTICATION_HEADER_BYTES).slice() },
  }
}

/** The packet's bytes, not shared with anything. */
export function encodeBfdPacket(packet: BfdPacket): Uint8Array {
  const { authentication } = packet
  const authenticationBytes = authentication ? AUTHENTICATION_HEADER_BYTES + authentication.body.length : 0
  const writer = new Writer(HEADER_BYTES + authenticationBytes)
  writer.u8((BFD_VERSION << 5) | (packet.diagnostic & 0x1f))
  writer.u8(
    (packet.state << 6) |
      (packet.poll ? POLL : 0) |
      (packet.final ? FINAL : 0) |
      (packet.controlPlaneIndependent ? CONTROL_PLANE_INDEPENDENT : 0) |
      (authentication ? AUTHENTICATION : 0) |
      (packet.demand ? DEMAND : 0),
  )
  writer.u8(packet.detectMultiplier)
  writer.u8(HEADER_BYTES + authenticationBytes)
  writer.u32be(packet.myDiscriminator)
  writer.u32be(packet.yourDiscriminator)
  writer.u32be(packet.desiredMinTransmitMicroseconds)
  writer.u32be(packet.requiredMinReceiveMicroseconds)
  writer.u32be(packet.requiredMinEchoReceiveMicroseconds)
  if (authentication) {
    writer.u8(authentication.type)
    writer.u8(authenticationBytes)
    writer.bytes(authentication.body)
  }
  return writer.finish().slice()
}
