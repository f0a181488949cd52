/**
 * WEFT_NLDEBUG=1: every netlink conversation on stderr, a line per message, in both directions.
 *
 *   nl /run/netns/n1 > RTM_NEWROUTE create|excl|ack seq 7 10.1.2.0/24 via 10.0.0.2 dev #3 …
 *   nl /run/netns/n1 < NLMSG_ERROR seq 7 ENETUNREACH "Nexthop has invalid gateway"
 */
import type { Reader } from '../../bytes/reader.ts'
import * as nl from '../../wire/netlink/constants.gen.ts'
import { decodeAcknowledgement, type MessageHeader, readMessages } from '../../wire/netlink/message.ts'
import { errnoCode } from '../errno.ts'

/** Turns a message into words: its type's name and its content. The reader spans the payload. */
export type DescribeMessage = (header: MessageHeader, payload: Reader) => string

export type NlDebug = (
  direction: '>' | '<' | '*',
  label: string,
  datagram: Uint8Array,
  describe: DescribeMessage | undefined,
) => void

/** Undefined unless WEFT_NLDEBUG is set, so that the check costs nothing on hot paths. */
export const nlDebug: NlDebug | undefined = process.env.WEFT_NLDEBUG
  ? (direction, label, datagram, describe) => {
      for (const line of describeDatagram(datagram, describe))
        process.stderr.write(`nl ${label || 'own'} ${direction} ${line}\n`)
    }
  : undefined

const requestFlags: readonly (readonly [number, string])[] = [
  [nl.NLM_F_REPLACE, 'replace'],
  [nl.NLM_F_EXCL, 'excl'],
  [nl.NLM_F_CREATE, 'create'],
  [nl.NLM_F_APPEND, 'append'],
]

/** A line per message of a datagram. Never throws: what cannot be decoded is shown as bytes. */
export function describeDatagram(datagram: Uint8Array, describe: DescribeMessage | undefined): string[] {
  const lines: string[] = []
  try {
    readMessages(datagram, (header, payload) => {
      lines.push(describeMessage(header, payload, describe))
    })
  } catch (error) {
    lines.push(`${(error as Error).message}: ${hex(datagram)}`)
  }
  return lines
}

function describeMessage(header: MessageHeader, payload: Reader, describe: DescribeMessage | undefined): string {
  const tail = `${flagText(header)} seq ${header.sequence}`
  if (header.type === nl.NLMSG_ERROR || header.type === nl.NLMSG_DONE) {
    const done = header.type === nl.NLMSG_DONE
    const { errno, message, offset } = decodeAcknowledgement(header.flags, payload, done)
    const verdict = errno === 0 ? 'ok' : errnoCode(errno)
    return `${done ? 'NLMSG_DONE' : 'NLMSG_ERROR'} seq ${header.sequence} ${verdict}${message ? ` "${message}"` : ''}${offset === undefined ? '' : ` at ${offset}`}`
  }
  const start = payload.offset
  try {
    if (describe) return `${describe(header, payload)}${tail}`
  } catch (error) {
    return `type ${header.type}${tail} ${(error as Error).message}: ${hex(payload.buffer.subarray(start, payload.end))}`
  }
  return `type ${header.type}${tail} ${hex(payload.rest())}`
}

function flagText(header: MessageHeader): string {
  const names: string[] = []
  if (header.flags & nl.NLM_F_REQUEST) {
    if ((header.flags & nl.NLM_F_DUMP) === nl.NLM_F_DUMP) names.push('dump')
    else for (const [bit, name] of requestFlags) if (header.flags & bit) names.push(name)
    if (header.flags & nl.NLM_F_ACK) names.push('ack')
  } else if (header.flags & nl.NLM_F_DUMP_INTR) names.push('interrupted')
  return names.length ? ` ${names.join('|')}` : ''
}

const hex = (bytes: Uint8Array): string => {
  const shown = Array.from(bytes.subarray(0, 256), (byte) => byte.toString(16).padStart(2, '0')).join('')
  return bytes.length > 256 ? `${shown}… (${bytes.length} bytes)` : shown
}
