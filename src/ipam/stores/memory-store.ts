/**
 * A store in memory with the meaning of the real ones: every object has a revision, every write names the one that it
 * replaces, a value that was handed out never changes. For tests and simulations; the same suite runs on all stores.
 */
import type { BlockAffinity, BlockOwner, Held, IpamBlock, IpamHandle } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { formatOwner } from '../block.ts'
import { ConflictError, type IpamStore, type Kept } from './ipam-store.ts'

/** Told of every change, in order; undefined when the object is gone. */
export type MemoryWatcher<T> = (value: T, held: Held<T> | undefined) => void

export class MemoryKept<K, T> implements Kept<K, T> {
  readonly #objects = new Map<string, Held<T>>()
  readonly #watchers = new Set<MemoryWatcher<T>>()
  readonly #textOf: (key: K) => string
  readonly #keyOf: (value: T) => K
  readonly #nextRevision: () => string

  constructor(textOf: (key: K) => string, keyOf: (value: T) => K, nextRevision: () => string) {
    this.#textOf = textOf
    this.#keyOf = keyOf
    this.#nextRevision = nextRevision
  }

  async read(key: K): Promise<Held<T> | undefined> {
    return this.#objects.get(this.#textOf(key))
  }

  async list(): Promise<{ readonly objects: readonly Held<T>[]; readonly problems: readonly never[] }> {
    return { objects: this.all(), problems: [] }
  }

  /** Everything, now. */
  all(): Held<T>[] {
    return [...this.#objects.values()]
  }

  async create(value: T): Promise<Held<T>> {
    const text = this.#textOf(this.#keyOf(value))
    if (this.#objects.has(text)) throw new ConflictError(`${text} exists already`)
    return this.#put(text, value)
  }

  async replace(held: Held<T>, value: T): Promise<Held<T>> {
    return this.#put(this.#check(held), value)
  }

  async remove(held: Held<T>): Promise<void> {
    this.#objects.delete(this.#check(held))
    for (const watcher of this.#watchers) watcher(held.value, undefined)
  }

  /** Tells of everything there is, then of every change, until the returned function is called. */
  watch(watcher: MemoryWatcher<T>): () => void {
    for (const held of this.#objects.values()) watcher(held.value, held)
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  #check(held: Held<T>): string {
    const text = this.#textOf(this.#keyOf(held.value))
    if (this.#objects.get(text)?.revision !== held.revision) throw new ConflictError(`${text} is not what was read`)
    return text
  }

  #put(text: string, value: T): Held<T> {
    const held = { value, revision: this.#nextRevision() }
    this.#objects.set(text, held)
    for (const watcher of this.#watchers) watcher(value, held)
    return held
  }
}

export class MemoryStore implements IpamStore {
  #revision = 0
  readonly #next = () => `${++this.#revision}`
  readonly blocks = new MemoryKept<Cidr, IpamBlock>(String, ({ cidr }) => cidr, this.#next)
  readonly affinities = new MemoryKept<{ readonly owner: BlockOwner; readonly cidr: Cidr }, BlockAffinity>(
    ({ owner, cidr }) => `${formatOwner(owner)} ${cidr}`,
    ({ owner, cidr }) => ({ owner, cidr }),
    this.#next,
  )
  readonly handles = new MemoryKept<string, IpamHandle>(String, ({ handleId }) => handleId, this.#next)

  async close(): Promise<void> {}
}
