/**
 * The durable object store of the embedded Kubernetes API: objects by resource, namespace and name, one resource
 * version that only grows, and a window of past changes from which watches resume. All objects live in memory;
 * a Journal makes them survive. Writes are synchronous in memory, so that read-check-write needs no lock, and
 * are announced to watchers only once the journal has them: nobody ever sees a change that a crash could undo,
 * provided that readers wait for `committed()` before they answer.
 *
 *   put/remove ──► memory ──► journal.append ──► (committed) ──► watchers
 */
import { ExpiredError, type Journal, type JournalRecord, VersionConflictError } from './journal.ts'

/** JSON of one object. Never changed in place: a change is a new object. */
export interface StoreObject {
  metadata: { name?: string; namespace?: string; resourceVersion?: string }
  [key: string]: unknown
}

export interface StoreEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly resourceVersion: number
  readonly resource: string
  readonly namespace: string
  readonly name: string
  /** The new state; for DELETED the last state, carrying the resource version of the deletion. */
  readonly object: StoreObject
  /** The state before; unknown for the oldest events after a restart. */
  readonly previous: StoreObject | undefined
}

export interface StoreWatch {
  close(): void
}

export interface StoreOptions {
  /** Changes kept for resuming watches. Older versions answer "expired". Default 10,000. */
  readonly windowEvents?: number
}

/** One resource's objects, with their keys in order. */
interface Table {
  readonly objects: Map<string, StoreObject>
  /** Keys in order, and the objects beside them; undefined after an object came or went. */
  sorted: { readonly keys: string[]; readonly objects: StoreObject[] } | undefined
}

interface Subscriber {
  readonly resource: string
  readonly after: number
  readonly listener: (event: StoreEvent) => void
}

const keyOf = (namespace: string, name: string): string => `${namespace}/${name}`

/** Versions reserved ahead in the journal, so that a crash never leads to a version being given out twice. */
const reserveVersions = 10_000

export class ObjectStore {
  readonly #journal: Journal
  readonly #windowEvents: number
  readonly #tables = new Map<string, Table>()
  readonly #subscribers = new Set<Subscriber>()
  /** Committed changes, oldest first. */
  #window: StoreEvent[] = []
  #windowStart = 0
  #pending: StoreEvent[] = []
  #version = 0
  #committedVersion = 0
  #compactedVersion = 0
  #reserved = 0
  #flushing: Promise<void> | undefined
  #failure: unknown
  #closed = false

  private constructor(journal: Journal, options: StoreOptions) {
    this.#journal = journal
    this.#windowEvents = options.windowEvents ?? 10_000
  }

  /** Loads everything the journal has. */
  static async open(journal: Journal, options: StoreOptions = {}): Promise<ObjectStore> {
    const store = new ObjectStore(journal, options)
    const state = journal.load()
    for (const { resource, namespace, name, object } of state.objects)
      store.#table(resource).objects.set(keyOf(namespace, name), object)
    const last = new Map<string, StoreObject>()
    for (const record of state.log) {
      const key = `${record.resource}/${record.namespace}/${record.name}`
      store.#window.push({ ...record, previous: last.get(key) })
      if (record.type === 'DELETED') last.delete(key)
      else last.set(key, record.object)
    }
    store.#version = state.version
    store.#committedVersion = state.version
    store.#reserved = state.version
    store.#compactedVersion = state.compactedVersion
    return store
  }

  /** The newest version given out, perhaps not yet committed. */
  get resourceVersion(): number {
    return this.#version
  }

  /** The newest version that the journal has and watchers were told of. */
  get committedVersion(): number {
    return this.#committedVersion
  }

  /** Watches from a version before this one are refused. */
  get compactedVersion(): number {
    return this.#compactedVersion
  }

  get(resource: string, namespace: string, name: string): StoreObject | undefined {
    return this.#tables.get(resource)?.objects.get(keyOf(namespace, name))
  }

  /** Objects in order of namespace and name; `namespace` undefined: all. */
  list(resource: string, namespace?: string): StoreObject[] {
    const table = this.#tables.get(resource)
    if (!table) return []
    table.sorted ??= sort(table.objects)
    const { keys, objects } = table.sorted
    if (namespace === undefined) return objects.slice()
    // '0' follows '/': the first key beyond the namespace.
    return objects.slice(lowerBound(keys, `${namespace}/`), lowerBound(keys, `${namespace}0`))
  }

  count(resource: string): number {
    return this.#tables.get(resource)?.objects.size ?? 0
  }

