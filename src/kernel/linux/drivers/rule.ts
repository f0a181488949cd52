/**
 * Routing-policy rules. The kernel cannot change a rule: `set` adds the new one before it deletes the old one when the
 * old one is known, and deletes by identity first when it is not.
 *
 * Sources: include/uapi/linux/fib_rules.h; net/core/fib_rules.c (rule_find, rule_exists).
 */

import type { Rule } from '../../../model/route.ts'
import { Cidr } from '../../../net/cidr.ts'
import { NLM_F_CREATE, NLM_F_EXCL } from '../../../wire/netlink/constants.gen.ts'
import * as k from '../../../wire/rtnetlink/constants.gen.ts'
import { type RuleAttributes, ruleMessage } from '../../../wire/rtnetlink/rule.ts'
import type { DumpRequest, RequestSink, RtnetlinkKind } from '../rtnetlink-kind.ts'
import { addressFamily } from './route.ts'

const NO_SUPPRESSION = 0xffffffff

type Action = NonNullable<Rule['action']>
const actions: readonly (readonly [Action, number])[] = [
  ['lookup', k.FR_ACT_TO_TBL],
  ['blackhole', k.FR_ACT_BLACKHOLE],
  ['unreachable', k.FR_ACT_UNREACHABLE],
  ['prohibit', k.FR_ACT_PROHIBIT],
]
const actionNumbers = new Map(actions)
const actionNames = new Map(actions.map(([name, number]) => [number, name]))

const dumpOf = (family: number): DumpRequest => ({
  type: k.RTM_GETRULE,
  family,
  encode: (writer) =>
    ruleMessage.encode(writer, {
      family,
      destinationLength: 0,
      sourceLength: 0,
      table: 0,
      action: 0,
      flags: 0,
      attributes: {},
    }),
})

function put(sink: RequestSink, type: number, flags: number, rule: Rule, mayFail = false): void {
  const deleting = type === k.RTM_DELRULE
  const table = rule.table ?? (deleting || (rule.action ?? 'lookup') !== 'lookup' ? 0 : k.RT_TABLE_MAIN)
  const attributes: RuleAttributes = {
    priority: rule.priority,
    destination: rule.to?.base,
    source: rule.from?.base,
    inDevice: rule.inDevice,
    outDevice: rule.outDevice,
    mark: rule.mark,
    markMask: rule.markMask,
    table: table > 255 ? table : undefined,
    suppressPrefixLength: rule.suppressPrefixLength,
    protocol: rule.protocol,
  }
  const start = sink.begin(type, flags, mayFail)
  ruleMessage.encode(sink.writer, {
    family: addressFamily(rule.family),
    destinationLength: rule.to?.length ?? 0,
    sourceLength: rule.from?.length ?? 0,
    table: table > 255 ? k.RT_TABLE_COMPAT : table,
    action: deleting && rule.action === undefined ? 0 : actionNumbers.get(rule.action ?? 'lookup')!,
    flags: 0,
    attributes,
  })
  sink.end(start)
}

/** What identifies a rule, without what a change may change. */
const identityOf = ({ kind, family, priority, from, to, inDevice, outDevice, mark, markMask }: Rule): Rule => ({
  kind,
  family,
  priority,
  ...(from && { from }),
  ...(to && { to }),
  ...(inDevice !== undefined && { inDevice }),
  ...(outDevice !== undefined && { outDevice }),
  ...(mark !== undefined && { mark }),
  ...(markMask !== undefined && { markMask }),
})

export const ruleKind: RtnetlinkKind<'rule'> = {
  kind: 'rule',
  types: [k.RTM_NEWRULE, k.RTM_DELRULE],
  groups: [k.RTNLGRP_IPV4_RULE, k.RTNLGRP_IPV6_RULE],
  dumps: [dumpOf(addressFamily(4)), dumpOf(addressFamily(6))],

  encode({ verb, object, was }, sink) {
    if (verb === 'delete') {
      put(sink, k.RTM_DELRULE, 0, object)
      return undefined
    }
    if (verb === 'set' && !was) put(sink, k.RTM_DELRULE, 0, identityOf(object), true)
    put(sink, k.RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, object)
    if (!was) return undefined
    return () => put(sink, k.RTM_DELRULE, 0, was)
  },

  decode(_header, payload) {
    const message = ruleMessage.decode(payload)
    const { attributes } = message
    const action = actionNames.get(message.action)
    const family = message.family === addressFamily(4) ? 4 : message.family === addressFamily(6) ? 6 : undefined
    if (!action || !family) return undefined
    const suppress = attributes.suppressPrefixLength
    return {
      kind: 'rule',
      family,
      priority: attributes.priority ?? 0,
      ...(attributes.source && { from: Cidr.of(attributes.source, message.sourceLength) }),
      ...(attributes.destination && { to: Cidr.of(attributes.destination, message.destinationLength) }),
      ...(attributes.inDevice !== undefined && { inDevice: attributes.inDevice }),
      ...(attributes.outDevice !== undefined && { outDevice: attributes.outDevice }),
      ...(attributes.mark !== undefined && { mark: attributes.mark }),
      ...(attributes.markMask !== undefined && attributes.mark !== undefined && { markMask: attributes.markMask }),
      table: attributes.table ?? message.table,
      action,
      ...(suppress !== undefined && suppress !== NO_SUPPRESSION && { suppressPrefixLength: suppress }),
      ...(attributes.protocol !== undefined && { protocol: attributes.protocol }),
    }
  },
}
