/**
 * Nodes that switch data paths under traffic, each with the planner and applier of an agent, and a store in memory between
 * them: node objects whose changes reach everyone in one order, a turn of the event loop later.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Drain } from '../../src/agent/drain.ts'
import { Planner } from '../../src/agent/planner.ts'
import { trafficReader } from '../../src/agent/traffic.ts'
import { Applier } from '../../src/apply/applier.ts'
import type { LeaseAnnouncement } from '../../src/cluster/cluster.ts'
import { parseNetConf } from '../../src/config/flannel/net-conf.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { NodeInfo } from '../../src/model/cluster.ts'
import type { TestNode, TestTopology } from './node-topology.ts'
import { SteadyPing } from './steady-ping.ts'

/** Far beyond what a switch takes, also in an emulated machine on a busy one. */
const LIMIT_MS = 240_000

/** One node's planner and applier. */
class SwitchingAgent {
  readonly node: TestNode
  readonly applier: Applier
  readonly planner: Planner
  readonly #store: SwitchingCluster
  #turning = false
  #again = false
  #written = ''
  readonly #leaving: Drain
  readonly #arriving: Drain

  constructor(node: TestNode, store: SwitchingCluster) {
    this.node = node
    this.#store = store
    this.applier = new Applier(node.namespace.kernel, {
      onReport: () => void this.turn(),
      onFound: () => setImmediate(() => void this.turn()),
    })
    const readTraffic = trafficReader((call) => inNetns(node.namespace.path, call))
    this.#leaving = new Drain('sent', readTraffic)
    this.#arriving = new Drain('received', readTraffic)
    const settings = { masquerade: false, fullyRandom: false, forward: true, blackhole: false }
    this.planner = new Planner(settings, (source) => this.applier.inPlace(source))
  }

  configure(backend: object): void {
    const { config } = parseNetConf(
      JSON.stringify({
        Network: '10.244.0.0/16',
        ...(this.#store.dualStack && { EnableIPv6: true, IPv6Network: 'fd00:10:244::/48', IPv6SubnetLen: 64 }),
        Backend: backend,
      }),
    )
    const { context } = this.node
    const podCidrs = context.podCidrs.slice(0, this.#store.dualStack ? 2 : 1)
    this.planner.setNode(config, { ...context, podCidrs, ...this.#store.words(this.node.name) })
    void this.turn()
  }

  hear(info: NodeInfo): void {
    if (info.name === this.node.name) this.planner.setAnnounced(info.weft)
    else this.planner.setPeer(info)
    void this.turn()
  }

  async turn(): Promise<void> {
    this.#again = true
    if (this.#turning) return
    this.#turning = true
    while (this.#again) {
      this.#again = false
      const { set, removed } = this.planner.plan()
      if (set.length + removed.length > 0) this.applier.change(set, removed)
      if (this.planner.isComplete) this.applier.markComplete()
      await this.applier.settle()
      this.#drain()
      await this.#tellPods()
      this.#announce()
    }
    this.#turning = false
  }

  /** As the agent does: a path is sent by, and taken in, until its last packets are out of every queue. */
  #drain(): void {
    const { draining, waning } = this.planner
    if (draining.length === 0) this.planner.noteSettled()
    this.#leaving.wait(draining, this.planner.devicesOf(draining), (paths) => {
      if (this.planner.draining.join() === paths.join()) this.planner.noteSettled()
      void this.turn()
    })
    this.#arriving.wait(waning, this.planner.devicesOf(waning), (paths) => {
      this.planner.noteDry(paths)
      void this.turn()
    })
  }

  readonly stop = (): void => {
    this.#leaving.close()
    this.#arriving.close()
  }

