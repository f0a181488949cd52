/**
 * What an agent needs of Calico's objects: pools, reservations, blocks, settings, and the pods of its own node; followed
 * like the rest of the cluster (see ../cluster.ts). `kubernetes-source.ts` reads CRDs, `etcd-source.ts` Calico's keys of etcd v3.
 *
 *        start ──► pool, reservation, block, …, settings, synced ──► pool | pool-gone | block | …
 *
 * With a memory in front (../cache/cached-calico-source.ts), an agent that starts while the store is away is told what it knew
 * before: pool, block, …, remembered. The store's first list replaces that: pool, pool-gone, …, synced.
 *
 * After `synced` a source never forgets what it knows while the store is away. A cluster without Calico's CRDs has none of
 * these objects: it is synced with nothing, and notices when they come.
 */

import type { BlockAffinity, Held, IpamBlock, IpamSettings, IpPool, IpReservation } from '../../model/calico.ts'
import type { ConfigError } from '../../model/errors.ts'
import type { Cidr } from '../../net/cidr.ts'

export type CalicoEvent =
  /** `pool` is left out when the object cannot be read: the last good one of that name stands. */
  | { readonly type: 'pool'; readonly name: string; readonly pool?: IpPool; readonly problem?: ConfigError }
  | { readonly type: 'pool-gone'; readonly name: string }
  | {
      readonly type: 'reservation'
      readonly name: string
      readonly reservation?: IpReservation
      readonly problem?: ConfigError
    }
  | { readonly type: 'reservation-gone'; readonly name: string }
  | { readonly type: 'block'; readonly held: Held<IpamBlock> }
  | { readonly type: 'block-gone'; readonly cidr: Cidr }
  | { readonly type: 'affinity'; readonly held: Held<BlockAffinity> }
  | { readonly type: 'affinity-gone'; readonly affinity: BlockAffinity }
  /** A block or an affinity that cannot be read; what was known of it before stands. */
  | {
      readonly type: 'corrupt'
      readonly object: string
      readonly problem: string
      /** Which block it is and whose, when that much can be read: its addresses are still to be reached. */
      readonly head?: Pick<IpamBlock, 'cidr' | 'owner'>
    }
  /** FelixConfiguration objects as they are: `default` and `node.<this node>`; undefined when gone. Checked by src/config/calico. */
  | { readonly type: 'felix'; readonly name: string; readonly spec: unknown }
  /** undefined: there is none, or none that can be read; defaults hold. */
  | { readonly type: 'ipam-settings'; readonly settings: IpamSettings | undefined; readonly problem?: ConfigError }
  | { readonly type: 'synced' }
  /** At most once, before `synced`: the store is away, and what was told is how this node remembers it. ISO 8601. */
  | { readonly type: 'remembered'; readonly savedAt: string }
  /** The store became reachable or unreachable; what was announced before still holds. */
  | { readonly type: 'connection'; readonly up: boolean; readonly problem?: string }

export type CalicoListener = (event: CalicoEvent) => void

/** What is written on a pod and on its namespace. */
export interface PodWords {
  readonly uid?: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly namespaceLabels: Readonly<Record<string, string>>
  readonly namespaceAnnotations: Readonly<Record<string, string>>
}

/** Pods of this node, watched; one that the watch has not brought yet is read. */
export interface PodDirectory {
  /**
   * Undefined when there is no such pod. Rejects when the store is away and the pod is not known. With a uid a pod of an earlier
   * life is not taken for it.
   */
  find(namespace: string, name: string, uid?: string): Promise<PodWords | undefined>
  /** Writes annotations on a pod, in the background, only what differs; never rejects. With a uid on no other life of it. */
  annotate(namespace: string, name: string, annotations: Readonly<Record<string, string>>, uid?: string): void
}

export interface CalicoSource {
  /** Begins to watch; once. The listener is called from the event loop, never from within a call of this object. */
  start(listener: CalicoListener): void
  readonly pods: PodDirectory
  /** This node's addresses changed: connections from an old one are dead without a word. */
  reconnect(): void
  close(): Promise<void>
}
