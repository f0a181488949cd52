/**
 * Speaks with the processes of user-space tunnels (native/tunnel) over their control sockets, and starts them. Such a
 * process is nobody's child: it has its own session and log file, outlives the agent that started it, and the next agent
 * finds it by its socket.
 *
 *   <directory>/tunnel-<device>.sock   control socket: lines of words, answers end with `ok` or `error TEXT`
 *   <directory>/tunnel-<device>.log    what it had to say
 *
 * The directory is the agent's run directory once `useTunnelDirectory` was called; before, one for each namespace.
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

let runDirectory: string | undefined

/** Keeps sockets and logs of this process's own namespace in `directory` from now on. */
export function useTunnelDirectory(directory: string): void {
  runDirectory = directory
}

/** Where the tunnels of a namespace are, by the number of its nsfs file. */
export function tunnelDirectory(netns: number): string {
  const own = statSync('/proc/thread-self/ns/net').ino
  return runDirectory !== undefined && own === netns ? runDirectory : `/run/weft/tunnels/${netns}`
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

interface Request {
  resolve(lines: string[]): void
  reject(error: Error): void
}

/** One connection to a tunnel. Requests may be made without waiting for earlier answers. */
export class TunnelConnection {
  readonly #socket: Socket
  readonly #waiting: Request[] = []
  #lines: string[] = []
  #input = ''
  /** Resolves when the connection is over, whoever ended it. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', () => {})
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => {
      if (this.#waiting.length > 0) socket.destroy()
    })
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        for (const request of this.#waiting.splice(0)) request.reject(new Error('the tunnel process is gone'))
        resolve()
      })
    })
    // A quiet connection must not keep the program from ending.
    socket.unref()
  }

  /** Undefined when nothing answers at the device's socket. */
  static async open(directory: string, device: string): Promise<TunnelConnection | undefined> {
    const socket = createConnection(socketPath(directory, device))
    try {
      await once(socket, 'connect')
    } catch {
      return undefined
    }
    return new TunnelConnection(socket)
  }

  /** Sends one command (with the lines that belong to it) and gives the lines of its answer. Throws TunnelRefusal. */
  request(command: string): Promise<string[]> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error('the tunnel process is gone'))
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

  /** Ends the process; resolves when it is gone. The device stays, as long as `destroyDevice` is not asked for. */
  async shutdown(destroyDevice = false): Promise<void> {
    await this.request(destroyDevice ? 'shutdown destroy' : 'shutdown').catch((error) => {
      if (error instanceof TunnelRefusal) throw error
    })
    this.#socket.ref()
    await this.closed
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
 * work in. Throws an Error with the process's own last words when it ends instead.
 */
export async function startTunnel(
  inside: <T>(call: () => T) => T,
  directory: string,
  tunnel: Tunnel,
): Promise<TunnelConnection> {
  const { path } = tunnelProgram()
  mkdirSync(directory, { recursive: true, mode: 0o755 })
  const log = openSync(logPath(directory, tunnel.device), 'w', 0o640)
  const args = [
    ...['--device', tunnel.device, '--mtu', `${tunnel.mtuBytes}`, '--local', `${tunnel.local}`],
    ...['--port', `${tunnel.port}`, '--control', socketPath(directory, tunnel.device)],
    ...(tunnel.subnets ?? []).flatMap((subnet) => ['--subnet', `${subnet}`]),
  ]
  const { PATH, WEFT_LAB } = process.env
  const env = { ...(PATH && { PATH }), ...(WEFT_LAB && { WEFT_LAB }) }
  // The child is forked by this very call: it is born in the namespace that the thread is in.
  const child = inside(() => spawn(path, args, { detached: true, cwd: '/', env, stdio: ['ignore', 'pipe', log] }))
  closeSync(log)
  const { stdout } = child
  if (!stdout) throw new Error('the tunnel process has no output')
  const signal = AbortSignal.timeout(START_TIMEOUT_MS)
  try {
    await Promise.race([
      once(stdout, 'data', { signal }),
      once(child, 'exit', { signal }).then(() => Promise.reject(new Error(lastWords(directory, tunnel.device)))),
    ])
  } finally {
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
