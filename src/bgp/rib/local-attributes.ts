/**
 * The attributes of a route that we originate: ours is the AS path, and unless somebody says otherwise the next hop.
 *
 * Sources: RFC 4271 sections 5.1.1 to 5.1.5 (routes that a speaker originates).
 */
import type { CommunityText, LocalRoute } from '../../model/bgp.ts'
import { parseCommunity } from '../../model/bgp-community.ts'
import { Ip } from '../../net/ip.ts'
import type { Attributes, LargeCommunity } from '../../wire/bgp/attributes.ts'

const IGP = 0

export function attributesOfLocal({ nextHop, communities, med, localPreference }: LocalRoute): Attributes {
  return Object.freeze({
    origin: IGP,
    asPath: [],
    ...(nextHop !== undefined && { nextHop: { address: Ip.parse(nextHop) } }),
    ...(med !== undefined && { med }),
    ...(localPreference !== undefined && { localPreference }),
    ...(communities && communitiesOf(communities)),
  })
}

/** Throws RangeError on what is no community: whoever made the route has checked them. */
export function communitiesOf(texts: readonly CommunityText[]): Attributes {
  const standard: number[] = []
  const extended: bigint[] = []
  const large: LargeCommunity[] = []
  for (const text of texts) {
    const community = parseCommunity(text)
    if (!community) throw new RangeError(`not a community: ${text}`)
    if (community.kind === 'standard') standard.push(community.value)
    else if (community.kind === 'extended') extended.push(community.value)
    else large.push(community.value)
  }
  return {
    ...(standard.length > 0 && { communities: standard }),
    ...(extended.length > 0 && { extendedCommunities: extended }),
    ...(large.length > 0 && { largeCommunities: large }),
  }
}
