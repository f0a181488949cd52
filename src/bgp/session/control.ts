/**
 * The unix socket that the eyes ask. One request a connection, one line of JSON; the answer is lines with `item`, then one
 * with `done` or `error`. `watch` never ends by itself.
 *
 *   {"command":"summary"}                                 one item: SpeakerStatus
 *   {"command":"neighbor","peer":"tor"}                   PeerStatus of one, or of all without `peer`
 *   {"command":"rib","view":"local|in|out","peer":…,"family":"ipv4|ipv6","prefix":…}   RibRoute, one a line
 *   {"command":"why","prefix":"10.0.0.0/24"}              Candidate, the best first
 *   {"command":"log"}                                     LogEntry, the last ones
 *   {"command":"watch"}                                   BgpEvent as they happen, and {"dropped": n} for a slow reader
 *   {"command":"reset","peer":…,"text":…}   {"command":"refresh","peer":…}
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { BgpEvent, BgpFamily, PeerStatus, RibRoute } from '../../model/bgp.ts'
import { Cidr } from '../../net/cidr.ts'
import type { RouteView, Speaker } from '../speaker.ts'
import type { LogEntry } from './messages.ts'

const REQUEST_BYTES_MAX = 4096
const REQUEST_MILLISECONDS = 5000
const LOG_ENTRIES = 1000
const LINES_PER_CHUNK = 500
const WATCH_QUEUE_BYTES = 4 * 1024 * 1024
const CONNECTIONS_MAX = 64

type Request = Readonly<Record<string, unknown>>

export class ControlServer {
  readonly #server: Server
  readonly #path: string
  readonly #speaker: Speaker
  readonly #log: LogEntry[] = []
  readonly #watchers = new Map<Socket, { dropped: number }>()
  readonly #sockets = new Set<Socket>()

  private constructor(path: string, speaker: Speaker) {
    this.#path = path
    this.#speaker = speaker
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket))
    this.#server.maxConnections = CONNECTIONS_MAX
  }

  /** Replaces a socket that is left over. For its owner alone: it shows the network, and resets sessions. */
  static open(path: string, speaker: Speaker): Promise<ControlServer> {
    const control = new ControlServer(path, speaker)
    rmSync(path, { force: true })
    return new Promise((resolve, reject) => {
      control.#server.once('error', reject)
      control.#server.listen(path, () => {
        chmodSync(path, 0o600)
        resolve(control)
      })
    })
  }

  note(entry: LogEntry): void {
    this.#log.push(entry)
    if (this.#log.length > LOG_ENTRIES) this.#log.shift()
  }

  tell(event: BgpEvent): void {
    for (const [socket, state] of this.#watchers) {
      // The speaker waits for nobody: who reads slowly misses events and is told how many.
      if (socket.writableLength > WATCH_QUEUE_BYTES) {
        state.dropped++
        continue
      }
      if (state.dropped > 0) write(socket, { item: { dropped: state.dropped } })
      state.dropped = 0
      write(socket, { item: event })
    }
  }

  /** True: somebody watches. */
  get watched(): boolean {
    return this.#watchers.size > 0
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    rmSync(this.#path, { force: true })
  }

  #serve(socket: Socket): void {
    let text = ''
    this.#sockets.add(socket)
    socket.setEncoding('utf8')
    socket.setTimeout(REQUEST_MILLISECONDS, () => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#watchers.delete(socket)
    })
    socket.on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end < 0 && text.length <= REQUEST_BYTES_MAX) return
      socket.removeAllListeners('data')
      socket.setTimeout(0)
      socket.resume()
      void this.#answer(socket, end < 0 ? '' : text.slice(0, end))
    })
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    try {
      const request = JSON.parse(line) as Request
      if (request.command === 'watch') {
        this.#watchers.set(socket, { dropped: 0 })
        return
      }
      // Read in one go, because the RIB must not change meanwhile; written as fast as it is read at the other end.
      const chunks: string[] = []
      let lines: string[] = []
      for (const item of this.#items(request)) {
        if (lines.push(JSON.stringify({ item })) < LINES_PER_CHUNK) continue
        chunks.push(`${lines.join('\n')}\n`)
        lines = []
      }
      if (lines.length > 0) chunks.push(`${lines.join('\n')}\n`)
      for (const chunk of chunks) {
        if (socket.destroyed) return
        if (!socket.write(chunk)) await drained(socket)
      }
      write(socket, { done: true })
    } catch (error) {
      write(socket, { error: error instanceof Error ? error.message : String(error) })
    }
    socket.end()
  }

  #items(request: Request): Iterable<unknown> {
    switch (request.command) {
      case 'summary':
        return [this.#speaker.status()]
      case 'neighbor':
        return this.#neighbors(textOf(request, 'peer'))
      case 'rib':
        return this.#routes(request)
      case 'why':
        return this.#speaker.why(prefixOf(request.prefix))
      case 'log':
        return this.#log
      case 'reset':
        if (!this.#speaker.reset(textOf(request, 'peer') ?? '', textOf(request, 'text') ?? ''))
          throw new Error(`there is no peer ${request.peer}`)
        return []
      case 'refresh':
        if (!this.#speaker.askRefresh(textOf(request, 'peer') ?? ''))
          throw new Error(`there is no session with ${request.peer} that knows route refresh`)
        return []
      default:
        throw new Error(`there is no command ${JSON.stringify(request.command)}`)
    }
  }

  #neighbors(peer: string | undefined): readonly PeerStatus[] {
    const { peers } = this.#speaker.status()
    if (peer === undefined) return peers
    const found = peers.filter(({ name, address, device }) => name === peer || address === peer || device === peer)
    if (found.length === 0) throw new Error(`there is no peer ${peer}`)
    return found
  }

  *#routes(request: Request): Generator<RibRoute> {
    const view = viewOf(request)
    const prefix = request.prefix === undefined ? undefined : prefixOf(request.prefix)
    const wanted = textOf(request, 'family')
    if (wanted !== undefined && wanted !== 'ipv4' && wanted !== 'ipv6') throw new Error(`there is no family ${wanted}`)
    for (const family of ['ipv4', 'ipv6'] satisfies BgpFamily[]) {
      if (wanted !== undefined && wanted !== family) continue
      const routes = this.#speaker.routes(view, family)
      if (!routes) throw new Error(`there is no peer ${request.peer}`)
      for (const route of routes) if (prefix === undefined || route.prefix === prefix) yield route
    }
  }
}

function write(socket: Socket, line: unknown): boolean {
  return socket.destroyed || socket.write(`${JSON.stringify(line)}\n`)
}

const drained = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.once('drain', resolve)
    socket.once('close', resolve)
  })

function textOf(request: Request, key: string): string | undefined {
  const value = request[key]
  if (value === undefined || typeof value === 'string') return value
  throw new Error(`${key} must be text`)
}

const prefixOf = (value: unknown): string => Cidr.parse(typeof value === 'string' ? value : '').toString()

function viewOf(request: Request): RouteView {
  const view = textOf(request, 'view') ?? 'local'
  if (view === 'local') return { view }
  if (view !== 'in' && view !== 'out') throw new Error(`there is no view ${view}`)
  const peer = textOf(request, 'peer')
  if (peer === undefined) throw new Error(`the view ${view} is of a peer, and none is named`)
  return { view, peer }
}
