/**
 * NOTIFICATION: why a session ends. Two kinds of data have a form of their own: the text of an administrative shutdown or
 * reset, and what a hard reset encloses.
 *
 * Sources: RFC 4271 section 4.5, RFC 4486 section 4, RFC 9003 section 2, RFC 8538 section 3.1, RFC 9384 section 3.
 */
import { decodeUtf8, encodeUtf8 } from '../../bytes/text.ts'
import { CeaseCode, ErrorCode, HEADER_BYTES, MESSAGE_BYTES_MAX, MessageType } from './constants.ts'
import type { BgpError } from './error.ts'
import { beginMessage, endMessage } from './header.ts'

export interface Notification {
  /** One of `ErrorCode`; unknown ones are kept. */
  readonly code: number
  readonly subcode: number
  readonly data: Uint8Array
}

/** RFC 9003: one octet of length. */
const SHUTDOWN_TEXT_BYTES_MAX = 255

/** The body of a NOTIFICATION (at least two bytes, which the header's check has seen to). Never throws. */
export const decodeNotification = (body: Uint8Array): Notification => ({
  code: body[0]!,
  subcode: body[1]!,
  data: body.slice(2),
})

/** A whole message; data beyond what fits into 4096 bytes is cut off. */
export function encodeNotification({ code, subcode, data }: Notification): Uint8Array {
  const writer = beginMessage(MessageType.NOTIFICATION)
  writer.u8(code)
  writer.u8(subcode)
  writer.bytes(data.subarray(0, MESSAGE_BYTES_MAX - HEADER_BYTES - 2))
  return endMessage(writer)
}

/** What a speaker sends that met an error. */
export const notificationOf = ({ code, subcode, data }: BgpError): Notification => ({ code, subcode, data })

/** Cease with nothing to add. */
export const cease = (subcode: number): Notification => ({
  code: ErrorCode.CEASE,
  subcode,
  data: new Uint8Array(0),
})

/** Administrative shutdown or reset with a text, cut at a whole character within 255 bytes. */
export function shutdownNotification(subcode: number, text: string): Notification {
  let bytes = encodeUtf8(text)
  if (bytes.length > SHUTDOWN_TEXT_BYTES_MAX) {
    let end = SHUTDOWN_TEXT_BYTES_MAX
    while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--
    bytes = bytes.subarray(0, end)
  }
  const data = new Uint8Array(bytes.length === 0 ? 0 : bytes.length + 1)
  if (bytes.length > 0) {
    data[0] = bytes.length
    data.set(bytes, 1)
  }
  return { code: ErrorCode.CEASE, subcode, data }
}

/** The text of an administrative shutdown or reset; undefined when there is none or its length is not true. */
export function shutdownText({ code, subcode, data }: Notification): string | undefined {
  if (code !== ErrorCode.CEASE) return undefined
  if (subcode !== CeaseCode.ADMINISTRATIVE_SHUTDOWN && subcode !== CeaseCode.ADMINISTRATIVE_RESET) return undefined
  const length = data[0]
  if (!length || length > data.length - 1) return undefined
  return decodeUtf8(data.subarray(1, 1 + length))
}

/** A notification that ends graceful restart too: a hard reset that encloses it. */
export function hardReset({ code, subcode, data }: Notification): Notification {
  const enclosed = new Uint8Array(data.length + 2)
  enclosed[0] = code
  enclosed[1] = subcode
  enclosed.set(data, 2)
  return { code: ErrorCode.CEASE, subcode: CeaseCode.HARD_RESET, data: enclosed }
}

/** What a hard reset encloses; undefined when the notification is another one, or too short. */
export function enclosedNotification({ code, subcode, data }: Notification): Notification | undefined {
  if (code !== ErrorCode.CEASE || subcode !== CeaseCode.HARD_RESET || data.length < 2) return undefined
  return decodeNotification(data)
}

const codeNames: Readonly<Record<number, string>> = {
  1: 'message header error',
  2: 'OPEN message error',
  3: 'UPDATE message error',
  4: 'hold timer expired',
  5: 'finite state machine error',
  6: 'cease',
  7: 'ROUTE-REFRESH message error',
  8: 'send hold timer expired',
}
const subcodeNames: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  1: { 1: 'connection not synchronized', 2: 'bad message length', 3: 'bad message type' },
  2: {
    1: 'unsupported version number',
    2: 'bad peer AS',
    3: 'bad BGP identifier',
    4: 'unsupported optional parameter',
    6: 'unacceptable hold time',
    7: 'unsupported capability',
    11: 'role mismatch',
  },
  3: {
    1: 'malformed attribute list',
    2: 'unrecognized well-known attribute',
    3: 'missing well-known attribute',
    4: 'attribute flags error',
    5: 'attribute length error',
    6: 'invalid ORIGIN',
    8: 'invalid NEXT_HOP',
    9: 'optional attribute error',
    10: 'invalid network field',
    11: 'malformed AS_PATH',
  },
  5: {
    1: 'unexpected message in OpenSent',
    2: 'unexpected message in OpenConfirm',
    3: 'unexpected message in Established',
  },
  6: {
    1: 'maximum number of prefixes reached',
    2: 'administrative shutdown',
    3: 'peer deconfigured',
    4: 'administrative reset',
    5: 'connection rejected',
    6: 'other configuration change',
    7: 'connection collision resolution',
    8: 'out of resources',
    9: 'hard reset',
    10: 'BFD down',
  },
  7: { 1: 'invalid message length' },
}

/** `cease: administrative shutdown: "moving racks"`. Text from the peer is quoted as JSON. */
export function formatNotification(notification: Notification): string {
  const { code, subcode } = notification
  const enclosed = enclosedNotification(notification)
  const text = shutdownText(notification)
  const name = codeNames[code] ?? `error ${code}`
  const detail = subcodeNames[code]?.[subcode] ?? (subcode === 0 ? '' : `subcode ${subcode}`)
  return [name, detail, enclosed ? formatNotification(enclosed) : '', text === undefined ? '' : JSON.stringify(text)]
    .filter((part) => part !== '')
    .join(': ')
}
