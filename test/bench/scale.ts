/**
 * What an agent costs on a large cluster: a real kube-apiserver with 2,000 nodes and 20,000 pods, one real agent of weft and one
 * real flanneld, each on a machine of its own, a namespace of this one.
 *
 *   ready   from the start of the process until every other node is routed to, in rounds that take turns, each on a fresh machine
 *   load    both at once, while 50 pods a second change and 2,000 kubelets report every five minutes: processor time
 *   idle    both at once and for twice as long, nothing changes: requests to the API server, by its audit log
 *
 * flanneld's processor time is with that of the programs that it ran (iptables, every few seconds).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Watch } from '../../src/kernel/kernel.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import { API_ADDRESS, ApiNetwork } from '../kubernetes/api-network.ts'
import type { TestNamespace } from '../netns/namespace.ts'
import { buildFlanneld } from '../peers/flanneld.ts'
import type { Bench, BenchResult } from './bench.ts'
import { LineProgram } from './line-program.ts'
import { addressOf, nodeNameOf, type ObjectsConnection, POD_NETWORK } from './scale/objects.ts'

const program = fileURLToPath(new URL('../../dist/weft.js', import.meta.url))
const netConfig = JSON.stringify({ Network: POD_NETWORK, Backend: { Type: 'vxlan' } })
const READY_TIMEOUT_MS = 120_000
const TICKS_A_SECOND = 100

type Contender = 'weft' | 'flanneld'
const contenders: readonly Contender[] = ['weft', 'flanneld']
/** Each has a node to itself. */
const indexOf: Readonly<Record<Contender, number>> = { weft: 0, flanneld: 1 }

interface Ready {
  /** subnet.env is written: pods can be given addresses. */
  readonly servesMs: number
  /** Every other node has its route. */
  readonly routedMs: number
}

