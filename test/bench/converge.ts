/**
 * How fast an agent joins a large cluster, and what a newcomer costs it: the embedded API server holds a thousand nodes that
 * announced VXLAN; one real agent in a namespace lists, plans and programs them. Then one more node joins.
 *
 * The peer is what an administrator's tools take for the very same kernel objects, their text ready: `ip -batch` (routes,
 * neighbours), `bridge -batch` (forwarding entries), `nft -f` (elements). They know no API server and no planning.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MemoryJournal } from '../../src/cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../src/cluster/embedded/store.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { KubeObject } from '../../src/lab/api/interfaces.ts'
import { writeKubeconfig } from '../../src/lab/api/kubeconfig.ts'
import { ApiServer } from '../../src/lab/api/server.ts'
import { listenIn } from '../../src/lab/connect.ts'
import { TestNamespace } from '../netns/namespace.ts'
import type { Bench, BenchResult } from './bench.ts'

const program = fileURLToPath(new URL('../../dist/weft.js', import.meta.url))
const PORT = 6443

/** Node objects as a cluster of flannel nodes on one subnet of 65,000 hosts has them. */
function nodeOf(index: number): KubeObject {
  const [high, low] = [index >> 8, index & 255]
  const hex = (value: number) => value.toString(16).padStart(2, '0')
  const lease = {
    'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
    'flannel.alpha.coreos.com/backend-type': 'vxlan',
    'flannel.alpha.coreos.com/backend-data': JSON.stringify({
      VNI: 1,
      VtepMAC: `0e:00:00:00:${hex(high)}:${hex(low)}`,
    }),
    'flannel.alpha.coreos.com/public-ip': `172.30.${high}.${low}`,
  }
  const podCIDR = `10.${128 + high}.${low}.0/24`
  return {
    metadata: { name: `node-${index}`, ...(index > 1 ? { annotations: lease } : {}) },
    spec: { podCIDR, podCIDRs: [podCIDR] },
    status: {
      addresses: [{ type: 'InternalIP', address: `172.30.${high}.${low}` }],
      // The bulk of a real Node object, which a client must not keep.
      images: Array.from({ length: 30 }, (_, i) => ({
        names: [`registry.example/image-${i}@sha256:${'0'.repeat(64)}`],
        sizeBytes: i,
      })),
    },
  }
}

interface Reading {
  readonly listToProgrammedMs: number
  readonly rssMib: number
  readonly joinMs: number
  readonly joinMessages: readonly string[]
}

class Converge {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-bench-'))
  readonly namespace = new TestNamespace()
  readonly #api: ApiServer
  #agent: ChildProcess | undefined

  private constructor(api: ApiServer) {
    this.#api = api
  }

  static async open(nodes: number): Promise<Converge> {
    const store = await ObjectStore.open(new MemoryJournal())
    const tokens = new Map([['bench', { user: 'admin', groups: ['system:masters'] }]])
    const bench = new Converge(new ApiServer({ store, tokens }))
    bench.namespace.run('ip link add eth0 type dummy 2>/dev/null || ip link add eth0 type veth peer name eth0-far')
    bench.namespace.run(
      'ip link set eth0-far up 2>/dev/null; ip address add 172.30.0.1/16 dev eth0 && ip link set eth0 up',
    )
    await bench.#api.listenOn(listenIn(bench.namespace.path, PORT))
    const { client } = bench.#api
    await client.create('namespaces', { metadata: { name: 'kube-flannel' } })
    const netConfig = JSON.stringify({ Network: '10.128.0.0/9', Backend: { Type: 'vxlan' } })
    await client.create('configmaps', {
      metadata: { name: 'kube-flannel-cfg', namespace: 'kube-flannel' },
      data: { 'net-conf.json': netConfig },
    })
    for (let index = 1; index <= nodes; index++) await bench.join(index)
    return bench
  }

