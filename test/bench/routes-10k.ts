/**
 * `npm run bench -- routes-10k [--nodes N] [--blocks B] [--rounds R] [--changes C] [--no-agent]`: a node that knows N other nodes with B
 * blocks each (1,000 × 10), against bird2's kernel protocol, which programs Calico's plain routes, with as many routes. Ours
 * is what the agent does with a watch's events: planner and applier, into a namespace, for a plain pool and for a VXLAN one
 * (a neighbour and a forwarding entry for each node more).
 *
 *   load     all nodes and blocks known, to the last route in the kernel and every message about it compared
 *   change   one block changes hands: from the event to the kernel having told of the route; median and 99th percentile
 *   node     one node says another address: its ten blocks follow
 *   memory   what the process has more than before, collected
 *
 * Then once a real agent against the lab's API server (routes-agent.ts): its load from the start of its process, its changes
 * from the API server's answer to the kernel, the memory that it reports.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { PoolPlanner } from '../../src/agent/pool-planner.ts'
import { Applier } from '../../src/apply/applier.ts'
import { defaultFelixSettings } from '../../src/config/calico/felix.ts'
import type { BlockRoutes, IpPool } from '../../src/model/calico.ts'
import type { NodeInfo } from '../../src/model/cluster.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from '../netns/namespace.ts'
import { testPool } from '../netns/pool-cluster.ts'
import type { Bench, BenchResult } from './bench.ts'
import { measureBird, median, spread } from './routes.ts'
import { measureAgent } from './routes-agent.ts'

const POOL = Ip.parse('20.0.0.0')
const NODES = Ip.parse('10.0.0.2')
const paths = ['calico/plain', 'calico/vxlan/4096/4789']

const blockOf = (i: number): Cidr => Cidr.of(POOL.plus(i * 64), 26)

const routesOf = (i: number, node: number): BlockRoutes => ({ cidr: blockOf(i), node: `n${node}`, borrowed: [] })

const peerOf = (n: number, firstBlock: number, shift = 0): NodeInfo => ({
  name: `n${n}`,
  addresses: [],
  podCidrs: [],
  calico: {
    ipv4: { ip: NODES.plus(n + shift), prefixLength: 16 },
    ipv4VxlanTunnelAddr: blockOf(firstBlock).base,
  },
  weft: { accepts: paths, sends: [] },
})

interface Reading {
  readonly load: number
  readonly changes: readonly number[]
  readonly node: number
  readonly memoryMiB: number
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function usedBytes(): number {
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

async function measure(mode: Partial<IpPool>, nodes: number, blocks: number, changes: number): Promise<Reading> {
  const netns = new TestNamespace()
  netns.run(
    'ip link add eth0 type veth peer name v1; ip link set v1 up; ip address add 10.0.0.1/16 dev eth0; ip link set eth0 up',
  )
  const before = usedBytes()
  const applier = new Applier(netns.kernel)
  const planner = new PoolPlanner({ nodeName: 'n-self', fullyRandom: true }, (source) => applier.inPlace(source))
  /** As the agent's loop: until nothing is left to be said or done. */
  const follow = async (): Promise<void> => {
    for (;;) {
      const { set, removed } = planner.plan()
      if (set.length + removed.length > 0) applier.change(set, removed)
      await applier.settle()
      const said = planner.announcement()
      const isNews = said && JSON.stringify(said) !== announced
      if (!isNews && set.length + removed.length === 0) return
      if (!isNews) continue
      announced = JSON.stringify(said)
      planner.setAnnounced(said.weft)
    }
  }
  let announced = ''
  try {
    await applier.start()
    applier.markComplete()
    planner.setFelix(defaultFelixSettings)
    planner.setPool(testPool('pool', '20.0.0.0/8', mode))
    planner.setNode({
      name: 'n-self',
      podCidrs: [],
      external: {
        device: 'eth0',
        mtuBytes: 1500,
        addresses: [{ ip: Ip.parse('10.0.0.1'), prefixLength: 16 }],
      },
      calico: {
        ipv4: { ip: Ip.parse('10.0.0.1'), prefixLength: 16 },
        ipv4VxlanTunnelAddr: Ip.parse('20.255.0.0'),
      },
    })
    const start = performance.now()
    for (let n = 0; n < nodes; n++) planner.setPeer(peerOf(n, n * blocks))
    for (let i = 0; i < nodes * blocks; i++) planner.setRoutes(routesOf(i, Math.floor(i / blocks)))
    await follow()
    const load = performance.now() - start
    const memoryMiB = (usedBytes() - before) / 2 ** 20
    const took: number[] = []
    for (let i = 0; i < changes; i++) {
      const at = (i * 7919) % (nodes * blocks)
      const begin = performance.now()
      planner.setRoutes(routesOf(at, (Math.floor(at / blocks) + 1) % nodes))
      await follow()
      took.push(performance.now() - begin)
    }
    const begin = performance.now()
    planner.setPeer(peerOf(1, blocks, nodes))
    await follow()
    const node = performance.now() - begin
    if (applier.failures().length > 0) throw applier.failures()[0]!.error
    const count = Number(netns.run("ip -4 route show proto 119 | grep -c 'via '"))
    if (count !== nodes * blocks) throw new Error(`${count} routes in the kernel instead of ${nodes * blocks}`)
    return { load, changes: took, node, memoryMiB }
  } finally {
    await applier.close()
    netns.delete()
  }
}

