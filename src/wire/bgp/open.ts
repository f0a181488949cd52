/**
 * OPEN: who a speaker is and what it can do. Optional parameters are read in both forms, with lengths of one octet or of
 * two (RFC 9072), and written in the long one only when the short one does not hold them. Parameters other than
 * capabilities are refused, as RFC 4271 says.
 *
 *   version 1 | my AS 2 | hold time 2 | identifier 4 | parameters' length 1 | { type 1, length 1, capabilities }…
 *   … | 255 | 255 | extended length 2 | { type 1, length 2, capabilities }…
 *
 * Sources: RFC 4271 sections 4.2 and 6.2, RFC 5492 section 4, RFC 6793 section 4.1, RFC 6286 section 2.2, RFC 9072.
 */
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import { type Capability, decodeCapability, encodeCapability } from './capability.ts'
import { AS_TRANS, BGP_VERSION, ErrorCode, MESSAGE_BYTES_MAX, MessageType, OpenError } from './constants.ts'
import { BgpError } from './error.ts'
import { beginMessage, endMessage } from './header.ts'

export interface Open {
  /** The speaker's AS: the four-octet capability's, if there is one, otherwise the header's. */
  readonly asn: number
  /** 0, or 3 to 65535 seconds. */
  readonly holdTimeSeconds: number
  /** Unsigned 32 bits, not 0. */
  readonly identifier: number
  /** In their order; several of one kind are possible. */
  readonly capabilities: readonly Capability[]
}

const PARAMETER_CAPABILITIES = 2
const EXTENDED = 255

const refuse = (subcode: number, problem: string, data?: Uint8Array): never => {
  throw new BgpError(ErrorCode.OPEN_MESSAGE, subcode, problem, data)
}

/** The body of an OPEN, without the message's header. Throws BgpError. */
export function decodeOpen(body: Uint8Array): Open {
  const reader = new Reader(body)
  const version = reader.u8()
  if (version !== BGP_VERSION)
    refuse(OpenError.UNSUPPORTED_VERSION, `BGP version ${version}`, Uint8Array.of(0, BGP_VERSION))
  const shortAsn = reader.u16be()
  const holdTimeSeconds = reader.u16be()
  if (holdTimeSeconds === 1 || holdTimeSeconds === 2)
    refuse(OpenError.UNACCEPTABLE_HOLD_TIME, `hold time of ${holdTimeSeconds} s`)
  const identifier = reader.u32be()
  if (identifier === 0) refuse(OpenError.BAD_BGP_IDENTIFIER, 'BGP identifier 0.0.0.0')
  const capabilities: Capability[] = []
  try {
    decodeParameters(reader, capabilities)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    refuse(OpenError.UNSPECIFIC, `optional parameters: ${error.message}`)
  }
  const long = capabilities.findLast((capability) => capability.kind === 'fourOctetAs')
  const asn = long ? long.asn : shortAsn
  if (asn === 0 || asn === AS_TRANS) refuse(OpenError.BAD_PEER_AS, `AS ${asn}`)
  // A speaker of four octets says its number twice; where it fits, both agree (RFC 6793 section 4.1).
  if (long && shortAsn !== long.asn && shortAsn !== AS_TRANS)
    refuse(OpenError.BAD_PEER_AS, `AS ${shortAsn} in the header, AS ${long.asn} in the capability`)
  return { asn, holdTimeSeconds, identifier, capabilities }
}

function decodeParameters(reader: Reader, out: Capability[]): void {
  const length = reader.u8()
  // RFC 9072 section 2: the type tells, whatever the length says that is not 0.
  const extended = length !== 0 && reader.remaining > 0 && reader.buffer[reader.offset] === EXTENDED
  if (extended) reader.skip(1)
  const bytes = extended ? reader.u16be() : length
  if (bytes !== reader.remaining) reader.fail(`length ${bytes}, ${reader.remaining} bytes are there`)
  while (reader.remaining > 0) {
    const type = reader.u8()
    const size = extended ? reader.u16be() : reader.u8()
    if (type !== PARAMETER_CAPABILITIES) refuse(OpenError.UNSUPPORTED_OPTIONAL_PARAMETER, `optional parameter ${type}`)
    reader.scoped(size, (parameter) => {
      while (parameter.remaining > 0) {
        const code = parameter.u8()
        out.push(parameter.scoped(parameter.u8(), (value) => decodeCapability(code, value)))
      }
    })
  }
}

/** A whole message. Throws EncodeError when the capabilities do not fit into 4096 bytes (RFC 8654 section 4). */
export function encodeOpen(open: Open): Uint8Array {
  const parameters = new Writer()
  for (const capability of open.capabilities) encodeCapability(parameters, capability)
  const bytes = parameters.finish()
  const writer = beginMessage(MessageType.OPEN)
  writer.u8(BGP_VERSION)
  writer.u16be(open.asn > 0xffff ? AS_TRANS : open.asn)
  writer.u16be(open.holdTimeSeconds)
  writer.u32be(open.identifier)
  if (bytes.length === 0) {
    writer.u8(0)
  } else if (bytes.length + 2 < EXTENDED) {
    writer.u8(bytes.length + 2)
    writer.u8(PARAMETER_CAPABILITIES)
    writer.u8(bytes.length)
    writer.bytes(bytes)
  } else {
    writer.u8(EXTENDED)
    writer.u8(EXTENDED)
    writer.u16be(bytes.length + 3)
    writer.u8(PARAMETER_CAPABILITIES)
    writer.u16be(bytes.length)
    writer.bytes(bytes)
  }
  return endMessage(writer, MESSAGE_BYTES_MAX)
}
