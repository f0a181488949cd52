/**
 * BGP in words: what a speaker is told (`SpeakerConfig`, local routes) and what it tells (statuses, routes, events). Everything
 * here is plain data that survives `structuredClone` and JSON: it crosses to the speaker's thread, it is printed by
 * `weft bgp`, and two configurations are compared field by field to find what a change resets.
 *
 *   cluster objects ─► SpeakerConfig + LocalRoute[] ─► speaker ─► SpeakerStatus, PeerStatus, RibRoute, BgpEvent
 *
 * Addresses and prefixes are text in canonical form (`Ip.toString`, `Cidr.toString`); whoever makes a configuration has
 * checked them. Communities are text too: `65000:100`, `65000:1:2` (large), `rt:65000:1` and `ro:65000:1` (extended), or a
 * well-known name.
 *
 * Sources: RFC 4271 (routes, decision), 4456 (reflection), 4724 and 9494 (restart), 5082 (TTL), 5880 (BFD), 6793 (4-octet AS),
 * 7911 (add-path), 8212 (default reject), 8950 (next hops), 9234 (roles); IANA, BGP Well-known Communities.
 */
import type { Family } from '../net/ip.ts'

/** Canonical text of an address; link-local ones have no zone: the device stands beside. */
export type AddressText = string
/** Canonical text of a prefix without host bits. */
export type PrefixText = string
/** `aa:nn`, `aa:nn:mm`, `rt:…`, `ro:…`, or one of `wellKnownCommunities`. */
export type CommunityText = string

/** Unicast of one family is what weft carries. */
export type BgpFamily = 'ipv4' | 'ipv6'

export const bgpFamilyOf = (family: Family): BgpFamily => (family === 4 ? 'ipv4' : 'ipv6')

/** Names that may stand for a standard community, as routers write them. */
export const wellKnownCommunities: Readonly<Record<string, number>> = {
  'graceful-shutdown': 0xffff0000,
  'accept-own': 0xffff0001,
  'llgr-stale': 0xffff0006,
  'no-llgr': 0xffff0007,
  blackhole: 0xffff029a,
  'no-export': 0xffffff01,
  'no-advertise': 0xffffff02,
  'no-export-subconfed': 0xffffff03,
  'no-peer': 0xffffff04,
}

/** The AS of node meshes when nobody says otherwise; also kube-router's and Calico's. */
export const DEFAULT_ASN = 64512
export const DEFAULT_BGP_PORT = 179

// ---- what a speaker is told ------------------------------------------------------------------------------------------

export interface SpeakerConfig {
  /** 1 to 4294967294, and not 23456. */
  readonly asn: number
  /** Four octets, as an IPv4 address; not 0.0.0.0. */
  readonly routerId: AddressText
  /** Reflects routes under this cluster id (an IPv4 address in text); undefined: the router id, when a peer is a client. */
  readonly clusterId?: AddressText
  readonly listen: ListenConfig
  readonly peers: readonly PeerConfig[]
  /** Peers that nobody listed, taken when they call from one of these prefixes. Of several the longest prefix counts. */
  readonly dynamicPeers: readonly DynamicPeerConfig[]
  readonly confederation?: ConfederationConfig
  readonly multipath: MultipathConfig
  /** By name; a peer names which. A name that is not here is a ConfigError when the speaker starts. */
  readonly policies: readonly PolicyConfig[]
  /** Prefix sets that policies name. Apart from them, so that a set can change without its policies. */
  readonly prefixSets: readonly PrefixSetConfig[]
  /** Whose the cluster's blocks are; rules with `misplaced` look here. */
  readonly ownership: readonly PrefixOwner[]
  /** RFC 8212: an external peer without a policy exchanges nothing in that direction. */
  readonly externalNeedsPolicy: boolean
  /** How long after a restart nothing is chosen until every peer has sent End-of-RIB (RFC 4724 selection deferral). */
  readonly deferralSeconds: number
  readonly damping?: DampingConfig
}

export interface ListenConfig {
  /** 0: nobody can call. */
  readonly port: number
  /** Empty: all addresses of the host, both families. */
  readonly addresses: readonly AddressText[]
}

