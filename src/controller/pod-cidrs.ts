/**
 * Gives nodes their part of the pod network: promises blocks in the ledger, writes them to the nodes, and says so on the node
 * when none is left. One turn at a time; nodes that come meanwhile are the next turn's.
 *
 *   nodes without podCIDRs ──► choose, at most MAX_PROMISES ──► one write of the ledger ──► a conditional write per node
 *        ▲                          └── none free: Event CIDRNotAvailable            │        └── changed meanwhile: look, once more
 *        └────── a node goes, a hold ends, a node comes, a wait is over ◄────────────┘
 *
 * podCIDRs that are there are never touched. An error of the ledger ends it all: the term (term.ts) begins anew.
 */
import { Backoff, sleep } from '../cluster/backoff.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import type { RawObject } from '../cluster/kubernetes/informer.ts'
import type { NodeEvents } from '../cluster/kubernetes/node-events.ts'
import type { BlockPool } from '../ipam/block-pool.ts'
import { NodeCidrs, type Promised } from '../ipam/node-cidrs.ts'
import type { Cidr } from '../net/cidr.ts'
import { type Ledger, MAX_PROMISES } from './ledger.ts'
import type { ControllerMetrics } from './metrics.ts'
import { holderOf, isConflict, isRefusal, projectWatched, type WatchedNode } from './objects.ts'

export interface PodCidrsOptions {
  readonly client: HttpClient
  readonly ledger: Ledger
  readonly pools: readonly BlockPool[]
  readonly kept: readonly Cidr[]
  readonly holdMilliseconds: number
  readonly annotationPrefix: string
  readonly events: NodeEvents
  readonly metrics: ControllerMetrics
  readonly log: ClusterLog
  readonly signal: AbortSignal
  /** False from the moment that this replica leads no more; asked before every write. */
  mayWrite(): boolean
}

const WRITERS = 8
const MAX_CONFLICTS = 5

export class PodCidrs {
  readonly #options: PodCidrsOptions
  readonly #cidrs: NodeCidrs
  /** Nodes as last seen that have no podCIDRs. */
  readonly #waiting = new Map<string, WatchedNode>()
  /** Nodes that could not be written: when to try again. */
  readonly #later = new Map<string, { readonly backoff: Backoff; at: number }>()
  #wake = () => {}
  #last: readonly Cidr[] = []
  /** The ledger has promises that are settled by now. */
  #stale = false

  constructor(options: PodCidrsOptions) {
    this.#options = options
    const { pools, kept, holdMilliseconds } = options
    this.#cidrs = new NodeCidrs({ pools, kept, holdMilliseconds })
  }

  /** Reads the ledger. To be called before nodes are listed: what it has no more is on its node by then. */
  async open(): Promise<void> {
    const { ledger, pools, log } = this.#options
    const { promises, last } = await ledger.open()
    this.#last = last
    for (const block of last) for (const pool of pools) if (pool.family === block.family) pool.rotateAfter(block)
    for (const [name, promised] of promises) this.#cidrs.promise(name, promised)
    if (promises.size > 0) log.info({ nodes: promises.size }, 'promises of a predecessor will be kept')
  }

  setNode(node: WatchedNode): void {
    const { annotationPrefix, events, log } = this.#options
    const before = this.#cidrs.nodes.get(node.name)
    const holder = holderOf(node, annotationPrefix)
    this.#cidrs.setNode(holder, performance.now())
    if (node.podCidrs.length === 0 && !node.leaving) this.#waiting.set(node.name, node)
    else this.#waiting.delete(node.name)
    if (String(before?.podCidrs) !== String(holder.podCidrs)) {
      const rivals = this.#cidrs.rivalsOf(node.name)
      this.#options.metrics.setRivals(node.name, rivals.length > 0)
      if (rivals.length > 0) {
        const message = `${holder.podCidrs.join(', ')} overlaps podCIDRs of ${rivals.slice(0, 5).join(', ')}`
        log.error({ node: node.name, rivals }, 'two nodes have one pod CIDR; one of them must be deleted and join anew')
        events.report({ node: node.name, ...uidOf(node), severity: 'Warning', reason: 'CIDRConflict', message })
      }
    }
    this.#wake()
  }

  removeNode(name: string): void {
    const { metrics, pools } = this.#options
    const blocks = this.#cidrs.nodes.get(name)?.podCidrs ?? []
    for (const pool of pools) if (blocks.some((block) => pool.gives(block))) metrics.released(pool)
    metrics.setRivals(name, false)
    this.#waiting.delete(name)
    this.#later.delete(name)
    this.#cidrs.removeNode(name, performance.now())
    this.#wake()
  }

  /** Works until the signal; every node must have been told before. Rejects when the ledger is another's. */
  async run(): Promise<void> {
    const { signal } = this.#options
    signal.addEventListener('abort', () => this.#wake(), { once: true })
    while (!signal.aborted) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      const dueAt = await this.#turn()
      const rest = new AbortController()
      const timer = dueAt === undefined ? [] : [sleep(Math.max(0, dueAt - performance.now()), rest.signal)]
      await Promise.race([woken, ...timer])
      rest.abort()
    }
  }

