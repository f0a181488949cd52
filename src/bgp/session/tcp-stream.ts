/**
 * A connected socket as the speaker's stream. Bytes are read into one buffer that all streams of a thread share: a chunk
 * is worked off before the next is read, so a peer that sends fast costs no garbage.
 */
import { Socket } from 'node:net'
import * as syscalls from '../../kernel/linux/syscalls.ts'
import type { Endpoint, Stream, StreamListener, TtlRule } from '../transport.ts'
import { decodeSocketAddress, setTtl } from './socket-options.ts'

/** One read at most; several messages of a fast peer come in one. */
const CHUNK_BYTES = 64 * 1024
/** Beyond this the sender is told to hold back. */
const HIGH_WATER_BYTES = 512 * 1024
/** How long what was sent before the end may take to go out. */
const LINGER_MILLISECONDS = 3000

/** More than so many at once that wait for the other side to close, and the next is cut off: a flood costs no sockets. */
const LINGERING_MAX = 256
let lingering = 0

const chunk = new Uint8Array(CHUNK_BYTES)

export class TcpStream implements Stream {
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly #fd: number
  readonly #socket: Socket
  #listener: StreamListener | undefined
  #paused = false

  /** Takes over a connected descriptor. Throws KernelError when the connection is gone already. */
  constructor(fd: number) {
    this.#fd = fd
    this.local = decodeSocketAddress(fd, syscalls.getsockname(fd))
    this.remote = decodeSocketAddress(fd, syscalls.getpeername(fd))
    const options = {
      fd,
      readable: true,
      writable: true,
      writableHighWaterMark: HIGH_WATER_BYTES,
      onread: {
        buffer: chunk,
        callback: (count: number, bytes: Uint8Array): boolean => {
          this.#listener?.data(bytes.subarray(0, count))
          // A peer that has more to say waits until the others were heard.
          if (count < CHUNK_BYTES || this.#paused) return true
          setImmediate(() => this.#paused || this.#socket.resume())
          return false
        },
      },
    }
    this.#socket = new Socket(options)
    this.#socket.setNoDelay(true)
    this.#socket.on('drain', () => this.#listener?.drained())
    this.#socket.on('error', (error) => this.#ended(error.message))
    this.#socket.on('end', () => this.#ended('the peer closed the connection'))
    this.#socket.on('close', () => this.#ended('the connection closed'))
  }

  /** Starts to read. */
  listen(listener: StreamListener): void {
    this.#listener = listener
    this.#socket.resume()
  }

  send(bytes: Uint8Array): boolean {
    if (this.#socket.destroyed || this.#socket.writableEnded) return true
    return this.#socket.write(bytes)
  }

  get queuedBytes(): number {
    return this.#socket.writableLength
  }

  setTtl(rule: TtlRule): void {
    if (!this.#socket.destroyed) setTtl(this.#fd, this.remote.address.family, rule)
  }

  pause(): void {
    this.#paused = true
    this.#socket.pause()
  }

  resume(): void {
    this.#paused = false
    this.#socket.resume()
  }

  close(): void {
    this.#listener = undefined
    if (this.#socket.destroyed || this.#socket.writableEnded) return
    if (lingering >= LINGERING_MAX) return this.abort()
    lingering++
    // Read on until the peer has closed too: bytes left unread would make the kernel reset the connection, and the last
    // NOTIFICATION would be lost with it.
    this.resume()
    this.#socket.end()
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MILLISECONDS)
    timer.unref()
    this.#socket.once('close', () => {
      lingering--
      clearTimeout(timer)
    })
  }

  abort(): void {
    this.#listener = undefined
    this.#socket.resetAndDestroy()
  }

  #ended(reason: string): void {
    const listener = this.#listener
    this.#listener = undefined
    this.#socket.destroy()
    listener?.closed(reason)
  }
}
