/**
 * A cluster source that remembers: whatever the store said last is kept in a file, and an agent that starts while the store
 * is away is told that instead, marked as such. The store's own list, once it comes, replaces it in one step.
 *
 *   store answers   node, node, network, synced ─► …                                       the file follows
 *   store away      (3 s, or a failed request) ─► network, node, node, remembered ─► …
 *   it comes back   the whole list ─► only differences: node, node-gone, then synced ─► …
 *
 * Peers are written seconds after they changed. This node's own words and the network configuration are written before
 * anybody acts on them: a path that this node stopped sending by may be gone from its peers, and an agent killed at any
 * moment must not remember it as its own.
 */
import type { WeftNodeStatus } from '../../model/cluster.ts'
import type {
  Announcement,
  ClusterEvent,
  ClusterListener,
  ClusterLog,
  ClusterSource,
  NodeReport,
  SubnetRequest,
} from '../cluster.ts'
import { type ClusterView, formatViewBody, MAX_VIEW_BYTES, readView, type ViewIdentity, writeView } from './view.ts'

export interface CachedSourceOptions {
  readonly source: ClusterSource
  readonly file: string
  readonly identity: ViewIdentity
  readonly log: ClusterLog
  /** How long to wait for the store's first list before working from memory, in milliseconds. */
  readonly patienceMs?: number
  /** Peers are written at most this often, in milliseconds. */
  readonly writeEveryMs?: number
}

type NodeEvent = Extract<ClusterEvent, { type: 'node' }>

const textOf = ({ node, wishes, problems }: NodeEvent): string => JSON.stringify([node, wishes, problems])

const PATIENCE_MS = 3000
const WRITE_EVERY_MS = 3000

export class CachedSource implements ClusterSource {
  readonly acquire?: NonNullable<ClusterSource['acquire']>
  readonly #options: CachedSourceOptions
  #listener: ClusterListener = () => {}
  /** What the store has; what the listener was told of it differs only between `remembered` and `synced`. */
  readonly #nodes = new Map<string, NodeEvent>()
  #network: ClusterView['network']
  #written: WeftNodeStatus[] = []
  #view: ClusterView | undefined
  #remembered: Map<string, string> | undefined
  #synced = false
  #patience: NodeJS.Timeout | undefined
  #writing: NodeJS.Timeout | undefined
  #body = ''
  #failed = false
  #closed = false

  constructor(options: CachedSourceOptions) {
    this.#options = options
    const { source } = options
    if (source.acquire) this.acquire = (request: SubnetRequest) => source.acquire!(request)
  }

  start(listener: ClusterListener): void {
    const { source, file, identity, log, patienceMs = PATIENCE_MS } = this.#options
    this.#listener = listener
    try {
      this.#view = readView(file, identity)
    } catch (error) {
      log.warn({ err: (error as Error).message, file }, 'the remembered view of the cluster is not used')
    }
    source.start((event) => this.#hear(event))
    if (this.#view) this.#patience = setTimeout(() => this.#remember(), patienceMs)
  }

  async announce(announcement: Announcement): Promise<void> {
    const standing = this.#nodes.get(this.#options.identity.node)?.node.weft
    const stands = this.#written.length === 0 && JSON.stringify(standing) === JSON.stringify(announcement.weft)
    if (!stands) this.#written.push(announcement.weft)
    if (this.#synced) this.#save()
    await this.#options.source.announce(announcement)
  }

  setNetworkAvailable(): Promise<void> {
    return this.#options.source.setNetworkAvailable()
  }

  report(report: NodeReport): void {
    this.#options.source.report(report)
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

  #hear(event: ClusterEvent): void {
    if (this.#closed) return
    switch (event.type) {
      case 'node':
        this.#onNode(event)
        return
      case 'node-gone':
        this.#nodes.delete(event.name)
        if (this.#synced) this.#saveLater()
        if (this.#synced || !this.#remembered) this.#listener(event)
        return
      case 'network':
        if (event.text !== undefined) this.#network = { text: event.text, object: event.object }
        if (this.#synced) this.#save()
        break
      case 'synced':
        this.#onSynced()
        break
      case 'connection':
        this.#listener(event)
        if (!event.up) this.#remember()
        return
    }
    this.#listener(event)
  }

  #onNode(event: NodeEvent): void {
    const { node } = event
    this.#nodes.set(node.name, event)
    if (node.name === this.#options.identity.node) {
      const text = JSON.stringify(node.weft)
      this.#written.splice(0, this.#written.findLastIndex((status) => JSON.stringify(status) === text) + 1)
      if (this.#synced) this.#save()
    } else if (this.#synced) this.#saveLater()
    if (this.#synced || !this.#remembered) this.#listener(event)
  }

  /** Tells what was remembered, once, unless the store has spoken. What it said of it already counts more. */
  #remember(): void {
    const view = this.#view
    if (!view || this.#synced || this.#remembered || this.#closed) return
    clearTimeout(this.#patience)
    this.#view = undefined
    const told = new Map<string, string>()
    for (const [name, event] of this.#nodes) told.set(name, textOf(event))
    const nothing = { text: undefined, object: `the network configuration in the cache of ${view.savedAt}` }
    if (this.#network === undefined) this.#listener({ type: 'network', ...(view.network ?? nothing) })
    for (const { node, wishes } of view.nodes) {
      if (told.has(node.name)) continue
      const event: NodeEvent = { type: 'node', node, problems: [], wishes }
      told.set(node.name, textOf(event))
      this.#listener(event)
    }
    this.#remembered = told
    this.#listener({ type: 'remembered', savedAt: view.savedAt, written: view.written })
  }

  /** The store's list is whole: it takes the place of what was remembered. */
  #onSynced(): void {
    clearTimeout(this.#patience)
    this.#synced = true
    this.#view = undefined
    this.#save()
    const told = this.#remembered
    if (!told) return
    this.#remembered = undefined
    for (const name of told.keys()) if (!this.#nodes.has(name)) this.#listener({ type: 'node-gone', name })
    for (const [name, event] of this.#nodes) if (told.get(name) !== textOf(event)) this.#listener(event)
  }

  #saveLater(): void {
    this.#writing ??= setTimeout(() => this.#save(), this.#options.writeEveryMs ?? WRITE_EVERY_MS).unref()
  }

  /** Writes what differs from the file. A file system that refuses costs the memory, not the network. */
  #save(): void {
    clearTimeout(this.#writing)
    this.#writing = undefined
    const { file, identity, log } = this.#options
    const body = formatViewBody(identity, {
      ...(this.#network ? { network: this.#network } : {}),
      written: this.#written,
      nodes: [...this.#nodes.values()].map(({ node, wishes }) => ({ node, wishes })),
    })
    if (body === this.#body) return
    try {
      if (body.length > MAX_VIEW_BYTES / 2) throw new Error('it is too large')
      writeView(file, new Date().toISOString(), body)
      this.#body = body
      this.#failed = false
    } catch (error) {
      if (!this.#failed) log.warn({ err: (error as Error).message, file }, 'the view of the cluster cannot be kept')
      this.#failed = true
    }
  }
}
