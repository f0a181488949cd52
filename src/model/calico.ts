/**
 * Calico's words as weft knows them, checked: address pools, reservations, blocks and who holds them, what a node says of
 * itself, and the settings of the data path. Dialects (src/config/calico) make them of objects; everything else reads these.
 *
 *   pool 172.26.0.0/16 ─► blocks of a node 172.26.40.128/26 ─► addresses, each with a handle (who) and attributes (whose)
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3 (ippool.go, ipreservation.go, felixconfig.go), libcalico-go
 * lib/apis/v1 and lib/backend/model (block.go, block_affinity.go, ipam_handle.go): names, shapes, defaults.
 */
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'
import type { Mac } from '../net/mac.ts'

/** When packets to addresses of a pool are encapsulated: never, always, or where the other node is on another subnet. */
export type EncapsulationMode = 'Never' | 'Always' | 'CrossSubnet'

export type PoolUse = 'Workload' | 'Tunnel' | 'LoadBalancer'

export interface IpPool {
  readonly name: string
  readonly cidr: Cidr
  /** Prefix length of its blocks. */
  readonly blockSize: number
  /** At most one of the three is not `Never`. */
  readonly ipipMode: EncapsulationMode
  readonly vxlanMode: EncapsulationMode
  /** weft's own, by annotation: Calico has no such field. */
  readonly geneveMode: EncapsulationMode
  readonly natOutgoing: boolean
  /** No new addresses; those that are held live on, and are routed. */
  readonly disabled: boolean
  /** Being deleted, by a cluster that waits for its blocks to go: `disabled` as well, and others' addresses are kept from it still. */
  readonly leaving?: boolean
  /** What the condition Allocatable says of it, where somebody has written one. */
  readonly allocatable?: boolean
  readonly disableBgpExport: boolean
  /** Calico selector over node labels; `all()` when the object has none. */
  readonly nodeSelector: string
  /** Calico selector over namespace labels; undefined: every namespace. */
  readonly namespaceSelector?: string
  readonly allowedUses: readonly PoolUse[]
  /** `Manual`: only for pods that name the pool. */
  readonly assignmentMode: 'Automatic' | 'Manual'
  /** When the store made it, Unix seconds; of two that overlap the older stands. */
  readonly createdAtSeconds?: number
}

export interface IpReservation {
  readonly name: string
  readonly cidrs: readonly Cidr[]
}

/** Who holds a block: a node, or a use of the cluster's own (`virtual:load-balancer`). */
export interface BlockOwner {
  readonly type: 'host' | 'virtual'
  readonly name: string
}

/** Whose addresses are: several addresses of a block may share one. */
export interface BlockAttribute {
  /** Undefined for an address that was given without one. */
  readonly handleId?: string
  /** `node`, `pod`, `namespace`, `type`, `timestamp`. */
  readonly secondary: Readonly<Record<string, string>>
  /** ISO 8601; the address was released and is not given again before the cooldown is over. */
  readonly releasedAt?: string
  /** Fields of other versions, kept as they are. */
  readonly further?: Readonly<Record<string, unknown>>
}

export interface IpamBlock {
  readonly cidr: Cidr
  /** Undefined: nobody's, kept for the addresses that are still in use. */
  readonly owner?: BlockOwner
  /** ISO 8601. */
  readonly ownedSince?: string
  /** For each address the index of its attribute, null when it is free. As many as the block has addresses. */
  readonly allocations: readonly (number | null)[]
  /** Ordinals of free addresses, longest free first. */
  readonly unallocated: readonly number[]
  readonly attributes: readonly BlockAttribute[]
  /**
   * Rises with every write of the block. Calico begins it at the nanoseconds of the clock, which a double cannot hold: readers
   * and writers of JSON must keep all its digits, or adding one changes nothing.
   */
  readonly sequenceNumber: bigint
  /** By ordinal: the sequence number when it was given. A release that carries another is of an earlier life. */
  readonly sequenceNumberForAllocation: Readonly<Record<string, bigint>>
  /** Marked before it is removed, in stores that cannot compare and delete. */
  readonly deleted: boolean
  readonly strictAffinity: boolean
  /** Fields of other versions, kept as they are. */
  readonly further?: Readonly<Record<string, unknown>>
}

export type AffinityState = 'pending' | 'confirmed' | 'pendingDeletion'

