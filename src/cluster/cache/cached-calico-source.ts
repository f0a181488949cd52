/**
 * A source of Calico's objects that remembers, as cached-source.ts does for nodes: an agent that starts while the store is away
 * is told what it knew, marked as such. What the store says then counts at once; what it turned out not to have any more is
 * gone when its list is complete.
 *
 *   store answers   pool, block, synced ─► …                                       the file follows
 *   store away      (3 s, or a failed request) ─► pool, block, remembered ─► …
 *   it comes back   what differs, every block, what is gone, synced ─► …
 *
 * Affinities are not remembered: they matter to who writes, and nobody writes to a store that is away.
 */
import type { CalicoEvent, CalicoListener, CalicoSource, PodDirectory } from '../calico/calico-source.ts'
import type { ClusterLog } from '../cluster.ts'
import { eventOf, goneEventOf, lineOf } from './calico-view.ts'
import { MAX_SEALED_BYTES, readSealed, type Seal, writeSealed } from './sealed-file.ts'
import type { ViewIdentity } from './view.ts'

export interface CachedCalicoOptions {
  readonly source: CalicoSource
  readonly file: string
  readonly identity: ViewIdentity
  readonly log: ClusterLog
  /** How long to wait for the store's first list before working from memory, in milliseconds. */
  readonly patienceMs?: number
  /** The file is written at most this often, in milliseconds. */
  readonly writeEveryMs?: number
}

const PATIENCE_MS = 3000
const WRITE_EVERY_MS = 5000
const seal: Seal = { kind: 'weft-calico-view', version: 1, what: "the view of Calico's objects" }

export class CachedCalicoSource implements CalicoSource {
  readonly pods: PodDirectory
  readonly #options: CachedCalicoOptions
  #listener: CalicoListener = () => {}
  /** What the store has, by key: the lines of the file. */
  readonly #lines = new Map<string, string>()
  #view: { readonly savedAt: string; readonly lines: readonly string[] } | undefined
  /** What was told from memory and the store has not spoken of. */
  readonly #remembered = new Map<string, string>()
  #synced = false
  #patience: NodeJS.Timeout | undefined
  #writing: NodeJS.Timeout | undefined
  #body = ''
  #failed = false
  #closed = false

  constructor(options: CachedCalicoOptions) {
    this.#options = options
    this.pods = options.source.pods
  }

  start(listener: CalicoListener): void {
    const { source, file, log, patienceMs = PATIENCE_MS } = this.#options
    this.#listener = listener
    try {
      this.#view = this.#read()
    } catch (error) {
      log.warn({ err: (error as Error).message, file }, 'the remembered view of the address pools is not used')
    }
    source.start((event) => this.#hear(event))
    if (this.#view) this.#patience = setTimeout(() => this.#remember(), patienceMs)
  }

  reconnect(): void {
    this.#options.source.reconnect()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#patience)
    if (this.#writing) this.#save()
    await this.#options.source.close()
  }

  #hear(event: CalicoEvent): void {
    if (this.#closed) return
    if (event.type === 'synced') return this.#onSynced()
    const line = lineOf(event, this.#options.identity.node)
    const before = line && this.#remembered.get(line.key)
    if (line) {
      this.#remembered.delete(line.key)
      if (line.text === '') this.#lines.delete(line.key)
      else this.#lines.set(line.key, line.text)
      if (this.#synced) this.#saveLater()
    }
    // What was told of a block may have been a part of it.
    if (before === undefined || event.type === 'block' || before !== line?.text) this.#listener(event)
    if (event.type === 'connection' && !event.up) this.#remember()
  }

  /** Tells what was remembered, once, unless the store has spoken of it already. */
  #remember(): void {
    const view = this.#view
    if (!view || this.#synced || this.#closed) return
    clearTimeout(this.#patience)
    this.#view = undefined
    const { log, file } = this.#options
    for (const text of view.lines)
      try {
        const read = eventOf(text, log)
        if (!read || this.#lines.has(read.key)) continue
        this.#remembered.set(read.key, text)
        this.#listener(read.event)
      } catch (error) {
        log.warn({ err: (error as Error).message, file }, 'a remembered object is not used')
      }
    this.#listener({ type: 'remembered', savedAt: view.savedAt })
  }

  /** The store's list is whole. */
  #onSynced(): void {
    clearTimeout(this.#patience)
    this.#synced = true
    this.#view = undefined
    for (const key of this.#remembered.keys()) {
      const gone = goneEventOf(key)
      if (gone) this.#listener(gone)
    }
    this.#remembered.clear()
    this.#save()
    this.#listener({ type: 'synced' })
  }

  #read() {
    const { file, identity } = this.#options
    const sealed = readSealed(file, seal)
    if (!sealed) return undefined
    const { savedAt, body } = sealed
    const [head = '', ...lines] = body.split('\n')
    const { node, store } = JSON.parse(head) as Partial<ViewIdentity>
    if (node !== identity.node) throw new Error(`it is that of node ${String(node).slice(0, 64)}`)
    if (store !== identity.store) throw new Error('it is that of another store')
    return { savedAt, lines }
  }

  #saveLater(): void {
    this.#writing ??= setTimeout(() => this.#save(), this.#options.writeEveryMs ?? WRITE_EVERY_MS).unref()
  }

  /** Writes what differs from the file. A file system that refuses costs the memory, not the network. */
  #save(): void {
    clearTimeout(this.#writing)
    this.#writing = undefined
    const { file, identity, log } = this.#options
    const { node, store } = identity
    const body = [JSON.stringify({ node, store }), ...this.#lines.values()].join('\n')
    if (body === this.#body) return
    try {
      if (body.length > MAX_SEALED_BYTES / 2) throw new Error('it is too large')
      writeSealed(file, seal, { savedAt: new Date().toISOString(), body })
      this.#body = body
      this.#failed = false
    } catch (error) {
      if (!this.#failed)
        log.warn({ err: (error as Error).message, file }, 'the view of the address pools cannot be kept')
      this.#failed = true
    }
  }
}
