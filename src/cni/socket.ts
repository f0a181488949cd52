/**
 * The plugin's socket: one request a connection, bounded in size and time, the socket for root alone.
 *
 *   request   "WFT1" | u32 length, big-endian | CNI_* as KEY=VALUE\0 … \0 | standard input
 *   reply     u8 exit code | u32 length, big-endian | standard output
 *
 * Sources: native/cni (the other end).
 */
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { dirname, join } from 'node:path'

export interface Reply {
  readonly exitCode: number
  readonly stdout: string
}

const magic = Buffer.from('WFT1')
const headBytes = 8
export const maxRequestBytes = 16 * 1024 * 1024
const requestSeconds = 10
const maxConnections = 1024

export function encodeReply({ exitCode, stdout }: Reply): Buffer {
  const body = Buffer.from(stdout)
  const head = Buffer.alloc(5)
  head[0] = exitCode
  head.writeUInt32BE(body.length, 1)
  return Buffer.concat([head, body])
}

/** Collects one request; calls `done` with its body once. Connections that break the form are dropped. */
function readRequest(socket: Socket, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = []
  let length = 0
  let want = -1
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    length += chunk.length
    if (want < 0 && length >= headBytes) {
      const head = chunks.length === 1 ? chunk : Buffer.concat(chunks)
      want = head.readUInt32BE(4)
      if (!head.subarray(0, 4).equals(magic) || want > maxRequestBytes) socket.destroy()
    }
    if (socket.destroyed || want < 0 || length < headBytes + want) return
    socket.removeAllListeners('data')
    socket.setTimeout(0)
    const whole = chunks.length === 1 ? chunk : Buffer.concat(chunks)
    done(whole.subarray(headBytes, headBytes + want))
  })
}

export class CniSocket {
  readonly path: string
  readonly #server: Server
  /** Connections whose request has not come whole. */
  readonly #silent = new Set<Socket>()

  constructor(path: string, answer: (body: Buffer) => Promise<Reply>) {
    this.path = path
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#silent.add(socket)
      socket.once('close', () => this.#silent.delete(socket))
      // The plugin may be killed at any time; its request is carried out all the same.
      socket.on('error', () => socket.destroy())
      socket.setTimeout(requestSeconds * 1000, () => socket.destroy())
      readRequest(socket, (body) => {
        this.#silent.delete(socket)
        answer(body).then(
          (reply) => socket.end(encodeReply(reply)),
          () => socket.destroy(),
        )
      })
    })
    this.#server.maxConnections = maxConnections
  }

  /**
   * Listens. The socket is made under another name and renamed, so that it is never there with the wrong mode, and one
   * left by a dead process is replaced. Throws when a living process answers at the path.
   */
  async listen(): Promise<void> {
    if (await answers(this.path)) throw new Error(`Another process serves ${this.path}`)
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o755 })
    const room = join(dirname(this.path), `.cni-${process.pid}`)
    mkdirSync(room, { recursive: true, mode: 0o700 })
    const made = join(room, 'sock')
    try {
      rmSync(made, { force: true })
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject)
        this.#server.listen({ path: made, backlog: 1024 }, () => resolve())
      })
      chmodSync(made, 0o600)
      renameSync(made, this.path)
    } finally {
      rmSync(room, { recursive: true, force: true })
    }
  }

  /** False as well when somebody has removed the socket's file. */
  get isListening(): boolean {
    return this.#server.listening && existsSync(this.path)
  }

  /** Takes no more requests; settles when those under way are answered. */
  async close(): Promise<void> {
    rmSync(this.path, { force: true })
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#silent) socket.destroy()
    await closed
  }
}

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
