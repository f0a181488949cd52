/**
 * A share of the agent's work that comes from one dialect: flannel's (net-conf.json, podCIDRs) or Calico's (address pools,
 * blocks). Each plans by itself; what touches the kernel, the store and the CNI server goes by the one loop that they share
 * (network-loop.ts), so that nothing is swept, announced or served before all of them know what they want.
 */

import type { RoutedNetwork } from '../cni/network.ts'
import type { TransitionPlan } from '../datapath/transition.ts'
import type { CalicoNode } from '../model/calico.ts'
import type { FlannelLease, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Check } from '../status/checks.ts'
import type { Detected } from './external-interface.ts'
import type { PlanChange } from './planner.ts'

/** What every part knows of this node and of the store. */
export interface Surroundings {
  readonly own: NodeInfo | undefined
  readonly detected: Detected | undefined
  /** The store has listed its nodes; what a part is told before is remembered from an earlier run. */
  readonly synced: boolean
}

/** What a part says to the other nodes. */
export interface PartWords {
  readonly status: WeftNodeStatus
  /** Left out: what the store has stays; null: it is taken back. */
  readonly lease?: FlannelLease | null
  readonly calico?: CalicoNode | null
}

/** What a part gives pods. */
export interface PodShare {
  readonly mtuBytes: number
  /** Networks whose addresses pods have by this part. */
  readonly networks: readonly Cidr[]
  /** This node's own subnets, for pods on a bridge. */
  readonly podCidrs: readonly Cidr[]
  /** New pods are routed. */
  readonly routed?: RoutedNetwork
}

/** What pods wait for. */
export interface PartChecks {
  /** What the user is to write. */
  readonly configuration: Check
  /** What this node is to have of it. */
  readonly addresses: Check
}

export interface NetworkPart {
  /** Paths of data whose ids in node statuses are this part's. */
  ownsPath(path: string): boolean
  /**
   * Whether the user asks for it. `unknown` until that is certain: nothing is swept meanwhile. What is `absent` wants nothing,
   * and what it left in the kernel goes, once another part is active.
   */
  readonly presence: 'unknown' | 'absent' | 'active'
  /** Everything a sweep would spare is planned, stands, and is in the store's words. */
  readonly isComplete: boolean
  /** The last decision. */
  readonly transition: TransitionPlan | undefined
  /** By node; said once each. */
  readonly problems: ReadonlyMap<string, readonly PeerProblem[]>
  peer(name: string): NodeInfo | undefined
  setPeer(peer: NodeInfo): void
  removePeer(name: string): void
  /** The store speaks of this node; `weft` in it are the words of all parts. */
  setOwn(own: NodeInfo): void
  /** The node's place on the underlay changed. */
  setDetected(detected: Detected): void
  addPending(status: WeftNodeStatus): void
  restorePending(statuses: readonly WeftNodeStatus[]): void
  forgetRestored(): void
  /** Takes in what changed; false while there is not enough to plan by. */
  prepare(around: Surroundings): boolean
  /** What is to be programmed since the last call. Decides anew. */
  plan(): PlanChange
  /** The kernel has taken everything that was planned: paths that nobody uses any more may end. Calls back when one has. */
  settleDrained(again: () => void): void
  /** Undefined while there is nothing to say: what the store has stays. */
  words(): PartWords | undefined
  /** Undefined until pods can be given something. */
  pods(): PodShare | undefined
  /** Pods were told this MTU. */
  setPodMtu(bytes: number): void
  /** How many peers are sent to by each path. */
  peersByPath(): ReadonlyMap<string, number>
  checks(around: Surroundings): PartChecks
  /** For people and the lab. */
  state(around: Surroundings): object
  close(): void
}
