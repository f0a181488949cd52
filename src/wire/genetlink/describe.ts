/**
 * Generic netlink messages in words, for WEFT_NLDEBUG. What a family's number means is known to whoever asked for it,
 * so only the controller's messages are decoded by themselves.
 */
import type { Reader } from '../../bytes/reader.ts'
import { featuresMessage } from '../ethtool/message.ts'
import type { MessageHeader } from '../netlink/message.ts'
import { formatValue } from '../rtnetlink/describe.ts'
import { GENL_ID_CTRL } from './constants.gen.ts'
import { familyMessage, readGenericHeader } from './message.ts'

/** The message in words; others than the controller's are taken for ethtool's features. Throws DecodeError. */
export function describeGeneric(header: MessageHeader, payload: Reader): string {
  const { command } = readGenericHeader(payload)
  if (header.type === GENL_ID_CTRL) return `CTRL ${command} ${formatValue(familyMessage.decode(payload))}`
  return `family ${header.type} command ${command} ${formatValue(featuresMessage.decode(payload))}`
}