export interface ConfederationConfig {
  /** The AS that the outside sees; `asn` is the member's own. */
  readonly identifier: number
  /** Other members of the same confederation. */
  readonly members: readonly number[]
}

export interface MultipathConfig {
  /** Equal paths used at once, 1 to 64. 1: the best alone. */
  readonly maxPaths: number
  /** External paths are equal when their AS paths are of one length, whatever stands in them. */
  readonly asPathRelax: boolean
}

/** A peer whose sessions end again and again waits longer each time. */
export interface DampingConfig {
  readonly idleHoldMinSeconds: number
  readonly idleHoldMaxSeconds: number
}

/** The other side's AS, or only whether it is ours: unnumbered and dynamic peers need not say more. */
export type RemoteAsn = number | 'internal' | 'external'

export interface PeerConfig extends PeerTemplate {
  /** Unique in a configuration, and the same from one configuration to the next: by it a live session is found again. */
  readonly name: string
  /** Where the peer is called. Undefined with `device`: the link-local address of the only neighbour there (unnumbered). */
  readonly address?: AddressText
  /** Interface that the session is bound to; needed for a link-local address. */
  readonly device?: string
  /** Port of the other side. */
  readonly port: number
}

export interface DynamicPeerConfig extends PeerTemplate {
  readonly name: string
  readonly prefix: PrefixText
  /** Sessions at once from this prefix. */
  readonly maxPeers: number
}

/** What listed and dynamic peers have in common. */
export interface PeerTemplate {
  readonly description?: string
  /** Which object asked for it, for messages: `BGPPeer tor`, `mesh`, `node node2`. */
  readonly origin?: string
  readonly remoteAsn: RemoteAsn
  /** Our AS toward this peer, where it is another than the speaker's. */
  readonly localAsn?: number
  /** Address that we call from, and the only one that the peer may call. Undefined: the kernel's choice. */
  readonly localAddress?: AddressText
  /** Never calls; waits to be called. */
  readonly passive: boolean
  /** TCP MD5 key, 1 to 80 bytes of UTF-8 (RFC 2385). Never printed. */
  readonly password?: string
  /** TTL of what we send; undefined: 1 toward an external peer, 64 toward an internal one. 255 with `ttlSecurityHops`. */
  readonly multihopTtl?: number
  /** RFC 5082: at most so many hops away (1 to 254): what comes with less than 256 − hops is dropped. */
  readonly ttlSecurityHops?: number
  readonly timers: PeerTimers
  readonly families: readonly PeerFamilyConfig[]
  /** Capabilities that are offered besides those that something else demands. */
  readonly capabilities: PeerCapabilities
  readonly gracefulRestart: GracefulRestartConfig
  /** The peer is a client of ours (RFC 4456); the cluster id is the speaker's. */
  readonly reflectorClient: boolean
  /** How often our own AS may stand in the AS path of what the peer sends. */
  readonly allowedLocalAsns: number
  /** RFC 9234: what we are to the peer. */
  readonly role?: BgpRole
  /** With `role`: a peer that states none is refused. */
  readonly roleStrict?: boolean
  readonly bfd?: BfdConfig
  /** Gateway of a /32 (/128) route to the peer's address, which is kept as long as the peer is configured. */
  readonly reachableBy?: AddressText
  /** Present: administratively down, with the text that the peer is sent (RFC 9003). */
  readonly shutdown?: { readonly message: string }
}

export type BgpRole = 'provider' | 'route-server' | 'route-server-client' | 'customer' | 'peer'

export interface PeerTimers {
  /** Offered; 0: neither hold nor keepalive. Otherwise 3 to 65535. */
  readonly holdSeconds: number
  /** Undefined: a third of the hold time that was agreed upon. */
  readonly keepaliveSeconds?: number
  readonly connectRetrySeconds: number
  /** Wait before the first call. */
  readonly connectDelaySeconds: number
  /** Wait after an error, doubled from the least to the most. */
  readonly errorWaitMinSeconds: number
  readonly errorWaitMaxSeconds: number
}

export interface PeerCapabilities {
  /** RFC 2918 and 7313. */
  readonly routeRefresh: boolean
  /** RFC 8654. */
  readonly extendedMessages: boolean
  /** RFC 8950: IPv4 routes with IPv6 next hops. */
  readonly extendedNextHop: boolean
  /** draft-walton-bgp-hostname-capability: our host and domain. */
  readonly hostName?: string
}