  async #tellPods(): Promise<void> {
    const mtuBytes = this.planner.transition?.mtuBytes
    if (mtuBytes === undefined) return
    const link = { kind: 'link', name: 'eth0', type: 'foreign', mtuBytes } as const
    await this.node.pod.kernel.execute([{ verb: 'set', object: link }])
    this.planner.setPodMtu(mtuBytes)
  }

  #announce(): void {
    const announcement = this.planner.announcement()
    if (!announcement || JSON.stringify(announcement) === this.#written) return
    this.#written = JSON.stringify(announcement)
    this.planner.addPending(announcement.weft)
    this.#store.write(this.node, announcement)
  }

  get settled(): boolean {
    return this.planner.transition?.settled === true && !this.#turning
  }
}

/** Node objects in memory, and the agents that write and hear them. */
export class SwitchingCluster {
  readonly agents: SwitchingAgent[]
  readonly dualStack: boolean
  readonly #nodes = new Map<string, NodeInfo>()

  constructor(topology: TestTopology, { dualStack = true } = {}) {
    this.dualStack = dualStack
    this.agents = topology.nodes.map((node) => new SwitchingAgent(node, this))
  }

  async start(): Promise<void> {
    for (const agent of this.agents) await agent.applier.start()
  }

  /** Everyone's configuration changes; resolves when all send by `path` and nothing of another is left. */
  async move(backend: object, path: string): Promise<void> {
    for (const agent of this.agents) agent.configure(backend)
    await this.#settled(path)
  }

  async #settled(path: string): Promise<void> {
    const end = performance.now() + LIMIT_MS
    const isDone = () =>
      this.agents.every(
        ({ settled, planner }) =>
          settled &&
          planner.modes.size === this.agents.length - 1 &&
          [...planner.modes.values()].every((mode) => mode.path === path),
      )
    while (!isDone()) {
      assert.ok(
        performance.now() < end,
        JSON.stringify(this.agents.map((agent) => [agent.planner.transition, agent.applier.failures()])),
      )
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Takes everything back. */
  async close(): Promise<void> {
    for (const { applier, stop } of this.agents) {
      stop()
      applier.change([], [...applier.desired.sources()])
      await applier.settle()
      await applier.close()
    }
  }

  words(name: string): Pick<NodeInfo, 'lease' | 'weft'> {
    const { lease, weft } = this.#nodes.get(name) ?? {}
    return { ...(lease && { lease }), ...(weft && { weft }) }
  }

  write(node: TestNode, { lease, weft }: LeaseAnnouncement): void {
    const { name, uid, addresses, podCidrs } = node.info({ backendType: lease.backendType })
    setImmediate(() => {
      const info = {
        name,
        ...(uid && { uid }),
        addresses,
        podCidrs: podCidrs.slice(0, this.dualStack ? 2 : 1),
        lease,
        weft,
      }
      this.#nodes.set(name, info)
      for (const agent of this.agents) setImmediate(() => agent.hear(info))
    })
  }
}

/** Pings of so many a second; resolves when the first one is answered. */
export const startPing = (from: TestNode, to: string, perSecond = 1000): Promise<SteadyPing> =>
  SteadyPing.start(from.pod, to, '--icmp', '--rate', `${perSecond}`)

/** A TCP stream between two pods, at a rate in iperf3's words, that has to move something in every second. */
export function startStream(from: TestNode, to: TestNode, rate = '5M'): { end(): Promise<string | undefined> } {
  to.pod.run('iperf3 -s -1 -D')
  const flags = ['-J', '-l', '4K', '-b', rate, '-t', '600', '-c', to.podIp]
  const child = spawn('ip', ['netns', 'exec', from.pod.name, 'iperf3', ...flags], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let report = ''
  child.stdout.on('data', (chunk) => {
    report += chunk
  })
  return {
    /** Why it did not; undefined when it did. */
    async end() {
      child.kill('SIGINT')
      await once(child, 'close')
      const { intervals, error } = JSON.parse(report) as { intervals: { sum: { bytes: number } }[]; error?: string }
      const moved = intervals.length > 0 && intervals.every(({ sum }) => sum.bytes > 0)
      return moved ? undefined : `the connection stood still: ${error}`
    },
  }
}
