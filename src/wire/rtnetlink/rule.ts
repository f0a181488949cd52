/**
 * RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE: struct fib_rule_hdr and the FRA_* attributes.
 *
 * Sources: include/uapi/linux/fib_rules.h; ip-rule(8).
 */
import { type Codec, textZ, u8, u32le } from '../../bytes/codec.ts'
import { attributeTable, type Decoded } from '../netlink/attribute.ts'
import { ip } from '../netlink/values.ts'
import * as k from './constants.gen.ts'

const ruleAttributes = attributeTable('rule', {
  destination: [k.FRA_DST, ip],
  source: [k.FRA_SRC, ip],
  inDevice: [k.FRA_IIFNAME, textZ],
  outDevice: [k.FRA_OIFNAME, textZ],
  priority: [k.FRA_PRIORITY, u32le],
  mark: [k.FRA_FWMARK, u32le],
  markMask: [k.FRA_FWMASK, u32le],
  table: [k.FRA_TABLE, u32le],
  /** 0xffffffff: none. */
  suppressPrefixLength: [k.FRA_SUPPRESS_PREFIXLEN, u32le],
  protocol: [k.FRA_PROTOCOL, u8],
  gotoPriority: [k.FRA_GOTO, u32le],
})
export type RuleAttributes = Decoded<typeof ruleAttributes>

export interface RuleMessage {
  readonly family: number
  readonly destinationLength: number
  readonly sourceLength: number
  /** The low byte of the table. */
  readonly table: number
  /** FR_ACT_*. */
  readonly action: number
  /** FIB_RULE_*. */
  readonly flags: number
  readonly attributes: RuleAttributes
}

export const ruleMessage: Codec<RuleMessage> = {
  name: 'rule message',
  decode(reader) {
    const family = reader.u8()
    const destinationLength = reader.u8()
    const sourceLength = reader.u8()
    reader.skip(1)
    const table = reader.u8()
    reader.skip(2)
    const action = reader.u8()
    return {
      family,
      destinationLength,
      sourceLength,
      table,
      action,
      flags: reader.u32le(),
      attributes: ruleAttributes.decode(reader),
    }
  },
  encode(writer, value) {
    writer.u8(value.family)
    writer.u8(value.destinationLength)
    writer.u8(value.sourceLength)
    writer.u8(0)
    writer.u8(value.table)
    writer.u16le(0)
    writer.u8(value.action)
    writer.u32le(value.flags)
    ruleAttributes.encode(writer, value.attributes)
  },
}
