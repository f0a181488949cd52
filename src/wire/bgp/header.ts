/**
 * The head of every message: sixteen octets of ones, the length of the whole message, its type.
 *
 * Sources: RFC 4271 sections 4.1 and 6.1, RFC 8654 sections 4 and 5, RFC 7313 section 5.
 */
import { EncodeError } from '../../bytes/errors.ts'
import { Writer } from '../../bytes/writer.ts'
import {
  ErrorCode,
  EXTENDED_MESSAGE_BYTES_MAX,
  HEADER_BYTES,
  HeaderError,
  MESSAGE_BYTES_MAX,
  MessageType,
  RouteRefreshError,
} from './constants.ts'
import { BgpError } from './error.ts'

const MARKER_BYTES = 16

export interface MessageHeader {
  /** The whole message, header included: 19 to 65535. */
  readonly length: number
  /** One of `MessageType`. */
  readonly type: number
}

/** Least length of each type; OPEN and KEEPALIVE keep 4096 as their most (RFC 8654 section 4). */
const leastBytes: readonly number[] = [0, 29, 23, 21, 19, 23]

/**
 * Looks at a message that begins at `offset`: undefined while fewer than 19 bytes are there up to `end`. `messageBytesMax`
 * is the context's. Throws BgpError (message header error; ROUTE-REFRESH has a code of its own) before any of the
 * body needs to be waited for.
 */
export function decodeHeader(
  bytes: Uint8Array,
  messageBytesMax: number,
  offset = 0,
  end = bytes.length,
): MessageHeader | undefined {
  if (end - offset < HEADER_BYTES) return undefined
  for (let i = offset; i < offset + MARKER_BYTES; i++)
    if (bytes[i] !== 0xff)
      throw new BgpError(ErrorCode.MESSAGE_HEADER, HeaderError.CONNECTION_NOT_SYNCHRONIZED, 'marker is not all ones')
  const at = offset + MARKER_BYTES
  const length = (bytes[at]! << 8) | bytes[at + 1]!
  const type = bytes[at + 2]!
  const least = leastBytes[type]
  // The length is judged before the type, except that nothing is known about the lengths of unknown types.
  if (type === 0 || least === undefined) {
    if (length < HEADER_BYTES || length > messageBytesMax) throw badLength(length, type)
    throw new BgpError(
      ErrorCode.MESSAGE_HEADER,
      HeaderError.BAD_MESSAGE_TYPE,
      `message type ${type}`,
      Uint8Array.of(type),
    )
  }
  const most =
    type === MessageType.KEEPALIVE ? HEADER_BYTES : type === MessageType.OPEN ? MESSAGE_BYTES_MAX : messageBytesMax
  if (type === MessageType.ROUTE_REFRESH && length > HEADER_BYTES && length < least)
    throw new BgpError(
      ErrorCode.ROUTE_REFRESH_MESSAGE,
      RouteRefreshError.INVALID_MESSAGE_LENGTH,
      `ROUTE-REFRESH of ${length} bytes`,
      bytes.slice(offset, Math.min(offset + length, end)),
    )
  if (length < least || length > most) throw badLength(length, type)
  return { length, type }
}

const badLength = (length: number, type: number): BgpError =>
  new BgpError(
    ErrorCode.MESSAGE_HEADER,
    HeaderError.BAD_MESSAGE_LENGTH,
    `length ${length} of a message of type ${type}`,
    Uint8Array.of(length >>> 8, length & 0xff),
  )

/** A writer with the header in it; `endMessage` puts the length there. */
export function beginMessage(type: number, capacity = 64): Writer {
  const writer = new Writer(capacity)
  for (let i = 0; i < MARKER_BYTES; i += 4) writer.u32be(0xffffffff)
  writer.u16be(0)
  writer.u8(type)
  return writer
}

/** The finished message, a view of the writer's memory. Throws EncodeError when it is longer than `bytesMax`. */
export function endMessage(writer: Writer, bytesMax: number = EXTENDED_MESSAGE_BYTES_MAX): Uint8Array {
  if (writer.length > bytesMax) throw new EncodeError(`a message of ${writer.length} bytes, ${bytesMax} are allowed`)
  writer.patchU16be(MARKER_BYTES, writer.length)
  return writer.finish()
}
