/**
 * `cni-add` and `cni-del`: the whole way from a runtime's exec of the plugin to its answer, against Debian's reference
 * bridge plugin with host-local. Each has a node namespace of its own with the same bridge and the same options; eight pods
 * of one side are made, one by one or at once, then eight of the other. What a side does after its answers is waited for
 * before the other's turn, and not within its own. The journal is on; the server is a process of its own.
 *
 *   npm run bench -- cni-add --wiring routed              pods routed as Calico's, addresses of the node's podCIDR
 *   npm run bench -- cni-add --wiring routed --pools kube-apiserver
 *                     addresses of a pool, whose blocks are in Kubernetes' own API server, which runs beside (or `memory`);
 *                     --spares 8: so many are kept ready
 *
 * Beside both stands the kernel's floor: the same netlink messages from one C program, without plugin, socket or journal.
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createNetns, deleteNetns } from '../../src/kernel/linux/netns.ts'
import { RealApiServer } from '../kubernetes/api-server.ts'
import { define } from '../netns/calico-api.ts'
import type { CniAgentConfig } from '../netns/cni-agent.ts'
import { bundleCniAgent } from '../netns/cni-bundle.ts'
import type { Bench, BenchResult } from './bench.ts'
import { LineProgram } from './line-program.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const here = fileURLToPath(new URL('.', import.meta.url))
const reference = '/usr/lib/cni/bridge'

/** Where the weft node reaches its API server. */
const apiAddress = '192.0.2.66'
const subnet = '10.66.0.0/16'
type Pools = 'memory' | 'kube-apiserver'

interface Pod {
  readonly container: string
  readonly netns: string
}

interface Side {
  readonly name: 'weft' | 'reference'
  readonly plugin: string
  readonly config: string
  readonly runner: LineProgram
  readonly pods: readonly Pod[]
}

/** Microseconds of each pod and of the whole batch. */
interface BatchTimes {
  readonly each: readonly number[]
  readonly whole: number
}

async function perform(
  { plugin, config, runner }: Side,
  command: 'ADD' | 'DEL',
  pods: readonly Pod[],
): Promise<BatchTimes> {
  for (const { container, netns } of pods) runner.write(`job ${plugin} ${command} ${container} ${netns} ${config}`)
  runner.write('go')
  const each: number[] = []
  for (;;) {
    const [word, code, microseconds] = (await runner.line()).split(' ')
    if (word === 'done') return { each, whole: Number(code) }
    if (code !== '0') throw new Error(`${plugin} ${command} of ${word} exited with ${code}`)
    each.push(Number(microseconds))
  }
}

export const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
}

/** Both nodes, their pods, the server and the runners; `close` takes everything away. */
class Stage {
  readonly sides: readonly Side[]
  readonly server: LineProgram
  readonly folder: string
  readonly floorProgram: string
  readonly floorNode: string
  readonly floorPods: readonly string[]
  readonly #spaces: string[] = []

  /** Kubernetes' API server, where addresses are of pools. */
  readonly #api: RealApiServer | undefined

  /** Undefined pools: addresses of the node's podCIDR. */
  static async open(
    podCount: number,
    folder: string,
    routed: boolean,
    pools: Pools | undefined,
    spareAddresses: number,
  ): Promise<Stage> {
    const node = `/run/netns/weft-test-${process.pid}-node-weft`
    createNetns(node)
    execFileSync('ip', ['-n', basename(node), 'link', 'set', 'lo', 'up'])
    const agent = await bundleCniAgent(folder)
    if (pools !== 'kube-apiserver') {
      const settings = routed ? { ...(pools ? { pools: [subnet], spareAddresses } : {}) } : undefined
      return new Stage(podCount, folder, agent, node, settings)
    }
    execFileSync('ip', ['-n', basename(node), 'addr', 'add', `${apiAddress}/32`, 'dev', 'lo'])
    const api = await RealApiServer.start({ place: { netns: node, address: apiAddress } })
    await define(api.client)
    const settings = { pools: [subnet], spareAddresses, kubeconfig: api.kubeconfig() }
    return new Stage(podCount, folder, agent, node, settings, api)
  }

