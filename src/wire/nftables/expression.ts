/**
 * The expressions that a rule is made of: little instructions over registers, each a name and a table of attributes.
 *
 *   ip saddr 10.0.0.0/8 drop  =  meta(nfproto → r8) cmp(r8 == 2) payload(network+12, 4 → r8)
 *                                bitwise(r8 & 255.0.0.0 → r8) cmp(r8 == 10.0.0.0) immediate(verdict ← drop)
 *
 * Registers are NFT_REG32_00 and up, four bytes each; 0 is the verdict.
 *
 * Sources: include/uapi/linux/netfilter/nf_tables.h.
 */
import { type Codec, textZ, u16be, u32be, u64be } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { Writer } from '../../bytes/writer.ts'
import {
  type AttributeTable,
  attributeTable,
  beginAttribute,
  type Decoded,
  endAttribute,
  nested,
  readAttributes,
} from '../netlink/attribute.ts'
import { NLA_F_NESTED } from '../netlink/constants.gen.ts'
import * as n from './constants.gen.ts'
import { data, valueRow } from './data.ts'

const u8Row = (type: number) =>
  [
    type,
    { name: 'u8', decode: (r: Reader) => r.u8(), encode: (w: Writer, v: number) => w.u8(v) } satisfies Codec<number>,
  ] as const

/** Kernel name of an expression → its attributes. */
const expressionTables = {
  payload: attributeTable('payload', {
    dreg: [n.NFTA_PAYLOAD_DREG, u32be],
    base: [n.NFTA_PAYLOAD_BASE, u32be],
    offset: [n.NFTA_PAYLOAD_OFFSET, u32be],
    length: [n.NFTA_PAYLOAD_LEN, u32be],
  }),
  meta: attributeTable('meta', {
    key: [n.NFTA_META_KEY, u32be],
    dreg: [n.NFTA_META_DREG, u32be],
    sreg: [n.NFTA_META_SREG, u32be],
  }),
  ct: attributeTable('ct', {
    key: [n.NFTA_CT_KEY, u32be],
    dreg: [n.NFTA_CT_DREG, u32be],
    direction: u8Row(n.NFTA_CT_DIRECTION),
    sreg: [n.NFTA_CT_SREG, u32be],
  }),
  fib: attributeTable('fib', {
    flags: [n.NFTA_FIB_FLAGS, u32be],
    result: [n.NFTA_FIB_RESULT, u32be],
    dreg: [n.NFTA_FIB_DREG, u32be],
  }),
  cmp: attributeTable('cmp', {
    sreg: [n.NFTA_CMP_SREG, u32be],
    op: [n.NFTA_CMP_OP, u32be],
    data: valueRow(n.NFTA_CMP_DATA),
  }),
  range: attributeTable('range', {
    sreg: [n.NFTA_RANGE_SREG, u32be],
    op: [n.NFTA_RANGE_OP, u32be],
    from: valueRow(n.NFTA_RANGE_FROM_DATA),
    to: valueRow(n.NFTA_RANGE_TO_DATA),
  }),
  bitwise: attributeTable('bitwise', {
    sreg: [n.NFTA_BITWISE_SREG, u32be],
    dreg: [n.NFTA_BITWISE_DREG, u32be],
    length: [n.NFTA_BITWISE_LEN, u32be],
    op: [n.NFTA_BITWISE_OP, u32be],
    mask: valueRow(n.NFTA_BITWISE_MASK),
    xor: valueRow(n.NFTA_BITWISE_XOR),
  }),
  immediate: attributeTable('immediate', {
    dreg: [n.NFTA_IMMEDIATE_DREG, u32be],
    data: nested(n.NFTA_IMMEDIATE_DATA, data),
  }),
  lookup: attributeTable('lookup', {
    set: [n.NFTA_LOOKUP_SET, textZ],
    setId: [n.NFTA_LOOKUP_SET_ID, u32be],
    sreg: [n.NFTA_LOOKUP_SREG, u32be],
    dreg: [n.NFTA_LOOKUP_DREG, u32be],
    flags: [n.NFTA_LOOKUP_FLAGS, u32be],
  }),
  counter: attributeTable('counter', {
    bytes: [n.NFTA_COUNTER_BYTES, u64be],
    packets: [n.NFTA_COUNTER_PACKETS, u64be],
  }),
  notrack: attributeTable('notrack', {}),
  objref: attributeTable('objref', {
    type: [n.NFTA_OBJREF_IMM_TYPE, u32be],
    object: [n.NFTA_OBJREF_IMM_NAME, textZ],
  }),
  masq: attributeTable('masq', {
    flags: [n.NFTA_MASQ_FLAGS, u32be],
    portRegister: [n.NFTA_MASQ_REG_PROTO_MIN, u32be],
    lastPortRegister: [n.NFTA_MASQ_REG_PROTO_MAX, u32be],
  }),
  nat: attributeTable('nat', {
    type: [n.NFTA_NAT_TYPE, u32be],
    family: [n.NFTA_NAT_FAMILY, u32be],
    addressRegister: [n.NFTA_NAT_REG_ADDR_MIN, u32be],
    portRegister: [n.NFTA_NAT_REG_PROTO_MIN, u32be],
    lastPortRegister: [n.NFTA_NAT_REG_PROTO_MAX, u32be],
    flags: [n.NFTA_NAT_FLAGS, u32be],
  }),
  limit: attributeTable('limit', {
    rate: [n.NFTA_LIMIT_RATE, u64be],
    unit: [n.NFTA_LIMIT_UNIT, u64be],
    burst: [n.NFTA_LIMIT_BURST, u32be],
    type: [n.NFTA_LIMIT_TYPE, u32be],
    flags: [n.NFTA_LIMIT_FLAGS, u32be],
  }),
  log: attributeTable('log', {
    prefix: [n.NFTA_LOG_PREFIX, textZ],
    group: [n.NFTA_LOG_GROUP, u16be],
    snapLength: [n.NFTA_LOG_SNAPLEN, u32be],
    threshold: [n.NFTA_LOG_QTHRESHOLD, u16be],
    level: [n.NFTA_LOG_LEVEL, u32be],
    flags: [n.NFTA_LOG_FLAGS, u32be],
  }),
  reject: attributeTable('reject', {
    type: [n.NFTA_REJECT_TYPE, u32be],
    code: u8Row(n.NFTA_REJECT_ICMP_CODE),
  }),
} as const

