/**
 * The boundary to one network namespace of a kernel. `linux/` is the real thing, `fake/` its in-memory twin;
 * both pass the same compliance suite. Only `apply` and the CNI server write through it.
 *
 *        Kernel.open('/run/netns/x') ──► read / execute / watch ──► close
 *
 * A Kernel is bound to the namespace that it was opened in for good: its sockets were made there. Opening another
 * namespace switches the calling thread and back without yielding.
 */
import type { KernelError } from '../model/errors.ts'
import type { KernelKey, KernelObject, ObjectKind, ObjectOf } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'

/** Outcome of one op, at the op's place: undefined is success. */
export type OpResult = KernelError | undefined

/** What a multicast message said. `resync` means that messages were lost (ENOBUFS): read again. */
export type KernelEvent =
  | { readonly type: 'new' | 'delete'; readonly key: KernelKey; readonly object: KernelObject }
  | { readonly type: 'resync' }

export interface Watch {
  close(): void
}

export interface Kernel {
  /** All objects of the kinds asked for. Retries dumps that the kernel marks as interrupted. */
  read<K extends ObjectKind>(...kinds: readonly K[]): Promise<ObjectOf<K>[]>
  /**
   * Performs the ops in order, as few messages and system calls as possible, each acknowledged on its own. A failed op does
   * not stop the others, except that consecutive nft ops are one transaction: all of them happen or none.
   */
  execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]>
  /**
   * Deletes every device of a group (IFLA_GROUP, never 0) with one message (`ip link delete group N`), without stopping the
   * event loop while the kernel waits. A group without devices is fine.
   */
  deleteGroup(group: number): Promise<OpResult>
  /** Calls back for every change to objects of the kinds asked for, whoever made it. */
  watch(kinds: readonly ObjectKind[], listener: (event: KernelEvent) => void): Watch
  /** The same kernel seen from another namespace, by path of its nsfs file. Throws KernelError (ENOENT, EINVAL, …). */
  open(netnsPath: string): Kernel
  close(): void
}