  private constructor(
    podCount: number,
    folder: string,
    agent: string,
    node: string,
    routed: CniAgentConfig['routed'],
    api?: RealApiServer,
  ) {
    this.folder = folder
    this.#api = api
    this.#spaces.push(node)
    const compile = (name: string): string => {
      const program = join(this.folder, name)
      execFileSync('gcc', ['-O2', '-Wall', '-o', program, join(here, `${name}.c`)], { stdio: 'inherit' })
      return program
    }
    const exec = compile('cni-exec')
    this.floorProgram = compile('cni-floor')
    const others = (['reference', 'floor'] as const).map((name) => this.#space(`node-${name}`))
    const nodes = [node, ...others]
    const podsOf = (name: string): Pod[] =>
      Array.from({ length: podCount }, (_, n) => ({ container: `${name}-${n}`, netns: this.#space(`${name}-${n}`) }))
    const [runDir, binDir] = [join(this.folder, 'run'), join(this.folder, 'bin')]
    mkdirSync(runDir)
    const config = {
      runDir,
      binDir,
      shimPath: join(root, 'dist/native/weft-cni'),
      podCidrs: [subnet],
      clusterNetworks: ['10.64.0.0/12'],
      mtuBytes: 1450,
      ...(routed ? { routed } : {}),
    }
    const inside = (node: number, ...command: string[]) => ['netns', 'exec', nodes[node]!.split('/').pop()!, ...command]
    this.server = new LineProgram('ip', inside(0, process.execPath, agent, JSON.stringify(config)))
    const weft = { cniVersion: '1.0.0', name: 'weft', type: 'weft' }
    this.sides = [
      {
        name: 'weft',
        plugin: join(binDir, 'weft'),
        config: this.#file('weft.json', weft),
        runner: new LineProgram('ip', inside(0, exec)),
        pods: podsOf('weft'),
      },
      {
        name: 'reference',
        plugin: reference,
        config: this.#file('reference.json', referenceConfig(join(this.folder, 'host-local'))),
        runner: new LineProgram('ip', inside(1, exec)),
        pods: podsOf('reference'),
      },
    ]
    this.floorNode = nodes[2]!
    this.floorPods = podsOf('floor').map(({ netns }) => netns)
  }

  #space(name: string): string {
    const path = `/run/netns/weft-test-${process.pid}-${name}`
    createNetns(path)
    this.#spaces.push(path)
    return path
  }

  #file(name: string, content: object): string {
    const path = join(this.folder, name)
    writeFileSync(path, JSON.stringify(content))
    return path
  }

  async ready(): Promise<void> {
    await this.server.line()
  }

  /** Nothing of what weft was asked goes on. */
  async settle(): Promise<void> {
    this.server.write('{"settle":true}')
    await this.server.line()
  }

  /** Median microseconds of the floor's ADD, of its cutting off, and of a deletion waited for. */
  floor(): { add: number; cutOff: number; remove: number } {
    const name = this.floorNode.split('/').pop()!
    const out = execFileSync('ip', ['netns', 'exec', name, this.floorProgram, ...this.floorPods], { encoding: 'utf8' })
    const rows = out
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number))
    const median = (column: number) =>
      quantile(
        rows.map((row) => row[column]!),
        0.5,
      )
    return { add: median(0), cutOff: median(1), remove: median(2) }
  }

