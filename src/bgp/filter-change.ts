/**
 * What a rule does to a route, compiled. Every change gives the same object back when there is nothing to change.
 *
 * Sources: RFC 1997, 8092 and 4360 (communities), RFC 4271 sections 5.1.2 to 5.1.5, RFC 5065 section 5.3 (confederation
 * segments stay in front).
 */
import { LOCAL_PREFERENCE_OF_PRIORITY_0, type RouteChange } from '../model/bgp.ts'
import type { Community } from '../model/bgp-community.ts'
import { ConfigError } from '../model/errors.ts'
import { Ip } from '../net/ip.ts'
import type { AsPathSegment, Attributes, LargeCommunity } from '../wire/bgp/attributes.ts'
import { communityOf, hasCommunity, sameLarge } from './filter-match.ts'

export type Change = (attributes: Attributes) => Attributes

/** Attributes that a policy has given a next hop, or the word on it: what the session's own mode says does not count. */
export interface FilteredAttributes extends Attributes {
  /** `set`: `nextHop` is the one; `self`: our address on the session; `keep`: as received. */
  readonly nextHopDecision?: 'set' | 'self' | 'keep'
}

const WORD = 0xffffffff

/** Throws ConfigError for what cannot stand in an attribute. */
export function compileChange(change: RouteChange, object: string, key: string): Change {
  switch (change.kind) {
    case 'add-communities':
      return addCommunities(change.communities.map((text) => communityOf(text, object, key)))
    case 'remove-communities':
      return removeCommunities(change.communities.map((text) => communityOf(text, object, key)))
    case 'set-communities': {
      const add = addCommunities(change.communities.map((text) => communityOf(text, object, key)))
      return (attributes) => add(withoutCommunities(attributes))
    }
    case 'prepend-as-path':
      return prependAsPath(change.asns.map((asn) => wordOf(asn, 1, object, key)))
    case 'set-med': {
      const med = change.med === undefined ? undefined : wordOf(change.med, 0, object, key)
      return ({ med: _, ...others }) => Object.freeze(med === undefined ? others : { ...others, med })
    }
    case 'set-local-preference':
      return setLocalPreference(wordOf(change.localPreference, 0, object, key))
    case 'set-priority':
      return setLocalPreference(wordOf(LOCAL_PREFERENCE_OF_PRIORITY_0 - change.priority, 0, object, key))
    case 'set-next-hop':
      return setNextHop(change.nextHop, object, key)
  }
}

function wordOf(value: number, least: number, object: string, key: string): number {
  if (!Number.isInteger(value) || value < least || value > WORD)
    throw new ConfigError(object, key, `${value} is not a number from ${least} to ${WORD}`)
  return value
}

const setLocalPreference =
  (localPreference: number): Change =>
  (attributes) =>
    attributes.localPreference === localPreference ? attributes : Object.freeze({ ...attributes, localPreference })

function addCommunities(communities: readonly Community[]): Change {
  return (attributes) => {
    const missing = communities.filter((community) => !hasCommunity(attributes, community))
    if (missing.length === 0) return attributes
    const standard = new Set(attributes.communities ?? [])
    const extended = new Set(attributes.extendedCommunities ?? [])
    const large: LargeCommunity[] = [...(attributes.largeCommunities ?? [])]
    for (const { kind, value } of missing)
      if (kind === 'standard') standard.add(value)
      else if (kind === 'extended') extended.add(value)
      else if (!large.some((each) => sameLarge(each, value))) large.push(value)
    return Object.freeze({
      ...attributes,
      ...(standard.size > 0 && { communities: [...standard] }),
      ...(extended.size > 0 && { extendedCommunities: [...extended] }),
      ...(large.length > 0 && { largeCommunities: large }),
    })
  }
}

function removeCommunities(communities: readonly Community[]): Change {
  const isNamed = (kind: Community['kind'], value: Community['value']) =>
    communities.some((each) =>
      each.kind !== kind
        ? false
        : each.kind === 'large'
          ? sameLarge(each.value, value as LargeCommunity)
          : each.value === value,
    )
  return (attributes) => {
    if (!communities.some((community) => hasCommunity(attributes, community))) return attributes
    const { communities: standard = [], extendedCommunities: extended = [], largeCommunities: large = [] } = attributes
    return withCommunities(withoutCommunities(attributes), {
      standard: standard.filter((value) => !isNamed('standard', value)),
      extended: extended.filter((value) => !isNamed('extended', value)),
      large: large.filter((value) => !isNamed('large', value)),
    })
  }
}

function withoutCommunities(attributes: Attributes): Attributes {
  const { communities, extendedCommunities, largeCommunities, ...others } = attributes
  return communities || extendedCommunities || largeCommunities ? others : attributes
}

const withCommunities = (
  attributes: Attributes,
  kept: { readonly standard: number[]; readonly extended: bigint[]; readonly large: LargeCommunity[] },
): Attributes =>
  Object.freeze({
    ...attributes,
    ...(kept.standard.length > 0 && { communities: kept.standard }),
    ...(kept.extended.length > 0 && { extendedCommunities: kept.extended }),
    ...(kept.large.length > 0 && { largeCommunities: kept.large }),
  })

function prependAsPath(asns: readonly number[]): Change {
  return (attributes) => {
    if (asns.length === 0) return attributes
    const path = attributes.asPath ?? []
    const isInner = ({ kind }: AsPathSegment) => kind === 'confed-sequence' || kind === 'confed-set'
    const place = path.findIndex((segment) => !isInner(segment))
    const front = place < 0 ? path : path.slice(0, place)
    const [first, ...rest] = place < 0 ? [] : path.slice(place)
    const next: AsPathSegment[] =
      first?.kind === 'sequence'
        ? [{ kind: 'sequence', asns: [...asns, ...first.asns] }, ...rest]
        : [{ kind: 'sequence', asns }, ...(first ? [first, ...rest] : [])]
    return Object.freeze({ ...attributes, asPath: [...front, ...next] })
  }
}

function setNextHop(text: string, object: string, key: string): Change {
  if (text === 'self' || text === 'keep')
    return (attributes): FilteredAttributes => Object.freeze({ ...attributes, nextHopDecision: text })
  const address = Ip.tryParse(text)
  if (!address) throw new ConfigError(object, key, `${text} is no address`)
  return (attributes): FilteredAttributes =>
    Object.freeze({ ...attributes, nextHop: { address }, nextHopDecision: 'set' })
}