const percentile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))]!

export const bench: Bench = {
  name: 'routes-10k',
  describe: '10,000 blocks of 1,000 nodes: memory, time to program, time of one change, against bird2',
  async run(args): Promise<BenchResult> {
    const { values } = parseArgs({
      args: [...args],
      options: {
        nodes: { type: 'string', default: '1000' },
        blocks: { type: 'string', default: '10' },
        rounds: { type: 'string', default: '5' },
        changes: { type: 'string', default: '100' },
        'no-agent': { type: 'boolean', default: false },
      },
    })
    const [nodes, blocks, changes] = [Number(values.nodes), Number(values.blocks), Number(values.changes)]
    const folder = mkdtempSync(join(tmpdir(), 'weft-bench-'))
    const [plain, vxlan, bird]: [Reading[], Reading[], { load: number; change: number }[]] = [[], [], []]
    try {
      await measure({}, 100, blocks, 10)
      for (let round = 0; round < Number(values.rounds); round++) {
        plain.push(await measure({}, nodes, blocks, changes))
        bird.push(await measureBird(nodes * blocks, folder))
        vxlan.push(await measure({ vxlanMode: 'Always' }, nodes, blocks, changes))
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    console.log(`${nodes} nodes, ${nodes * blocks} blocks; ms, median (range) of ${plain.length} interleaved rounds`)
    console.log(
      `${''.padEnd(14)} ${'load'.padEnd(26)} ${'change, median'.padEnd(20)} ${'99th'.padEnd(20)} ${'a node'.padEnd(20)} MiB`,
    )
    const row = (name: string, readings: readonly Reading[]) => {
      const cells = [
        spread(readings.map(({ load }) => load)).padEnd(26),
        spread(readings.map((reading) => median(reading.changes))).padEnd(20),
        spread(readings.map((reading) => percentile(reading.changes, 0.99))).padEnd(20),
        spread(readings.map(({ node }) => node)).padEnd(20),
        spread(readings.map(({ memoryMiB }) => memoryMiB)),
      ]
      console.log(`${name.padEnd(14)} ${cells.join(' ')}`)
    }
    row('weft, plain', plain)
    row('weft, vxlan', vxlan)
    console.log(
      `${'bird, plain'.padEnd(14)} ${spread(bird.map(({ load }) => load)).padEnd(26)} ${spread(bird.map(({ change }) => change))}`,
    )
    const agent = values['no-agent'] ? undefined : await measureAgent(nodes, blocks, changes)
    if (agent) {
      const [middle, late] = [median(agent.changesMs), percentile(agent.changesMs, 0.99)]
      console.log(
        `agent, vxlan   ${agent.loadMs.toFixed(0)} from its start; change ${middle.toFixed(1)}, 99th ${late.toFixed(1)}; heap ${agent.heapMiB.toFixed(0)} MiB, resident ${agent.residentMiB.toFixed(0)} MiB`,
      )
    }
    const ratios = plain.map((reading, i) => median(reading.changes) / bird[i]!.change)
    console.log(`one change, weft ÷ bird: ${spread(ratios.map((ratio) => ratio * 100))} %`)
    return {
      bench: 'routes-10k',
      ours: median(plain.map((reading) => median(reading.changes))),
      peer: median(bird.map(({ change }) => change)),
      unit: 'ms',
      ratio: median(ratios),
      nodes,
      blocks: nodes * blocks,
      loadMs: median(plain.map(({ load }) => load)),
      birdLoadMs: median(bird.map(({ load }) => load)),
      change99Ms: median(plain.map((reading) => percentile(reading.changes, 0.99))),
      nodeMs: median(plain.map(({ node }) => node)),
      memoryMiB: median(plain.map(({ memoryMiB }) => memoryMiB)),
      vxlanLoadMs: median(vxlan.map(({ load }) => load)),
      vxlanChangeMs: median(vxlan.map((reading) => median(reading.changes))),
      vxlanChange99Ms: median(vxlan.map((reading) => percentile(reading.changes, 0.99))),
      vxlanMemoryMiB: median(vxlan.map(({ memoryMiB }) => memoryMiB)),
      ...(agent && {
        agentLoadMs: agent.loadMs,
        agentChangeMs: median(agent.changesMs),
        agentChange99Ms: percentile(agent.changesMs, 0.99),
        agentHeapMiB: agent.heapMiB,
        agentResidentMiB: agent.residentMiB,
      }),
    }
  },
}