  async close(): Promise<void> {
    for (const { runner } of this.sides) await runner.end()
    await this.server.end()
    await this.#api?.close()
    for (const path of this.#spaces) deleteNetns(path)
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const referenceConfig = (dataDir: string): object => ({
  cniVersion: '1.0.0',
  name: 'reference',
  type: 'bridge',
  bridge: 'cni0',
  isGateway: true,
  isDefaultGateway: true,
  hairpinMode: true,
  mtu: 1450,
  ipam: {
    type: 'host-local',
    dataDir,
    ranges: [[{ subnet }]],
    routes: [{ dst: '10.64.0.0/12' }],
  },
})

/** Pods of one side's turn. */
const GROUP = 8

interface Figures {
  readonly sequential: number[]
  readonly eight: number[]
}

const milliseconds = (microseconds: number): string => (microseconds / 1000).toFixed(2)

/** ADD and DEL of every pod on both sides, one by one and eight by eight, `rounds` times. */
async function measure(stage: Stage, rounds: number): Promise<Record<'ADD' | 'DEL', Map<string, Figures>>> {
  const figures = () =>
    new Map(stage.sides.map(({ name }) => [name as string, { sequential: [], eight: [] } as Figures]))
  const out = { ADD: figures(), DEL: figures() }
  const count = stage.sides[0]!.pods.length
  for (let round = 0; round < rounds; round++) {
    for (const [size, into] of [
      [1, 'sequential'],
      [GROUP, 'eight'],
    ] as const)
      for (const command of ['ADD', 'DEL'] as const)
        for (let at = 0; at < count; at += GROUP)
          for (const side of (at / GROUP) % 2 ? stage.sides : [...stage.sides].reverse()) {
            for (let first = at; first < Math.min(at + GROUP, count); first += size) {
              const times = await perform(side, command, side.pods.slice(first, Math.min(first + size, count)))
              // Eight at once: what a pod costs of the batch.
              out[command].get(side.name)![into].push(size === 1 ? times.each[0]! : times.whole / times.each.length)
            }
            await stage.settle()
          }
  }
  return out
}

function table(title: string, figures: Map<string, Figures>, floor: readonly [string, number][]): void {
  console.log(`\n${title}, milliseconds a pod (median, p90)`)
  for (const [name, { sequential, eight }] of figures)
    console.log(
      `  ${name.padEnd(28)} one by one ${milliseconds(quantile(sequential, 0.5)).padStart(7)} ${milliseconds(quantile(sequential, 0.9)).padStart(7)}   eight at once ${milliseconds(quantile(eight, 0.5)).padStart(7)} ${milliseconds(quantile(eight, 0.9)).padStart(7)}`,
    )
  for (const [name, microseconds] of floor)
    console.log(`  ${name.padEnd(28)} one by one ${milliseconds(microseconds).padStart(7)}`)
}

function resultOf(bench: string, figures: Map<string, Figures>, more: object): BenchResult {
  const median = (name: string, key: keyof Figures) => quantile(figures.get(name)![key], 0.5) / 1000
  const [ours, peer] = [median('weft', 'sequential'), median('reference', 'sequential')]
  const [oursEight, peerEight] = [median('weft', 'eight'), median('reference', 'eight')]
  return {
    bench,
    ours,
    peer,
    unit: 'ms',
    ratio: ours / peer,
    oursEightAtOnce: oursEight,
    peerEightAtOnce: peerEight,
    ratioEightAtOnce: oursEight / peerEight,
    ...more,
  }
}

async function onStage<T>(args: readonly string[], run: (stage: Stage, rounds: number) => Promise<T>): Promise<T> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: {
      wiring: { type: 'string', default: 'bridge' },
      pools: { type: 'string' },
      spares: { type: 'string', default: '8' },
    },
    allowPositionals: true,
  })
  const { wiring, pools, spares } = values
  if (wiring !== 'bridge' && wiring !== 'routed') throw new Error('--wiring: bridge or routed')
  if (pools !== undefined && pools !== 'memory' && pools !== 'kube-apiserver')
    throw new Error('--pools: memory or kube-apiserver')
  if (pools && wiring === 'bridge') throw new Error('--pools: for --wiring routed')
  const [count, rounds] = [Number(positionals[0] ?? 40), Number(positionals[1] ?? 3)]
  const folder = mkdtempSync(join(tmpdir(), 'weft-bench-'))
  const stage = await Stage.open(count, folder, wiring === 'routed', pools, Number(spares))
  try {
    await stage.ready()
    return await run(stage, rounds)
  } finally {
    await stage.close()
  }
}

/** Forty DELs at once, `rounds` times: milliseconds a pod, and the longest that the server's event loop stood. */
async function burst(stage: Stage, rounds: number): Promise<{ perPod: number; lag: number }> {
  const side = stage.sides[0]!
  const [perPod, lag]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    for (let at = 0; at < side.pods.length; at += 8) await perform(side, 'ADD', side.pods.slice(at, at + 8))
    stage.server.write('{"lag":"begin"}')
    await stage.server.line()
    perPod.push((await perform(side, 'DEL', side.pods)).whole / side.pods.length / 1000)
    stage.server.write('{"lag":"end"}')
    lag.push((JSON.parse(await stage.server.line()) as { lagMilliseconds: number }).lagMilliseconds)
  }
  return { perPod: quantile(perPod, 0.5), lag: quantile(lag, 0.5) }
}

export const benches: readonly Bench[] = [
  {
    name: 'cni-add',
    describe:
      'CNI ADD from exec to answer, against the reference bridge + host-local [pods 40] [rounds 3] [--wiring routed [--pools kube-apiserver]]',
    run: (args) =>
      onStage(args, async (stage, rounds) => {
        const { ADD } = await measure(stage, rounds)
        const { add } = stage.floor()
        table('ADD', ADD, [['kernel floor (C, no plugin)', add]])
        return resultOf('cni-add', ADD, { floor: add / 1000 })
      }),
  },
  {
    name: 'cni-del',
    describe:
      'CNI DEL from exec to answer, against the reference; forty at once; event-loop lag [pods 40] [rounds 3] [--wiring routed [--pools kube-apiserver]]',
    run: (args) =>
      onStage(args, async (stage, rounds) => {
        const { DEL } = await measure(stage, rounds)
        const { cutOff, remove } = stage.floor()
        const { perPod, lag } = await burst(stage, rounds)
        table('DEL', DEL, [
          ['kernel floor (cut off)', cutOff],
          ['kernel floor (deleted)', remove],
        ])
        const pods = stage.sides[0]!.pods.length
        console.log(`  ${pods} at once: ${perPod.toFixed(2)} ms a pod, event-loop lag ${lag.toFixed(2)} ms`)
        return resultOf('cni-del', DEL, {
          floorCutOff: cutOff / 1000,
          floorDeleted: remove / 1000,
          atOnce: pods,
          atOncePerPod: perPod,
          lagMilliseconds: lag,
        })
      }),
  },
]
