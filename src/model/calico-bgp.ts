/**
 * Calico's words about BGP, checked: settings of the cluster and of single nodes, peers, filters. Dialects
 * (src/config/calico) make them of objects, and compile them into what a speaker is told (./bgp.ts).
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3 (bgpconfig.go, bgppeer.go, bgpfilter.go): names, shapes, defaults.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import type { CommunityText } from './bgp.ts'

/** A key of a Secret, in the namespace of whoever reads it. */
export interface SecretKey {
  readonly name: string
  readonly key: string
  /** A Secret or a key that is missing is no problem. */
  readonly optional: boolean
}

/** BGPConfiguration: `default` for every node, `node.NAME` for one, which goes before it where it may. */
export interface BgpConfiguration {
  readonly name: string
  /** undefined: the other object says, or the default does. */
  readonly asn?: number
  readonly listenPort?: number
  readonly logSeverity?: string
  /** Communities of what is told, by prefix: named ones have been looked up. */
  readonly prefixAdvertisements?: readonly PrefixAdvertisement[]
  /** From here on of `default` alone. */
  readonly nodeToNodeMesh: boolean
  readonly meshPassword?: SecretKey
  readonly meshRestartSeconds?: number
  readonly clusterIps: readonly Cidr[]
  readonly externalIps: readonly Cidr[]
  readonly loadBalancerIps: readonly Cidr[]
  /** Whole blocks of load balancer addresses; otherwise one route for each Service. */
  readonly aggregateLoadBalancerIps: boolean
  /** `NodeIP`: only on the node's addresses. */
  readonly bindMode: 'None' | 'NodeIP'
  /** Globs of devices whose addresses and routes are nobody's to hear of. */
  readonly ignoredInterfaces: readonly string[]
  readonly ipv4NormalRoutePriority: number
  readonly ipv6NormalRoutePriority: number
}

export interface PrefixAdvertisement {
  readonly cidr: Cidr
  readonly communities: readonly CommunityText[]
}

export interface BgpPeer {
  readonly name: string
  /** At most one of the two; none: every node. */
  readonly node?: string
  readonly nodeSelector?: string
  /** Exactly one of the two, or neither where `localWorkloadSelector` is. */
  readonly peer?: { readonly address: Ip; readonly port?: number }
  readonly peerSelector?: string
  /** Left out: the cluster's own. */
  readonly asn?: number
  readonly localAsn?: number
  readonly nextHopMode: 'Auto' | 'Self' | 'Keep'
  /** The older key: `Keep` toward external peers alone. */
  readonly keepOriginalNextHop: boolean
  readonly password?: SecretKey
  readonly sourceAddress: 'UseNodeIP' | 'None'
  readonly maxRestartSeconds?: number
  readonly keepaliveSeconds?: number
  readonly allowedLocalAsns: number
  readonly ttlSecurityHops?: number
  readonly reachableBy?: Ip
  readonly filters: readonly string[]
  readonly reversePeering: 'Auto' | 'Manual'
  readonly failureDetection: 'None' | 'BFDIfDirectlyConnected'
  readonly restartMode: 'GracefulRestart' | 'LongLivedGracefulRestart'
  /** Peers in pods of this node, which weft does not have. */
  readonly localWorkloadSelector?: string
}

export interface BgpFilter {
  readonly name: string
  readonly exportV4: readonly BgpFilterRule[]
  readonly importV4: readonly BgpFilterRule[]
  readonly exportV6: readonly BgpFilterRule[]
  readonly importV6: readonly BgpFilterRule[]
}

export interface BgpFilterRule {
  readonly prefixes?: {
    readonly cidr: Cidr
    readonly operator: 'Equal' | 'NotEqual' | 'In' | 'NotIn'
    readonly minLength?: number
    readonly maxLength?: number
  }
  readonly source?: 'RemotePeers'
  /** Glob with `*`. */
  readonly device?: string
  readonly peerType?: 'eBGP' | 'iBGP'
  readonly community?: CommunityText
  readonly asPathPrefix: readonly number[]
  readonly priority?: number
  readonly action: 'Accept' | 'Reject'
  readonly operations: readonly BgpFilterOperation[]
}

export type BgpFilterOperation =
  | { readonly kind: 'addCommunity'; readonly community: CommunityText }
  | { readonly kind: 'prependASPath'; readonly asns: readonly number[] }
  | { readonly kind: 'setPriority'; readonly priority: number }
