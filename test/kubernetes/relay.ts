/**
 * TCP from a port of loopback to a server, byte by byte, with the faults that a path shows: connections reset, cut after so
 * many bytes, silent for ever while they stay open (a balancer whose backend is gone), slow.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { connectIn } from '../../src/lab/connect.ts'

export interface RelayTarget {
  /** The namespace to connect from; this one when left out. */
  readonly netns?: string
  readonly address: string
  readonly port: number
}

interface Pair {
  readonly client: Socket
  readonly server: Socket
}

const SLICES_A_SECOND = 20

export class Relay {
  readonly #target: RelayTarget
  readonly #server: Server
  readonly #pairs = new Set<Pair>()
  /** Connections that clients have made so far. */
  accepted = 0
  #silent = false
  #bytesLeft = Number.POSITIVE_INFINITY
  #bytesPerSecond = Number.POSITIVE_INFINITY

  constructor(target: RelayTarget) {
    this.#target = target
    this.#server = createServer((client) => this.#accept(client))
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  get open(): number {
    return this.#pairs.size
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    this.#server.unref()
  }

  /** Resets every connection; new ones work. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy()
      server.destroy()
    }
  }

  /** Cuts everything once, as soon as servers have sent so many more bytes; not one byte more is let through. */
  cutAfter(bytes: number): void {
    this.#bytesLeft = bytes
  }

  /** Takes everything, answers nothing, closes nothing: old connections and new ones, until told otherwise. */
  silence(silent: boolean): void {
    this.#silent = silent
    // What was swallowed is gone: those connections can never speak again, as behind a balancer.
    if (!silent) this.cut()
  }

  /** Bytes a second from servers to each client; 0 for no limit. */
  slow(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond || Number.POSITIVE_INFINITY
  }

  close(): void {
    this.cut()
    this.#server.close()
  }

  #accept(client: Socket): void {
    const { netns, address, port } = this.#target
    this.accepted++
    const server = netns ? connectIn(netns, address, port) : connect(port, address)
    const pair = { client, server }
    this.#pairs.add(pair)
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => {
        other.destroy()
        this.#pairs.delete(pair)
      })
    }
    client.on('data', (chunk) => {
      if (!this.#silent) server.write(chunk)
    })
    server.on('data', (chunk: Buffer) => this.#answer(pair, chunk))
  }

  #answer({ client, server }: Pair, chunk: Buffer): void {
    if (this.#silent) return
    if (chunk.length >= this.#bytesLeft) {
      client.write(chunk.subarray(0, this.#bytesLeft), () => this.cut())
      this.#bytesLeft = Number.POSITIVE_INFINITY
      return
    }
    this.#bytesLeft -= chunk.length
    if (this.#bytesPerSecond === Number.POSITIVE_INFINITY) {
      client.write(chunk)
      return
    }
    server.pause()
    const size = Math.max(1, Math.floor(this.#bytesPerSecond / SLICES_A_SECOND))
    const send = (from: number) => {
      if (client.destroyed) return
      if (from >= chunk.length) {
        server.resume()
        return
      }
      client.write(chunk.subarray(from, from + size))
      setTimeout(() => send(from + size), 1000 / SLICES_A_SECOND)
    }
    send(0)
  }
}
