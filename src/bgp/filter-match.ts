/**
 * What a rule asks of a route besides its prefix, compiled: attributes and source.
 *
 * Sources: RFC 4271 section 9.2.2 and 5065 section 5.3 (which segments of an AS path are its beginning).
 */
import { LOCAL_PREFERENCE_OF_PRIORITY_0, type RouteMatch } from '../model/bgp.ts'
import { type Community, parseCommunity } from '../model/bgp-community.ts'
import { ConfigError } from '../model/errors.ts'
import type { AsPathSegment, Attributes } from '../wire/bgp/attributes.ts'
import type { PolicySource } from './rib/policy.ts'

export interface Condition {
  readonly looksAtSource: boolean
  test(attributes: Attributes, source: PolicySource): boolean
}

const ofAttributes = (test: (attributes: Attributes) => boolean): Condition => ({ looksAtSource: false, test })
const ofSource = (test: (source: PolicySource) => boolean): Condition => ({
  looksAtSource: true,
  test: (_, source) => test(source),
})

/** All must hold; none: every route. Throws ConfigError. */
export function compileConditions(match: RouteMatch, object: string, key: string): readonly Condition[] {
  const conditions: Condition[] = []
  const { source, localKinds, device, communities, asPathPrefix, priority } = match
  if (source !== undefined)
    conditions.push(ofSource(({ fromPeer }) => (fromPeer !== undefined) === (source === 'peers')))
  if (localKinds)
    conditions.push(ofSource(({ localKind }) => localKind !== undefined && localKinds.includes(localKind)))
  if (device !== undefined) {
    const pattern = globOf(device)
    conditions.push(ofSource(({ device: own }) => own !== undefined && pattern.test(own)))
  }
  for (const text of communities ?? []) {
    const community = communityOf(text, object, `${key}.communities`)
    conditions.push(ofAttributes((attributes) => hasCommunity(attributes, community)))
  }
  if (asPathPrefix?.length) conditions.push(ofAttributes(({ asPath }) => beginsWith(asPath ?? [], asPathPrefix)))
  if (priority !== undefined)
    conditions.push(
      ofAttributes(({ localPreference }) => localPreference === LOCAL_PREFERENCE_OF_PRIORITY_0 - priority),
    )
  return conditions
}

/** Throws ConfigError for text that is no community. */
export function communityOf(text: string, object: string, key: string): Community {
  const community = parseCommunity(text)
  if (!community) throw new ConfigError(object, key, `${JSON.stringify(text)} is no community`)
  return community
}

export const sameLarge = (a: readonly number[], b: readonly number[]): boolean =>
  a[0] === b[0] && a[1] === b[1] && a[2] === b[2]

export function hasCommunity(attributes: Attributes, community: Community): boolean {
  if (community.kind === 'standard') return attributes.communities?.includes(community.value) ?? false
  if (community.kind === 'extended') return attributes.extendedCommunities?.includes(community.value) ?? false
  return attributes.largeCommunities?.some((each) => sameLarge(each, community.value)) ?? false
}

/** Confederation segments in front say nothing of the path outside. A set ends the known beginning. */
function beginsWith(path: readonly AsPathSegment[], prefix: readonly number[]): boolean {
  let at = 0
  for (const { kind, asns } of path) {
    if (kind === 'confed-sequence' || kind === 'confed-set') continue
    if (kind === 'set') return false
    for (const asn of asns) {
      if (asn !== prefix[at]) return false
      if (++at === prefix.length) return true
    }
  }
  return false
}

/** `*` stands for anything, `?` for one character. */
function globOf(glob: string): RegExp {
  const escaped = glob.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${escaped.replaceAll(/\*+/g, '.*').replaceAll('?', '.')}$`)
}
