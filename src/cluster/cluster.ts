/**
 * What the agent needs of a cluster, whatever keeps it: other nodes one by one, the network configuration as text, a
 * mark when the first list was complete, and a few conditional writes about this node alone. `kubernetes/` reads Node
 * objects and a ConfigMap, `etcd/` flannel's keys, `fake/` is a cluster in memory; all three pass one suite.
 *
 *        start ──► connection up, network, node, node, …, synced ──► node | node-gone | network | connection …
 *
 * With `cache/` in front, an agent that starts while the store is away is told what it knew before: network, node, …,
 * remembered. The store's first list replaces that: node, node-gone, …, synced.
 *
 * After `synced` a source never forgets what it knows: while the store is away nothing is announced as gone, and after a
 * new list only differences are.
 */

import type { CalicoNode } from '../model/calico.ts'
import type { FlannelLease, NodeInfo, WeftNodeStatus } from '../model/cluster.ts'
import type { ConfigError } from '../model/errors.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'

/** What an administrator asks of one node, by annotation; counts on that node alone. */
export interface NodeWishes {
  /** `node-public-ip`, `node-public-ipv6`: address to detect the external interface by, and to announce. */
  readonly publicIp?: Ip
  readonly publicIpv6?: Ip
  /** `public-ip-overwrite`, `public-ipv6-overwrite`: announced instead of the detected address. */
  readonly publicIpOverwrite?: Ip
  readonly publicIpv6Overwrite?: Ip
  /** `weft.dev/wiring`: how its new pods are wired, whatever its agent's flag says. */
  readonly wiring?: WiringChoice
}

/** How new pods are wired: on a bridge, routed, or as the address pools have it. */
export type WiringChoice = 'auto' | 'bridge' | 'routed'
export const wiringChoices: readonly WiringChoice[] = ['auto', 'bridge', 'routed']

export type ClusterEvent =
  /** A node is new or differs. `problems`: what of it was refused; the rest of it stands without that part. */
  | {
      readonly type: 'node'
      readonly node: NodeInfo
      readonly problems: readonly ConfigError[]
      readonly wishes: NodeWishes
    }
  | { readonly type: 'node-gone'; readonly name: string }
  /** The text of net-conf.json as it is now; undefined when there is none. `object` names its place for messages. */
  | { readonly type: 'network'; readonly text: string | undefined; readonly object: string }
  /** Once: every node that exists and the network configuration have been announced. */
  | { readonly type: 'synced' }
  /**
   * At most once, before `synced`: the store is away, and what was told is how this node remembers it. `savedAt` is ISO 8601;
   * `written` are statuses of this node of which it is not known whether the store has them.
   */
  | { readonly type: 'remembered'; readonly savedAt: string; readonly written: readonly WeftNodeStatus[] }
  /** The store became reachable or unreachable; what was announced before still holds. */
  | { readonly type: 'connection'; readonly up: boolean; readonly problem?: string }

export type ClusterListener = (event: ClusterEvent) => void

/** What this node tells the others. Of the words left out those in the store stay; null takes them back. */
export interface Announcement {
  /** flannel's words. */
  readonly lease?: FlannelLease | null
  readonly weft: WeftNodeStatus
  /**
   * Calico's words, whole: what is not in it is taken back, except for the AS number and the route reflector's id, which an
   * administrator may have written.
   */
  readonly calico?: CalicoNode | null
}

/** An announcement with flannel's words, as it goes with a subnet. */
export interface LeaseAnnouncement extends Announcement {
  readonly lease: FlannelLease
}

/** How to give this node its subnets, in a store where nodes take them themselves. */
export interface SubnetRequest {
  readonly ranges: readonly SubnetRange[]
  /** Subnets of an earlier run (subnet.env), taken again when they are free or ours. */
  readonly previous: readonly Cidr[]
  /** The address that an earlier run announced, by which its subnet is found again. */
  readonly publicIp?: Ip
  /** What to announce with the subnets that are about to be taken. */
  announce(podCidrs: readonly Cidr[]): LeaseAnnouncement
}

export interface SubnetRange {
  readonly network: Cidr
  /** Prefix length of every node's subnet. */
  readonly length: number
  /** First and last subnet that may be given, both included. */
  readonly min: Ip
  readonly max: Ip
}

/** A message about a node that its owner should see (a Kubernetes Event). */
export interface NodeReport {
  readonly node: string
  readonly uid?: string
  readonly severity: 'Normal' | 'Warning'
  /** CamelCase, short. */
  readonly reason: string
  readonly message: string
}

/** Why every object was listed: for the first time, or because the store had forgotten the history since. */
export type ListReason = 'first' | 'expired'

/** Why a watch ended: the server's doing, silence for too long, history that is gone, or an error. */
export type WatchEnd = 'ended' | 'silent' | 'expired' | 'failed'

/** Counts what following a store costs; asked for nothing, and never a reason to act. */
export interface ClusterObserver {
  list(resource: string, reason: ListReason): void
  watchEnd(resource: string, reason: WatchEnd): void
}

/** A structured log: the shape of pino's methods. */
export interface ClusterLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface ClusterSource {
  /** Begins to watch; once. The listener is called from the event loop, never from within a call of this object. */
  start(listener: ClusterListener): void
  /**
   * Takes subnets for this node and announces them, in stores that leave this to nodes; left out elsewhere. The own node's
   * event follows. Calling again with subnets held already renews the announcement only. Rejects with ConfigError when
   * the range is full.
   */
  acquire?(request: SubnetRequest): Promise<readonly Cidr[]>
  /** Writes what this node announces, only what differs, only this node's object. Retries until done or `close`. */
  announce(announcement: Announcement): Promise<void>
  /** Says that this node's pod network works (condition NetworkUnavailable=False). A store without such a word does nothing. */
  setNetworkAvailable(): Promise<void>
  /** Tells the cluster about a node. Never rejects, never waits; repeated and frequent reports are dropped. */
  report(report: NodeReport): void
  /** This node's addresses changed: connections from an old one are dead without a word. Drops them all and resumes. */
  reconnect(): void
  /** Ends watches and pending writes. What this node announced stays. */
  close(): Promise<void>
}