/** Says that a node wants (pending) or has (confirmed) a block, in an object of its own: the first of the two phases. */
export interface BlockAffinity {
  readonly owner: BlockOwner
  readonly cidr: Cidr
  readonly state: AffinityState
  readonly deleted: boolean
}

/** How many addresses of which blocks a handle has. */
export interface IpamHandle {
  readonly handleId: string
  /** By block CIDR as text. */
  readonly blocks: Readonly<Record<string, number>>
  readonly deleted: boolean
}

export interface IpamSettings {
  /** Nobody takes addresses of another node's blocks. */
  readonly strictAffinity: boolean
  /** 0: as many as are needed, up to 20. */
  readonly maxBlocksPerHost: number
  readonly autoAllocateBlocks: boolean
  /** Seconds before a released address may be given again, 0..1200. */
  readonly ipCooldownSeconds: number
}

/** What a node says of itself in Calico's words (annotations `projectcalico.org/…`, or a Node of Calico's store). */
export interface CalicoNode {
  /** The node's addresses with the prefix lengths of their subnets. */
  readonly ipv4?: { readonly ip: Ip; readonly prefixLength: number }
  readonly ipv6?: { readonly ip: Ip; readonly prefixLength: number }
  readonly asNumber?: number
  readonly routeReflectorClusterId?: string
  readonly ipv4IpipTunnelAddr?: Ip
  readonly ipv4VxlanTunnelAddr?: Ip
  readonly ipv6VxlanTunnelAddr?: Ip
  readonly vxlanTunnelMac?: Mac
  readonly vxlanTunnelMacV6?: Mac
}

/** A value and the revision it was read at, opaque; pass it back to replace or remove exactly that. */
export interface Held<T> {
  readonly value: T
  readonly revision: string
}

/** Blocks as routes want them: who has which, and single addresses that another node borrowed. */
export interface BlockRoutes {
  readonly cidr: Cidr
  /** Node that has the block; undefined for a block that is nobody's. */
  readonly node?: string
  /** Addresses of the block in use on another node than the block's. */
  readonly borrowed: readonly { readonly ip: Ip; readonly node: string }[]
}

export const familiesOf = (pools: readonly IpPool[]): readonly Family[] =>
  ([4, 6] as const).filter((family) => pools.some(({ cidr }) => cidr.family === family))

/**
 * FelixConfiguration's keys of the data path: every default decided, an object of a node before `default`. Keys that do not
 * apply to weft are not here.
 */
export interface FelixSettings {
  /** False: no IPv6 of Calico's (pools, pods' routes), whatever objects say. */
  readonly ipv6Support: boolean
  /** Names of routed pods' devices on the node begin with it. */
  readonly interfacePrefix: string
  /** Undefined: what the route to the peers leaves after encapsulation. */
  readonly ipipMtuBytes?: number
  readonly vxlanMtuBytes?: number
  readonly vxlanMtuV6Bytes?: number
  readonly vxlanPort: number
  readonly vxlanVni: number
  /** Undefined: a device exists when a pool needs it. */
  readonly ipipEnabled?: boolean
  readonly vxlanEnabled?: boolean
  /** What is not masqueraded besides traffic between pools' addresses. */
  /** Whether VXLAN devices may leave checksums to the network card; found out when left out. */
  readonly checksumOffloadBroken?: boolean
  readonly natOutgoingExclusions: 'IPPoolsOnly' | 'IPPoolsAndHostIPs'
  /** Undefined: the address of the device that packets leave by. */
  readonly natOutgoingAddress?: Ip
  readonly natPortRange?: { readonly first: number; readonly last: number }
  /** Only packets that leave by such devices are masqueraded; a `+` at the end stands for any further characters. */
  readonly natOutgoingInterfaceFilter?: string
  /** May pods' `allowedSourcePrefixes` be believed? */
  readonly workloadSourceSpoofing: 'Disabled' | 'Any'
  readonly allowVxlanPacketsFromWorkloads: boolean
  readonly allowIpipPacketsFromWorkloads: boolean
  /** Who else than the cluster's nodes may send encapsulated packets. */
  readonly externalNodes: readonly Cidr[]
  readonly deviceRouteSourceAddress?: Ip
  readonly deviceRouteSourceAddressV6?: Ip
  /** Metric of the routes. */
  readonly ipv4NormalRoutePriority: number
  readonly ipv6NormalRoutePriority: number
  /** False: weft leaves the node's forwarding switches alone. */
  readonly ipForwarding: boolean
}
