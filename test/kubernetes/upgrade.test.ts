/**
 * weft is upgraded, taken back and restarted under load: fifty TCP connections and a thousand pings a second go between pods on
 * all nodes, and new pods start, while one agent after the other is replaced. Nothing may be lost.
 */
import assert from 'node:assert/strict'
import { createServer, type Server, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { connectIn, listenIn } from '../../src/lab/connect.ts'
import { netConfigFor } from '../../src/lab/spec.ts'
import { type PingCounts, SteadyPing } from '../netns/steady-ping.ts'
import { agentSelector, InstallationFiles, imageName, weft } from './installation.ts'
import { TestCluster, type TestPod } from './test-cluster.ts'

const files = new InstallationFiles()
let lab: TestCluster
let pods: TestPod[]
let made = 0

const [before_, after_] = ['1.0.0', '1.0.1'] as const
const CONNECTIONS = 50
const ECHO_PORT = 9200
const MESSAGE = 64
const PAUSE_MS = 50

before(async () => {
  lab = await TestCluster.start({ nodes: 3 })
  for (const tag of [before_, after_]) lab.cluster.loadImage(files.buildImage(tag))
  const netConfig = files.write('net-conf.json', netConfigFor('vxlan', true))
  const given = ['--image', imageName(before_), '--net-config', netConfig, '--no-controller', '--wait', '120']
  await weft(lab.cluster, 'install', ...given)
  await lab.cluster.waitReady()
  pods = await Promise.all(['n1', 'n2', 'n3'].map((node) => lab.server(`on-${node}`, node)))
})
after(async () => {
  await lab?.down()
  files.remove()
})

/** One TCP connection that says something again and again and expects every byte back. */
class Echo {
  readonly #socket: Socket
  readonly #what: string
  #sent = 0
  #heard = 0
  #problem: string | undefined
  #timer: NodeJS.Timeout | undefined
  #waiting: () => void = () => {}

  constructor(from: TestPod, to: string) {
    this.#what = `${from.name} → ${to}`
    this.#socket = connectIn(from.netnsPath, to, ECHO_PORT)
    this.#socket.setNoDelay(true)
    this.#socket.on('error', (error) => this.#fail(error.message))
    this.#socket.on('close', () => this.#fail('closed'))
    this.#socket.on('data', (data) => {
      for (const byte of data) if (byte !== this.#heard++ % 251) this.#fail('another byte than was sent')
      if (this.#heard < this.#sent) return
      this.#waiting()
      this.#timer = setTimeout(() => this.#say(), PAUSE_MS)
    })
    this.#socket.once('connect', () => this.#say())
  }

  #say(): void {
    const message = Buffer.from(Array.from({ length: MESSAGE }, (_, n) => (this.#sent + n) % 251))
    this.#sent += MESSAGE
    this.#socket.write(message)
  }

  #fail(problem: string): void {
    this.#problem ??= problem
    this.#waiting()
  }

  /** Resolves when all that was said has come back; rejects when the connection broke. */
  async whole(): Promise<number> {
    if (!this.#problem && (this.#sent === 0 || this.#heard < this.#sent))
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
    if (this.#problem) throw new Error(`${this.#what}: ${this.#problem} after ${this.#heard} bytes`)
    return this.#heard
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#socket.removeAllListeners('close').destroy()
  }
}

interface Load {
  readonly echoes: readonly Echo[]
  readonly pings: readonly SteadyPing[]
  stop(): Promise<readonly PingCounts[]>
}

async function startLoad(): Promise<Load> {
  const servers: Server[] = []
  const accepted = new Set<Socket>()
  for (const pod of pods) {
    const server = createServer((socket) => {
      accepted.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.pipe(socket)
    })
    server.listen({ fd: listenIn(pod.netnsPath, ECHO_PORT) })
    servers.push(server)
  }
  const next = (n: number) => pods[(n + 1) % pods.length]!
  const echoes = Array.from({ length: CONNECTIONS }, (_, n) => new Echo(pods[n % pods.length]!, next(n).ip))
  for (const echo of echoes) await echo.whole()
  const pings = await Promise.all(
    pods.flatMap((pod, n) => [
      SteadyPing.start({ path: pod.netnsPath }, next(n).ip, '--icmp'),
      SteadyPing.start({ path: pod.netnsPath }, next(n).ip6!, '--icmp'),
    ]),
  )
  return {
    echoes,
    pings,
    async stop() {
      const counts = await Promise.all(pings.map((ping) => ping.stop()))
      for (const each of [...echoes, ...servers]) each.close()
      for (const socket of accepted) socket.destroy()
      return counts
    },
  }
}

const kubeFlannel = ['--namespace', 'kube-flannel'] as const

/** What the agents of all nodes say that they are, by their own metrics. */
function versions(): string[] {
  return lab.cluster.nodes.map(({ machine }) => {
    const said = machine.run('curl', '-s', '--unix-socket', '/run/weft/agent.sock', 'http://weft/metrics')
    return /^weft_build_info\{(?:[^}]*,)?version="([^"]*)"/m.exec(said)?.[1] ?? said.slice(0, 200)
  })
}

/** Names of the agents' pods. */
async function agents(): Promise<Set<string>> {
  const names = await lab.cluster.kubectl('get', 'pods', ...kubeFlannel, '-l', agentSelector, '-o', 'name')
  return new Set(names.trim().split('\n'))
}

/** Runs a roll out under load, with new pods on all nodes meanwhile; every agent is another one after it. */
async function rollOut(begin: () => Promise<unknown>): Promise<string> {
  const old = await agents()
  const load = await startLoad()
  let counts: readonly PingCounts[] = []
  try {
    await begin()
    const status = lab.cluster.kubectl('rollout', 'status', ...kubeFlannel, 'daemonset/weft-agent', '--timeout=120s')
    let done = false
    const finished = status.finally(() => {
      done = true
    })
    for (; !done; made++) {
      const pod = await lab.server(`made-${made}`, `n${(made % 3) + 1}`)
      await lab.ping(pod, pods[(made + 1) % 3]!)
      await lab.cluster.kubectl('delete', 'pod', pod.name, '--wait=false')
    }
    await finished
    for (const echo of load.echoes) await echo.whole()
  } finally {
    counts = await load.stop()
  }
  for (const { sent, lost } of counts) assert.equal(lost, 0, `of ${sent}`)
  for (const name of await agents()) assert.ok(!old.has(name), `${name} was there before`)
  return `${counts.reduce((sum, { sent }) => sum + sent, 0)} pings sent, none lost`
}

test('a new version is rolled out', async (t) => {
  assert.deepEqual(versions(), [before_, before_, before_])
  const image = `agent=${imageName(after_)}`
  t.diagnostic(await rollOut(() => lab.cluster.kubectl('set', 'image', ...kubeFlannel, 'daemonset/weft-agent', image)))
  assert.deepEqual(versions(), [after_, after_, after_])
})

test('it is taken back', async (t) => {
  t.diagnostic(await rollOut(() => lab.cluster.kubectl('rollout', 'undo', ...kubeFlannel, 'daemonset/weft-agent')))
  assert.deepEqual(versions(), [before_, before_, before_])
})

test('agents are restarted', async (t) => {
  t.diagnostic(await rollOut(() => lab.cluster.kubectl('rollout', 'restart', ...kubeFlannel, 'daemonset/weft-agent')))
  assert.deepEqual(versions(), [before_, before_, before_])
})
