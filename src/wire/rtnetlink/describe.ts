/**
 * Any rtnetlink message in words, for WEFT_NLDEBUG: the type's name and the decoded fields as compact text.
 */
import type { Codec } from '../../bytes/codec.ts'
import type { Reader } from '../../bytes/reader.ts'
import type { MessageHeader } from '../netlink/message.ts'
import { addressMessage } from './address.ts'
import * as k from './constants.gen.ts'
import { linkMessage } from './link.ts'
import { neighbourMessage } from './neighbour.ts'
import { routeMessage } from './route.ts'
import { ruleMessage } from './rule.ts'
import { trafficMessage } from './traffic.ts'

const families: readonly (readonly [suffix: string, firstType: number, codec: Codec<object>])[] = [
  ['LINK', k.RTM_NEWLINK, linkMessage as Codec<object>],
  ['ADDR', k.RTM_NEWADDR, addressMessage as Codec<object>],
  ['ROUTE', k.RTM_NEWROUTE, routeMessage as Codec<object>],
  ['NEIGH', k.RTM_NEWNEIGH, neighbourMessage as Codec<object>],
  ['RULE', k.RTM_NEWRULE, ruleMessage as Codec<object>],
  ['QDISC', k.RTM_NEWQDISC, trafficMessage as Codec<object>],
  ['TCLASS', k.RTM_NEWTCLASS, trafficMessage as Codec<object>],
  ['TFILTER', k.RTM_NEWTFILTER, trafficMessage as Codec<object>],
]
/** The kernel gives each family four numbers in this order. */
const verbs = ['NEW', 'DEL', 'GET', 'SET']

/** The message in words. Throws DecodeError. */
export function describeRtnetlink(header: MessageHeader, payload: Reader): string {
  for (const [suffix, first, codec] of families) {
    const verb = verbs[header.type - first]
    if (verb) return `RTM_${verb}${suffix} ${formatValue(codec.decode(payload))}`
  }
  return `type ${header.type} ${formatValue(payload.rest())}`
}

/** Plain data on one line, without quotes and empty fields; bytes as hexadecimal, unknown attributes by their numbers. */
export function formatValue(value: unknown): string {
  if (value instanceof Uint8Array) {
    const hex = Array.from(value.subarray(0, 64), (byte) => byte.toString(16).padStart(2, '0')).join('')
    return value.length > 64 ? `${hex}…` : hex || "''"
  }
  if (Array.isArray(value)) return `[${value.map(formatValue).join(' ')}]`
  if (typeof value !== 'object' || value === null) return String(value)
  if ('toJSON' in value) return String(value)
  if ('type' in value && 'bytes' in value) return `#${Number(value.type) & 0x3fff}=${formatValue(value.bytes)}`
  const fields: string[] = []
  for (const [name, field] of Object.entries(value))
    if (field !== undefined) fields.push(`${name}=${formatValue(field)}`)
  return `{${fields.join(' ')}}`
}
