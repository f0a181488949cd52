/**
 * An API server on loopback with TLS and the machine's own kubectl beside it. Pods are commands on this machine.
 */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { LmdbJournal } from '../../src/cluster/embedded/lmdb-journal.ts'
import { ObjectStore } from '../../src/cluster/embedded/store.ts'
import type { ExecStreams, LocalClient, PodRuntime, TokenUser } from '../../src/lab/api/interfaces.ts'
import { writeKubeconfig } from '../../src/lab/api/kubeconfig.ts'
import { ApiServer } from '../../src/lab/api/server.ts'
import { ensureCertificate } from '../../src/lab/certificates.ts'

const tokens = new Map<string, TokenUser>([
  ['admin-token', { user: 'admin', groups: ['system:masters'] }],
  ['node-token', { user: 'system:node:n1', groups: ['system:nodes'] }],
])

function runHere(argv: readonly string[], streams: ExecStreams): Promise<{ exitCode: number }> {
  const child = spawn(argv[0]!, argv.slice(1))
  child.stdin.on('error', () => {})
  if (streams.stdin) streams.stdin.pipe(child.stdin)
  else child.stdin.end()
  if (streams.stdout) child.stdout.pipe(streams.stdout, { end: false })
  if (streams.stderr) child.stderr.pipe(streams.stderr, { end: false })
  streams.signal.addEventListener('abort', () => child.kill())
  return new Promise((done, fail) => {
    child.on('error', fail)
    child.on('close', (code) => done({ exitCode: code ?? 137 }))
  })
}

const podRuntime: PodRuntime = {
  async *logs(pod, container, options) {
    yield Buffer.from(`${pod.metadata.name}/${container} tail=${options.tailLines ?? 'all'}\n`)
    if (options.follow) yield Buffer.from('followed\n')
  },
  exec: (_pod, _container, argv, streams) => runHere(argv, streams),
  attach: (_pod, _container, streams) => runHere(['cat'], streams),
  portForward: (_pod, port) =>
    new Promise((done, fail) => {
      const socket = connect(port, '127.0.0.1', () => done(socket))
      socket.on('error', fail)
    }),
}

interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

export const words = (text: string): string[] =>
  text.match(/(?:'[^']*'|[^\s'])+/g)!.map((word) => word.replaceAll("'", ''))

/** A server with its store in a directory of its own, for the tests of one file. */
export class ApiUnderTest {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-kubectl-'))
  readonly kubeconfig = join(this.folder, 'config')
  readonly environment: NodeJS.ProcessEnv = {
    ...process.env,
    KUBECONFIG: this.kubeconfig,
    HOME: this.folder,
    KUBECACHEDIR: join(this.folder, 'cache'),
  }
  #store: ObjectStore | undefined
  #server: ApiServer | undefined
  #port = 0

  /** Starts the server before the file's tests and takes everything away after them. */
  constructor() {
    before(() => this.start())
    after(async () => {
      await this.stop()
      rmSync(this.folder, { recursive: true, force: true })
    })
  }

  get client(): LocalClient {
    return this.#server!.client
  }

  async start(): Promise<void> {
    this.#store = await ObjectStore.open(new LmdbJournal(join(this.folder, 'db')))
    const tls = ensureCertificate(this.folder, ['127.0.0.1', 'localhost'])
    this.#server = new ApiServer({ store: this.#store, tls, tokens, podRuntime })
    this.#port = (await this.#server.listen({ host: '127.0.0.1', port: this.#port })).port
    this.writeKubeconfig(this.kubeconfig, 'admin-token')
    this.writeKubeconfig(`${this.kubeconfig}-node`, 'node-token')
  }

  async stop(): Promise<void> {
    await this.#server?.close()
    await this.#store?.close()
  }

  writeKubeconfig(path: string, token: string): void {
    const { ca } = ensureCertificate(this.folder, ['127.0.0.1', 'localhost'])
    writeKubeconfig(path, { server: `https://127.0.0.1:${this.#port}`, ca, token })
  }

  /** Runs kubectl; an object as input is applied as JSON. */
  run(args: readonly string[], input?: unknown, more: Record<string, string> = {}): Promise<Result> {
    return new Promise((done) => {
      const options = { env: { ...this.environment, ...more }, timeout: 60_000, maxBuffer: 64 * 1024 * 1024 }
      const child = execFile('kubectl', args, options, (error, out, err) =>
        done({ code: error ? Number(error.code ?? 1) : 0, out, err }),
      )
      child.stdin?.on('error', () => {})
      child.stdin?.end(input === undefined || typeof input === 'string' ? input : JSON.stringify(input))
    })
  }

  /** `kubectl …` that must succeed; gives its output. */
  async kubectl(line: string, input?: unknown): Promise<string> {
    const { code, out, err } = await this.run(words(line), input)
    assert.equal(code, 0, `kubectl ${line}\n${out}${err}`)
    return out
  }

  /** `kubectl …` that must fail; gives what it says. */
  async refused(line: string, input?: unknown): Promise<string> {
    const { code, out, err } = await this.run(words(line), input)
    assert.notEqual(code, 0, `kubectl ${line}\n${out}`)
    return err
  }

  /** Says that a pod runs, as its node would. */
  async setRunning(name: string): Promise<void> {
    const status = {
      phase: 'Running',
      podIPs: [{ ip: '10.244.0.5' }],
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [{ name: 'c', ready: true, restartCount: 0, image: 'x', imageID: '', state: { running: {} } }],
    }
    await this.client.patch('pods', { namespace: 'default', name }, { status }, { subresource: 'status' })
  }
}

/** Whether the machine's kubectl is of this minor version or later. */
export function kubectlIsAtLeast(minor: number): Promise<boolean> {
  return new Promise((done, fail) => {
    execFile('kubectl', ['version', '--client', '-o', 'json'], (error, out) => {
      if (error) return fail(error)
      const { clientVersion } = JSON.parse(out)
      done(Number(clientVersion.major) > 1 || Number.parseInt(clientVersion.minor, 10) >= minor)
    })
  })
}

/** A pod of one container `c`, placed on n1. */
export const podManifest = (name: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: 'pod' } },
  spec: { nodeName: 'n1', containers: [{ name: 'c', image: 'x:1', command: ['sleep', '1'] }] },
})