  /** Gives the time of the next thing to do, if one is known. */
  async #turn(): Promise<number | undefined> {
    const { mayWrite, ledger, metrics } = this.#options
    const releaseAt = this.#cidrs.expire(performance.now())
    for (const name of this.#cidrs.settled()) {
      this.#cidrs.settle(name)
      this.#later.delete(name)
      this.#stale = true
    }
    const chosen = this.#choose()
    if ((chosen > 0 || (this.#stale && this.#cidrs.promises.size === 0)) && mayWrite()) {
      await ledger.write({ promises: this.#cidrs.promises, last: this.#lastGiven() })
      this.#stale = false
    }
    await this.#writeNodes()
    metrics.setPools(this.#options.pools, this.#waiting.size)
    return [releaseAt, ...[...this.#later.values()].map(({ at }) => at)]
      .filter((at) => at !== undefined)
      .reduce<number | undefined>((least, at) => (least === undefined || at < least ? at : least), undefined)
  }

  /** Chooses for those that wait; gives how many promises are new. */
  #choose(): number {
    let chosen = 0
    let full: BlockPool | undefined
    for (const node of this.#waiting.values()) {
      if (this.#cidrs.promises.has(node.name)) continue
      if (this.#cidrs.promises.size >= MAX_PROMISES) break
      if (!full) {
        const choice = this.#cidrs.choose(node.name, node.uid ?? '')
        if ('cidrs' in choice) {
          chosen++
          continue
        }
        full = choice.full
      }
      this.#tellFull(node, full)
    }
    return chosen
  }

  #tellFull(node: WatchedNode, { network, length, total }: BlockPool): void {
    const { events, log } = this.#options
    const message = `no free /${length} is left of ${network} (${total} blocks); the node gets one as soon as another node goes`
    const told = events.report({
      node: node.name,
      ...uidOf(node),
      severity: 'Warning',
      reason: 'CIDRNotAvailable',
      message,
    })
    if (told) log.warn({ node: node.name, network: String(network), length }, 'no pod CIDR is free')
  }

  #lastGiven(): readonly Cidr[] {
    this.#last = [...this.#cidrs.promises.values()].at(-1)?.cidrs ?? this.#last
    return this.#last
  }

  async #writeNodes(): Promise<void> {
    const now = performance.now()
    const due = [...this.#cidrs.promises].filter(
      ([name]) => this.#waiting.has(name) && (this.#later.get(name)?.at ?? 0) <= now,
    )
    const writer = async () => {
      for (let next = due.pop(); next && this.#options.mayWrite(); next = due.pop()) await this.#give(...next)
    }
    due.reverse()
    await Promise.all(Array.from({ length: Math.min(WRITERS, due.length) }, writer))
  }

  async #give(name: string, { uid, cidrs }: Promised): Promise<void> {
    const { log, metrics, pools, events, signal } = this.#options
    const node = this.#waiting.get(name)
    if (!node || node.uid !== uid) return
    try {
      const written = await this.#write(node, cidrs)
      if (!written) return
      this.setNode(written)
      for (const pool of pools) metrics.allocated(pool)
      log.info({ node: name, podCIDRs: cidrs.map(String) }, 'pod CIDR given')
    } catch (error) {
      if (signal.aborted || (error instanceof HttpError && error.status === 404)) return
      const { message } = error as Error
      const later = this.#later.get(name) ?? { backoff: new Backoff({ first: 500, cap: 30_000 }), at: 0 }
      later.at = performance.now() + later.backoff.next()
      this.#later.set(name, later)
      log.warn({ node: name, err: message }, 'the pod CIDR cannot be written yet')
      if (isRefusal(error))
        events.report({ node: name, uid, severity: 'Warning', reason: 'CIDRAssignmentFailed', message })
    }
  }

  /** Writes to this life of the node only, and only while it has none. Undefined when there is nothing to write any more. */
  async #write(node: WatchedNode, cidrs: readonly Cidr[]): Promise<WatchedNode | undefined> {
    const { client, annotationPrefix, signal, mayWrite } = this.#options
    const path = `/api/v1/nodes/${encodeURIComponent(node.name)}`
    const podCIDRs = cidrs.map(String)
    for (let at = node, tries = 1; mayWrite(); tries++) {
      try {
        const answer = await client.request({
          method: 'PATCH',
          path,
          body: { metadata: { resourceVersion: at.version }, spec: { podCIDR: podCIDRs[0], podCIDRs } },
          contentType: 'application/merge-patch+json',
          signal,
        })
        return projectWatched(answer as RawObject, annotationPrefix)
      } catch (error) {
        if (!isConflict(error) || tries === MAX_CONFLICTS) throw error
        at = projectWatched((await client.request({ method: 'GET', path, signal })) as RawObject, annotationPrefix)
        if (at.uid !== node.uid || at.podCidrs.length > 0 || at.leaving) return undefined
      }
    }
    return undefined
  }
}

const uidOf = ({ uid }: WatchedNode): { readonly uid?: string } => (uid === undefined ? {} : { uid })
