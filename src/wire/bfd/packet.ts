/**
 * BFD control packets. A packet that breaks one of the rules of reception that need no session is a DecodeError: whoever
 * receives it drops it (RFC 5880 section 6.8.6). The authentication section is taken apart, not checked.
 *
 *   version 3 bits, diagnostic 5 | state 2, P F C A D M | detect multiplier | length | my discriminator 4
 *   your discriminator 4 | desired min TX 4 | required min RX 4 | required min echo RX 4 | [ authentication ]
 *
 * Sources: RFC 5880 sections 4 and 6.8.6; RFC 5881 and 5883 (ports).
 */
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'

export const BFD_PORT = 3784
export const BFD_MULTIHOP_PORT = 4784
/** RFC 5881 section 4: source ports are of this range. */
export const BFD_SOURCE_PORT_MIN = 49152

export const BfdState = { ADMIN_DOWN: 0, DOWN: 1, INIT: 2, UP: 3 } as const

export const BfdDiagnostic = {
  NONE: 0,
  DETECTION_TIME_EXPIRED: 1,
  ECHO_FAILED: 2,
  NEIGHBOR_SIGNALED_DOWN: 3,
  FORWARDING_PLANE_RESET: 4,
  PATH_DOWN: 5,
  CONCATENATED_PATH_DOWN: 6,
  ADMIN_DOWN: 7,
  REVERSE_CONCATENATED_PATH_DOWN: 8,
} as const

const diagnosticNames = [
  'none',
  'detection time expired',
  'echo failed',
  'neighbor signaled down',
  'forwarding plane reset',
  'path down',
  'concatenated path down',
  'administratively down',
  'reverse concatenated path down',
]

/** For people. */
export const formatBfdDiagnostic = (diagnostic: number): string =>
  diagnosticNames[diagnostic] ?? `diagnostic ${diagnostic}`

export type BfdAuthentication =
  /** 1 to 16 bytes, in the clear. */
  | { readonly kind: 'simplePassword'; readonly keyId: number; readonly password: Uint8Array }
  | {
      /** Digests of 16 bytes (MD5) or 20 (SHA1), over the whole packet with the key in the digest's place. */
      readonly kind: 'keyedMd5' | 'meticulousKeyedMd5' | 'keyedSha1' | 'meticulousKeyedSha1'
      readonly keyId: number
      readonly sequence: number
      readonly digest: Uint8Array
    }
  | { readonly kind: 'unknown'; readonly type: number; readonly value: Uint8Array }

export interface BfdPacket {
  /** `BfdDiagnostic`, five bits. */
  readonly diagnostic: number
  /** `BfdState`. */
  readonly state: number
  readonly poll: boolean
  readonly final: boolean
  /** The sender's BFD does not share the fate of its control plane. */
  readonly controlPlaneIndependent: boolean
  readonly demand: boolean
  /** 1 to 255. */
  readonly detectMultiplier: number
  /** Not 0. */
  readonly myDiscriminator: number
  /** 0 only while the sender is down. */
  readonly yourDiscriminator: number
  readonly desiredMinTransmitMicroseconds: number
  readonly requiredMinReceiveMicroseconds: number
  /** 0: the sender takes no echo packets. */
  readonly requiredMinEchoReceiveMicroseconds: number
  readonly authentication?: BfdAuthentication
}

const VERSION = 1
const HEADER_BYTES = 24
const Flag = {
  POLL: 0x20,
  FINAL: 0x10,
  CONTROL_PLANE_INDEPENDENT: 0x08,
  AUTHENTICATION: 0x04,
  DEMAND: 0x02,
  MULTIPOINT: 0x01,
}

const digestKinds = {
  keyedMd5: { type: 2, bytes: 16 },
  meticulousKeyedMd5: { type: 3, bytes: 16 },
  keyedSha1: { type: 4, bytes: 20 },
  meticulousKeyedSha1: { type: 5, bytes: 20 },
} as const
const SIMPLE_PASSWORD = 1
const PASSWORD_BYTES_MAX = 16

