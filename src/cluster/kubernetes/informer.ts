/**
 * A list and a watch of one resource, kept going: what exists, then every change, without end.
 *
 *        list pages ──► watch from resourceVersion ──► stream ends, is cut, stays silent ──► watch again from the last version
 *            ▲                                              │
 *            └───────────── 410 Gone (compacted) ◄──────────┘       errors: wait (jittered, doubling, Retry-After), then again
 *
 * Each object passes a projector at once and only its few fields are kept, with the object's resourceVersion. A new list
 * drops nothing: it is compared with what is held, and only differences are told. Objects whose projection stays the same
 * (a kubelet's heartbeat) are not told at all.
 *
 * Sources: Kubernetes API Concepts: "Retrieving large results sets in chunks", "Watch bookmarks", "410 Gone responses".
 */
import { Backoff, type BackoffOptions, sleep } from '../backoff.ts'
import type { ClusterObserver } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'

/** The part of an object that every projector may rely on. Strangers wrote the rest. */
export interface RawObject {
  readonly metadata?: { readonly name?: unknown; readonly namespace?: unknown; readonly resourceVersion?: unknown }
  readonly [key: string]: unknown
}

export interface InformerOptions<T> {
  readonly client: HttpClient
  /** Collection path, such as `/api/v1/nodes`. */
  readonly path: string
  /** `metadata.name=…` when not everything is wanted. */
  readonly fieldSelector?: string
  /** `app=weft,tier!=edge`; as `fieldSelector`, told by the server. */
  readonly labelSelector?: string
  /** Keeps what is needed; must be plain data (compared as JSON). */
  project(object: RawObject): T
  onSet(name: string, value: T): void
  onDelete(name: string, last: T): void
  /** A complete list has been told; `first` is true once. */
  onListed(first: boolean): void
  /** Called with the error when requests begin to fail or fail for another reason, without one when they work again. */
  onConnection(problem: Error | undefined): void
  /** Counts lists and watches under this informer's resource: the last part of its path. */
  readonly observer?: ClusterObserver
  readonly pageSize?: number
  /** How long one watch may last, in seconds; the server ends it, and if it does not, we do, a little later. */
  readonly watchSeconds?: number
  readonly watchGraceMilliseconds?: number
  readonly backoff?: BackoffOptions
}

interface Held<T> {
  readonly text: string
  readonly value: T
}

const WATCH_SECONDS = 300
const WATCH_GRACE_MS = 10_000
/** Fewer objects a page keep the largest answer, and with it the process, small. */
const PAGE_SIZE = 200

export class Informer<T> {
  readonly #options: InformerOptions<T>
  readonly #held = new Map<string, Held<T>>()
  readonly #abort = new AbortController()
  readonly #backoff: Backoff
  readonly #resource: string
  #version: string | undefined
  #listedOnce = false
  /** Why requests fail now. */
  #problem: string | undefined
  #ended: Promise<void> = Promise.resolve()

  constructor(options: InformerOptions<T>) {
    this.#options = options
    this.#backoff = new Backoff(options.backoff)
    this.#resource = options.path.split('/').at(-1)!
  }

  /** Begins; once. */
  start(): void {
    this.#ended = this.#run()
  }

  get size(): number {
    return this.#held.size
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      try {
        if (this.#version === undefined) await this.#list()
        await this.#watch()
      } catch (error) {
        if (signal.aborted) return
        if (isExpired(error)) {
          this.#version = undefined
          continue
        }
        await this.#fail(error as Error)
      }
    }
  }

  async #fail(error: Error): Promise<void> {
    if (this.#problem !== error.message) {
      this.#problem = error.message
      this.#options.onConnection(error)
    }
    const asked = error instanceof HttpError ? (error.retryAfterSeconds ?? 0) * 1000 : 0
    await sleep(Math.max(this.#backoff.next(), Math.min(asked, 60_000)), this.#abort.signal)
  }

  #succeed(): void {
    this.#backoff.reset()
    if (this.#problem === undefined) return
    this.#problem = undefined
    this.#options.onConnection(undefined)
  }

  #query(extra: Record<string, string>): string {
    const { path, fieldSelector, labelSelector } = this.#options
    const selectors = { ...(fieldSelector ? { fieldSelector } : {}), ...(labelSelector ? { labelSelector } : {}) }
    return `${path}?${new URLSearchParams({ ...selectors, ...extra })}`
  }

