/**
 * What every controller stands on: a live copy of one resource, and a queue of names to look at again.
 * The queue never runs one key twice at the same time, folds repeated requests, and tries failures again later.
 */
import type { KubeObject, ListOptions, LocalClient, ObjectName, Watch } from './api/interfaces.ts'

/** `namespace/name`, or the name alone for cluster-wide kinds. */
export const keyOfObject = (object: KubeObject): string =>
  object.metadata.namespace ? `${object.metadata.namespace}/${object.metadata.name}` : object.metadata.name!

export function nameOfKey(key: string): ObjectName {
  const slash = key.indexOf('/')
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) }
}

export const nameOf = (object: KubeObject): ObjectName => nameOfKey(keyOfObject(object))

/** A live copy of a resource. Objects are shared with the store: read only. */
export class Informer<T extends KubeObject = KubeObject> {
  readonly items: Map<string, T> = new Map()
  readonly synced: Promise<void>
  readonly #watch: Watch
  readonly #listeners: ((object: T, gone: boolean) => void)[] = []

  constructor(client: LocalClient, resource: string, options: ListOptions = {}) {
    let done = () => {}
    this.synced = new Promise((resolve) => {
      done = resolve
    })
    this.#watch = client.watch<T>(resource, options, (event) => {
      if (event.type === 'SYNCED') return done()
      const key = keyOfObject(event.object)
      if (event.type === 'DELETED') this.items.delete(key)
      else this.items.set(key, event.object)
      for (const listener of this.#listeners) listener(event.object, event.type === 'DELETED')
    })
  }

  /** Called for every change from now on; what is there already comes at once. */
  onChange(listener: (object: T, gone: boolean) => void): void {
    this.#listeners.push(listener)
    for (const object of this.items.values()) listener(object, false)
  }

  get(key: string): T | undefined {
    return this.items.get(key)
  }

  *values(): IterableIterator<T> {
    yield* this.items.values()
  }

  close(): void {
    this.#watch.close()
    this.#listeners.length = 0
  }
}

const FIRST_RETRY_MS = 20
const LAST_RETRY_MS = 10_000

export class WorkQueue {
  readonly #handle: (key: string) => Promise<void>
  readonly #report: (key: string, error: unknown) => void
  readonly #waiting = new Set<string>()
  readonly #running = new Set<string>()
  readonly #failures = new Map<string, number>()
  readonly #timers = new Map<string, NodeJS.Timeout>()
  readonly #width: number
  #closed = false
  #scheduled = false

  /** `width`: how many different keys may be handled at once. */
  constructor(
    handle: (key: string) => Promise<void>,
    report: (key: string, error: unknown) => void,
    options: { readonly width?: number } = {},
  ) {
    this.#handle = handle
    this.#report = report
    this.#width = options.width ?? 1
  }

  add(key: string): void {
    if (this.#closed) return
    this.#waiting.add(key)
    this.#wake()
  }

  /** Looks at the key again after a time; a nearer request for the same key stands. */
  addAfter(key: string, ms: number): void {
    if (this.#closed || this.#timers.has(key)) return
    this.#timers.set(
      key,
      setTimeout(() => {
        this.#timers.delete(key)
        this.add(key)
      }, ms),
    )
  }

  close(): void {
    this.#closed = true
    this.#waiting.clear()
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  #wake(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      for (const key of this.#waiting) {
        if (this.#running.size >= this.#width) return
        if (this.#running.has(key)) continue
        this.#waiting.delete(key)
        void this.#run(key)
      }
    })
  }

  async #run(key: string): Promise<void> {
    this.#running.add(key)
    try {
      await this.#handle(key)
      this.#failures.delete(key)
    } catch (error) {
      const count = this.#failures.get(key) ?? 0
      this.#failures.set(key, count + 1)
      if (!isConflict(error)) this.#report(key, error)
      this.addAfter(key, Math.min(FIRST_RETRY_MS * 2 ** count, LAST_RETRY_MS))
    } finally {
      this.#running.delete(key)
      if (this.#waiting.size > 0) this.#wake()
    }
  }
}

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code

/** Somebody else wrote first: read again and retry. */
export const isConflict = (error: unknown): boolean => codeOf(error) === 409
export const isNotFound = (error: unknown): boolean => codeOf(error) === 404
