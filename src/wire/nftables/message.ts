/**
 * nftables messages: after the netlink header four bytes of nfgenmsg, then the attributes of a table, chain, rule, set,
 * list of set elements or named object. Changes travel between a batch's begin and end message and happen as one
 * transaction.
 *
 *   ┌ family u8 ┬ version u8 = 0 ┬ resource id u16be ┬ attributes … ┐
 *
 * Sources: include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h.
 */
import { type Codec, rawBytes, textZ, u32be, u64be } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import {
  attributeList,
  attributeTable,
  beginAttribute,
  type Decoded,
  endAttribute,
  nested,
} from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import * as n from './constants.gen.ts'
import { data, NF_ACCEPT, NF_DROP, valueRow } from './data.ts'
import { expression } from './expression.ts'

/** Netlink message type of an NFT_MSG_* number. */
export const nftMessageType = (message: number): number => (n.NFNL_SUBSYS_NFTABLES << 8) | message

/** nfgenmsg.nfgen_family of each table family (NFPROTO_*). */
export const familyNumbers = { inet: 1, ip: 2, netdev: 5, bridge: 7, ip6: 10 } as const

/** netfilter hook numbers; netdev's only hook is 0. */
export const hookNumbers = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4, ingress: 5 } as const

export function writeNfgenmsg(writer: Writer, family: number, resourceId = 0): void {
  writer.u8(family)
  writer.u8(0)
  writer.u16be(resourceId)
}

export interface Nfgenmsg {
  readonly family: number
  readonly resourceId: number
}

export function readNfgenmsg(reader: Reader): Nfgenmsg {
  const family = reader.u8()
  reader.skip(1)
  return { family, resourceId: reader.u16be() }
}

const i32be: Codec<number> = {
  name: 'i32be',
  decode: (reader) => reader.i32be(),
  encode: (writer, value) => writer.u32be(value >>> 0),
}

export const tableMessage = attributeTable('nft table', {
  name: [n.NFTA_TABLE_NAME, textZ],
  flags: [n.NFTA_TABLE_FLAGS, u32be],
  handle: [n.NFTA_TABLE_HANDLE, u64be],
  userdata: [n.NFTA_TABLE_USERDATA, rawBytes],
})

export const chainMessage = attributeTable('nft chain', {
  table: [n.NFTA_CHAIN_TABLE, textZ],
  name: [n.NFTA_CHAIN_NAME, textZ],
  type: [n.NFTA_CHAIN_TYPE, textZ],
  policy: [n.NFTA_CHAIN_POLICY, u32be],
  hook: nested(
    n.NFTA_CHAIN_HOOK,
    attributeTable('hook', {
      number: [n.NFTA_HOOK_HOOKNUM, u32be],
      priority: [n.NFTA_HOOK_PRIORITY, i32be],
      device: [n.NFTA_HOOK_DEV, textZ],
    }),
  ),
  handle: [n.NFTA_CHAIN_HANDLE, u64be],
  userdata: [n.NFTA_CHAIN_USERDATA, rawBytes],
})
export type ChainMessage = Decoded<typeof chainMessage>

/** Chain policies as numbers. */
export const policyNumbers = { accept: NF_ACCEPT, drop: NF_DROP } as const

export const ruleMessage = attributeTable('nft rule', {
  table: [n.NFTA_RULE_TABLE, textZ],
  chain: [n.NFTA_RULE_CHAIN, textZ],
  handle: [n.NFTA_RULE_HANDLE, u64be],
  /** A new rule goes before the one with this handle, or behind it with NLM_F_APPEND. */
  position: [n.NFTA_RULE_POSITION, u64be],
  expressions: nested(n.NFTA_RULE_EXPRESSIONS, attributeList(expression, n.NFTA_LIST_ELEM | NLA_F_NESTED)),
  userdata: [n.NFTA_RULE_USERDATA, rawBytes],
})
export type RuleMessage = Decoded<typeof ruleMessage>