export interface PeerFamilyConfig {
  readonly family: BgpFamily
  /** Policies in their order: the first that accepts or rejects a route has decided; none does: `importDefault`. */
  readonly importPolicies: readonly string[]
  readonly exportPolicies: readonly string[]
  /** Undefined: accept, unless `externalNeedsPolicy` says otherwise. */
  readonly importDefault?: PolicyVerdict
  readonly exportDefault?: PolicyVerdict
  readonly nextHop: NextHopMode
  /** RFC 7911: several paths of a prefix. */
  readonly addPathReceive: boolean
  /** How many paths of a prefix are sent; 0: one, without add-path. */
  readonly addPathSend: number
  readonly maxPrefixes?: MaxPrefixesConfig
}

/**
 * What stands as next hop in what we send. `auto`: ours toward external peers and of what we originate, otherwise as received
 * (RFC 4271 5.1.3). `self`: ours. `keep`: as received, also toward external peers.
 */
export type NextHopMode = 'auto' | 'self' | 'keep'

export interface MaxPrefixesConfig {
  readonly limit: number
  /** From so many percent of the limit on there is a warning. */
  readonly warnPercent: number
  /** `restart`: the session ends and begins again after `restartSeconds`; `down`: it stays down; `warn`: nothing else. */
  readonly action: 'restart' | 'down' | 'warn'
  readonly restartSeconds?: number
}

export interface GracefulRestartConfig {
  /** `off`: not offered. `helper`: the peer's restart is bridged. `full`: ours also. */
  readonly mode: 'off' | 'helper' | 'full'
  /** How long the peer is to wait for us, 0 to 4095. */
  readonly restartSeconds: number
  /** RFC 8538: also after a NOTIFICATION and an expired hold timer. */
  readonly notification: boolean
  /** RFC 9494: stale routes live on so long, least preferred; 0: off. At most 16777215. */
  readonly longLivedStaleSeconds: number
}

export interface BfdConfig {
  /** UDP 3784 on the same link, 4784 over several hops (RFC 5881, 5883). */
  readonly multihop: boolean
  readonly minTransmitMicroseconds: number
  readonly minReceiveMicroseconds: number
  readonly detectMultiplier: number
  /** Undefined: 3784 or 4784. kube-router lets one say another. */
  readonly port?: number
}

// ---- policy ----------------------------------------------------------------------------------------------------------

export type PolicyVerdict = 'accept' | 'reject'

/** Rules in their order. After the last one the route falls through to the next policy of the peer. */
export interface PolicyConfig {
  readonly name: string
  readonly rules: readonly PolicyRule[]
}

export interface PolicyRule {
  /** For `weft bgp why`: `BGPFilter tor exportV4[2]`. */
  readonly name?: string
  /** All that is said must hold; nothing said: every route. */
  readonly match: RouteMatch
  /** In their order, on routes that match; of a rule that rejects they have no effect. */
  readonly changes: readonly RouteChange[]
  /** `next`: the changes are made, and the following rules look at what came of them. */
  readonly verdict: PolicyVerdict | 'next'
}

/** Name of the rule that guards the cluster's blocks, as `RibRoute.rejected` has it. */
export const MISPLACED_RULE = "another node's block"

export interface RouteMatch {
  readonly family?: BgpFamily
  readonly prefixes?: PrefixMatch
  /** `peers`: learned from a peer, `local`: originated here. */
  readonly source?: 'peers' | 'local'
  /** Of a local route, what it is for. */
  readonly localKinds?: readonly LocalRouteKind[]
  /** Glob with `*` of the outgoing interface; a route of which none is known does not match. */
  readonly device?: string
  /** Kind of the session that the policy stands at: import from, or export to, such a peer. */
  readonly peerType?: 'ebgp' | 'ibgp'
  /** All of these are on the route. */
  readonly communities?: readonly CommunityText[]
  /** The AS path begins so, leftmost first, within its leading sequences. */
  readonly asPathPrefix?: readonly number[]
  /** Kernel metric: stands for a local preference of `LOCAL_PREFERENCE_OF_PRIORITY_0` less. */
  readonly priority?: number
  /** The next hop is not one of those where the route's prefix belongs (`SpeakerConfig.ownership`, longest match). */
  readonly misplaced?: true
}

