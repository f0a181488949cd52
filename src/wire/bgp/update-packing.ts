/**
 * UPDATEs out of a block of attributes and runs of prefixes, as many prefixes a message as it holds.
 *
 * Sources: RFC 4271 section 4.3, RFC 4760 sections 3 and 4, RFC 4724 section 2, RFC 7606 section 5.1 (a message has routes of
 * one field alone, MP_REACH_NLRI first), RFC 8654 section 4.
 */
import { EncodeError } from '../../bytes/errors.ts'
import { AttributeFlag, AttributeType, HEADER_BYTES, MessageType } from './constants.ts'
import type { WireContext } from './context.ts'
import { afiOf, IPV4_UNICAST, type RouteFamily, safiOf } from './family.ts'
import { beginMessage, endMessage } from './header.ts'
import { type NlriRun, prefixBytes, putPrefix, strideOf } from './nlri.ts'
import type { ReachRun } from './update.ts'

/** Header, and the two lengths. */
const FRAME_BYTES = HEADER_BYTES + 4
/** Flags, type, two octets of length. */
const LONG_HEAD_BYTES = 4

/**
 * Announcements, whose block is one of `encodeAttributes` or of `decodeUpdate` for this kind of session. Empty runs make no
 * message. Throws EncodeError when the attributes leave no room for a prefix: such routes cannot be told to this peer.
 */
export function packReach(run: ReachRun, context: WireContext): Uint8Array[] {
  const { attributes } = run
  const addPath = context.addPathSend.has(run.family)
  if (attributes[1] !== AttributeType.MP_REACH_NLRI) {
    const room = context.messageBytesMax - FRAME_BYTES - attributes.length
    return pack(run, addPath, room, (prefixes) => {
      const writer = beginMessage(MessageType.UPDATE, FRAME_BYTES + attributes.length + prefixes.length)
      writer.u16be(0)
      writer.u16be(attributes.length)
      writer.bytes(attributes)
      writer.bytes(prefixes)
      return endMessage(writer, context.messageBytesMax)
    })
  }
  // The block begins with a short MP_REACH_NLRI that ends where its prefixes belong.
  const headBytes = attributes[2]!
  const rest = attributes.subarray(3 + headBytes)
  const room = context.messageBytesMax - FRAME_BYTES - LONG_HEAD_BYTES - headBytes - rest.length
  return pack(run, addPath, room, (prefixes) => {
    const bytes = LONG_HEAD_BYTES + headBytes + prefixes.length + rest.length
    const writer = beginMessage(MessageType.UPDATE, FRAME_BYTES + bytes)
    writer.u16be(0)
    writer.u16be(bytes)
    writer.u8(AttributeFlag.OPTIONAL | AttributeFlag.EXTENDED_LENGTH)
    writer.u8(AttributeType.MP_REACH_NLRI)
    writer.u16be(headBytes + prefixes.length)
    writer.bytes(attributes.subarray(3, 3 + headBytes))
    writer.bytes(prefixes)
    writer.bytes(rest)
    return endMessage(writer, context.messageBytesMax)
  })
}

/** Withdrawals of a run. */
export function packUnreach(run: NlriRun, context: WireContext): Uint8Array[] {
  const addPath = context.addPathSend.has(run.family)
  if (run.family === IPV4_UNICAST)
    return pack(run, addPath, context.messageBytesMax - FRAME_BYTES, (prefixes) => {
      const writer = beginMessage(MessageType.UPDATE, FRAME_BYTES + prefixes.length)
      writer.u16be(prefixes.length)
      writer.bytes(prefixes)
      writer.u16be(0)
      return endMessage(writer, context.messageBytesMax)
    })
  const room = context.messageBytesMax - FRAME_BYTES - LONG_HEAD_BYTES - 3
  return pack(run, addPath, room, (prefixes) => unreachMessage(run.family, prefixes))
}

/** The peer is told that this was all of a family. */
export function encodeEndOfRib(family: RouteFamily): Uint8Array {
  if (family !== IPV4_UNICAST) return unreachMessage(family, new Uint8Array(0))
  const writer = beginMessage(MessageType.UPDATE, FRAME_BYTES)
  writer.u32be(0)
  return endMessage(writer)
}

function unreachMessage(family: RouteFamily, prefixes: Uint8Array): Uint8Array {
  const value = 3 + prefixes.length
  const writer = beginMessage(MessageType.UPDATE, FRAME_BYTES + LONG_HEAD_BYTES + value)
  writer.u16be(0)
  writer.u16be(LONG_HEAD_BYTES + value)
  writer.u8(AttributeFlag.OPTIONAL | AttributeFlag.EXTENDED_LENGTH)
  writer.u8(AttributeType.MP_UNREACH_NLRI)
  writer.u16be(value)
  writer.u16be(afiOf(family))
  writer.u8(safiOf(family))
  writer.bytes(prefixes)
  return endMessage(writer)
}

/** Cuts a run into pieces of at most `room` bytes and makes a message of each. */
function pack(
  run: NlriRun,
  addPath: boolean,
  room: number,
  message: (prefixes: Uint8Array) => Uint8Array,
): Uint8Array[] {
  const { words, count } = run
  const stride = strideOf(run.family)
  const messages: Uint8Array[] = []
  if (count === 0) return messages
  const prefixes = new Uint8Array(Math.max(room, 0))
  let at = 0
  for (let i = 0; i < count; i++) {
    const bytes = prefixBytes(words, stride, i, addPath)
    if (at + bytes > room) {
      if (at === 0) throw new EncodeError(`attributes leave ${room} bytes for a prefix of ${bytes}`)
      messages.push(message(prefixes.subarray(0, at)))
      at = 0
    }
    at = putPrefix(prefixes, at, words, stride, i, addPath)
  }
  messages.push(message(prefixes.subarray(0, at)))
  return messages
}

/** One message with withdrawals, announcements, or nothing; throws EncodeError when it would take several. */
export function encodeUpdate(update: { unreach?: NlriRun; reach?: ReachRun }, context: WireContext): Uint8Array {
  const { unreach, reach } = update
  if (unreach && reach) throw new EncodeError('a message announces or withdraws (RFC 7606 section 5.1)')
  const messages = reach ? packReach(reach, context) : unreach ? packUnreach(unreach, context) : []
  if (messages.length > 1) throw new EncodeError(`${messages.length} messages instead of one`)
  return messages[0] ?? encodeEndOfRib(reach?.family ?? unreach?.family ?? IPV4_UNICAST)
}
