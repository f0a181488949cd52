/**
 * Streams of a command over one WebSocket: the first byte of every message names the channel.
 *
 *   0 stdin · 1 stdout · 2 stderr · 3 error (the outcome) · 4 resize · 255 close of the channel that follows (v5)
 *
 * Sources: Kubernetes remote command protocols v4.channel.k8s.io and v5.channel.k8s.io (KEP-4006).
 */
import { PassThrough, Writable } from 'node:stream'
import type { WebSocket } from 'ws'
import { parseSize, type Session, type StreamChoice, type TerminalSize } from './session.ts'

export const channelProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io']

const STDIN = 0
const STDOUT = 1
const STDERR = 2
const ERROR = 3
const RESIZE = 4
const CLOSE = 255

/** Kept-alive by pings: a client that is gone without a word is noticed. */
const pingMilliseconds = 30_000

class ChannelWriter extends Writable {
  readonly #socket: WebSocket
  readonly #channel: number

  constructor(socket: WebSocket, channel: number) {
    super()
    this.#socket = socket
    this.#channel = channel
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return done()
    this.#socket.send(Buffer.concat([Buffer.from([this.#channel]), chunk]), () => done())
  }
}

export function websocketSession(socket: WebSocket, choice: StreamChoice): Session {
  const aborted = new AbortController()
  const stdin = choice.stdin ? new PassThrough() : undefined
  const sizes: TerminalSize[] = []
  const listeners: ((size: TerminalSize) => void)[] = []
  const pings = setInterval(() => socket.ping(), pingMilliseconds)
  socket.on('message', (data: Buffer) => {
    const [channel] = data
    const content = data.subarray(1)
    if (channel === STDIN && stdin && !stdin.writableEnded) {
      if (!stdin.write(content)) {
        socket.pause()
        stdin.once('drain', () => socket.resume())
      }
    } else if (channel === RESIZE) {
      const size = parseSize(content.toString())
      if (!size) return
      sizes.push(size)
      for (const listener of listeners) listener(size)
    } else if (channel === CLOSE && content[0] === STDIN) stdin?.end()
  })
  socket.on('error', () => socket.terminate())
  socket.on('close', () => {
    clearInterval(pings)
    stdin?.end()
    aborted.abort()
  })
  const stdout = choice.stdout ? new ChannelWriter(socket, STDOUT) : undefined
  const stderr = choice.stderr && !choice.tty ? new ChannelWriter(socket, STDERR) : undefined
  return {
    ...(stdin && { stdin }),
    ...(stdout && { stdout }),
    ...(stderr && { stderr }),
    signal: aborted.signal,
    onResize(listener) {
      listeners.push(listener)
      const last = sizes.at(-1)
      if (last) listener(last)
    },
    async finish(outcome) {
      await new Promise<void>((done) =>
        socket.send(Buffer.concat([Buffer.from([ERROR]), Buffer.from(JSON.stringify(outcome))]), () => done()),
      )
      socket.close(1000)
    },
  }
}
