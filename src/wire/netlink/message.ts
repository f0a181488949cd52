/**
 * The netlink message header, writing and reading of message sequences, and what the kernel answers: acknowledgements,
 * errors with their extended attributes, ends of dumps.
 *
 *   ┌ length u32 ┬ type u16 ┬ flags u16 ┬ sequence u32 ┬ port u32 ┬ payload … ┬ padding to 4 ┐
 *
 * Numbers are in host byte order; weft runs on little-endian hosts only (amd64, arm64, riscv64).
 *
 * Sources: include/uapi/linux/netlink.h; Documentation/userspace-api/netlink/intro.rst.
 */
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import {
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSGERR_ATTR_MISS_TYPE,
  NLMSGERR_ATTR_MSG,
  NLMSGERR_ATTR_OFFS,
} from './constants.gen.ts'

const HEADER_BYTES = 16

export interface MessageHeader {
  readonly type: number
  readonly flags: number
  /** Chosen by the requester and echoed in every answer; 0 in multicast messages. */
  readonly sequence: number
  /** The requester's port number. */
  readonly port: number
}

/** Writes a header whose length is still unknown and returns its offset, for `endMessage`. */
export function beginMessage(writer: Writer, type: number, flags: number, sequence: number): number {
  const start = writer.length
  writer.u32le(0)
  writer.u16le(type)
  writer.u16le(flags)
  writer.u32le(sequence)
  writer.u32le(0)
  return start
}

/** Completes the message that `beginMessage` started at `start`. */
export function endMessage(writer: Writer, start: number): void {
  writer.patchU32le(start, writer.length - start)
  writer.align(4, start)
}

/**
 * Calls back for each message of a datagram, with a reader over its payload (valid during the call). Throws DecodeError
 * on a header whose length leaves the datagram.
 */
export function readMessages(datagram: Uint8Array, visit: (header: MessageHeader, payload: Reader) => void): void {
  const reader = new Reader(datagram)
  while (reader.remaining > 0) {
    const start = reader.offset
    if (reader.remaining < HEADER_BYTES) reader.fail(`a message header needs ${HEADER_BYTES} bytes`)
    const length = reader.u32le()
    const header = { type: reader.u16le(), flags: reader.u16le(), sequence: reader.u32le(), port: reader.u32le() }
    if (length < HEADER_BYTES || length > datagram.length - start)
      throw new DecodeError(`message length ${length} does not fit`, start)
    reader.end = start + length
    visit(header, reader)
    reader.end = datagram.length
    reader.offset = start + length
    reader.align(4)
  }
}

/** What NLMSG_ERROR and NLMSG_DONE say. */
export interface Acknowledgement {
  /** Positive errno; 0 is success. */
  readonly errno: number
  /** The kernel's own words. */
  readonly message?: string
  /** Offset of the offending attribute in the request, from its header on. */
  readonly offset?: number
  /** Type of an attribute that the kernel missed. */
  readonly missingType?: number
}

/** Decodes the payload of NLMSG_ERROR, or of NLMSG_DONE when `done`. Throws DecodeError. */
export function decodeAcknowledgement(flags: number, reader: Reader, done = false): Acknowledgement {
  const start = reader.offset
  if (done && reader.remaining < 4) return { errno: 0 }
  const errno = 0 - reader.i32le()
  let message: string | undefined
  let offset: number | undefined
  let missingType: number | undefined
  if (flags & NLM_F_ACK_TLVS) {
    if (!done) {
      const echoed = flags & NLM_F_CAPPED ? HEADER_BYTES : reader.u32le()
      if (echoed < HEADER_BYTES) reader.fail(`echoed request of ${echoed} bytes`)
      reader.skip(flags & NLM_F_CAPPED ? echoed : echoed - 4)
      reader.align(4, start)
    }
    while (reader.remaining >= 4) {
      const length = reader.u16le()
      const type = reader.u16le()
      if (length < 4) reader.fail(`attribute length ${length} is below 4`)
      reader.scoped(length - 4, (value) => {
        if (type === NLMSGERR_ATTR_MSG) message = value.textZ()
        else if (type === NLMSGERR_ATTR_OFFS) offset = value.u32le()
        else if (type === NLMSGERR_ATTR_MISS_TYPE) missingType = value.u32le()
      })
      reader.align(4, start)
    }
  }
  return {
    errno,
    ...(message !== undefined && { message }),
    ...(offset !== undefined && { offset }),
    ...(missingType !== undefined && { missingType }),
  }
}
