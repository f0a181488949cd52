/**
 * The keys under one prefix of etcd, kept followed: what exists, then every change, without end.
 *
 *   pages (all of one revision) ──► watch from the next ──► cut: watch again from the last ──► compacted: pages again, compare
 *
 * Of a value nothing is kept but its revision. A new list drops nothing: only differences are told.
 *
 * Sources: etcd documentation, "etcd API" (watch streams, compaction).
 */
import { Backoff, type BackoffOptions, sleep } from '../backoff.ts'
import type { ClusterObserver } from '../cluster.ts'
import { CompactedError, type EtcdClient, type KeyValue } from './client.ts'

export interface EtcdFollowerOptions {
  readonly client: EtcdClient
  readonly prefix: string
  readonly observer?: ClusterObserver
  readonly backoff?: BackoffOptions
  onSet(pair: KeyValue): void
  onDelete(key: string): void
  /** A complete list has been told; `first` is true once. */
  onListed(first: boolean): void
  /** Called with the error when requests begin to fail or fail for another reason, without one when they work again. */
  onConnection(problem: Error | undefined): void
}

const SHORT_MS = 1000

export class EtcdFollower {
  readonly #options: EtcdFollowerOptions
  readonly #abort = new AbortController()
  readonly #revisions = new Map<string, string>()
  readonly #backoff: Backoff
  #revision: bigint | undefined
  #listedOnce = false
  #problem: string | undefined
  #ended: Promise<void> = Promise.resolve()

  constructor(options: EtcdFollowerOptions) {
    this.#options = options
    this.#backoff = new Backoff(options.backoff)
  }

  start(): void {
    this.#ended = this.#run()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    const { observer, prefix } = this.#options
    while (!signal.aborted) {
      try {
        if (this.#revision === undefined) await this.#list()
        await this.#watch()
        observer?.watchEnd(prefix, 'ended')
      } catch (error) {
        if (signal.aborted) return
        const isCompacted = error instanceof CompactedError
        if (this.#revision !== undefined) observer?.watchEnd(prefix, isCompacted ? 'expired' : 'failed')
        if (isCompacted) this.#revision = undefined
        else await this.#fail(error as Error)
      }
    }
  }

  async #list(): Promise<void> {
    const { client, prefix, observer } = this.#options
    const seen = new Set<string>()
    const revision = await client.pages(
      prefix,
      (pairs) => {
        this.#succeed()
        for (const pair of pairs) {
          seen.add(pair.key)
          this.#set(pair)
        }
      },
      this.#abort.signal,
    )
    this.#succeed()
    for (const key of [...this.#revisions.keys()]) if (!seen.has(key)) this.#delete(key)
    this.#revision = revision
    const first = !this.#listedOnce
    this.#listedOnce = true
    observer?.list(prefix, first ? 'first' : 'expired')
    this.#options.onListed(first)
  }

  async #watch(): Promise<void> {
    const { client, prefix } = this.#options
    const { signal } = this.#abort
    const startedAt = performance.now()
    await client.watch(
      prefix,
      this.#revision! + 1n,
      (events, revision) => {
        this.#succeed()
        for (const event of events)
          if (event.type === 'put') this.#set(event.pair)
          else this.#delete(event.key)
        if (events.length > 0) this.#revision = revision
      },
      signal,
    )
    if (performance.now() - startedAt < SHORT_MS) await sleep(this.#backoff.next(), signal)
  }

  #set(pair: KeyValue): void {
    if (this.#revisions.get(pair.key) === pair.modRevision) return
    this.#revisions.set(pair.key, pair.modRevision)
    this.#options.onSet(pair)
  }

  #delete(key: string): void {
    if (this.#revisions.delete(key)) this.#options.onDelete(key)
  }

  async #fail(error: Error): Promise<void> {
    if (this.#problem !== error.message) {
      this.#problem = error.message
      this.#options.onConnection(error)
    }
    await sleep(this.#backoff.next(), this.#abort.signal)
  }

  #succeed(): void {
    this.#backoff.reset()
    if (this.#problem === undefined) return
    this.#problem = undefined
    this.#options.onConnection(undefined)
  }
}
