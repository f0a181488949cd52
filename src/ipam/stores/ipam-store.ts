/**
 * Where blocks, affinities and handles live: a store with compare-and-swap on single objects, as the Kubernetes API
 * (resourceVersion) and etcd v3 (mod revision) are. Every write names what it thinks stands there; who is late is told.
 *
 * Sources: Calico libcalico-go lib/backend/api (Client), design/ipam.
 */
import type { BlockAffinity, BlockOwner, Held, IpamBlock, IpamHandle } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'

/** The object changed, appeared or vanished since it was read: read again and decide anew. */
export class ConflictError extends Error {
  override readonly name = 'ConflictError'
}

/** The store cannot be asked now. Whether a write that got no answer was done is not known. */
export class StoreAwayError extends Error {
  override readonly name = 'StoreAwayError'
}

/** What stands there and cannot be read; names object and field. Others of its kind are not affected. */
export class CorruptObjectError extends Error {
  override readonly name = 'CorruptObjectError'
}

export interface Kept<K, T> {
  /** Undefined when there is none. */
  read(key: K): Promise<Held<T> | undefined>
  /** All that can be read; `problems` are of the others. */
  list(): Promise<{ readonly objects: readonly Held<T>[]; readonly problems: readonly CorruptObjectError[] }>
  /** Rejects with ConflictError when there is one already. */
  create(value: T): Promise<Held<T>>
  /** Rejects with ConflictError when `held` is not what stands there. */
  replace(held: Held<T>, value: T): Promise<Held<T>>
  /** Rejects with ConflictError when `held` is not what stands there. */
  remove(held: Held<T>): Promise<void>
}

export interface IpamStore {
  readonly blocks: Kept<Cidr, IpamBlock>
  readonly affinities: Kept<{ readonly owner: BlockOwner; readonly cidr: Cidr }, BlockAffinity>
  readonly handles: Kept<string, IpamHandle>
  close(): Promise<void>
}
