/**
 * A list and a watch of one resource, kept going: what exists, then every change, without end.
 *
 *        list pages ──► watch from resourceVersion ──► stream ends, is cut, stays silent ──► watch again from the last version
 *            ▲                                              │
 *            └───────────── 410 Gone (compacted) ◄──────────┘       errors: wait (jittered, doubling, Retry-After), then again
 *
 * What meets every client of a server at once, its end, its 410 after a restart, its 429, is answered at a moment by chance in a
 * window as wide as `spreadMs`: with a thousandth of a second for each client a server that comes back sees a thousand of them
 * a second, however many there are. A page that is refused is asked for again, not the whole list.
 *
 * Silence is noticed in three ways: no head of an answer within half a minute; TCP's own probes (http-client.ts); and, on a
 * stream that has carried a bookmark, no line for the time of several. The last sees what probes cannot: a balancer that keeps
 * a connection whose server is gone. What is left is the end of the watch's own time.
 *
 * Each object passes a projector at once and only its few fields are kept, with the object's resourceVersion. A new list
 * drops nothing: it is compared with what is held, and only differences are told. Objects whose projection stays the same
 * (a kubelet's heartbeat) are not told at all.
 *
 * A resource that the server does not serve (a definition that is not there, or gone) can count as one without objects; it is
 * asked for again. What was known of it is given up only when the server has denied it for a while: one that is starting may
 * not know all its resources yet.
 *
 * Sources: Kubernetes API Concepts: "Retrieving large results sets in chunks", "Watch bookmarks", "410 Gone responses".
 */
import { formatJson, parseJson } from '../../bytes/json.ts'
import { Backoff, type BackoffOptions, pauseAskedBy, sleep } from '../backoff.ts'
import type { ClusterObserver } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { WatchPatience } from './watch-patience.ts'

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
  /** Names are `<namespace>/<name>`. */
  readonly isNamespaced?: boolean
  /** A resource that is not served has no objects. */
  readonly absentIsEmpty?: boolean
  /** How long a server must deny a resource of which objects are known. Milliseconds. */
  readonly absencePatienceMs?: number
  /** Keeps what is needed; must be plain data (compared as JSON). */
  project(object: RawObject): T
  /** `object` is the whole of it, for who wants more than is kept; its projection must then change with it. */
  onSet(name: string, value: T, object: RawObject): void
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
  /** How long a server may take to begin an answer, and be silent once it has sent a bookmark. Milliseconds. */
  readonly headPatienceMs?: number
  readonly bookmarkPatienceMs?: number
  /** The window in which to come back after something that every client of the server saw, in milliseconds; asked anew each time. */
  readonly spreadMs?: () => number
  readonly backoff?: BackoffOptions
}

interface Page {
  readonly items?: readonly RawObject[] | null
  readonly metadata?: { readonly continue?: string; readonly resourceVersion?: string }
}

interface WatchEvent {
  readonly type?: string
  readonly object?: RawObject
}

const WATCH_SECONDS = 300
const WATCH_GRACE_MS = 10_000
/** A watch that lasted for less of its time than this was ended by something else. */
const WATCH_WHOLE = 0.9
/** What goes well for so long is worth a prompt first attempt again. */
const STEADY_MS = 10_000
/** How often a page is asked for before the list begins anew. */
const PAGE_ATTEMPTS = 5
const ABSENCE_PATIENCE_MS = 15_000
/** Between two questions for a resource that is not there, in milliseconds; anywhere in the window. */
const ABSENCE_WINDOW_MS = 10_000
/** Fewer objects a page keep the largest answer, and with it the process, small. */
const PAGE_SIZE = 200

