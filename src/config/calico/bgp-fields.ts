/**
 * Values that Calico's BGP objects have in common: AS numbers, communities, durations, Secrets.
 *
 * Sources: Calico api/pkg/lib/numorstring (AS numbers as numbers, text or dotted), Kubernetes apimachinery meta/v1 Duration
 * (Go's time.ParseDuration), core/v1 SecretKeySelector.
 */
import type { CommunityText } from '../../model/bgp.ts'
import { formatCommunity, parseCommunity } from '../../model/bgp-community.ts'
import type { SecretKey } from '../../model/calico-bgp.ts'
import { type Fields, shown } from './fields.ts'
import { parseAsNumber } from './node-annotations.ts'

const AS_TRANS = 23456
const unitsInSeconds: Readonly<Record<string, number>> = {
  ns: 1e-9,
  us: 1e-6,
  µs: 1e-6,
  ms: 1e-3,
  s: 1,
  m: 60,
  h: 3600,
}

/** A number, text, or dotted text; 0 and nothing count as missing. */
export function readAsn(fields: Fields, key: string, value = fields.get(key)): number | undefined {
  if (value === undefined || value === '' || value === 0) return undefined
  const isText = typeof value === 'string' && value.length <= 16
  let asn = -1
  try {
    asn = isText ? parseAsNumber(value) : Number.isInteger(value) ? (value as number) : -1
  } catch {}
  if (asn < 0 || asn >= 2 ** 32) throw fields.error(key, `must be an AS number, not ${shown(value)}`)
  if (asn === AS_TRANS || asn === 2 ** 32 - 1) throw fields.error(key, `${asn} is reserved`)
  return asn === 0 ? undefined : asn
}

/** A list of AS numbers, each one there. */
export function readAsns(fields: Fields, key: string, maxItems: number): readonly number[] | undefined {
  return fields.list(key, maxItems)?.map((item, index) => {
    const asn = readAsn(fields, `${key}[${index}]`, item)
    if (asn === undefined) throw fields.error(`${key}[${index}]`, `must be an AS number, not ${shown(item)}`)
    return asn
  })
}

/** `aa:nn` or `aa:nn:mm`, in canonical form. */
export function communityOf(fields: Fields, key: string, value: unknown): CommunityText {
  const isPlain = typeof value === 'string' && /^\d+:\d+(:\d+)?$/.test(value)
  const community = isPlain ? parseCommunity(value.replaceAll(/(^|:)0+(?=\d)/g, '$1')) : undefined
  if (!community)
    throw fields.error(key, `must be a community, aa:nn (16 bits each) or aa:nn:mm (32 bits each), not ${shown(value)}`)
  return formatCommunity(community)
}

/** Go's text of a duration: `120s`, `2m0s`, `1.5h`. Whole seconds, rounded. */
export function readSeconds(fields: Fields, key: string, least: number, most: number): number | undefined {
  const text = fields.text(key, 64)
  if (text === undefined) return undefined
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)]
  const isWhole = text === '0' || (parts.length > 0 && parts.map(([part]) => part).join('') === text)
  if (!isWhole) throw fields.error(key, `must be a duration such as 120s or 2m, not ${shown(text)}`)
  const seconds = Math.round(parts.reduce((sum, [, number, unit]) => sum + Number(number) * unitsInSeconds[unit!]!, 0))
  if (seconds < least || seconds > most)
    throw fields.error(key, `must be from ${least}s to ${most}s, not ${shown(text)}`)
  return seconds
}

/** `{secretKeyRef: {name, key, optional}}`; undefined without a reference. */
export function readPassword(fields: Fields, key: string): SecretKey | undefined {
  const reference = fields.inner(key).get('secretKeyRef')
  if (reference === undefined) return undefined
  const secret = fields.inner(key).inner('secretKeyRef')
  const name = secret.text('name', 253)
  const secretKey = secret.text('key', 253)
  if (name === undefined || !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name))
    throw secret.error('name', `must be the name of a Secret, not ${shown(name)}`)
  if (secretKey === undefined || !/^[-._a-zA-Z0-9]+$/.test(secretKey))
    throw secret.error('key', `must be a key of the Secret, not ${shown(secretKey)}`)
  return { name, key: secretKey, optional: secret.flag('optional') ?? false }
}

/** Names of devices with `*`, such as `eth*`. */
export function checkDeviceGlob(fields: Fields, key: string, text: string): string {
  if (!/^[a-zA-Z0-9:._*?-]{1,15}$/.test(text))
    throw fields.error(key, `must be the name of a device, * for any end of it, not ${shown(text)}`)
  return text
}