  async #list(): Promise<void> {
    const { client, pageSize = PAGE_SIZE } = this.#options
    const seen = new Set<string>()
    let next = ''
    let version: string | undefined
    do {
      const path = this.#query({ limit: String(pageSize), ...(next ? { continue: next } : {}) })
      const page = (await client.request({ method: 'GET', path, signal: this.#abort.signal })) as {
        items?: RawObject[] | null
        metadata?: { continue?: string; resourceVersion?: string }
      }
      this.#succeed()
      for (const item of page.items ?? []) {
        const name = nameOf(item)
        if (name === undefined) continue
        seen.add(name)
        this.#set(name, item)
      }
      next = page.metadata?.continue ?? ''
      version = page.metadata?.resourceVersion
    } while (next && !this.#abort.signal.aborted)
    if (this.#abort.signal.aborted) return
    for (const name of [...this.#held.keys()]) if (!seen.has(name)) this.#delete(name)
    this.#version = version ?? ''
    const first = !this.#listedOnce
    this.#listedOnce = true
    this.#options.observer?.list(this.#resource, first ? 'first' : 'expired')
    this.#options.onListed(first)
  }

  async #watch(): Promise<void> {
    const { client, observer, watchSeconds = WATCH_SECONDS, watchGraceMilliseconds = WATCH_GRACE_MS } = this.#options
    const timeoutSeconds = Math.ceil(watchSeconds * (1 + Math.random()) * 0.5)
    const ownEnd = AbortSignal.timeout(timeoutSeconds * 1000 + watchGraceMilliseconds)
    const signal = AbortSignal.any([this.#abort.signal, ownEnd])
    const path = this.#query({
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version!,
      timeoutSeconds: String(timeoutSeconds),
    })
    const startedAt = performance.now()
    try {
      await client.stream(
        { method: 'GET', path, signal },
        (line) => this.#take(JSON.parse(line) as { type?: string; object?: RawObject }),
        () => this.#succeed(),
      )
      observer?.watchEnd(this.#resource, 'ended')
    } catch (error) {
      if (!this.#abort.signal.aborted)
        observer?.watchEnd(this.#resource, ownEnd.aborted ? 'silent' : isExpired(error) ? 'expired' : 'failed')
      if (!ownEnd.aborted) throw error
    }
    // A server that ends each watch at once must not be asked in a tight loop.
    if (performance.now() - startedAt < 1000) await sleep(this.#backoff.next(), this.#abort.signal)
    else this.#succeed()
  }

  #take(event: { type?: string; object?: RawObject }): void {
    const { type, object } = event
    if (!object) return
    if (type === 'ERROR') {
      const status = object as { code?: number; reason?: string; message?: string }
      throw new HttpError(`watch ${this.#options.path}`, status.code ?? 500, status.reason ?? '', status.message ?? '')
    }
    const version = object.metadata?.resourceVersion
    if (typeof version === 'string') this.#version = version
    const name = nameOf(object)
    if (type === 'BOOKMARK' || name === undefined) return
    if (type === 'DELETED') this.#delete(name)
    else this.#set(name, object)
  }

  #set(name: string, object: RawObject): void {
    const value = this.#options.project(object)
    const text = JSON.stringify(value)
    if (this.#held.get(name)?.text === text) return
    this.#held.set(name, { text, value })
    this.#options.onSet(name, value)
  }

  #delete(name: string): void {
    const last = this.#held.get(name)
    if (!last) return
    this.#held.delete(name)
    this.#options.onDelete(name, last.value)
  }
}

const isExpired = (error: unknown): boolean =>
  error instanceof HttpError && (error.status === 410 || error.reason === 'Expired' || error.reason === 'Gone')

const nameOf = (object: RawObject): string | undefined => {
  const name = object.metadata?.name
  return typeof name === 'string' && name.length > 0 && name.length <= 253 ? name : undefined
}