/** The payload of a UDP datagram; what stands behind the packet's own length does not count. Throws DecodeError. */
export function decodeBfd(payload: Uint8Array): BfdPacket {
  const reader = new Reader(payload)
  const head = reader.u8()
  if (head >>> 5 !== VERSION) reader.fail(`version ${head >>> 5}`)
  const flags = reader.u8()
  const detectMultiplier = reader.u8()
  const length = reader.u8()
  const authenticated = (flags & Flag.AUTHENTICATION) !== 0
  if (length < HEADER_BYTES + (authenticated ? 2 : 0) || length > payload.length)
    reader.fail(`length ${length} in ${payload.length} bytes`)
  reader.end = length
  if (detectMultiplier === 0) reader.fail('detect multiplier 0')
  if (flags & Flag.MULTIPOINT) reader.fail('multipoint')
  const state = flags >>> 6
  const myDiscriminator = reader.u32be()
  if (myDiscriminator === 0) reader.fail('my discriminator 0')
  const yourDiscriminator = reader.u32be()
  if (yourDiscriminator === 0 && state !== BfdState.DOWN && state !== BfdState.ADMIN_DOWN)
    reader.fail(`your discriminator 0 in state ${state}`)
  const packet: BfdPacket = {
    diagnostic: head & 0x1f,
    state,
    poll: (flags & Flag.POLL) !== 0,
    final: (flags & Flag.FINAL) !== 0,
    controlPlaneIndependent: (flags & Flag.CONTROL_PLANE_INDEPENDENT) !== 0,
    demand: (flags & Flag.DEMAND) !== 0,
    detectMultiplier,
    myDiscriminator,
    yourDiscriminator,
    desiredMinTransmitMicroseconds: reader.u32be(),
    requiredMinReceiveMicroseconds: reader.u32be(),
    requiredMinEchoReceiveMicroseconds: reader.u32be(),
  }
  return authenticated ? { ...packet, authentication: decodeAuthentication(reader) } : packet
}

function decodeAuthentication(reader: Reader): BfdAuthentication {
  const type = reader.u8()
  const length = reader.u8()
  if (length < 2) reader.fail(`authentication of ${length} bytes`)
  return reader.scoped(length - 2, (section) => {
    if (type === SIMPLE_PASSWORD) {
      const keyId = section.u8()
      if (section.remaining < 1 || section.remaining > PASSWORD_BYTES_MAX)
        section.fail(`password of ${section.remaining} bytes`)
      return { kind: 'simplePassword', keyId, password: section.rest().slice() }
    }
    for (const kind of Object.keys(digestKinds) as (keyof typeof digestKinds)[]) {
      if (digestKinds[kind].type !== type) continue
      if (section.remaining !== digestKinds[kind].bytes + 6) section.fail(`${kind} of ${length} bytes`)
      const keyId = section.u8()
      section.skip(1)
      return { kind, keyId, sequence: section.u32be(), digest: section.rest().slice() }
    }
    return { kind: 'unknown', type, value: section.rest().slice() }
  })
}

/** A packet of 24 bytes, or more with authentication. */
export function encodeBfd(packet: BfdPacket): Uint8Array {
  const { authentication } = packet
  const writer = new Writer(64)
  writer.u8((VERSION << 5) | packet.diagnostic)
  writer.u8(
    (packet.state << 6) |
      (packet.poll ? Flag.POLL : 0) |
      (packet.final ? Flag.FINAL : 0) |
      (packet.controlPlaneIndependent ? Flag.CONTROL_PLANE_INDEPENDENT : 0) |
      (authentication ? Flag.AUTHENTICATION : 0) |
      (packet.demand ? Flag.DEMAND : 0),
  )
  writer.u8(packet.detectMultiplier)
  writer.u8(0)
  writer.u32be(packet.myDiscriminator)
  writer.u32be(packet.yourDiscriminator)
  writer.u32be(packet.desiredMinTransmitMicroseconds)
  writer.u32be(packet.requiredMinReceiveMicroseconds)
  writer.u32be(packet.requiredMinEchoReceiveMicroseconds)
  if (authentication) encodeAuthentication(writer, authentication)
  writer.patchU8(3, writer.length)
  return writer.finish()
}

function encodeAuthentication(writer: Writer, authentication: BfdAuthentication): void {
  const at = writer.length
  switch (authentication.kind) {
    case 'simplePassword':
      writer.u8(SIMPLE_PASSWORD)
      writer.u8(0)
      writer.u8(authentication.keyId)
      writer.bytes(authentication.password)
      break
    case 'unknown':
      writer.u8(authentication.type)
      writer.u8(0)
      writer.bytes(authentication.value)
      break
    default:
      writer.u8(digestKinds[authentication.kind].type)
      writer.u8(0)
      writer.u8(authentication.keyId)
      writer.u8(0)
      writer.u32be(authentication.sequence)
      writer.bytes(authentication.digest)
  }
  writer.patchU8(at + 1, writer.length - at)
}
