/**
 * An agent without its outside, for tests: loop, applier and interface watch over a kernel and a cluster in memory, and address
 * pools over blocks in memory.
 */
import assert from 'node:assert/strict'
import { Applier } from '../apply/applier.ts'
import type { CalicoEvent, PodDirectory } from '../cluster/calico/calico-source.ts'
import type { FakeCluster } from '../cluster/fake/fake-source.ts'
import { MemoryStore } from '../ipam/stores/memory-store.ts'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import type { IpPool } from '../model/calico.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import { Ip } from '../net/ip.ts'
import { NetworkLoop, type NetworkLoopOptions } from './network-loop.ts'
import { NodeWatch } from './node-watch.ts'
import type { PodNetwork } from './pod-network.ts'

const quiet = { debug() {}, info() {}, warn() {}, error() {} }
export const add = (object: KernelOp['object']): KernelOp => ({ verb: 'add', object })

const nobody: PodDirectory = { find: async () => undefined, annotate() {} }

/** Pools and blocks that several agents share. */
export class MemoryPools {
  readonly store = new MemoryStore()
  readonly #pools = new Map<string, IpPool>()
  readonly #listeners = new Set<(event: CalicoEvent) => void>()

  put(pool: IpPool): void {
    this.#pools.set(pool.name, pool)
    this.tell({ type: 'pool', name: pool.name, pool })
  }

  remove(name: string): void {
    this.#pools.delete(name)
    this.tell({ type: 'pool-gone', name })
  }

  tell(event: CalicoEvent): void {
    for (const listener of this.#listeners) setImmediate(() => listener(event))
  }

  /** As a CalicoSource tells it; ends with the returned function. */
  start(listener: (event: CalicoEvent) => void): () => void {
    for (const pool of this.#pools.values()) listener({ type: 'pool', name: pool.name, pool })
    const later = (event: CalicoEvent) => setImmediate(() => listener(event))
    const stops = [
      this.store.blocks.watch(({ cidr }, held) => later(held ? { type: 'block', held } : { type: 'block-gone', cidr })),
      this.store.affinities.watch((affinity, held) =>
        later(held ? { type: 'affinity', held } : { type: 'affinity-gone', affinity }),
      ),
    ]
    later({ type: 'synced' })
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
      for (const stop of stops) stop()
    }
  }
}

export class TestAgent {
  readonly kernel = FakeKernel.create()
  readonly applier = new Applier(this.kernel, {
    onReport: (report) => this.loop.onReport(report),
    onFound: () => this.loop.onFound(),
  })
  readonly loop: NetworkLoop
  readonly #watch: NodeWatch
  readonly #source: ReturnType<FakeCluster['source']>
  readonly #pools: MemoryPools | undefined
  #stopPools: () => void = () => {}
  #idle: () => void = () => {}
  /** What pods were last to get. */
  network: PodNetwork | undefined

  constructor(
    cluster: FakeCluster,
    name: string,
    pools?: MemoryPools,
    options: Pick<NetworkLoopOptions, 'wiring'> = {},
  ) {
    this.#source = cluster.source(name)
    this.#pools = pools
    this.loop = new NetworkLoop({
      nodeName: name,
      source: this.#source,
      writer: this.applier,
      log: quiet,
      previousSubnets: [],
      settings: { masquerade: true, fullyRandom: true, blackhole: false },
      ...options,
      ...(pools
        ? {
            calico: {
              source: { pods: nobody, reconnect() {} },
              store: pools.store,
              settings: { fullyRandom: true },
              spareAddresses: 4,
              now: () => Date.now(),
            },
          }
        : {}),
      onOwnNode: ({ node, wishes }) => this.#watch.setNode(node.addresses, wishes, node.calico),
      onPodNetwork: async (network) => {
        this.network = network
      },
      onConfigError: () => {},
      onPeerProblem: () => {},
      onIdle: () => this.#idle(),
    })
    this.#watch = new NodeWatch({
      kernel: this.kernel,
      options: { names: ['eth0'], patterns: [] },
      addresses: {
        v4: { type: 'autodetect', method: { type: 'external' } },
        v6: { type: 'autodetect', method: { type: 'external' } },
      },
      onDetected: (detected) => this.loop.onDetected(detected),
      onProblem: (error) => assert.fail(error),
    })
  }

  async start(address: string): Promise<void> {
    await this.kernel.execute([
      add({ kind: 'link', name: 'eth0', type: 'dummy', mtuBytes: 1500 }),
      { verb: 'set', object: { kind: 'link', name: 'eth0', type: 'dummy', up: true } },
      add({ kind: 'address', device: 'eth0', ip: Ip.parse(address), prefixLength: 24 }),
    ])
    await this.applier.start()
    await this.#watch.start()
    this.#source.start((event) => this.loop.onCluster(event))
    this.#stopPools = this.#pools?.start((event) => this.loop.onCalico(event)) ?? (() => {})
  }

  /** Resolves when the kernel says what `done` wants; rejects after a while. */
  async until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 20_000
    while (!(await done())) {
      if (performance.now() > deadline)
        assert.fail(`${what}: ${await this.routes()} ${JSON.stringify(this.loop.state())}`)
      await new Promise((resolve) => {
        this.#idle = () => setImmediate(resolve)
        setTimeout(resolve, 5)
      })
    }
  }

  async routes(): Promise<string> {
    const routes = (await this.kernel.read('route')).filter(({ protocol }) => protocol === 119)
    return routes
      .filter(({ hops }) => hops.length > 0)
      .map(({ destination, hops: [hop] }) => `${destination} ${hop!.via} ${hop!.device}`)
      .sort()
      .join('; ')
  }

  async close(): Promise<void> {
    this.loop.close()
    this.#watch.close()
    this.#stopPools()
    await this.#source.close()
    await this.applier.close()
  }
}
