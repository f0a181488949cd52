/**
 * A node for CNI tests: a namespace, a CNI server in a process of its own, and the real plugin binary between them and
 * the test. The server can be killed and started again; its run directory stays.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { CniAgentConfig } from './cni-agent.ts'
import { bundleCniAgent } from './cni-bundle.ts'
import { TestNamespace } from './namespace.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
export const shimPath = join(root, 'dist/native/weft-cni')

/** Why these tests cannot run here, or false. */
export const cannotRun: string | false =
  process.getuid?.() !== 0
    ? 'needs root for network namespaces'
    : !existsSync(shimPath) && 'needs dist/native/weft-cni (npm run build)'

export interface Answer {
  readonly exitCode: number
  readonly stdout: string
  /** Parsed standard output; an empty object when there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: results of seven versions and errors, looked into key by key
  readonly json: any
}

/** The answer, which must be a success. */
export function ok(answer: Answer): Answer {
  assert.equal(answer.exitCode, 0, answer.stdout)
  return answer
}

/** The answer is an error of this code that says so. */
export function fails(answer: Answer, code: number, message: RegExp): void {
  assert.equal(answer.exitCode, 1, answer.stdout)
  assert.equal(answer.json.code, code, answer.stdout)
  assert.match(answer.json.msg, message)
}

export interface CallOptions {
  readonly containerId?: string
  readonly ifname?: string
  readonly netns?: string
  readonly args?: string
  /** The network configuration, or raw bytes. */
  readonly config?: object | Buffer
  readonly environment?: Readonly<Record<string, string>>
}

export const weftConfig = (cniVersion: string, more: object = {}): object => ({
  cniVersion,
  name: 'weft',
  type: 'weft',
  ...more,
})

export class CniNode {
  readonly namespace = new TestNamespace()
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-cni-'))
  readonly #config: CniAgentConfig
  /** Words before the server's own command line: it runs inside what they make. */
  readonly #inside: readonly string[]
  #bundle: string | undefined
  #server: ChildProcess | undefined
  #lines: AsyncIterator<string> | undefined

  constructor(config: Partial<CniAgentConfig> = {}, inside: readonly string[] = []) {
    this.#inside = inside
    this.#config = {
      runDir: this.folder,
      binDir: join(this.folder, 'bin'),
      shimPath,
      podCidrs: ['10.77.0.0/24', 'fd00:77::/64'],
      clusterNetworks: ['10.76.0.0/15', 'fd00:70::/28'],
      mtuBytes: 1450,
      ...config,
    }
  }

  get journal(): string {
    return readFileSync(join(this.folder, 'cni/journal'), 'utf8')
  }

  /** Starts the server and waits until it listens. Returns its recovery report. */
  async start(more: Partial<CniAgentConfig> = {}): Promise<Record<string, number>> {
    const config = JSON.stringify({ ...this.#config, ...more })
    this.#bundle ??= await bundleCniAgent(this.folder)
    const command = ['netns', 'exec', this.namespace.name, ...this.#inside, process.execPath, this.#bundle, config]
    const server = spawn('ip', command, { stdio: ['pipe', 'pipe', 'inherit'], cwd: root })
    this.#server = server
    this.#lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]()
    const { report } = (await this.#line()) as { report: Record<string, number> }
    return report
  }

  async #line(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#lines!.next()
    if (done) throw new Error(`The CNI server ended with ${this.#server!.exitCode ?? this.#server!.signalCode}`)
    return JSON.parse(value as string) as Record<string, unknown>
  }

  async order(order: object): Promise<Record<string, unknown>> {
    this.#server!.stdin!.write(`${JSON.stringify(order)}\n`)
    return this.#line()
  }

  /** Ends the server; by SIGKILL it has no last word. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server || server.exitCode !== null || server.signalCode !== null) return
    const ended = new Promise((resolve) => server.once('exit', resolve))
    server.kill(signal)
    await ended
  }

  /** Runs the plugin as a runtime does. */
  call(
    command: string,
    { containerId = 'c1', ifname = 'eth0', netns = '', args, config, environment }: CallOptions = {},
  ): Promise<Answer> {
    const env: Record<string, string> = {
      PATH: process.env.PATH ?? '',
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_IFNAME: ifname,
      CNI_NETNS: netns,
      CNI_PATH: join(this.folder, 'bin'),
      ...(args === undefined ? {} : { CNI_ARGS: args }),
      ...environment,
    }
    const stdin = Buffer.isBuffer(config) ? config : Buffer.from(JSON.stringify(config ?? weftConfig('1.1.0')))
    return new Promise((resolve, reject) => {
      const plugin = spawn(join(this.folder, 'bin/weft'), [], { env, stdio: ['pipe', 'pipe', 'inherit'] })
      const chunks: Buffer[] = []
      plugin.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
      plugin.once('error', reject)
      plugin.stdin.on('error', () => undefined)
      plugin.once('close', (code) => {
        const stdout = Buffer.concat(chunks).toString()
        resolve({ exitCode: code ?? -1, stdout, json: stdout.trim() === '' ? {} : JSON.parse(stdout) })
      })
      plugin.stdin.end(stdin)
    })
  }

  /** Pod devices on this node: `veth…`, `cali…` and `ifb…`. */
  devices(): string[] {
    return this.namespace
      .json<{ ifname: string }[]>('ip -j link')
      .map(({ ifname }) => ifname)
      .filter((name) => /^((veth|ifb)[0-9a-f]{8}|cali[0-9a-f]{11})$/.test(name))
  }

  /** Waits until there are no pod devices, or only so many; deletion ends after the answer. */
  async drained(left = 0): Promise<void> {
    const deadline = Date.now() + 20_000
    while (this.devices().length > left) {
      if (Date.now() > deadline) throw new Error(`Still there: ${this.devices().join(' ')}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  async delete(): Promise<void> {
    await this.stop()
    this.namespace.delete()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