  async join(index: number): Promise<void> {
    const node = nodeOf(index)
    await this.#api.client.create('nodes', node)
    await this.#api.client.patch(
      'nodes',
      { name: node.metadata.name! },
      { status: node.status },
      { subresource: 'status' },
    )
  }

  /** Starts the agent and reads what it takes until all of `nodes` are programmed, and then for one more. */
  async measure(nodes: number): Promise<Reading> {
    this.#start({})
    await this.#programmed(nodes)
    const programmedAt = this.#lastReport()
    const listToProgrammedMs = programmedAt - this.#timeOf('external interface')
    const rssMib = this.#rss()
    await this.#stop()
    // Once more, now showing its conversation with the kernel, for the newcomer alone.
    this.#start({ WEFT_NLDEBUG: '1' })
    await this.#until(() => /pods can be served/.test(this.#log()))
    // The first change of sets after a start makes the watch learn their types, once.
    await this.join(nodes + 2)
    await this.#quiet()
    const from = this.#log().length
    const startedAt = performance.now()
    await this.join(nodes + 1)
    const high = (nodes + 1) >> 8
    const subnet = `10.${128 + high}.${(nodes + 1) & 255}.0/24`
    await this.#until(() => this.namespace.run(`ip route show ${subnet}`) !== '')
    const joinMs = performance.now() - startedAt
    await this.#quiet()
    const joinMessages = sentMessages(this.#log().slice(from))
    await this.#stop()
    return { listToProgrammedMs, rssMib, joinMs, joinMessages }
  }

  async close(): Promise<void> {
    await this.#stop()
    await this.#api.close()
    this.namespace.delete()
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Commands that make what the agent made, as the tools print it. */
  peerBatches(): { readonly ip: string; readonly bridge: string; readonly nft: string } {
    const routes = this.namespace
      .json('ip -j route show proto 119')
      .map(({ dst, gateway }) => `route add ${dst} via ${gateway} dev flannel.1 onlink proto 119`)
    const neighbours = this.namespace
      .json('ip -j neigh show dev flannel.1 nud permanent')
      .map(({ dst, lladdr }) => `neigh add ${dst} lladdr ${lladdr} dev flannel.1 nud permanent`)
    const entries = this.namespace
      .json<Record<string, unknown>[]>('bridge -j fdb show dev flannel.1')
      .filter(({ dst }) => dst)
      .map(({ mac, dst }) => `fdb add ${mac} dev flannel.1 dst ${dst} self permanent`)
    return {
      ip: `${[...routes, ...neighbours].join('\n')}\n`,
      bridge: `${entries.join('\n')}\n`,
      nft: this.namespace.run('nft list set inet weft origins4'),
    }
  }

  #start(env: Record<string, string>): void {
    const run = join(this.folder, 'run')
    mkdirSync(run, { recursive: true })
    rmSync(join(this.folder, 'log'), { force: true })
    writeKubeconfig(join(this.folder, 'kubeconfig'), { server: `http://172.30.0.1:${PORT}`, token: 'bench' })
    const flags = [
      '--kubeconfig',
      join(this.folder, 'kubeconfig'),
      '--node-name',
      'node-1',
      '--run-dir',
      run,
      '--iface',
      'eth0',
    ]
    const dirs = ['--cni-bin-dir', '', '--cni-conf-dir', '', '--log-level', 'debug']
    const child = inNetns(this.namespace.path, () =>
      spawn(process.execPath, ['--max-semi-space-size=2', program, 'agent', ...flags, ...dirs], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, ...env },
      }),
    )
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk) => writeFileSync(join(this.folder, 'log'), chunk, { flag: 'a' }))
    this.#agent = child
  }

  async #stop(): Promise<void> {
    const child = this.#agent
    this.#agent = undefined
    if (!child || child.exitCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }

  #log(): string {
    const path = join(this.folder, 'log')
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  #timeOf(message: string): number {
    const line = this.#log()
      .split('\n')
      .find((text) => text.includes(`"msg":"${message}"`))
    return Date.parse(JSON.parse(line!).time)
  }

  #lastReport(): number {
    const lines = this.#log()
      .split('\n')
      .filter((text) => text.includes('"msg":"programmed"'))
    return Date.parse(JSON.parse(lines.at(-1)!).time)
  }

  #count(what: 'route' | 'neigh' | 'fdb'): number {
    const command = {
      route: 'ip -o route show proto 119',
      neigh: 'ip -o neigh show dev flannel.1 nud permanent',
      fdb: 'bridge fdb show dev flannel.1',
    }
    try {
      return this.namespace.run(command[what]).split('\n').length - 1
    } catch {
      return 0
    }
  }

  /** Looks at the kernel only when the agent has been silent for a while: looking takes time from the API server here. */
  async #programmed(nodes: number): Promise<void> {
    await this.#until(() => /"msg":"announcing"/.test(this.#log()))
    do await this.#quiet()
    while ((['route', 'fdb', 'neigh'] as const).some((what) => this.#count(what) < nodes - 1))
  }

  #rss(): number {
    const status = readFileSync(`/proc/${this.#agent!.pid}/status`, 'utf8')
    return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024)
  }

  /** Until the log has not grown for a second. */
  async #quiet(): Promise<void> {
    let size = -1
    for (;;) {
      const now = this.#log().length
      if (now === size) return
      size = now
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
  }

  async #until(done: () => boolean): Promise<void> {
    const deadline = performance.now() + 120_000
    while (!done()) {
      if (performance.now() > deadline || this.#agent?.exitCode !== null)
        throw new Error(`the agent did not get there:\n${this.#log().slice(-3000)}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

/** Netlink messages that the agent sent, one line each, from its debug text. */
function sentMessages(text: string): string[] {
  return text.split('\n').filter((line) => /^nl \S+ > /.test(line))
}

/**
 * nfnetlink takes changes between a begin and an end message only. The two name no object and are told apart: they come
 * with any change of a set, be it of one element or of a thousand.
 */
const isFrame = (line: string): boolean => /NFNL_MSG_BATCH_(BEGIN|END)/.test(line)

const objectMessages = ({ joinMessages }: Reading): number => joinMessages.filter((line) => !isFrame(line)).length
const frames = ({ joinMessages }: Reading): number => joinMessages.filter(isFrame).length

function runPeer(
  batches: { readonly ip: string; readonly bridge: string; readonly nft: string },
  folder: string,
): number {
  const namespace = new TestNamespace()
  try {
    namespace.run(
      'ip link add eth0 type veth peer name eth0-far && ip link set eth0-far up && ip address add 172.30.0.1/16 dev eth0 && ip link set eth0 up',
    )
    namespace.run(
      'ip link add flannel.1 type vxlan id 1 dev eth0 local 172.30.0.1 dstport 8472 nolearning && ip link set flannel.1 up',
    )
    for (const [name, text] of Object.entries(batches)) writeFileSync(join(folder, name), text)
    const run = (command: string) =>
      execFileSync('ip', ['netns', 'exec', namespace.name, ...command.split(' ')], { stdio: 'pipe' })
    const started = performance.now()
    run(`ip -batch ${join(folder, 'ip')}`)
    run(`bridge -batch ${join(folder, 'bridge')}`)
    run(`nft -f ${join(folder, 'nft')}`)
    return performance.now() - started
  } finally {
    namespace.delete()
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

async function run(args: readonly string[]): Promise<BenchResult> {
  if (!existsSync(program)) throw new Error('dist/weft.js is missing: npm run build')
  const nodes = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 1000)
  const rounds = args.includes('--quick') ? 1 : 3
  const readings: Reading[] = []
  const peers: number[] = []
  for (let round = 0; round < rounds; round++) {
    const bench = await Converge.open(nodes)
    try {
      readings.push(await bench.measure(nodes))
      peers.push(runPeer(bench.peerBatches(), bench.folder))
    } finally {
      await bench.close()
    }
    const reading = readings.at(-1)!
    const { listToProgrammedMs, rssMib, joinMs } = reading
    console.log(
      `round ${round + 1}: ${nodes} nodes listed, planned and programmed in ${listToProgrammedMs} ms, ${rssMib} MiB; ` +
        `one joins in ${joinMs.toFixed(1)} ms with ${objectMessages(reading)} messages and ${frames(reading)} of a batch's frame; tools: ${peers.at(-1)!.toFixed(0)} ms`,
    )
  }
  const small = await Converge.open(3)
  let smallReading: Reading
  try {
    smallReading = await small.measure(3)
  } finally {
    await small.close()
  }
  console.log(`three nodes: ${smallReading.rssMib} MiB resident`)
  console.log(
    readings
      .at(-1)!
      .joinMessages.map((line) => `  ${line}`)
      .join('\n'),
  )
  const ours = median(readings.map(({ listToProgrammedMs }) => listToProgrammedMs))
  const peer = median(peers)
  return {
    bench: 'converge',
    ours,
    peer,
    unit: 'ms',
    ratio: ours / peer,
    nodes,
    joinMessages: median(readings.map(objectMessages)),
    joinBatchFrames: median(readings.map(frames)),
    joinMs: median(readings.map(({ joinMs }) => joinMs)),
    rssMib: Math.max(...readings.map(({ rssMib }) => rssMib)),
    rssThreeNodesMib: smallReading.rssMib,
  }
}

export const bench: Bench = {
  name: 'converge',
  describe:
    'one agent in a cluster of 1,000 nodes: time to programmed, cost of a newcomer, memory; against ip, bridge and nft',
  run,
}
