/**
 * Speaks with the processes of user-space tunnels (native/tunnel) over their control sockets, and starts them. Such a
 * process is nobody's child: it has its own session and log file, outlives the agent that started it, and the next agent
 * finds it by its socket.
 *
 *   <directory>/tunnel-<device>.sock   control socket: lines of words, answers end with `ok` or `error TEXT`
 *   <directory>/tunnel-<device>.log    what it had to say
 *
 * The directory is the agent's run directory once `useTunnelDirectory` was called; before, one for each namespace. Every
 * wait ends: a process that does not answer, does not end or does not start is an error that says so.
 *
 * Sources: native/README.md (the protocol).
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Tunnel, TunnelPeer } from '../../model/link.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'

/** What a process answers to `describe`, `version` and `list`. */
export interface TunnelState {
  readonly tunnel: Tunnel
  readonly peers: readonly TunnelPeer[]
  readonly version: string
  readonly pid: number
  /** Number of the nsfs file of the namespace that it works in. */
  readonly netns: number
  /** Offloads in use: `tso4`, `uso6`, `udp-segment`, `udp-gro`, … */
  readonly offloads: readonly string[]
}

/** The tunnel said no; the message is its own. */
export class TunnelRefusal extends Error {
  override readonly name = 'TunnelRefusal'
}

const ANSWER_LIMIT_CHARS = 16 << 20
const ANSWER_TIMEOUT_MS = 10_000
const START_TIMEOUT_MS = 15_000
const LOG_TAIL_CHARS = 500
const NAMESPACE_DIRECTORIES = '/run/weft/tunnels'
/** A folder that is younger may be of a tunnel that is being started. */
const LEFT_BEHIND_AFTER_MS = 60_000

let runDirectory: string | undefined
let leavesContainer = false

/**
 * Keeps sockets and logs of this process's own namespace in `directory` from now on. With `leaveContainer` tunnels start
 * where process 1 is, outside of this container, and live on when it ends; the directory must be the same there.
 */
export function useTunnelDirectory(directory: string, { leaveContainer = false } = {}): void {
  runDirectory = directory
  leavesContainer = leaveContainer
}

/** Where the tunnels of a namespace are, by the number of its nsfs file. */
export function tunnelDirectory(netns: number): string {
  const own = statSync('/proc/thread-self/ns/net').ino
  return runDirectory !== undefined && own === netns ? runDirectory : `${NAMESPACE_DIRECTORIES}/${netns}`
}

/** Devices for which there is a control socket, answered or not. */
export function listTunnelSockets(directory: string): string[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory).flatMap((name) => /^tunnel-(.+)\.sock$/.exec(name)?.[1] ?? [])
}

/** Removes what a tunnel that has ended left behind: its log, and the folder of its namespace when that is empty. */
export function forgetTunnel(directory: string, device: string): void {
  rmSync(logPath(directory, device), { force: true })
  // One that was killed left its socket.
  rmSync(socketPath(directory, device), { force: true })
  try {
    if (directory !== runDirectory) rmdirSync(directory)
  } catch {
    // There are other tunnels in it.
  }
}

