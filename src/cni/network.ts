/**
 * What the CNI server is told by the program that composes it, and what it gives back: the node's pod network as
 * plain values in, fragments of wanted kernel state out. The server itself knows no cluster, no configuration
 * dialect and no data path.
 */
import type { PodDirectory } from '../cluster/calico/calico-source.ts'
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { Kernel } from '../kernel/kernel.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'

/** The pod network of this node. Until the server has one, ADD answers code 11 and STATUS code 50. */
export interface NodeNetwork {
  /**
   * This node's own blocks, at most one of each family. The first address of each is the gateway on the bridge. May be empty
   * on a routed node whose addresses come from pools.
   */
  readonly podCidrs: readonly Cidr[]
  /** Networks that pods reach through the gateway besides the default route: the cluster's pod networks. */
  readonly clusterNetworks: readonly Cidr[]
  /** MTU of pod devices and of the bridge, in bytes: what the data path carries. */
  readonly mtuBytes: number
  /** Name of the bridge that pods hang on; `cni0` when left out. */
  readonly bridge?: string
  /** Hairpin mode of the pods' ports; on when left out. */
  readonly hairpin?: boolean
  /** Addresses in podCidrs that no pod gets, besides network, broadcast and gateway. */
  readonly reserved?: readonly Ip[]
  /** New pods are routed instead of bridged. Pods that exist keep their wiring. */
  readonly routed?: RoutedNetwork
}

/** Pods with an address alone, behind 169.254.1.1, each with a route of its own on the node: Calico's wiring. */
export interface RoutedNetwork {
  /** As Calico's objects call this node. */
  readonly nodeName: string
  /** Families that a pod gets an address of, unless it says otherwise. */
  readonly families: readonly Family[]
  /** Where addresses come from; left out: the node's podCidrs. */
  readonly addresses?: PoolAddresses
  /** What is written on pods and namespaces; left out: nothing is asked, nothing is written back. */
  readonly pods?: PodDirectory
  /** Beginning of the names of pods' devices on the node, at most 4 characters; `cali` when left out. */
  readonly interfacePrefix?: string
  /** FelixConfiguration's workloadSourceSpoofing: `Any` honours pods' allowedSourcePrefixes. `Disabled` when left out. */
  readonly sourceSpoofing?: 'Any' | 'Disabled'
  /** Pods may name addresses that no pool gives (ipAddrsNoIpam); else a configuration's feature_control must say so. */
  readonly allowAddressesWithoutIpam?: boolean
}

/**
 * Where wanted state that others must see whole goes (rules of the shared nft table). Both promises settle when the
 * kernel has it: ADD answers only after its host ports are in.
 */
export interface FragmentSink {
  set(fragment: Fragment): Promise<void>
  remove(source: string): Promise<void>
}

/** A structured log: the shape of pino's methods. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** Called once for every answered request. */
export interface CniMetrics {
  observe(command: string, code: number, milliseconds: number): void
  /** After every change: attachments alive, and addresses neither free nor held by one (being deleted). */
  gauge(attachments: number, draining: number): void
}

export interface CniServerOptions {
  /** The node's own namespace. The server opens pods through it; it does not close it. */
  readonly kernel: Kernel
  /** The socket is `<runDir>/cni.sock`. */
  readonly runDir: string
  /** Where the journal lives; `<runDir>/cni` when left out. A directory that survives a reboot keeps the rotation. */
  readonly stateDir?: string
  /** The reference host-local's data directory; addresses recorded there are held. Not consulted when left out. */
  readonly hostLocalDir?: string
  /** Receives `cni/<container>/<interface>` fragments (host ports, masquerade). */
  readonly sink: FragmentSink
  readonly log: Log
  readonly metrics?: CniMetrics
}
