/**
 * Address ranges with host-local's meaning: a subnet, optionally narrowed by first and last, and a gateway that no
 * pod gets. Several ranges of one family make a set, from which an attachment gets one address; several sets (one of
 * each family, usually) give it several.
 *
 * Sources: containernetworking plugins, host-local documentation; RFC 4632, RFC 4291 section 2.6.1.
 */
import { ConfigError } from '../model/errors.ts'
import type { Cidr } from '../net/cidr.ts'
import { bitsOf, type Ip } from '../net/ip.ts'

export interface Range {
  readonly subnet: Cidr
  /** First and last address that may be given, both included. */
  readonly first: Ip
  readonly last: Ip
  readonly gateway: Ip
}

/** Ranges of one family, tried in order. */
export type RangeSet = readonly Range[]

/** The first usable address of a block: the gateway when none is named. */
const firstUsable = (subnet: Cidr): Ip => subnet.base.plus(1)

/** The last usable address: IPv4's broadcast address is none. */
const lastUsable = (subnet: Cidr): Ip => (subnet.family === 4 ? subnet.last.plus(-1) : subnet.last)

/** Completes and checks a range. Throws ConfigError naming the key (`rangeStart`, `rangeEnd`, `gateway`, `subnet`). */
export function rangeOf(
  object: string,
  subnet: Cidr,
  { first, last, gateway }: { first?: Ip | undefined; last?: Ip | undefined; gateway?: Ip | undefined } = {},
): Range {
  if (subnet.length > bitsOf(subnet.family) - 2)
    throw new ConfigError(object, 'subnet', `${subnet} is too small to give addresses from`)
  const range = {
    subnet,
    first: first ?? firstUsable(subnet),
    last: last ?? lastUsable(subnet),
    gateway: gateway ?? firstUsable(subnet),
  }
  for (const [key, ip] of [
    ['rangeStart', range.first],
    ['rangeEnd', range.last],
  ] as const)
    if (!subnet.contains(ip)) throw new ConfigError(object, key, `${ip} is not in ${subnet}`)
  if (range.gateway.family !== subnet.family)
    throw new ConfigError(object, 'gateway', `${range.gateway} is not of the family of ${subnet}`)
  if (range.first.compare(range.last) > 0)
    throw new ConfigError(object, 'rangeStart', `${range.first} is after rangeEnd ${range.last}`)
  return {
    ...range,
    first: range.first.equals(subnet.base) ? firstUsable(subnet) : range.first,
    last: subnet.family === 4 && range.last.equals(subnet.last) ? lastUsable(subnet) : range.last,
  }
}

export const rangeHolds = (range: Range, ip: Ip): boolean =>
  ip.family === range.first.family && ip.compare(range.first) >= 0 && ip.compare(range.last) <= 0

export const formatRange = (range: Range): string => `${range.first}-${range.last}`

/** Checks that a set is of one family and that no two ranges anywhere overlap. Throws ConfigError. */
export function checkRangeSets(object: string, sets: readonly RangeSet[]): void {
  const all = sets.flat()
  for (const [index, set] of sets.entries()) {
    if (set.length === 0) throw new ConfigError(object, `ranges[${index}]`, 'has no range')
    if (set.some((range) => range.first.family !== set[0]!.first.family))
      throw new ConfigError(object, `ranges[${index}]`, 'mixes address families')
  }
  for (const [i, a] of all.entries())
    for (const b of all.slice(i + 1))
      if (rangeHolds(a, b.first) || rangeHolds(b, a.first))
        throw new ConfigError(object, 'ranges', `${formatRange(a)} overlaps ${formatRange(b)}`)
}