/** Removes the folders of namespaces that are gone: with their last device their tunnels ended, and nobody was there to see. */
export async function forgetLostTunnels(
  root = NAMESPACE_DIRECTORIES,
  olderThanMs = LEFT_BEHIND_AFTER_MS,
): Promise<void> {
  for (const name of existsSync(root) ? readdirSync(root) : []) {
    const directory = `${root}/${name}`
    const changedMs = statSync(directory, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY
    if (!/^\d+$/.test(name) || Date.now() - changedMs < olderThanMs) continue
    const connections = await Promise.all(
      listTunnelSockets(directory).map((device) => TunnelConnection.open(directory, device)),
    )
    for (const connection of connections) connection?.close()
    if (connections.every((connection) => !connection)) rmSync(directory, { recursive: true, force: true })
  }
}

interface Request {
  resolve(lines: string[]): void
  reject(error: Error): void
}

/** One connection to a tunnel. Requests may be made without waiting for earlier answers. */
export class TunnelConnection {
  readonly #socket: Socket
  readonly #waiting: Request[] = []
  readonly #timeoutMs: number
  #lines: string[] = []
  #input = ''
  #isLate = false
  /** Resolves when the connection is over, whoever ended it. */
  readonly closed: Promise<void>

  private constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket
    this.#timeoutMs = timeoutMs
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', () => {})
    socket.setTimeout(timeoutMs, () => {
      this.#isLate = this.#waiting.length > 0
      if (this.#isLate) socket.destroy()
    })
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        for (const request of this.#waiting.splice(0)) request.reject(this.#lossError())
        resolve()
      })
    })
    // A quiet connection must not keep the program from ending.
    socket.unref()
  }

  /** Undefined when nothing answers at the device's socket. */
  static async open(
    directory: string,
    device: string,
    timeoutMs = ANSWER_TIMEOUT_MS,
  ): Promise<TunnelConnection | undefined> {
    const socket = createConnection(socketPath(directory, device))
    try {
      await once(socket, 'connect', { signal: AbortSignal.timeout(timeoutMs) })
    } catch {
      socket.destroy()
      return undefined
    }
    return new TunnelConnection(socket, timeoutMs)
  }

  #lossError(): Error {
    const late = `the tunnel process has not answered for ${this.#timeoutMs / 1000} s`
    return new Error(this.#isLate ? late : 'the tunnel process is gone')
  }

  /** Sends one command (with the lines that belong to it) and gives the lines of its answer. Throws TunnelRefusal. */
  request(command: string): Promise<string[]> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(this.#lossError())
      this.#waiting.push({ resolve, reject })
      this.#socket.ref()
      this.#socket.write(`${command}\n`)
    })
  }

  async readState(): Promise<TunnelState> {
    const [version, described, listed] = await Promise.all(
      ['version', 'describe', 'list'].map((command) => this.request(command)),
    )
    return parseState(version!, described!, listed!)
  }

  /** Counters by name. */
  async readCounters(): Promise<Map<string, number>> {
    const lines = await this.request('stats')
    return new Map(lines.map((line) => [line.split(' ')[1]!, Number(line.split(' ')[2])]))
  }

  /**
   * Ends the process; resolves when it is gone. The device stays, as long as `destroyDevice` is not asked for. Throws when
   * the process does not answer, or does not end.
   */
  async shutdown(destroyDevice = false): Promise<void> {
    await this.request(destroyDevice ? 'shutdown destroy' : 'shutdown').catch((error) => {
      // That it is gone already is as well.
      if (error instanceof TunnelRefusal || this.#isLate) throw error
    })
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`the tunnel process has said that it ends, but not ended for ${this.#timeoutMs / 1000} s`)
      timer = setTimeout(() => reject(error), this.#timeoutMs)
    })
    await Promise.race([this.closed, late]).finally(() => clearTimeout(timer))
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(text: string): void {
    this.#input += text
    if (this.#input.length > ANSWER_LIMIT_CHARS) this.#socket.destroy()
    for (let end = this.#input.indexOf('\n'); end >= 0; end = this.#input.indexOf('\n')) {
      const line = this.#input.slice(0, end)
      this.#input = this.#input.slice(end + 1)
      if (line === 'ok') this.#answered((request, lines) => request.resolve(lines))
      else if (line.startsWith('error ')) this.#answered((request) => request.reject(new TunnelRefusal(line.slice(6))))
      else this.#lines.push(line)
    }
  }

  #answered(settle: (request: Request, lines: string[]) => void): void {
    const lines = this.#lines
    this.#lines = []
    const request = this.#waiting.shift()
    if (this.#waiting.length === 0) this.#socket.unref()
    if (request) settle(request, lines)
  }
}

function parseState(version: string[], described: string[], listed: string[]): TunnelState {
  const words = described.map((line) => line.split(' '))
  const value = (name: string) => words.find(([key]) => key === name)?.[1] ?? ''
  const device = value('device')
  const tunnel: Tunnel = {
    kind: 'tunnel',
    device,
    mtuBytes: Number(value('mtu')),
    local: Ip.parse(value('local')),
    port: Number(value('port')),
    subnets: words.filter(([key]) => key === 'subnet').map(([, subnet]) => Cidr.parse(subnet!)),
  }
  const peers = listed.map((line): TunnelPeer => {
    const [, subnet, remote, port] = line.split(' ')
    return {
      kind: 'tunnel-peer',
      device,
      subnet: Cidr.parse(subnet!),
      remote: Ip.parse(remote!),
      port: Number(port),
    }
  })
  const offloads = words.find(([key]) => key === 'offloads')?.slice(1) ?? []
  return {
    tunnel,
    peers,
    version: version[0]?.replace(/^version /, '') ?? '',
    pid: Number(value('pid')),
    netns: Number(value('netns')),
    offloads,
  }
}

