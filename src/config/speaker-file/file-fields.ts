/**
 * What the objects of a speaker's file have in common: unknown keys are errors, and addresses, AS numbers and communities
 * are checked where they stand.
 */
import type { BgpFamily } from '../../model/bgp.ts'
import { parseCommunity } from '../../model/bgp-community.ts'
import { Ip } from '../../net/ip.ts'
import { Fields, shown } from '../calico/fields.ts'

export const bgpFamilies: readonly BgpFamily[] = ['ipv4', 'ipv6']

/** The largest AS number that is not reserved. */
export const ASN_MAX = 4294967294
const AS_TRANS = 23456

/** Throws when there is a key that is none of these. */
export function refuseUnknown(fields: Fields, keys: readonly string[]): void {
  const key = fields.keys().find((each) => !keys.includes(each))
  if (key !== undefined) throw fields.error(key, `is not known here; known are ${keys.join(', ')}`)
}

/** The same fields, when they have none but these keys. */
export function known(fields: Fields, keys: readonly string[]): Fields {
  refuseUnknown(fields, keys)
  return fields
}

/** The objects of a list. */
export const each = (fields: Fields, key: string, most: number): Fields[] =>
  (fields.list(key, most) ?? []).map(
    (item, index) => new Fields(item, fields.object, `${fields.path}${key}[${index}].`),
  )

/** Throws when there is no value. */
export function required<T>(fields: Fields, key: string, value: T | undefined): T {
  if (value === undefined) throw fields.error(key, 'is missing')
  return value
}

/** 1 to 4294967294, and not 23456. */
export function readAsn(fields: Fields, key: string): number | undefined {
  const asn = fields.integer(key, 1, ASN_MAX)
  if (asn === AS_TRANS) throw fields.error(key, `${AS_TRANS} is reserved`)
  return asn
}

/** An address in canonical text, of one family when it is said. */
export function addressText(fields: Fields, key: string, family?: 4 | 6): string | undefined {
  const text = fields.text(key, 64)
  if (text === undefined) return undefined
  const address = Ip.tryParse(text)
  if (!address || (family !== undefined && address.family !== family) || address.isAny)
    throw fields.error(key, `must be an ${family ? `IPv${family} ` : ''}address, not ${shown(text)}`)
  return address.toString()
}

/** Communities in the forms of `parseCommunity`. */
export function communityTexts(fields: Fields, key: string): readonly string[] | undefined {
  return fields.texts(key, 256)?.map((text, index) => {
    if (!parseCommunity(text)) throw fields.error(`${key}[${index}]`, `${shown(text)} is no community`)
    return text
  })
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Without the keys that have no value. */
export const defined = <T extends object>(values: T): Defined<T> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>
