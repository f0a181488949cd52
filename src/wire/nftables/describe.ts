/**
 * Any nfnetlink message in words, for WEFT_NLDEBUG: nftables and connection tracking.
 */
import type { Codec } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import { IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_NEW } from '../conntrack/constants.gen.ts'
import { flowMessage } from '../conntrack/message.ts'
import type { MessageHeader } from '../netlink/message.ts'
import { formatValue } from '../rtnetlink/describe.ts'
import * as n from './constants.gen.ts'
import {
  chainMessage,
  elementListMessage,
  familyNumbers,
  objectMessage,
  readNfgenmsg,
  ruleMessage,
  setMessage,
  tableMessage,
} from './message.ts'

const codecs: readonly (readonly [message: number, name: string, codec: Codec<object>])[] = [
  [n.NFT_MSG_NEWTABLE, 'NEWTABLE', tableMessage],
  [n.NFT_MSG_GETTABLE, 'GETTABLE', tableMessage],
  [n.NFT_MSG_DELTABLE, 'DELTABLE', tableMessage],
  [n.NFT_MSG_NEWCHAIN, 'NEWCHAIN', chainMessage],
  [n.NFT_MSG_GETCHAIN, 'GETCHAIN', chainMessage],
  [n.NFT_MSG_DELCHAIN, 'DELCHAIN', chainMessage],
  [n.NFT_MSG_NEWRULE, 'NEWRULE', ruleMessage],
  [n.NFT_MSG_GETRULE, 'GETRULE', ruleMessage],
  [n.NFT_MSG_DELRULE, 'DELRULE', ruleMessage],
  [n.NFT_MSG_NEWSET, 'NEWSET', setMessage],
  [n.NFT_MSG_GETSET, 'GETSET', setMessage],
  [n.NFT_MSG_DELSET, 'DELSET', setMessage],
  [n.NFT_MSG_NEWSETELEM, 'NEWSETELEM', elementListMessage],
  [n.NFT_MSG_GETSETELEM, 'GETSETELEM', elementListMessage],
  [n.NFT_MSG_DELSETELEM, 'DELSETELEM', elementListMessage],
  [n.NFT_MSG_NEWOBJ, 'NEWOBJ', objectMessage],
  [n.NFT_MSG_GETOBJ, 'GETOBJ', objectMessage],
  [n.NFT_MSG_DELOBJ, 'DELOBJ', objectMessage],
]
const flowNames = new Map([
  [IPCTNL_MSG_CT_NEW, 'CT_NEW'],
  [IPCTNL_MSG_CT_GET, 'CT_GET'],
  [IPCTNL_MSG_CT_DELETE, 'CT_DELETE'],
])
const familyNames = new Map<number, string>(Object.entries(familyNumbers).map(([name, number]) => [number, name]))

/** The message in words. Throws DecodeError. */
export function describeNfnetlink(header: MessageHeader, payload: Reader): string {
  if (header.type === n.NFNL_MSG_BATCH_BEGIN) return 'NFNL_MSG_BATCH_BEGIN'
  if (header.type === n.NFNL_MSG_BATCH_END) return 'NFNL_MSG_BATCH_END'
  const { family } = readNfgenmsg(payload)
  const subsystem = header.type >> 8
  const message = header.type & 255
  if (subsystem === n.NFNL_SUBSYS_NFTABLES) {
    if (message === n.NFT_MSG_NEWGEN) return 'NFT_MSG_NEWGEN'
    const row = codecs.find(([number]) => number === message)
    if (row) return `NFT_MSG_${row[1]} ${familyNames.get(family) ?? family} ${formatValue(row[2].decode(payload))}`
  }
  if (subsystem === n.NFNL_SUBSYS_CTNETLINK)
    return `${flowNames.get(message) ?? `CT_${message}`} ${formatValue(flowMessage.decode(payload))}`
  return `subsystem ${subsystem} message ${message} ${formatValue(payload.rest())}`
}