export const setMessage = attributeTable('nft set', {
  table: [n.NFTA_SET_TABLE, textZ],
  name: [n.NFTA_SET_NAME, textZ],
  flags: [n.NFTA_SET_FLAGS, u32be],
  keyType: [n.NFTA_SET_KEY_TYPE, u32be],
  keyLength: [n.NFTA_SET_KEY_LEN, u32be],
  dataType: [n.NFTA_SET_DATA_TYPE, u32be],
  dataLength: [n.NFTA_SET_DATA_LEN, u32be],
  desc: nested(
    n.NFTA_SET_DESC,
    attributeTable('desc', {
      size: [n.NFTA_SET_DESC_SIZE, u32be],
      fields: nested(
        n.NFTA_SET_DESC_CONCAT,
        attributeList(
          attributeTable('field', { length: [n.NFTA_SET_FIELD_LEN, u32be] }),
          n.NFTA_LIST_ELEM | NLA_F_NESTED,
        ),
      ),
    }),
  ),
  /** Names the set to later messages of the same batch. */
  id: [n.NFTA_SET_ID, u32be],
  userdata: [n.NFTA_SET_USERDATA, rawBytes],
  handle: [n.NFTA_SET_HANDLE, u64be],
})
export type SetMessage = Decoded<typeof setMessage>

const elementMessage = attributeTable('element', {
  key: valueRow(n.NFTA_SET_ELEM_KEY),
  /** Last key of a range in a set of concatenations. */
  keyEnd: valueRow(n.NFTA_SET_ELEM_KEY_END),
  data: nested(n.NFTA_SET_ELEM_DATA, data),
  flags: [n.NFTA_SET_ELEM_FLAGS, u32be],
  timeout: [n.NFTA_SET_ELEM_TIMEOUT, u64be],
  expiration: [n.NFTA_SET_ELEM_EXPIRATION, u64be],
  userdata: [n.NFTA_SET_ELEM_USERDATA, rawBytes],
})
export type ElementMessage = Decoded<typeof elementMessage>

export const elementListMessage = attributeTable('nft elements', {
  table: [n.NFTA_SET_ELEM_LIST_TABLE, textZ],
  set: [n.NFTA_SET_ELEM_LIST_SET, textZ],
  setId: [n.NFTA_SET_ELEM_LIST_SET_ID, u32be],
  elements: nested(n.NFTA_SET_ELEM_LIST_ELEMENTS, attributeList(elementMessage, n.NFTA_LIST_ELEM | NLA_F_NESTED)),
})

export const objectMessage = attributeTable('nft object', {
  table: [n.NFTA_OBJ_TABLE, textZ],
  name: [n.NFTA_OBJ_NAME, textZ],
  type: [n.NFTA_OBJ_TYPE, u32be],
  counter: nested(
    n.NFTA_OBJ_DATA,
    attributeTable('counter', { bytes: [n.NFTA_COUNTER_BYTES, u64be], packets: [n.NFTA_COUNTER_PACKETS, u64be] }),
  ),
  userdata: [n.NFTA_OBJ_USERDATA, rawBytes],
})

/** Writes one element by hand: sets have many. Plain bytes for key, end of range, value; user data as encoded. */
export function writeElement(
  writer: Writer,
  element: {
    readonly key: Uint8Array
    readonly keyEnd?: Uint8Array | undefined
    readonly value?: Uint8Array | undefined
    readonly verdict?: { readonly code: number; readonly chain?: string | undefined } | undefined
    readonly flags?: number | undefined
    readonly userdata?: Uint8Array | undefined
  },
): void {
  const start = beginAttribute(writer, n.NFTA_LIST_ELEM | NLA_F_NESTED)
  if (element.flags) {
    const flags = beginAttribute(writer, n.NFTA_SET_ELEM_FLAGS)
    writer.u32be(element.flags)
    endAttribute(writer, flags)
  }
  writeValue(writer, n.NFTA_SET_ELEM_KEY, element.key)
  if (element.keyEnd) writeValue(writer, n.NFTA_SET_ELEM_KEY_END, element.keyEnd)
  if (element.value) writeValue(writer, n.NFTA_SET_ELEM_DATA, element.value)
  if (element.verdict) {
    const outer = beginAttribute(writer, n.NFTA_SET_ELEM_DATA | NLA_F_NESTED)
    data.encode(writer, { verdict: element.verdict })
    endAttribute(writer, outer)
  }
  if (element.userdata) {
    const userdata = beginAttribute(writer, n.NFTA_SET_ELEM_USERDATA)
    writer.bytes(element.userdata)
    endAttribute(writer, userdata)
  }
  endAttribute(writer, start)
}

function writeValue(writer: Writer, type: number, value: Uint8Array): void {
  const outer = beginAttribute(writer, type | NLA_F_NESTED)
  const inner = beginAttribute(writer, n.NFTA_DATA_VALUE)
  writer.bytes(value)
  endAttribute(writer, inner)
  endAttribute(writer, outer)
}
