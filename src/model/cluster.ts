/**
 * The cluster as an agent sees it: immutable, changed object by object.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import type { Mac } from '../net/mac.ts'
import type { CalicoNode } from './calico.ts'

/** What one node tells the others in flannel's words (annotations or an etcd lease). */
export interface FlannelLease {
  readonly publicIp?: Ip
  readonly publicIpv6?: Ip
  /** `vxlan`, `host-gw`, `udp`, …, as written; other dialects' names are kept. */
  readonly backendType: string
  /** Parsed JSON of backend-data and backend-v6-data; checked by the data path that reads it. */
  readonly backendData?: unknown
  readonly backendV6Data?: unknown
}

/** What weft nodes tell each other beyond flannel's words, for switching without loss. */
export interface WeftNodeStatus {
  /** Data paths whose packets this node accepts now. */
  readonly accepts: readonly string[]
  /** Data paths that this node may still send by. */
  readonly sends: readonly string[]
  /** What a peer must know to send by a path other than the current backend-type, by data path name. */
  readonly endpoints?: Readonly<Record<string, unknown>>
}

export interface NodeInfo {
  readonly name: string
  readonly uid?: string
  /** Node.status.addresses of type InternalIP, in order. */
  readonly addresses: readonly Ip[]
  readonly podCidrs: readonly Cidr[]
  readonly lease?: FlannelLease
  readonly weft?: WeftNodeStatus
  /** What it says in Calico's words. */
  readonly calico?: CalicoNode
  /** For selectors of pools; left out: none are known. */
  readonly labels?: Readonly<Record<string, string>>
  /** When the store made the object, Unix seconds. Of two nodes with the same claim the older keeps it. */
  readonly createdAtSeconds?: number
}

/** What is wrong with one node's words, fit for an Event on that node. Others are unaffected. */
export interface PeerProblem {
  readonly node: string
  /** Annotation or field: `flannel.alpha.coreos.com/public-ip`, `spec.podCIDRs`, … */
  readonly key: string
  readonly problem: string
}

/** This node's own place in the network, read from its kernel and its flags. */
export interface NodeContext {
  readonly name: string
  readonly uid?: string
  readonly podCidrs: readonly Cidr[]
  /** The external interface: where packets to other nodes leave. */
  readonly external: {
    readonly device: string
    readonly mtuBytes: number
    readonly mac?: Mac
    /** All its addresses with prefix lengths: what is directly reachable. */
    readonly addresses: readonly { readonly ip: Ip; readonly prefixLength: number }[]
  }
  /** The node's address per family towards its peers (flannel's PublicIP, PublicIPv6). */
  readonly publicIp?: Ip
  readonly publicIpv6?: Ip
  /** What the store says of this node from before: a VTEP's MAC is kept over restarts. */
  readonly lease?: FlannelLease
  readonly weft?: WeftNodeStatus
  /** Its addresses with their subnets, and its tunnels' addresses as far as they have been given. */
  readonly calico?: CalicoNode
  /** For selectors of pools. */
  readonly labels?: Readonly<Record<string, string>>
}