const socketPath = (directory: string, device: string): string => `${directory}/tunnel-${device}.sock`
const logPath = (directory: string, device: string): string => `${directory}/tunnel-${device}.log`

let program: { readonly path: string; readonly version: string } | undefined

/** The program of this installation and what its `--version` says. Throws when it was not built. */
export function tunnelProgram(): { readonly path: string; readonly version: string } {
  if (program) return program
  // Beside the bundle, beside its chunks, and from the sources of a checkout.
  const places = ['./native/weft-tunnel', '../native/weft-tunnel', '../../../dist/native/weft-tunnel']
  const path = places.map((place) => fileURLToPath(new URL(place, import.meta.url))).find((place) => existsSync(place))
  if (path === undefined) throw new Error('dist/native/weft-tunnel is missing: run scripts/setup.sh')
  const version = execFileSync(path, ['--version'], { encoding: 'utf8' })
    .trim()
    .replace(/^weft-tunnel /, '')
  program = { path, version }
  return program
}

/**
 * Starts the process of a tunnel and resolves once it answers. `inside` runs a call in the namespace that the tunnel is to
 * work in. With `takeOver` it takes the place, and the peers, of the one that answers there; that one goes on when this
 * fails. Throws an Error with the process's own last words when it ends instead.
 */
export async function startTunnel(
  inside: <T>(call: () => T) => T,
  directory: string,
  tunnel: Tunnel,
  takeOver = false,
): Promise<TunnelConnection> {
  const { path } = tunnelProgram()
  if (directory !== runDirectory) await forgetLostTunnels()
  mkdirSync(directory, { recursive: true, mode: 0o755 })
  // Nobody takes it for one left behind.
  utimesSync(directory, new Date(), new Date())
  const log = openSync(logPath(directory, tunnel.device), takeOver ? 'a' : 'w', 0o640)
  const args = [
    ...['--device', tunnel.device, '--mtu', `${tunnel.mtuBytes}`, '--local', `${tunnel.local}`],
    ...['--port', `${tunnel.port}`, '--control', socketPath(directory, tunnel.device)],
    ...(takeOver ? ['--take-over'] : []),
    ...(leavesContainer ? ['--leave-container'] : []),
    ...(tunnel.subnets ?? []).flatMap((subnet) => ['--subnet', `${subnet}`]),
  ]
  const { PATH, WEFT_LAB } = process.env
  const env = { ...(PATH && { PATH }), ...(WEFT_LAB && { WEFT_LAB }) }
  // The child is forked by this very call: it is born in the namespace that the thread is in.
  const child = inside(() => spawn(path, args, { detached: true, cwd: '/', env, stdio: ['ignore', 'pipe', log] }))
  closeSync(log)
  const { stdout } = child
  if (!stdout) throw new Error('the tunnel process has no output')
  const over = new AbortController()
  const timer = setTimeout(() => over.abort(), START_TIMEOUT_MS)
  const { signal } = over
  try {
    await Promise.race([
      once(stdout, 'data', { signal }),
      once(child, 'exit', { signal }).then(() => Promise.reject(new Error(lastWords(directory, tunnel.device)))),
    ])
  } catch (cause) {
    if (!signal.aborted) throw cause
    // Half started it would keep the device from the next one.
    child.kill('SIGKILL')
    throw new Error(`the tunnel process was not ready within ${START_TIMEOUT_MS / 1000} s`, { cause })
  } finally {
    clearTimeout(timer)
    over.abort()
    stdout.destroy()
    child.unref()
  }
  const connection = await TunnelConnection.open(directory, tunnel.device)
  if (!connection) throw new Error(lastWords(directory, tunnel.device))
  return connection
}

function lastWords(directory: string, device: string): string {
  const text = readFileSync(logPath(directory, device), 'utf8').slice(-LOG_TAIL_CHARS).trim()
  return (
    text
      .split('\n')
      .at(-1)
      ?.replace(/^weft-tunnel: /, '') || 'the tunnel process ended at once'
  )
}