export type ExpressionName = keyof typeof expressionTables

/** One expression. `other` is one that no table here describes; its attributes are kept as bytes. */
export type NftExpression =
  | {
      [K in ExpressionName]: { readonly name: K; readonly data: Decoded<(typeof expressionTables)[K]> }
    }[ExpressionName]
  | { readonly name: 'other'; readonly kernelName: string; readonly data: Uint8Array }

const isKnown = (name: string): name is ExpressionName => Object.hasOwn(expressionTables, name)

/** One expression as an element of a rule's list. */
export const expression: Codec<NftExpression> = {
  name: 'expression',
  decode(reader) {
    let name = ''
    let body: Uint8Array | undefined
    let value: NftExpression | undefined
    readAttributes(reader, (rawType) => {
      const type = rawType & 0x3fff
      if (type === n.NFTA_EXPR_NAME) name = reader.textZ()
      else if (type === n.NFTA_EXPR_DATA && isKnown(name))
        value = { name, data: expressionTables[name].decode(reader) } as NftExpression
      else if (type === n.NFTA_EXPR_DATA) body = reader.rest().slice()
    })
    if (value) return value
    if (!name) reader.fail('an expression has no name')
    // `notrack` and the like have no attributes at all; a known one without any is as good as empty.
    if (isKnown(name)) return { name, data: {} } as NftExpression
    return { name: 'other', kernelName: name, data: body ?? new Uint8Array(0) }
  },
  encode(writer, value) {
    const start = beginAttribute(writer, n.NFTA_EXPR_NAME)
    writer.text(value.name === 'other' ? value.kernelName : value.name)
    writer.u8(0)
    endAttribute(writer, start)
    const body = beginAttribute(writer, n.NFTA_EXPR_DATA | NLA_F_NESTED)
    if (value.name === 'other') writer.bytes(value.data)
    else (expressionTables[value.name] as AttributeTable<never>).encode(writer, value.data as never)
    endAttribute(writer, body)
  },
}
