/**
 * The local RIB as an MRT table (TABLE_DUMP_V2), made of what a speaker tells: its status and its routes. It is what collectors
 * keep and their tools read. Attributes that `RibRoute` has no word for are not in it.
 *
 *   PEER_INDEX_TABLE, then a record a prefix; peer 0 is the speaker itself
 *
 * Sources: RFC 6396 section 4.3, RFC 8050 section 4 (path identifiers).
 */
import type { PeerStatus, RibRoute, SpeakerStatus } from '../model/bgp.ts'
import { parseCommunity } from '../model/bgp-community.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { encodeAttributes } from '../wire/bgp/attribute.ts'
import type { Attributes } from '../wire/bgp/attributes.ts'
import { Origin } from '../wire/bgp/constants.ts'
import type { WireContext } from '../wire/bgp/context.ts'
import { IPV4_UNICAST, unicastOf } from '../wire/bgp/family.ts'
import { encodeMrt, type MrtPeer, type MrtRibEntry } from '../wire/mrt/record.ts'
import { ribAttributesOf } from '../wire/mrt/rib-attributes.ts'
import { communitiesOf } from './rib/local-attributes.ts'

const origins = { igp: Origin.IGP, egp: Origin.EGP, incomplete: Origin.INCOMPLETE } as const

/** Tables have four-octet AS numbers, whatever the sessions had. */
const context: WireContext = {
  fourOctetAs: true,
  peerType: 'internal',
  families: new Set(),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set([IPV4_UNICAST]),
  messageBytesMax: 65535,
}

/**
 * The records of a table, one after the other; together they are a file. Paths of one prefix stand together in `routes`, those of
 * families in any order. `seconds` is Unix time.
 */
export async function* mrtTable(
  status: SpeakerStatus,
  routes: Iterable<RibRoute> | AsyncIterable<RibRoute>,
  seconds: number,
): AsyncGenerator<Uint8Array> {
  const collectorIdentifier = Ip.parse(status.routerId).w3
  const self: MrtPeer = { identifier: collectorIdentifier, address: Ip.any(4), asn: status.asn }
  yield encodeMrt({
    kind: 'peerIndexTable',
    seconds,
    collectorIdentifier,
    viewName: '',
    peers: [self, ...status.peers.map(peerOf)],
  })
  const indexOf = new Map(status.peers.map(({ name }, i) => [name, i + 1]))
  let sequence = 0
  for await (const paths of byPrefix(routes)) {
    const prefix = Cidr.parse(paths[0]!.prefix)
    const addPath = paths.some(({ pathId }) => pathId !== undefined)
    const entries = paths.map(
      (route): MrtRibEntry => ({
        peerIndex: route.fromPeer === undefined ? 0 : (indexOf.get(route.fromPeer) ?? 0),
        originatedSeconds: Math.floor((route.receivedAtMs ?? seconds * 1000) / 1000),
        ...(addPath && { pathId: route.pathId ?? 0 }),
        attributes: ribAttributesOf(encodeAttributes(attributesOf(route, prefix), unicastOf(prefix.family), context)),
      }),
    )
    yield encodeMrt({ kind: 'rib', seconds, addPath, sequence: sequence++, prefix, entries })
  }
}

/** A peer that never was there has no identifier; one of which only the kind is known has our AS, or none. */
function peerOf({ address, remoteAsn, remoteRouterId, localAsn }: PeerStatus): MrtPeer {
  return {
    identifier: remoteRouterId === undefined ? 0 : Ip.parse(remoteRouterId).w3,
    address: address === undefined ? Ip.any(4) : Ip.parse(address),
    asn: typeof remoteAsn === 'number' ? remoteAsn : remoteAsn === 'internal' ? localAsn : 0,
  }
}

async function* byPrefix(routes: Iterable<RibRoute> | AsyncIterable<RibRoute>): AsyncGenerator<RibRoute[]> {
  let paths: RibRoute[] = []
  for await (const route of routes) {
    if (paths.length > 0 && paths[0]!.prefix !== route.prefix) {
      yield paths
      paths = []
    }
    paths.push(route)
  }
  if (paths.length > 0) yield paths
}

function attributesOf(route: RibRoute, { family }: Cidr): Attributes {
  const [first] = route.nextHops
  return {
    origin: origins[route.origin],
    asPath: route.asPath,
    // A route of our own has no next hop: writers of tables put the empty address there.
    nextHop: { address: first ? Ip.parse(first.address) : Ip.any(family) },
    ...(route.med !== undefined && { med: route.med }),
    ...(route.localPreference !== undefined && { localPreference: route.localPreference }),
    ...(route.originatorId !== undefined && { originatorId: Ip.parse(route.originatorId).w3 }),
    ...(route.clusterList && { clusterList: route.clusterList.map((id) => Ip.parse(id).w3) }),
    // Extended ones of other kinds than routers name have words that nobody reads back.
    ...communitiesOf(route.communities.filter((text) => parseCommunity(text) !== undefined)),
  }
}