export interface PrefixMatch {
  /** A set of `SpeakerConfig.prefixSets`, or its ranges on the spot. */
  readonly set: string | readonly PrefixRange[]
  /** Matches what is not in it. */
  readonly negated?: true
}

/** Prefixes within `prefix` (itself included) whose length is in the range. */
export interface PrefixRange {
  readonly prefix: PrefixText
  /** Undefined: the prefix's own length. */
  readonly minLength?: number
  /** Undefined: the longest of the family. */
  readonly maxLength?: number
}

export interface PrefixSetConfig {
  readonly name: string
  readonly ranges: readonly PrefixRange[]
}

/** Where traffic to a prefix must go: next hops of the node that holds the block. None: nobody announces it. */
export interface PrefixOwner {
  readonly prefix: PrefixText
  readonly nextHops: readonly AddressText[]
  /** For messages: the node. */
  readonly owner: string
}

export type RouteChange =
  | { readonly kind: 'add-communities'; readonly communities: readonly CommunityText[] }
  | { readonly kind: 'remove-communities'; readonly communities: readonly CommunityText[] }
  /** Instead of those that are there; none: all go. */
  | { readonly kind: 'set-communities'; readonly communities: readonly CommunityText[] }
  /** In front, the first becomes the leftmost. */
  | { readonly kind: 'prepend-as-path'; readonly asns: readonly number[] }
  /** undefined removes it. */
  | { readonly kind: 'set-med'; readonly med: number | undefined }
  | { readonly kind: 'set-local-preference'; readonly localPreference: number }
  /** Kernel metric, as a local preference of `LOCAL_PREFERENCE_OF_PRIORITY_0` less. */
  | { readonly kind: 'set-priority'; readonly priority: number }
  /** `self`: our address on the session (export). */
  | { readonly kind: 'set-next-hop'; readonly nextHop: AddressText | 'self' | 'keep' }

/** Calico's rule between kernel metrics, of which the least is best, and local preferences: their sum is this. */
export const LOCAL_PREFERENCE_OF_PRIORITY_0 = 2147483647

// ---- routes of our own -------------------------------------------------------------------------------------------------

/** `block`: of pods on this node; `borrowed`: one pod's address of another's block; the others: addresses of Services. */
export type LocalRouteKind =
  | 'block'
  | 'borrowed'
  | 'cluster-ip'
  | 'external-ip'
  | 'load-balancer-ip'
  | 'aggregate'
  | 'static'

/** A route that this speaker originates. */
export interface LocalRoute {
  readonly prefix: PrefixText
  readonly kind: LocalRouteKind
  /** Undefined: ourselves, by `NextHopMode` of each peer. */
  readonly nextHop?: AddressText
  readonly communities?: readonly CommunityText[]
  readonly med?: number
  readonly localPreference?: number
  /** Outgoing interface, for policies that match one. */
  readonly device?: string
  /** For messages: `IPPool blue`, `Service default/web`. */
  readonly origin?: string
}

// ---- what a speaker tells ----------------------------------------------------------------------------------------------

export type SessionState = 'idle' | 'connect' | 'active' | 'open-sent' | 'open-confirm' | 'established'

export interface SpeakerStatus {
  readonly asn: number
  readonly routerId: AddressText
  readonly clusterId?: AddressText
  readonly listen: ListenConfig
  readonly peers: readonly PeerStatus[]
  /** Prefixes and paths in the local RIB. */
  readonly rib: Readonly<Record<BgpFamily, { readonly prefixes: number; readonly paths: number }>>
  /** Distinct attribute sets that are kept. */
  readonly attributeSets: number
}

