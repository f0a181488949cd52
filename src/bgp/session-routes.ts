/**
 * A session as the RIB sees it: what was negotiated, the peer's policies as programs, and which of our addresses stand as
 * next hop in what it is sent.
 *
 * Sources: RFC 4271 section 5.1.3 (NEXT_HOP), RFC 2545 section 2 (link-local next hops), RFC 8212 (no policy, no routes).
 */
import type { BgpFamily, PeerConfig, PeerFamilyConfig, PolicyVerdict, SpeakerConfig } from '../model/bgp.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import type { PolicyLibrary } from './filter.ts'
import type { Negotiated } from './negotiation.ts'
import { routeFamilyOf } from './peer-restart.ts'
import type { RibPeer, RibPeerFamily } from './rib/peer.ts'
import type { Endpoint, Stream } from './transport.ts'

/** What is around one end of ours: addresses of the same device, and the networks on it. */
export interface Surroundings {
  readonly ipv4?: Ip | undefined
  /** A global address, or a unique local one. */
  readonly ipv6?: Ip | undefined
  readonly linkLocal?: Ip | undefined
  readonly networks: readonly Cidr[]
}

export interface SessionSurroundings {
  readonly policies: PolicyLibrary
  surroundings(local: Endpoint): Surroundings
}

export function ribPeerOf(
  speaker: SpeakerConfig,
  peer: PeerConfig,
  negotiated: Negotiated,
  { local, remote }: Stream,
  host: SessionSurroundings,
): RibPeer {
  const { context, localAsn, remoteAsn, remoteRouterId } = negotiated
  const { networks, ...beside } = host.surroundings(local)
  const { address } = local
  const own =
    address.family === 4
      ? { ...beside, ipv4: address }
      : address.isLinkLocal
        ? { ...beside, linkLocal: address }
        : { ...beside, ipv6: address }
  return {
    name: peer.name,
    kind: context.peerType,
    reflectorClient: peer.reflectorClient,
    remoteAsn,
    localAsn,
    routerId: remoteRouterId,
    address: remote.address,
    device: peer.device ?? remote.device,
    ownNextHops: own,
    sharesNetwork: (nextHop) =>
      networks.some((network) => network.contains(nextHop) && network.contains(remote.address)),
    fourOctetAs: context.fourOctetAs,
    messageBytesMax: context.messageBytesMax,
    allowedLocalAsns: peer.allowedLocalAsns,
    role: peer.role,
    families: peer.families
      .filter(({ family }) => context.families.has(routeFamilyOf(family)))
      .map((family) => ribFamilyOf(speaker, family, negotiated, host.policies)),
  }
}

function ribFamilyOf(
  { externalNeedsPolicy }: SpeakerConfig,
  config: PeerFamilyConfig,
  { context, restart }: Negotiated,
  policies: PolicyLibrary,
): RibPeerFamily {
  const { family, nextHop, addPathSend, importPolicies, exportPolicies, importDefault, exportDefault } = config
  const each = routeFamilyOf(family)
  const external = context.peerType === 'external'
  const policyFor = (names: readonly string[], otherwise: PolicyVerdict | undefined) =>
    policies.policyFor({
      names,
      family: numberOf(family),
      peerType: context.peerType === 'internal' ? 'ibgp' : 'ebgp',
      // RFC 8212 section 2: without a policy an external peer's routes are neither taken nor told.
      otherwise: otherwise ?? (external && externalNeedsPolicy ? 'reject' : 'accept'),
    })
  return {
    family,
    importPolicy: policyFor(importPolicies, importDefault),
    exportPolicy: policyFor(exportPolicies, exportDefault),
    nextHop,
    addPathReceive: context.addPathReceive.has(each),
    addPathSend: context.addPathSend.has(each) ? addPathSend : 0,
    extendedNextHop: context.extendedNextHop.has(each),
    longLivedRestart: restart?.longLived.has(each) === true,
  }
}

const numberOf = (family: BgpFamily): 4 | 6 => (family === 'ipv4' ? 4 : 6)
