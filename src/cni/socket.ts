/**
 * The plugin's socket: one request a connection, bounded in size and time, the socket for root alone.
 *
 *   request   "WFT1" | u32 length, big-endian | CNI_* as KEY=VALUE\0 … \0 | standard input
 *   reply     u8 exit code | u32 length, big-endian | standard output
 *
 * The exit code 254 asks the plugin to send the request once more from inside the container's namespace (see inside.ts).
 *
 * The digit is the version of the request. The form of the reply never changes: while weft is upgraded or taken back, the plugin
 * that is in place may be of another version than the agent, and has to understand that it is told so.
 *
 * The usual request is there, whole and in one piece, when its connection is taken: it is read, answered and closed with
 * four system calls. Whatever is otherwise (a request in pieces, nobody who reads the answer) goes through a stream of
 * Node's, which costs more than all of these.
 *
 * Sources: native/cni (the other end); unix(7).
 */
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { createConnection, Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { kernelError } from '../kernel/errno.ts'
import * as syscalls from '../kernel/linux/syscalls.ts'
import { CniCode, CniError, formatError } from './error.ts'
import { latestVersion } from './version.ts'

export interface Reply {
  readonly exitCode: number
  readonly stdout: string
}

/** Answers a request's body. The connection's descriptor is open until the first wait. */
export type Answer = (body: Buffer, fd: number) => Promise<Reply>

const magic = Buffer.from('WFT1')
/** What the magic of every version begins with. */
const kindBytes = 3
const headBytes = 8
export const maxRequestBytes = 16 * 1024 * 1024
const requestSeconds = 10
const maxConnections = 1024
const backlog = 1024
/** Connections taken in one turn of the event loop. */
const maxTaken = 8
/** After the process has run out of descriptors or memory. */
const retryMilliseconds = 100

/** Where requests are read that come in one piece. */
const inbox = Buffer.alloc(64 * 1024)

export function encodeReply({ exitCode, stdout }: Reply): Buffer {
  const length = Buffer.byteLength(stdout)
  const reply = Buffer.allocUnsafe(5 + length)
  reply[0] = exitCode
  reply.writeUInt32BE(length, 1)
  reply.write(stdout, 5)
  return reply
}

/** How many bytes the request has whose first bytes these are; -1 when that cannot be told yet, NaN for no request of ours. */
function requestBytes(start: Buffer): number {
  if (start.length < headBytes) return -1
  const length = start.readUInt32BE(4)
  return start.compare(magic, 0, 4, 0, 4) === 0 && length <= maxRequestBytes ? headBytes + length : Number.NaN
}

/** What a plugin of another version is told, by the first bytes of its request; undefined for whoever is no plugin. */
function refusalOf(start: Buffer): Buffer | undefined {
  if (start.length < magic.length || start.compare(magic, 0, kindBytes, 0, kindBytes) !== 0) return undefined
  const [spoken, own] = [start, magic].map((bytes) => bytes.toString('latin1', kindBytes, magic.length))
  if (spoken === own) return undefined
  const message = `The plugin speaks version ${JSON.stringify(spoken)} of its protocol with the agent, the agent version "${own}"`
  const details =
    "Passes when the agent of this node is of the plugin's version; an agent that starts puts its own in place"
  const error = new CniError(CniCode.tryAgainLater, message, details)
  return encodeReply({ exitCode: 1, stdout: formatError(error, latestVersion) })
}

/** Collects one request; calls `done` with its body once. Connections that break the form or end before are dropped. */
function readRequest(socket: Socket, first: Buffer, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = []
  let length = 0
  let want = -1
  const take = (chunk: Buffer): void => {
    chunks.push(chunk)
    length += chunk.length
    if (want < 0) {
      const start = chunks.length === 1 ? chunk : Buffer.concat(chunks)
      want = requestBytes(start)
      const refusal = refusalOf(start)
      if (refusal) {
        socket.removeListener('data', take)
        socket.removeListener('end', giveUp)
        socket.resume().end(refusal)
        return
      }
    }
    if (Number.isNaN(want)) socket.destroy()
    if (socket.destroyed || want < 0 || length < want) return
    socket.removeListener('data', take)
    socket.removeListener('end', giveUp)
    socket.setTimeout(0)
    done(Buffer.concat(chunks).subarray(headBytes, want))
  }
  const giveUp = () => socket.destroy()
  socket.on('data', take)
  socket.on('end', giveUp)
  take(first)
}

export class CniSocket {
  readonly path: string
  readonly #answer: Answer
  #fd = -1
  #readiness: syscalls.Readiness | undefined
  #retry: NodeJS.Timeout | undefined
  /** Connections that are not closed, and of these the ones whose request has not come whole. */
  #open = 0
  readonly #silent = new Set<Socket>()
  #allClosed: (() => void) | undefined

  constructor(path: string, answer: Answer) {
    this.path = path
    this.#answer = answer
  }

  /**
   * Listens. The socket is made under another name and renamed, so that it is never there with the wrong mode, and one
   * left by a dead process is replaced. Throws when a living process answers at the path, and KernelError.
   */
  async listen(): Promise<void> {
    if (await answers(this.path)) throw new Error(`Another process serves ${this.path}`)
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o755 })
    const room = join(dirname(this.path), `.cni-${process.pid}`)
    mkdirSync(room, { recursive: true, mode: 0o700 })
    const made = join(room, 'sock')
    try {
      rmSync(made, { force: true })
      this.#fd = openListening(made)
      chmodSync(made, 0o600)
      renameSync(made, this.path)
    } finally {
      rmSync(room, { recursive: true, force: true })
    }
    this.#readiness = new syscalls.Readiness(this.#fd, () => this.#takeAll())
  }

  /** False as well when somebody has removed the socket's file. */
  get isListening(): boolean {
    return this.#fd >= 0 && existsSync(this.path)
  }

  /** Takes no more requests; settles when those under way are answered. */
  async close(): Promise<void> {
    if (this.#fd >= 0) {
      rmSync(this.path, { force: true })
      clearTimeout(this.#retry)
      this.#readiness?.close()
      syscalls.close(this.#fd)
      this.#fd = -1
    }
    for (const socket of this.#silent) socket.destroy()
    if (this.#open > 0) await new Promise<void>((resolve) => (this.#allClosed = resolve))
  }

  #takeAll(): void {
    for (let i = 0; i < maxTaken; i++) {
      const fd = syscalls.accept(this.#fd)
      if (fd >= 0) this.#take(fd)
      else if (fd !== -syscalls.ECONNABORTED) {
        // Out of descriptors or memory: the connection waits, and would be told of again and again.
        if (fd !== -syscalls.EAGAIN) this.#retry = setTimeout(() => this.#readiness?.arm(), retryMilliseconds)
        else this.#readiness?.arm()
        return
      }
    }
    this.#readiness?.arm()
  }

  #take(fd: number): void {
    if (this.#open >= maxConnections) {
      syscalls.close(fd)
      return
    }
    this.#open++
    const got = syscalls.recv(fd, inbox, syscalls.MSG_DONTWAIT)
    const start = Buffer.from(inbox.subarray(0, Math.max(got, 0)))
    if (got === 0 || got !== requestBytes(start)) {
      this.#follow(fd, start)
      return
    }
    this.#answer(start.subarray(headBytes), fd).then(
      (reply) => this.#reply(fd, encodeReply(reply)),
      () => this.#closed(fd),
    )
  }

  #reply(fd: number, reply: Buffer): void {
    const sent = syscalls.send(fd, reply, syscalls.MSG_DONTWAIT | syscalls.MSG_NOSIGNAL)
    if (sent === reply.length || (sent < 0 && sent !== -syscalls.EAGAIN)) this.#closed(fd)
    else this.#stream(fd).end(reply.subarray(Math.max(sent, 0)))
  }

  /** The rest of a request that begins like this, and its answer. */
  #follow(fd: number, start: Buffer): void {
    const socket = this.#stream(fd)
    this.#silent.add(socket)
    socket.once('close', () => this.#silent.delete(socket))
    socket.setTimeout(requestSeconds * 1000, () => socket.destroy())
    readRequest(socket, start, (body) => {
      this.#silent.delete(socket)
      this.#answer(body, fd).then(
        (reply) => socket.end(encodeReply(reply)),
        () => socket.destroy(),
      )
    })
  }

  /** The plugin may be killed at any time; its request is carried out all the same. */
  #stream(fd: number): Socket {
    const socket = new Socket({ fd, allowHalfOpen: true })
    socket.on('error', () => socket.destroy())
    socket.once('close', () => this.#closed())
    return socket
  }

  /** A connection is closed, or is to be, when its descriptor is given. */
  #closed(fd?: number): void {
    if (fd !== undefined) syscalls.close(fd)
    this.#open--
    if (this.#open === 0) this.#allClosed?.()
  }
}

function openListening(path: string): number {
  const flags = syscalls.SOCK_CLOEXEC | syscalls.SOCK_NONBLOCK
  const fd = syscalls.socket(syscalls.AF_UNIX, syscalls.SOCK_STREAM | flags, 0)
  if (fd < 0) throw kernelError(`listen at ${path}`, -fd)
  const bound = syscalls.bindUnix(fd, path)
  const listening = bound < 0 ? bound : syscalls.listen(fd, backlog)
  if (listening >= 0) return fd
  syscalls.close(fd)
  throw kernelError(`listen at ${path}`, -listening)
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
