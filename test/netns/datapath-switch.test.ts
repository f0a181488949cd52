import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Drain } from '../../src/agent/drain.ts'
import { Planner } from '../../src/agent/planner.ts'
import { trafficReader } from '../../src/agent/traffic.ts'
import { Applier } from '../../src/apply/applier.ts'
import type { LeaseAnnouncement } from '../../src/cluster/cluster.ts'
import { parseNetConf } from '../../src/config/flannel/net-conf.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { NodeInfo } from '../../src/model/cluster.ts'
import { type TestNode, TestTopology } from './node-topology.ts'

/**
 * Three nodes on one subnet, each with the planner and applier of an agent, and a store in memory between them: node objects
 * whose changes reach everyone in one order, a turn of the event loop later.
 */
const topology = new TestTopology([1, 1, 1])

class Agent {
  readonly node: TestNode
  readonly applier: Applier
  readonly planner: Planner
  readonly #store: Store
  #turning = false
  #again = false
  #written = ''
  readonly #leaving: Drain
  readonly #arriving: Drain

  constructor(node: TestNode, store: Store) {
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
        EnableIPv6: true,
        IPv6Network: 'fd00:10:244::/48',
        IPv6SubnetLen: 64,
        Backend: backend,
      }),
    )
    this.planner.setNode(config, { ...this.node.context, ...this.#store.words(this.node.name) })
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

  stop(): void {
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

class Store {
  readonly agents: Agent[] = []
  readonly #nodes = new Map<string, NodeInfo>()

  words(name: string): Pick<NodeInfo, 'lease' | 'weft'> {
    const { lease, weft } = this.#nodes.get(name) ?? {}
    return { ...(lease && { lease }), ...(weft && { weft }) }
  }

  write(node: TestNode, { lease, weft }: LeaseAnnouncement): void {
    const { name, uid, addresses, podCidrs } = node.info({ backendType: lease.backendType })
    setImmediate(() => {
      const info = { name, ...(uid && { uid }), addresses, podCidrs, lease, weft }
      this.#nodes.set(name, info)
      for (const agent of this.agents) setImmediate(() => agent.hear(info))
    })
  }
}

const store = new Store()
after(async () => {
  for (const agent of store.agents) {
    const { applier } = agent
    agent.stop()
    applier.change([], [...applier.desired.sources()])
    await applier.settle()
    await applier.close()
  }
  topology.delete()
})

/** Waits until all agents are done; a look at every turn of the loop. */
async function settled(path: string): Promise<void> {
  const end = performance.now() + 60_000
  const isDone = () =>
    store.agents.every(
      (agent) =>
        agent.settled &&
        agent.planner.modes.size === 2 &&
        [...agent.planner.modes.values()].every((mode) => mode.path === path),
    )
  while (!isDone()) {
    assert.ok(
      performance.now() < end,
      JSON.stringify(store.agents.map((agent) => [agent.planner.transition, agent.applier.failures()])),
    )
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const podProgram = fileURLToPath(new URL('../../dist/native/weft-pod', import.meta.url))

/** A ping of 1 kHz; `end` waits for the last answers and tells what was lost. */
function startPing(from: TestNode, to: string): { end(): Promise<{ sent: number; lost: number }> } {
  const child: ChildProcess = spawn(
    'ip',
    ['netns', 'exec', from.pod.name, podProgram, 'ping1k', '--to', to, '--icmp', '--wait-ms', '10000'],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  let text = ''
  child.stdout!.on('data', (chunk) => {
    text += chunk
  })
  return {
    async end() {
      child.kill('SIGINT')
      await once(child, 'close')
      return JSON.parse(text) as { sent: number; lost: number }
    },
  }
}

test('a running network moves among all modes and loses nothing', async (t: TestContext) => {
  for (const node of topology.nodes) store.agents.push(new Agent(node, store))
  // All of them before the first: what one announces, the others hear at once.
  for (const agent of store.agents) await agent.applier.start()
  for (const agent of store.agents) agent.configure({ Type: 'vxlan' })
  await settled('vxlan/1/8472')
  const [n1, n2, n3] = topology.nodes as [TestNode, TestNode, TestNode]
  // What follows is about switching: let every pod and gateway know its neighbours first.
  for (const to of [n2.podIp, n3.podIp, n2.podIpv6, n3.podIpv6]) n1.pod.run(`ping -c 3 -i 0.1 -W 2 ${to}`)
  n2.pod.run('iperf3 -s -1 -D')
  const stream = spawn('ip', ['netns', 'exec', n1.pod.name, 'iperf3', '-J', '-b', '5M', '-t', '600', '-c', n2.podIp], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let report = ''
  const losses: number[] = []
  stream.stdout.on('data', (chunk) => {
    report += chunk
  })
  for (const [backend, path] of [
    [{ Type: 'host-gw' }, 'host-gw'],
    [{ Type: 'udp' }, 'udp/8285'],
    [{ Type: 'udp', Port: 8286 }, 'udp/8286'],
    [{ Type: 'vxlan', DirectRouting: true }, 'vxlan/1/8472'],
    [{ Type: 'udp' }, 'udp/8285'],
    [{ Type: 'vxlan', VNI: 9 }, 'vxlan/9/8472'],
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    // One device name, two ports: by way of another VNI.
    [{ Type: 'vxlan', Port: 4789 }, 'vxlan/1/4789'],
    [{ Type: 'vxlan', Port: 4790, GBP: true, DirectRouting: true }, 'vxlan/1/4790/gbp'],
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    [{ Type: 'host-gw' }, 'host-gw'],
  ] as const) {
    const pings = [n2.podIp, n2.podIpv6, n3.podIp].map((to) => startPing(n1, to))
    const start = performance.now()
    for (const agent of store.agents) agent.configure(backend)
    await settled(path)
    const took = performance.now() - start
    const counts = await Promise.all(pings.map((ping) => ping.end()))
    const lost = counts.map((count) => count.lost)
    t.diagnostic(`${JSON.stringify(backend)}: ${took.toFixed(0)} ms, lost ${lost} of ${counts.map(({ sent }) => sent)}`)
    losses.push(...lost)
  }
  stream.kill('SIGINT')
  await once(stream, 'close')
  const { intervals, error } = JSON.parse(report) as { intervals: { sum: { bytes: number } }[]; error?: string }
  assert.ok(intervals.length > 0 && intervals.every(({ sum }) => sum.bytes > 0), `the connection stood still: ${error}`)
  assert.ok(
    losses.every((lost) => lost === 0),
    `lost ${losses}`,
  )
  assert.equal(n1.namespace.run('ip -o link show type vxlan; ip -o link show type tun'), '')
})
