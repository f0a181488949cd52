/**
 * When two attribute sets are the same: field by field, in whatever order they came. The hash agrees with it.
 *
 * Sources: RFC 4271 section 5 (order of attributes means nothing), RFC 1997 (communities are a set; their order is kept here as it
 * came, so that what is passed on is what was received).
 */
import type { AsPathSegment, Attributes, LargeCommunity, NextHop, UnknownAttribute } from '../../wire/bgp/attributes.ts'

const segmentKinds = ['set', 'sequence', 'confed-sequence', 'confed-set']

/** 32 bits, signed. */
export function hashAttributes(attributes: Attributes): number {
  const { nextHop } = attributes
  let h = mix(0x811c9dc5, attributes.origin ?? 3)
  if (nextHop) h = mix(mix(h, nextHop.address.w0 ^ nextHop.address.w3), nextHop.linkLocal ? nextHop.linkLocal.w3 : 0)
  h = mix(mix(h, attributes.med ?? -1), attributes.localPreference ?? -1)
  h = mix(mix(h, attributes.originatorId ?? 0), attributes.onlyToCustomer ?? 0)
  h = mix(h, attributes.aggregator ? attributes.aggregator.asn ^ attributes.aggregator.identifier : 0)
  for (const segment of attributes.asPath ?? []) h = mixAll(mix(h, segmentKinds.indexOf(segment.kind)), segment.asns)
  h = mixAll(mixAll(h, attributes.communities), attributes.clusterList)
  for (const community of attributes.largeCommunities ?? []) h = mixAll(h, community)
  for (const community of attributes.extendedCommunities ?? []) h = mix(h, Number(community & 0xffffffffn))
  for (const { type, value } of attributes.unknown ?? []) h = mixAll(mix(h, type), value)
  return h
}

export function equalAttributes(a: Attributes, b: Attributes): boolean {
  return (
    a === b ||
    (a.origin === b.origin &&
      a.med === b.med &&
      a.localPreference === b.localPreference &&
      a.atomicAggregate === b.atomicAggregate &&
      a.originatorId === b.originatorId &&
      a.onlyToCustomer === b.onlyToCustomer &&
      a.aigp === b.aigp &&
      a.aggregator?.asn === b.aggregator?.asn &&
      a.aggregator?.identifier === b.aggregator?.identifier &&
      equalNextHops(a.nextHop, b.nextHop) &&
      equalLists(a.asPath, b.asPath, equalSegments) &&
      equalLists(a.communities, b.communities, Object.is) &&
      equalLists(a.clusterList, b.clusterList, Object.is) &&
      equalLists(a.extendedCommunities, b.extendedCommunities, Object.is) &&
      equalLists(a.largeCommunities, b.largeCommunities, equalLarge) &&
      equalLists(a.unknown, b.unknown, equalUnknown))
  )
}

function equalNextHops(a: NextHop | undefined, b: NextHop | undefined): boolean {
  if (!a || !b) return a === b
  if (!a.address.equals(b.address)) return false
  return a.linkLocal && b.linkLocal ? a.linkLocal.equals(b.linkLocal) : a.linkLocal === b.linkLocal
}

const equalSegments = (a: AsPathSegment, b: AsPathSegment): boolean =>
  a.kind === b.kind && equalLists(a.asns, b.asns, Object.is)

const equalLarge = (a: LargeCommunity, b: LargeCommunity): boolean => equalLists(a, b, Object.is)

const equalUnknown = (a: UnknownAttribute, b: UnknownAttribute): boolean =>
  a.type === b.type && a.flags === b.flags && equalLists(a.value, b.value, Object.is)

function equalLists<T>(
  a: ArrayLike<T> | undefined,
  b: ArrayLike<T> | undefined,
  equal: (a: T, b: T) => boolean,
): boolean {
  if (a === b) return true
  if (!a || !b || a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (!equal(a[i]!, b[i]!)) return false
  return true
}

const mix = (h: number, value: number): number => {
  const m = Math.imul(h ^ value, 0x9e3779b1)
  return m ^ (m >>> 15)
}

function mixAll(h: number, values: ArrayLike<number> | undefined): number {
  let out = mix(h, values ? values.length : -1)
  for (let i = 0; values && i < values.length; i++) out = mix(out, values[i]!)
  return out
}
