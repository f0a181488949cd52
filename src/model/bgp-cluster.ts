/**
 * A cluster as BGP's dialects read it: nodes with their addresses, Services with theirs, and what comes of both for one node.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'
import type { LocalRoute, PrefixText, SpeakerConfig } from './bgp.ts'
import type { NodeInfo } from './cluster.ts'
import type { ConfigError } from './errors.ts'

export interface NodeAddress {
  readonly ip: Ip
  /** Of the subnet; undefined: not known. */
  readonly prefixLength?: number
}

export interface BgpNode {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** For dialects whose words are annotations. */
  readonly annotations: Readonly<Record<string, string>>
  readonly ipv4?: NodeAddress
  readonly ipv6?: NodeAddress
  /** The family of the first of `status.addresses`: kube-router's sessions use it. */
  readonly primaryFamily: Family
  readonly podCidrs: readonly Cidr[]
  readonly asn?: number
  readonly reflectorClusterId?: string
}

/** Addresses in Calico's words go before those of `status.addresses`. */
export function bgpNodeOf(info: NodeInfo, annotations: Readonly<Record<string, string>> = {}): BgpNode {
  const { calico, addresses } = info
  const first = (family: Family): NodeAddress | undefined => {
    const ip = addresses.find((each) => each.family === family)
    return ip && { ip }
  }
  const ipv4 = calico?.ipv4 ?? first(4)
  const ipv6 = calico?.ipv6 ?? first(6)
  return {
    name: info.name,
    labels: info.labels ?? {},
    annotations,
    ...(ipv4 && { ipv4 }),
    ...(ipv6 && { ipv6 }),
    primaryFamily: addresses[0]?.family ?? (ipv4 ? 4 : 6),
    podCidrs: info.podCidrs,
    ...(calico?.asNumber && { asn: calico.asNumber }),
    ...(calico?.routeReflectorClusterId && { reflectorClusterId: calico.routeReflectorClusterId }),
  }
}

export const nodeAddressOf = (node: BgpNode, family: Family): NodeAddress | undefined =>
  family === 4 ? node.ipv4 : node.ipv6

/** What of a Service and its endpoints counts for routes. */
export interface BgpService {
  readonly namespace: string
  readonly name: string
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName'
  /** Empty: headless. */
  readonly clusterIps: readonly Ip[]
  readonly externalIps: readonly Ip[]
  /** Of its status. */
  readonly loadBalancerIps: readonly Ip[]
  readonly externalTrafficPolicy: 'Cluster' | 'Local'
  readonly internalTrafficPolicy: 'Cluster' | 'Local'
  readonly annotations: Readonly<Record<string, string>>
  /** An endpoint that is ready, anywhere and on this node. */
  readonly isReady: boolean
  readonly isReadyHere: boolean
}

/** What one node is to do: the outcome of a dialect. */
export interface BgpPlan {
  /** Undefined: this node speaks no BGP, and `problems` says why. */
  readonly speaker: SpeakerConfig | undefined
  /** By prefix, each once. */
  readonly localRoutes: readonly LocalRoute[]
  /** Learned routes in here are told on, but not made routes of the kernel: services are served on every node. */
  readonly notProgrammed: readonly PrefixText[]
  /** What could not be used; the rest of the plan holds. */
  readonly problems: readonly ConfigError[]
}