  /** Resources that have or had objects. */
  resources(): string[] {
    return [...this.#tables.keys()]
  }

  /**
   * Creates or replaces; sets `metadata.resourceVersion` in a copy and returns the copy.
   * `expected`: 0 = must not exist; a version = must be at it; undefined = whatever is there.
   */
  put(resource: string, namespace: string, name: string, object: StoreObject, expected?: number): StoreObject {
    this.#assertUsable()
    const table = this.#table(resource)
    const key = keyOf(namespace, name)
    const previous = table.objects.get(key)
    this.#expect(`${resource}/${key}`, previous, expected)
    const version = ++this.#version
    const stored: StoreObject = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } }
    table.objects.set(key, stored)
    if (!previous) table.sorted = undefined
    else if (table.sorted) table.sorted.objects[lowerBound(table.sorted.keys, key)] = stored
    const type = previous ? 'MODIFIED' : 'ADDED'
    this.#record({ type, resourceVersion: version, resource, namespace, name, object: stored, previous })
    return stored
  }

  /** Removes and returns the last state, or undefined when there was none. */
  remove(resource: string, namespace: string, name: string, expected?: number): StoreObject | undefined {
    this.#assertUsable()
    const table = this.#tables.get(resource)
    const key = keyOf(namespace, name)
    const previous = table?.objects.get(key)
    if (!table || !previous) return undefined
    this.#expect(`${resource}/${key}`, previous, expected)
    const version = ++this.#version
    table.objects.delete(key)
    table.sorted = undefined
    const object: StoreObject = { ...previous, metadata: { ...previous.metadata, resourceVersion: String(version) } }
    this.#record({ type: 'DELETED', resourceVersion: version, resource, namespace, name, object, previous })
    return object
  }

  /** Resolves when everything written so far is in the journal. Rejects when the journal failed. */
  async committed(): Promise<void> {
    while (this.#pending.length || this.#flushing) {
      this.#flushing ??= this.#flush()
      await this.#flushing
    }
    if (this.#failure) throw this.#failure
  }

  /**
   * Every change of a resource (`*`: of all) after a version, first those of the window (synchronously), then new
   * ones as they are committed. Throws ExpiredError when the version is older than the window.
   */
  watch(resource: string, after: number, listener: (event: StoreEvent) => void): StoreWatch {
    if (after < this.#compactedVersion) throw new ExpiredError(after, this.#compactedVersion)
    const subscriber: Subscriber = { resource, after, listener }
    for (let n = this.#firstAfter(after); n < this.#window.length; n++) {
      const event = this.#window[n]!
      if (resource === '*' || event.resource === resource) listener(event)
    }
    this.#subscribers.add(subscriber)
    return { close: () => this.#subscribers.delete(subscriber) }
  }

  /** Forgets changes up to a version (default: all), as etcd's compaction does. */
  compact(version = this.#committedVersion): void {
    const start = this.#firstAfter(version)
    this.#compactedVersion = Math.max(this.#compactedVersion, Math.min(version, this.#committedVersion))
    this.#window = this.#window.slice(start)
    this.#windowStart = 0
    this.#journal.trim(this.#compactedVersion)
  }

  /** Commits what is pending and closes the journal. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#subscribers.clear()
    try {
      await this.committed()
    } finally {
      await this.#journal.close(this.#version)
    }
  }

  #table(resource: string): Table {
    let table = this.#tables.get(resource)
    if (!table) {
      table = { objects: new Map(), sorted: undefined }
      this.#tables.set(resource, table)
    }
    return table
  }

  #assertUsable(): void {
    if (this.#failure) throw new Error('The object store cannot write its journal', { cause: this.#failure })
    if (this.#closed) throw new Error('The object store is closed')
  }

  #expect(what: string, previous: StoreObject | undefined, expected: number | undefined): void {
    if (expected === undefined) return
    const found = Number(previous?.metadata.resourceVersion ?? 0)
    if (found !== expected) throw new VersionConflictError(what, expected, found)
  }

  #record(event: StoreEvent): void {
    this.#pending.push(event)
    this.#flushing ??= this.#flush()
  }

  /** Writes batches until nothing is pending. Writes of one turn of the event loop share a batch. */
  async #flush(): Promise<void> {
    await Promise.resolve()
    try {
      while (this.#pending.length) {
        const batch = this.#pending
        this.#pending = []
        const records: JournalRecord[] = batch
        const newest = batch.at(-1)!.resourceVersion
        let reserve: number | undefined
        if (newest >= this.#reserved) reserve = this.#reserved = newest + reserveVersions
        await this.#journal.append(records, reserve)
        this.#committedVersion = newest
        this.#announce(batch)
      }
    } catch (error) {
      this.#failure = error
      this.#pending = []
    } finally {
      this.#flushing = undefined
    }
  }

  #announce(batch: readonly StoreEvent[]): void {
    for (const event of batch) this.#window.push(event)
    this.#shrink()
    for (const event of batch)
      for (const subscriber of [...this.#subscribers])
        if (wants(subscriber, event) && this.#subscribers.has(subscriber)) subscriber.listener(event)
  }

  /** Drops what the window no longer holds, in steps so that the cost per change stays constant. */
  #shrink(): void {
    const excess = this.#window.length - this.#windowStart - this.#windowEvents
    if (excess <= 0) return
    this.#windowStart += excess
    this.#compactedVersion = this.#window[this.#windowStart - 1]!.resourceVersion
    if (this.#windowStart < Math.max(64, this.#windowEvents >> 2)) return
    this.#window = this.#window.slice(this.#windowStart)
    this.#windowStart = 0
    this.#journal.trim(this.#compactedVersion)
  }

  #firstAfter(version: number): number {
    let low = this.#windowStart
    let high = this.#window.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#window[middle]!.resourceVersion <= version) low = middle + 1
      else high = middle
    }
    return low
  }
}

const wants = ({ resource, after }: Subscriber, event: StoreEvent): boolean =>
  (resource === '*' || resource === event.resource) && event.resourceVersion > after

function sort(objects: ReadonlyMap<string, StoreObject>): NonNullable<Table['sorted']> {
  const keys = [...objects.keys()].sort()
  return { keys, objects: keys.map((key) => objects.get(key)!) }
}

function lowerBound(sorted: readonly string[], value: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}