export interface PeerStatus {
  readonly name: string
  readonly origin?: string
  readonly description?: string
  readonly address?: AddressText
  readonly device?: string
  readonly port: number
  readonly remoteAsn: RemoteAsn
  readonly localAsn: number
  readonly type: 'ibgp' | 'ebgp' | 'confederation'
  readonly state: SessionState
  /** Undefined where the state is idle for good, by `shutdown` or max-prefixes. */
  readonly reason?: string
  /** Since when the session is established, or since when it is not. Unix milliseconds. */
  readonly sinceMs: number
  readonly establishedCount: number
  readonly remoteRouterId?: AddressText
  readonly localAddress?: AddressText
  readonly holdSeconds?: number
  readonly keepaliveSeconds?: number
  readonly capabilitiesSent?: readonly CapabilityText[]
  readonly capabilitiesReceived?: readonly CapabilityText[]
  readonly families: readonly PeerFamilyStatus[]
  readonly messages: { readonly received: MessageCounts; readonly sent: MessageCounts }
  /** The last NOTIFICATION in each direction. */
  readonly lastReceived?: NotificationText
  readonly lastSent?: NotificationText
  readonly bfd?: 'admin-down' | 'down' | 'init' | 'up'
}

/** A capability in words: `graceful-restart 90s`, with its number. */
export interface CapabilityText {
  readonly code: number
  readonly text: string
}

export interface MessageCounts {
  readonly open: number
  readonly update: number
  readonly keepalive: number
  readonly notification: number
  readonly routeRefresh: number
  readonly bytes: number
}

export interface NotificationText {
  readonly atMs: number
  readonly code: number
  readonly subcode: number
  /** `Cease: administrative shutdown: "moving racks"`. */
  readonly text: string
}

export interface PeerFamilyStatus {
  readonly family: BgpFamily
  /** Before and after the import policy. */
  readonly received: number
  readonly accepted: number
  /** How many of them are the best. */
  readonly best: number
  readonly sent: number
  /** Kept from before the peer's restart. */
  readonly stale: number
  readonly endOfRibReceived: boolean
  readonly endOfRibSent: boolean
}

export interface RibNextHop {
  readonly address: AddressText
  /** With a link-local address. */
  readonly device?: string
}

/** A path of a prefix: of the local RIB, of what a peer sent, or of what we sent to one. */
export interface RibRoute {
  readonly prefix: PrefixText
  /** Undefined: originated here. */
  readonly fromPeer?: string
  readonly localKind?: LocalRouteKind
  /** Add-path identifier. */
  readonly pathId?: number
  readonly nextHops: readonly RibNextHop[]
  readonly origin: 'igp' | 'egp' | 'incomplete'
  readonly asPath: readonly AsPathSegment[]
  readonly communities: readonly CommunityText[]
  readonly med?: number
  readonly localPreference?: number
  readonly originatorId?: AddressText
  readonly clusterList?: readonly AddressText[]
  readonly best: boolean
  /** One of several that are used at once. */
  readonly multipath: boolean
  readonly stale: boolean
  /** Why it is not used: next hop unreachable, refused by a rule, an AS loop. */
  readonly rejected?: string
  readonly receivedAtMs?: number
}

export interface AsPathSegment {
  readonly kind: 'sequence' | 'set' | 'confed-sequence' | 'confed-set'
  readonly asns: readonly number[]
}

/** What the rest of weft makes routes of: the chosen paths of one prefix. No next hops: the prefix is gone. */
export interface ChosenRoute {
  readonly prefix: PrefixText
  readonly nextHops: readonly RibNextHop[]
  readonly fromPeers: readonly string[]
  readonly localPreference?: number
  readonly communities: readonly CommunityText[]
  /** True while it is kept over a restart, of ours or of the peer. */
  readonly stale: boolean
}

export type BgpEvent =
  | { readonly type: 'session'; readonly peer: string; readonly state: SessionState; readonly reason?: string }
  /** Changed prefixes, at most some thousands at once. */
  | { readonly type: 'routes'; readonly routes: readonly ChosenRoute[] }
  /** After a (re)start: every peer has said all, or the deferral is over. Until then old kernel routes stay. */
  | { readonly type: 'converged'; readonly family: BgpFamily }
  /** A route was refused that belongs to another node: for an Event. Told once per peer and prefix until it is gone. */
  | {
      readonly type: 'misplaced'
      readonly peer: string
      readonly prefix: PrefixText
      readonly nextHop: AddressText
      readonly owner: string
    }
  | { readonly type: 'max-prefixes'; readonly peer: string; readonly family: BgpFamily; readonly count: number }
