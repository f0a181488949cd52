/**
 * Addresses out of pools, as the CNI server and the agent's tunnel devices ask for them. What answers is the block
 * allocator of this node over a store; asking may take a write, or none when addresses are at hand.
 */
import type { PoolUse } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'

export interface AddressRequest {
  /** `k8s-pod-network.<container id>`, `ipip-tunnel-addr-<node>`, … */
  readonly handleId: string
  /** `node`, `pod`, `namespace`, `type`, `timestamp`: kept beside the address in the block. */
  readonly attributes: Readonly<Record<string, string>>
  readonly use: PoolUse
  /** Labels of the pod's namespace, for pools with a namespaceSelector. */
  readonly namespaceLabels?: Readonly<Record<string, string>>
  /** One address of each; either pools by name or CIDR (any that fits when left out), or one address asked for. */
  readonly wanted: readonly {
    readonly family: Family
    readonly pools?: readonly string[]
    readonly ip?: Ip
  }[]
  /** Aborted: the caller gives up; what was claimed meanwhile is given back. */
  readonly signal?: AbortSignal
}

export interface AssignedAddress {
  readonly ip: Ip
  readonly pool: string
  readonly block: Cidr
  /** Sequence number of this allocation, for a release that must be of this life of the address. */
  readonly sequenceNumber?: bigint
}

/** Nothing is free, no pool fits, an address is in use, a pool does not exist. The message says which and why. */
export class NoAddressError extends Error {
  override readonly name = 'NoAddressError'
}

/** An address that a pod has. */
export interface PodAddress {
  readonly ip: Ip
  readonly handleId: string
  /** As in a request. */
  readonly attributes: Readonly<Record<string, string>>
}

/** One that the journal knows. */
export interface JournalAddress extends PodAddress {
  /** The pod is being taken down: the address is to be given back. */
  readonly isLeaving: boolean
}

export interface PoolAddresses {
  /**
   * One address for each wanted, all or none. The same handle asking again for the same is given what it has.
   * Rejects with NoAddressError, StoreAwayError.
   */
  assign(request: AddressRequest): Promise<readonly AssignedAddress[]>
  /** Gives back all addresses of a handle; of a handle that has none, nothing happens. Rejects with StoreAwayError. */
  release(handleId: string): Promise<void>
  /**
   * Once, before anything is asked: what the journal of the node's pods knows, and the journal's
   * name, by which it knows its own words again. Before that no address is given ahead of its write.
   */
  resume?(journal: string, held: readonly JournalAddress[]): void
  /** Whether new pods are going to ask: only then addresses are kept ready for them. */
  expectPods?(areExpected: boolean): void
}
