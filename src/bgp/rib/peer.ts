/**
 * What the RIB is told about a peer, and what it tells its owner. The owner (the speaker) has the sessions; the RIB has no
 * sockets, no timers and no clock: it is told when a session came and went and when a timer of a restart ran out.
 *
 * Sources: RFC 4271 section 3.2 (RIBs), RFC 4456 (clients), RFC 4724 (restart), RFC 5065 (confederations), RFC 7911 (add-path),
 * RFC 9234 (roles).
 */
import type { BgpFamily, BgpRole, ChosenRoute, NextHopMode } from '../../model/bgp.ts'
import type { Ip } from '../../net/ip.ts'
import type { RoutePolicy } from './policy.ts'

/** `confederation`: external, but a member of ours. */
export type PeerKind = 'internal' | 'external' | 'confederation'

/** A session that is established, with what OPEN messages agreed upon. */
export interface RibPeer {
  /** By it the peer is found again after its restart. */
  readonly name: string
  readonly kind: PeerKind
  /** A client of ours as route reflector. */
  readonly reflectorClient: boolean
  readonly remoteAsn: number
  /** Our AS as this peer sees it. */
  readonly localAsn: number
  /** BGP identifier of its OPEN, unsigned 32 bits. */
  readonly routerId: number
  readonly address: Ip
  /** Interface of the session, for link-local next hops. */
  readonly device?: string | undefined
  /** Our next hop in what it is sent, by family of the address. Neither: a family is not sent where `self` is needed. */
  readonly ownNextHops: {
    readonly ipv4?: Ip | undefined
    readonly ipv6?: Ip | undefined
    readonly linkLocal?: Ip | undefined
  }
  /** The peer is on a network that we are on too, so that it may be told of third parties there (RFC 4271 section 5.1.3). */
  readonly sharesNetwork?: ((nextHop: Ip) => boolean) | undefined
  readonly fourOctetAs: boolean
  /** 4096 or 65535. */
  readonly messageBytesMax: number
  /** How often our own AS may stand in a received AS path. */
  readonly allowedLocalAsns: number
  /** Ours toward it (RFC 9234). */
  readonly role?: BgpRole | undefined
  readonly families: readonly RibPeerFamily[]
}

export interface RibPeerFamily {
  readonly family: BgpFamily
  readonly importPolicy: RoutePolicy
  readonly exportPolicy: RoutePolicy
  readonly nextHop: NextHopMode
  /** Negotiated: it sends path identifiers. */
  readonly addPathReceive: boolean
  /** Negotiated: how many paths of a prefix it is sent; 0: one, without identifier. */
  readonly addPathSend: number
  /** Negotiated: IPv4 routes may have IPv6 next hops. */
  readonly extendedNextHop: boolean
  /** Negotiated: it understands long-lived graceful restart; others are not told stale routes (RFC 9494 section 4.5). */
  readonly longLivedRestart: boolean
}

export interface RibOptions {
  readonly asn: number
  /** Unsigned 32 bits. */
  readonly routerId: number
  /** Unsigned 32 bits; the router id when there is none. */
  readonly clusterId: number
  /** The AS that the outside of a confederation sees, and its members. */
  readonly confederation?: { readonly identifier: number; readonly members: readonly number[] } | undefined
  readonly alwaysCompareMed: boolean
  readonly maxExternalPaths: number
  readonly maxInternalPaths: number
  readonly asPathRelax: boolean
  /** External routes whose path does not begin with the peer's AS are refused (RFC 4271 section 6.3). */
  readonly enforceFirstAs: boolean
}

export const defaultRibOptions = {
  alwaysCompareMed: false,
  maxExternalPaths: 1,
  maxInternalPaths: 1,
  asPathRelax: false,
  enforceFirstAs: true,
} as const

/** Where the RIB's words go. Called from `work` alone, never from within what the owner calls to tell the RIB something. */
export interface RibSink {
  /**
   * Whole UPDATE messages for a peer, which many peers may share: nobody may change the bytes. False: enough for now; the RIB keeps
   * only which prefixes changed until `resume(peer)`, however long that takes.
   */
  send(peer: string, bytes: Uint8Array, messages: number): boolean
  /** All that was to be told so far has been sent, End-of-RIB included: once after `attach` and after `refresh`. */
  endOfRibSent?(peer: string, family: BgpFamily): void
  /** Prefixes whose chosen paths changed, some thousands at most. */
  chosen?(family: BgpFamily, routes: readonly ChosenRoute[]): void
  /** False: nobody listens to `chosen` just now, and what changed meanwhile is not told later. Undefined: somebody always does. */
  wantsChosen?(): boolean
}

/** How far away a next hop is: the metric of the route there, 0 and more; -1: unreachable. */
export type NextHopResolver = (address: Ip, device: string | undefined) => number

/** What became of a peer's routes when its session ended. */
export type PeerLoss = 'withdraw' | 'keep stale'

export interface PeerRouteCounts {
  /** Paths as received, before the policy. */
  readonly received: number
  readonly accepted: number
  readonly stale: number
  /** Prefixes that the peer has been told. */
  readonly sent: number
  /** How many of its paths are the best of their prefix. */
  readonly best: number
}
