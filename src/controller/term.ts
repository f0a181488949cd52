/**
 * What a replica does while it leads. A term knows nothing of earlier ones: it opens the ledger, lists all nodes after that, and
 * then works, until it is closed or the ledger turns out to be another's. Then it begins anew, after a while.
 */

import { Backoff, sleep } from '../cluster/backoff.ts'
import { KubernetesStore } from '../cluster/calico/kubernetes-store.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import type { HttpClient } from '../cluster/http-client.ts'
import { parseNode } from '../cluster/kubernetes/annotations.ts'
import { Informer } from '../cluster/kubernetes/informer.ts'
import { NodeEvents } from '../cluster/kubernetes/node-events.ts'
import { IpamCollector } from './ipam-collector.ts'
import { IpamSight } from './ipam-sight.ts'
import { LeakedAddresses } from './leaked-addresses.ts'
import { Ledger } from './ledger.ts'
import type { ControllerMetrics } from './metrics.ts'
import { makePools, type PoolSettings } from './network.ts'
import { NodeState } from './node-state.ts'
import { projectWatched, type WatchedNode } from './objects.ts'
import type { ControllerOptions } from './options.ts'
import { PodCidrs, type PodCidrsOptions } from './pod-cidrs.ts'
import { PoolConditions } from './pool-conditions.ts'

export interface TermOptions {
  readonly client: HttpClient
  readonly settings: ControllerOptions
  readonly metrics: ControllerMetrics
  readonly log: ClusterLog
  /** Undefined while the network is not known. */
  pools(): readonly PoolSettings[] | undefined
  /** False from the moment that this replica leads no more. */
  mayWrite(): boolean
}

export class Term {
  readonly #options: TermOptions
  readonly #abort = new AbortController()
  readonly #ended: Promise<void>
  #session = new AbortController()
  #problem: string | undefined = 'the nodes have not been listed yet'

  /** Begins at once. */
  constructor(options: TermOptions) {
    this.#options = options
    this.#ended = this.#run()
  }

  /** Why it cannot work; undefined when it can. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** The network changed: everything is to be counted again. */
  restart(): void {
    this.#session.abort()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    const backoff = new Backoff()
    while (!signal.aborted) {
      this.#session = new AbortController()
      const both = AbortSignal.any([signal, this.#session.signal])
      const startedAt = performance.now()
      try {
        await this.#work(both)
      } catch (error) {
        if (both.aborted) continue
        this.#problem = (error as Error).message
        this.#options.log.warn(
          { err: this.#problem },
          'beginning anew: the ledger is read and the nodes are listed again',
        )
        if (performance.now() - startedAt > 60_000) backoff.reset()
        // Another network in the meantime is no reason to wait any longer.
        await sleep(backoff.next(), both)
      } finally {
        this.#session.abort()
      }
    }
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { client, settings, metrics, log, pools, mayWrite } = this.#options
    const { annotationPrefix } = settings
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    // Told by `restart` when it is.
    if (settings.allocate && !pools()) return aborted
    const events = new NodeEvents({ client, log, component: 'weft-controller', signal })
    const shared = { client, annotationPrefix, events, metrics, log, signal, mayWrite }
    const podCidrs = settings.allocate ? await this.#openPodCidrs(shared) : undefined
    const nodeState = new NodeState({ ...shared, settings: settings.nodeState })
    const nodes = new Map<string, WatchedNode>()
    const duties = [podCidrs, nodeState].filter((duty) => duty !== undefined)
    let listed = () => {}
    const allListed = new Promise<void>((resolve) => {
      listed = resolve
    })
    const informer = new Informer<WatchedNode>({
      client,
      path: '/api/v1/nodes',
      project: (object) => projectWatched(object, annotationPrefix),
      onSet: (name, node) => {
        nodes.set(name, node)
        for (const duty of duties) duty.setNode(node)
      },
      onDelete: (name) => {
        nodes.delete(name)
        for (const duty of duties) duty.removeNode(name)
      },
      onListed: () => listed(),
      onConnection: (problem) => {
        this.#problem = problem?.message
        if (problem) log.warn({ err: problem.message }, 'the API server cannot be reached')
        else log.info({}, 'the API server can be reached')
      },
    })
    informer.start()
    try {
      await Promise.race([allListed, aborted])
      if (signal.aborted) return
      this.#problem = undefined
      log.info({ nodes: informer.size }, 'all nodes are known')
      nodeState.start()
      const { leakInterval: interval } = settings
      if (interval !== undefined) {
        void new LeakedAddresses({ ...shared, interval, agents: () => nodeState.readyAgents() }).run()
        void this.#collectAddresses(shared, interval, nodes, nodeState)
        void new PoolConditions(shared).run()
      }
      await Promise.race([podCidrs?.run() ?? aborted, aborted])
    } finally {
      await informer.close()
    }
  }

  async #collectAddresses(
    shared: SharedByDuties,
    interval: number,
    nodes: ReadonlyMap<string, WatchedNode>,
    nodeState: NodeState,
  ): Promise<void> {
    const { client, annotationPrefix } = shared
    const sight = new IpamSight({
      ...shared,
      nodes: () => [...nodes.values()].map((node) => parseNode(node, annotationPrefix).node),
      agents: () => nodeState.readyAgents(),
    })
    const store = new KubernetesStore({ client })
    try {
      await new IpamCollector({
        ...shared,
        metrics: shared.metrics.ipam,
        store,
        interval,
        readPools: () => sight.readPools(),
        look: () => sight.look(),
        now: () => Date.now(),
      }).run()
    } finally {
      await store.close()
    }
  }

  async #openPodCidrs(shared: SharedByDuties): Promise<PodCidrs> {
    const { settings, pools } = this.#options
    const { client, signal } = shared
    const podCidrs = new PodCidrs({
      ...shared,
      ledger: new Ledger({ client, ...settings.ledger, signal }),
      pools: makePools(pools() ?? []),
      kept: settings.serviceCidrs,
      holdMilliseconds: settings.reuseDelay,
    })
    await podCidrs.open()
    return podCidrs
  }
}

type SharedByDuties = Omit<PodCidrsOptions, 'ledger' | 'pools' | 'kept' | 'holdMilliseconds'>