export class Informer<T> {
  readonly #options: InformerOptions<T>
  readonly #held = new Map<string, T>()
  readonly #abort = new AbortController()
  readonly #backoff: Backoff
  readonly #resource: string
  #version: string | undefined
  #listedOnce = false
  /** Since when the resource has not been served, monotonic milliseconds. */
  #absentSince: number | undefined
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
        if (this.#isAbsence(error)) await this.#onAbsent()
        else if (!isExpired(error)) await this.#fail(error as Error)
        else {
          this.#version = undefined
          await this.#pause()
        }
      }
    }
  }

  #isAbsence(error: unknown): boolean {
    return this.#options.absentIsEmpty === true && error instanceof HttpError && error.status === 404
  }

  async #onAbsent(): Promise<void> {
    const { absencePatienceMs = ABSENCE_PATIENCE_MS, spreadMs } = this.#options
    this.#version = undefined
    this.#absentSince ??= performance.now()
    this.#succeed()
    const isSure = this.#held.size === 0 || performance.now() - this.#absentSince >= absencePatienceMs
    if (isSure && (!this.#listedOnce || this.#held.size > 0)) this.#finishList(new Set())
    const windowMs = Math.max(Math.min(ABSENCE_WINDOW_MS, absencePatienceMs), spreadMs?.() ?? 0)
    await sleep(Math.random() * windowMs, this.#abort.signal)
  }

  /** Waits as the server asked, and then for a moment by chance. */
  async #pause(askedMs = 0): Promise<void> {
    await sleep(askedMs + this.#backoff.next(this.#options.spreadMs?.()), this.#abort.signal)
  }

  async #fail(error: Error): Promise<void> {
    if (this.#problem !== error.message) {
      this.#problem = error.message
      this.#options.onConnection(error)
    }
    await this.#pause(pauseAskedBy(error))
  }

  #succeed(): void {
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
    const { pageSize = PAGE_SIZE } = this.#options
    const seen = new Set<string>()
    let next = ''
    let version: string | undefined
    do {
      const page = await this.#page(this.#query({ limit: String(pageSize), ...(next ? { continue: next } : {}) }))
      for (const item of page.items ?? []) {
        const name = this.#nameOf(item)
        if (name === undefined) continue
        seen.add(name)
        this.#set(name, item)
      }
      next = page.metadata?.continue ?? ''
      version = page.metadata?.resourceVersion
    } while (next && !this.#abort.signal.aborted)
    if (this.#abort.signal.aborted) return
    this.#version = version ?? ''
    this.#absentSince = undefined
    this.#finishList(seen)
  }

  #finishList(seen: ReadonlySet<string>): void {
    for (const name of [...this.#held.keys()]) if (!seen.has(name)) this.#delete(name)
    const first = !this.#listedOnce
    this.#listedOnce = true
    this.#options.observer?.list(this.#resource, first ? 'first' : 'expired')
    this.#options.onListed(first)
  }

  /** Asks for a page until it comes. Rejects when only a new list can help. */
  async #page(path: string): Promise<Page> {
    const { signal } = this.#abort
    for (let attempt = 1; ; attempt++) {
      try {
        const page = (await this.#options.client.request({ method: 'GET', path, signal })) as Page
        this.#succeed()
        return page
      } catch (error) {
        if (signal.aborted || isExpired(error) || this.#isAbsence(error) || attempt === PAGE_ATTEMPTS) throw error
        await this.#fail(error as Error)
      }
    }
  }

  async #watch(): Promise<void> {
    const { client, observer, watchSeconds = WATCH_SECONDS, watchGraceMilliseconds = WATCH_GRACE_MS } = this.#options
    const timeoutSeconds = Math.ceil(watchSeconds * (1 + Math.random()) * 0.5)
    const patience = new WatchPatience(this.#options)
    const ownEnd = AbortSignal.any([
      AbortSignal.timeout(timeoutSeconds * 1000 + watchGraceMilliseconds),
      patience.signal,
    ])
    const path = this.#query({
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version!,
      timeoutSeconds: String(timeoutSeconds),
    })
    const startedAt = performance.now()
    try {
      await client.stream(
        { method: 'GET', path, signal: AbortSignal.any([this.#abort.signal, ownEnd]) },
        (line) => {
          patience.onLine(this.#take(line))
          this.#backoff.reset()
        },
        () => {
          patience.onHead()
          this.#succeed()
        },
      )
      observer?.watchEnd(this.#resource, 'ended')
    } catch (error) {
      if (!this.#abort.signal.aborted)
        observer?.watchEnd(this.#resource, ownEnd.aborted ? 'silent' : isExpired(error) ? 'expired' : 'failed')
      if (!patience.hasHead && patience.signal.aborted)
        throw new Error(`${client.server} does not answer`, { cause: error })
      if (!ownEnd.aborted) throw error
    } finally {
      patience.close()
    }
    const lastedMs = performance.now() - startedAt
    if (lastedMs > STEADY_MS) this.#backoff.reset()
    // A server that ends a watch before its time ends everybody's: it is on its way out, or ends each one at once.
    if (lastedMs < timeoutSeconds * 1000 * WATCH_WHOLE && !ownEnd.aborted) await this.#pause()
  }

  /** Takes one line of a watch; its type. */
  #take(line: string): string | undefined {
    const { type, object } = this.#parse(line)
    if (!object) return type
    if (type === 'ERROR') {
      const status = object as { code?: number; reason?: string; message?: string }
      throw new HttpError(`watch ${this.#options.path}`, status.code ?? 500, status.reason ?? '', status.message ?? '')
    }
    const version = object.metadata?.resourceVersion
    if (typeof version === 'string') this.#version = version
    const name = this.#nameOf(object)
    if (type === 'BOOKMARK' || name === undefined) return type
    if (type === 'DELETED') this.#delete(name)
    else this.#set(name, object)
    return type
  }

  /** What cannot be read would come again at every watch from here: only a new list leads past it. */
  #parse(line: string): WatchEvent {
    try {
      const event = parseJson(line) as WatchEvent | null
      if (typeof event === 'object' && event !== null) return event
    } catch {}
    this.#version = undefined
    throw new HttpError(`watch ${this.#options.path}`, 502, 'NotJson', 'a line is not an event')
  }

  #set(name: string, object: RawObject): void {
    const value = this.#options.project(object)
    const before = this.#held.get(name)
    if (before !== undefined && formatJson(before) === formatJson(value)) return
    this.#held.set(name, value)
    this.#options.onSet(name, value, object)
  }

  #nameOf(object: RawObject): string | undefined {
    const name = nameOf(object)
    if (name === undefined || !this.#options.isNamespaced) return name
    const namespace = object.metadata?.namespace
    return typeof namespace === 'string' && namespace.length <= 63 ? `${namespace}/${name}` : undefined
  }

  #delete(name: string): void {
    const last = this.#held.get(name)
    if (last === undefined) return
    this.#held.delete(name)
    this.#options.onDelete(name, last)
  }
}

const isExpired = (error: unknown): boolean =>
  error instanceof HttpError && (error.status === 410 || error.reason === 'Expired' || error.reason === 'Gone')

const nameOf = (object: RawObject): string | undefined => {
  const name = object.metadata?.name
  return typeof name === 'string' && name.length > 0 && name.length <= 253 ? name : undefined
}