/** An agent on a machine of its own. */
class Running {
  readonly machine: TestNamespace
  readonly #child: ChildProcess
  readonly #watch: Watch
  readonly #startedAt = performance.now()
  readonly #subnetFile: string
  /** Destinations that are routed to by the overlay's device. */
  readonly #routes = new Set<string>()
  #log = ''
  readonly #kill = () => {
    this.#child.kill('SIGKILL')
  }

  constructor(machine: TestNamespace, subnetFile: string, command: readonly string[], env: NodeJS.ProcessEnv) {
    this.machine = machine
    this.#subnetFile = subnetFile
    rmSync(subnetFile, { force: true })
    this.#watch = machine.kernel.watch(['route'], (event) => {
      if (event.type === 'resync') void this.#readRoutes()
      else if (event.type === 'new') this.#note(event.object)
    })
    this.#child = inNetns(machine.path, () =>
      spawn(command[0]!, command.slice(1), {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, ...env },
      }),
    )
    process.once('exit', this.#kill)
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (chunk) => {
        this.#log = (this.#log + chunk).slice(-4000)
      })
  }

  /** Resolves when it serves pods and has `peers` routes. */
  async ready(peers: number): Promise<Ready> {
    let servesMs: number | undefined
    for (;;) {
      const elapsed = performance.now() - this.#startedAt
      if (servesMs === undefined && existsSync(this.#subnetFile)) servesMs = elapsed
      if (servesMs !== undefined && this.#routes.size >= peers) return { servesMs, routedMs: elapsed }
      if (this.#child.exitCode !== null || elapsed > READY_TIMEOUT_MS)
        throw new Error(`not ready, ${this.#routes.size} of ${peers} routes:\n${this.#log}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  get rssMib(): number {
    return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(this.#proc('status'))![1]) / 1024)
  }

  /** Processor time so far, its ended children's included. */
  get cpuSeconds(): number {
    const fields = this.#proc('stat').split(') ')[1]!.split(' ')
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    return ticks / TICKS_A_SECOND
  }

  async stop(): Promise<void> {
    this.#watch.close()
    process.off('exit', this.#kill)
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await ended
  }

  #note(object: KernelObject): void {
    if (object.kind !== 'route') return
    const [hop] = object.hops
    if (hop?.device === 'flannel.1' && hop.via) this.#routes.add(`${object.destination}`)
  }

  /** What was told is incomplete. */
  async #readRoutes(): Promise<void> {
    for (const object of await this.machine.kernel.read('route')) this.#note(object)
  }

  #proc(file: string): string {
    return readFileSync(`/proc/${this.#child.pid}/${file}`, 'utf8')
  }
}

class Scale {
  readonly #network: ApiNetwork
  readonly #objects: LineProgram
  readonly #flanneld: string
  readonly #folder: string
  readonly #nodes: number

  private constructor(network: ApiNetwork, objects: LineProgram, flanneld: string, nodes: number) {
    this.#network = network
    this.#objects = objects
    this.#flanneld = flanneld
    this.#folder = network.api.folder
    this.#nodes = nodes
  }

  static async open(nodes: number, pods: number, flanneld: string): Promise<Scale> {
    const network = await ApiNetwork.start({ audited: contenders.map((name) => `bench:${name}`) })
    const { api, fabric } = network
    const master = { commonName: 'filler', organizations: ['system:masters'], usages: ['client'] } as const
    const etcd = 'http://127.0.0.1:2379'
    const connection: ObjectsConnection = {
      host: API_ADDRESS,
      port: 6443,
      etcd,
      ca: api.authority.cert,
      ...api.authority.issue(master),
    }
    writeFileSync(join(api.folder, 'filler.json'), JSON.stringify(connection), { mode: 0o600 })
    const file = fileURLToPath(new URL('scale/objects.ts', import.meta.url))
    const argv = [process.execPath, '--import', 'tsx', file, join(api.folder, 'filler.json')]
    const objects = new LineProgram('setpriv', ['--pdeathsig', 'KILL', 'nsenter', `--net=${fabric.path}`, ...argv])
    await api.client.request({
      method: 'POST',
      path: '/api/v1/namespaces',
      body: { metadata: { name: 'kube-flannel' } },
    })
    const data = { 'net-conf.json': netConfig }
    await api.client.request({
      method: 'POST',
      path: '/api/v1/namespaces/kube-flannel/configmaps',
      body: { metadata: { name: 'kube-flannel-cfg' }, data },
    })
    const scale = new Scale(network, objects, flanneld, nodes)
    console.log(
      `${nodes} nodes and ${pods} pods: ${(await scale.#ask(`fill ${nodes} ${pods} 2`)).seconds.toFixed(1)} s`,
    )
    return scale
  }

  start(name: Contender): Running {
    const { api } = this.#network
    const index = indexOf[name]
    const machine = this.#network.addMachine(addressOf(index))
    const folder = join(this.#folder, name)
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder)
    const who = { commonName: `bench:${name}`, organizations: ['system:masters'], usages: ['client'] } as const
    const kubeconfig = api.kubeconfig(who)
    const subnetFile = join(folder, 'subnet.env')
    if (name === 'flanneld') {
      writeFileSync(join(folder, 'net-conf.json'), netConfig)
      const flags = ['--kube-subnet-mgr', '--kubeconfig-file', kubeconfig, '--ip-masq', '--iface', 'eth0']
      flags.push('--net-config-path', join(folder, 'net-conf.json'), '--subnet-file', subnetFile)
      return new Running(machine, subnetFile, [this.#flanneld, ...flags], { NODE_NAME: nodeNameOf(index) })
    }
    const flags = ['--kubeconfig', kubeconfig, '--node-name', nodeNameOf(index), '--iface', 'eth0']
    flags.push('--run-dir', join(folder, 'run'), '--subnet-file', subnetFile, '--cni-bin-dir', '', '--cni-conf-dir', '')
    return new Running(
      machine,
      subnetFile,
      [process.execPath, '--max-semi-space-size=2', program, 'agent', ...flags],
      {},
    )
  }

  /** From a fresh machine to every other node routed to. */
  async round(name: Contender): Promise<Ready> {
    const running = this.start(name)
    try {
      // The other contender's node is not among them before its own first round.
      return await running.ready(this.#nodes - 2)
    } finally {
      await running.stop()
      this.#network.removeMachine(running.machine)
    }
  }

  churn(seconds: number, pods: number): Promise<{ readonly done: number; readonly seconds: number }> {
    return this.#ask(`churn 50 ${this.#nodes / 300} ${seconds} ${this.#nodes} ${pods}`)
  }

  /** How many requests of each kind it has made. */
  requests(name: Contender): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const { verb, uri } of this.#network.api.requests(`bench:${name}`)) {
      const what = `${verb} ${uri.split('?')[0]!.split('/').slice(3).join('/')}`
      counts[what] = (counts[what] ?? 0) + 1
    }
    return counts
  }

  async close(): Promise<void> {
    await this.#objects.end()
    await this.#network.close()
  }

  async #ask(line: string): Promise<{ readonly done: number; readonly seconds: number }> {
    this.#objects.write(line)
    return JSON.parse(await this.#objects.line())
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0)

type Each<T> = Record<Contender, T>
const each = <T>(make: (name: Contender) => T): Each<T> => ({ weft: make('weft'), flanneld: make('flanneld') })

async function run(args: readonly string[]): Promise<BenchResult> {
  if (!existsSync(program)) throw new Error('dist/weft.js is missing: npm run build')
  const missing = missingForKubernetes()
  const peer = buildFlanneld()
  if (missing || 'missing' in peer) throw new Error(missing ?? ('missing' in peer ? peer.missing : ''))
  const [nodes = 2000, pods = 20_000, rounds = 3, windowSeconds = 20] = args.map(Number)
  const scale = await Scale.open(nodes, pods, peer.program)
  try {
    const ready = each<Ready[]>(() => [])
    for (let round = 1; round <= rounds; round++) {
      for (const name of round % 2 ? contenders : [...contenders].reverse()) ready[name].push(await scale.round(name))
      const text = contenders.map((name) => `${name} ${readyText(ready[name].at(-1)!)}`)
      console.log(`round ${round}: ${text.join('; ')}`)
    }
    const running = each((name) => scale.start(name))
    try {
      for (const name of contenders) await running[name].ready(nodes - 2)
      const readings = await measure(scale, running, windowSeconds, pods)
      return result(ready, readings, { nodes, pods })
    } finally {
      for (const name of contenders) await running[name].stop()
    }
  } finally {
    await scale.close()
  }
}

interface Readings {
  readonly rssMib: Each<number>
  /** Per cent of one core. */
  readonly cpuLoad: Each<number>
  readonly cpuIdle: Each<number>
  readonly idleRequestsPerMinute: Each<number>
}

async function measure(scale: Scale, running: Each<Running>, seconds: number, pods: number): Promise<Readings> {
  const cpuOver = async (work: () => Promise<unknown>): Promise<Each<number>> => {
    const before = each((name) => running[name].cpuSeconds)
    const startedAt = performance.now()
    await work()
    const lasted = (performance.now() - startedAt) / 1000
    return each((name) => (100 * (running[name].cpuSeconds - before[name])) / lasted)
  }
  const idleSeconds = 2 * seconds
  // What a start leaves to be done later is no part of either.
  await new Promise((resolve) => setTimeout(resolve, 5000))
  const cpuLoad = await cpuOver(() => scale.churn(seconds, pods))
  const before = each((name) => scale.requests(name))
  const cpuIdle = await cpuOver(() => new Promise((resolve) => setTimeout(resolve, idleSeconds * 1000)))
  const after = each((name) => scale.requests(name))
  for (const name of contenders) {
    const asked = Object.entries(after[name]).map(([what, count]) => [what, count - (before[name][what] ?? 0)] as const)
    const text = asked.filter(([, count]) => count > 0).map(([what, count]) => `${count} × ${what}`)
    console.log(`${name} asked while idle: ${text.join(', ') || 'nothing'}`)
  }
  const idleRequestsPerMinute = each((name) => ((sum(after[name]) - sum(before[name])) * 60) / idleSeconds)
  return { rssMib: each((name) => running[name].rssMib), cpuLoad, cpuIdle, idleRequestsPerMinute }
}

const readyText = ({ routedMs, servesMs }: Ready): string =>
  `${routedMs.toFixed(0)} ms, pods served after ${servesMs.toFixed(0)} ms`

function result(ready: Each<Ready[]>, readings: Readings, size: { nodes: number; pods: number }): BenchResult {
  const routed = each((name) => ready[name].map(({ routedMs }) => routedMs))
  const ratios = routed.weft.map((ours, round) => ours / routed.flanneld[round]!)
  console.log(`\n                              ${contenders.map((name) => name.padStart(9)).join(' ')}`)
  const row = (what: string, values: Each<number>, digits = 0) =>
    console.log(`${what.padEnd(30)}${contenders.map((name) => values[name].toFixed(digits).padStart(9)).join(' ')}`)
  row(
    'all nodes routed to, ms',
    each((name) => median(routed[name])),
  )
  row(
    'pods served, ms',
    each((name) => median(ready[name].map(({ servesMs }) => servesMs))),
  )
  row('resident, MiB', readings.rssMib)
  row('processor under load, %', readings.cpuLoad, 1)
  row('processor idle, %', readings.cpuIdle, 1)
  row('requests a minute idle', readings.idleRequestsPerMinute, 1)
  const [ours, peer] = [median(routed.weft), median(routed.flanneld)]
  return {
    bench: 'scale',
    ours,
    peer,
    unit: 'ms',
    ratio: ours / peer,
    ratioSpread: [Math.min(...ratios), Math.max(...ratios)],
    ...size,
    servesMs: each((name) => median(ready[name].map(({ servesMs }) => servesMs))),
    ...readings,
  }
}

export const bench: Bench = {
  name: 'scale',
  describe:
    'one agent on a real API server with 2,000 nodes and 20,000 pods: time to ready, memory, processor, requests; flanneld',
  run,
}
