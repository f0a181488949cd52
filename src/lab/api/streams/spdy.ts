/**
 * The server's end of a SPDY/3.1 connection, as far as kubectl's exec and port-forward use it: streams that the
 * client opens, data both ways, ping, reset and the end. It runs over any duplex stream: a hijacked HTTP
 * connection, or the tunnel inside a WebSocket. Peers of this protocol keep no flow-control windows (spdystream
 * does not); back pressure is the transport's.
 * Sources: SPDY Protocol, Draft 3.1, sections 2.2 (framing), 2.3 (streams), 2.6 (control frames).
 */
import { Duplex } from 'node:stream'
import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib'
import { spdyDictionary } from './spdy-dictionary.ts'

const SYN_STREAM = 1
const SYN_REPLY = 2
const RST_STREAM = 3
const PING = 6
const GOAWAY = 7
const FLAG_FIN = 1
const version = 3

const RST_PROTOCOL_ERROR = 1
const RST_REFUSED_STREAM = 3
const RST_CANCEL = 5

/** Longest control frame that is taken, and longest header block after inflation. */
const controlLimitBytes = 64 * 1024
/** Data goes out in frames of at most this size. */
const dataFrameBytes = 32 * 1024
/** Streams that one connection may have open. */
const streamLimit = 512

export type SpdyHeaders = ReadonlyMap<string, string>

/** One stream. Ending it sends FIN; a client's FIN ends its reading side. */
export class SpdyStream extends Duplex {
  readonly id: number
  readonly headers: SpdyHeaders
  readonly #connection: SpdyConnection
  #sentFin = false
  #waiting: (() => void) | undefined

  constructor(connection: SpdyConnection, id: number, headers: SpdyHeaders) {
    super({ allowHalfOpen: true })
    this.#connection = connection
    this.id = id
    this.headers = headers
  }

  /** Data from the peer; resolves when more may come. */
  receive(data: Buffer): Promise<void> | undefined {
    if (this.destroyed || this.readableEnded || data.length === 0) return undefined
    if (this.push(data)) return undefined
    return new Promise((done) => {
      this.#waiting = done
    })
  }

  receiveEnd(): void {
    if (!this.destroyed) this.push(null)
  }

  override _read(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connection.sendData(this.id, chunk, false, done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#sentFin = true
    this.#connection.sendData(this.id, Buffer.alloc(0), true, done)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this._read()
    if (!this.#sentFin) this.#connection.reset(this.id, RST_CANCEL)
    this.#connection.forget(this.id)
    done(error)
  }
}

export class SpdyConnection {
  readonly #transport: Duplex
  readonly #onStream: (stream: SpdyStream) => void
  readonly #streams = new Map<number, SpdyStream>()
  readonly #inflate: Inflate = createInflate({ dictionary: spdyDictionary, finishFlush: constants.Z_SYNC_FLUSH })
  readonly #deflate: Deflate = createDeflate({ dictionary: spdyDictionary })
  #inflated: Buffer[] = []
  #deflated: Buffer[] = []
  #lastId = 0
  #closed = false
  readonly #whenClosed: (() => void)[] = []
  /** Control frames are compressed one after the other: replies queue here. */
  #replies: Promise<void> = Promise.resolve()

  constructor(transport: Duplex, head: Buffer, onStream: (stream: SpdyStream) => void) {
    this.#transport = transport
    this.#onStream = onStream
    this.#inflate.on('data', (chunk: Buffer) => this.#inflated.push(chunk))
    this.#deflate.on('data', (chunk: Buffer) => this.#deflated.push(chunk))
    for (const side of [this.#inflate, this.#deflate, transport]) side.on('error', () => this.close())
    transport.on('close', () => this.close())
    if (head.length) transport.unshift(head)
    void this.#run()
  }

  onClose(listener: () => void): void {
    if (this.#closed) listener()
    else this.#whenClosed.push(listener)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const stream of this.#streams.values()) {
      stream.receiveEnd()
      stream.destroy()
    }
    this.#streams.clear()
    this.#transport.destroy()
    this.#inflate.close()
    this.#deflate.close()
    for (const listener of this.#whenClosed) listener()
  }

  /** Ends the transport once everything written is out. */
  end(): void {
    void this.#replies.then(() => this.#transport.end())
  }

  sendData(id: number, data: Buffer, fin: boolean, done: (error?: Error | null) => void): void {
    if (this.#closed) return done()
    let offset = 0
    do {
      const part = data.subarray(offset, offset + dataFrameBytes)
      offset += part.length
      const last = offset >= data.length
      const head = Buffer.alloc(8)
      head.writeUInt32BE(id)
      head.writeUInt32BE(part.length, 4)
      head[4] = fin && last ? FLAG_FIN : 0
      this.#transport.write(head)
      if (!last) this.#transport.write(part)
      else if (part.length) this.#transport.write(part, (error) => done(error))
      else done()
    } while (offset < data.length)
  }

  reset(id: number, status: number): void {
    if (this.#closed) return
    const body = Buffer.alloc(8)
    body.writeUInt32BE(id)
    body.writeUInt32BE(status, 4)
    this.#sendControl(RST_STREAM, 0, body)
  }

  forget(id: number): void {
    this.#streams.delete(id)
  }

  #sendControl(type: number, flags: number, body: Buffer): void {
    const head = Buffer.alloc(8)
    head.writeUInt16BE(0x8000 | version)
    head.writeUInt16BE(type, 2)
    head.writeUInt32BE(body.length, 4)
    head[4] = flags
    this.#transport.write(Buffer.concat([head, body]))
  }

  async #run(): Promise<void> {
    try {
      let buffer: Buffer = Buffer.alloc(0)
      for await (const chunk of this.#transport as AsyncIterable<Buffer>) {
        buffer = buffer.length ? Buffer.concat([buffer, chunk]) : chunk
        buffer = await this.#consume(buffer)
      }
    } catch {
      // The peer broke the protocol or the connection: both end it.
    }
    this.close()
  }

  /** Handles every whole frame; gives back the rest. */
  async #consume(given: Buffer): Promise<Buffer> {
    let buffer = given
    while (buffer.length >= 8) {
      const control = (buffer[0]! & 0x80) !== 0
      const length = buffer.readUIntBE(5, 3)
      if (control && length > controlLimitBytes) throw new RangeError('control frame too long')
      if (!control) {
        // Data need not wait for the whole frame's arrival, but frames of this protocol are small.
        if (buffer.length < 8 + length) break
        await this.#onData(buffer.readUInt32BE(0), buffer[4]!, buffer.subarray(8, 8 + length))
      } else {
        if (buffer.length < 8 + length) break
        await this.#onControl(buffer.readUInt16BE(2), buffer[4]!, buffer.subarray(8, 8 + length))
      }
      buffer = buffer.subarray(8 + length)
    }
    return buffer
  }

  async #onData(id: number, flags: number, data: Buffer): Promise<void> {
    const stream = this.#streams.get(id)
    if (!stream) return
    await stream.receive(data)
    if (flags & FLAG_FIN) stream.receiveEnd()
  }

  async #onControl(type: number, flags: number, body: Buffer): Promise<void> {
    if (type === SYN_STREAM && body.length >= 10) return this.#onSynStream(flags, body)
    if (type === PING && body.length === 4) this.#sendControl(PING, 0, body)
    else if (type === RST_STREAM && body.length === 8) this.#streams.get(body.readUInt32BE(0))?.destroy()
    else if (type === GOAWAY) this.#transport.end()
  }

  async #onSynStream(flags: number, body: Buffer): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fffffff
    const headers = await this.#readHeaders(body.subarray(10))
    if (id % 2 === 0 || id <= this.#lastId) return this.reset(id, RST_PROTOCOL_ERROR)
    this.#lastId = id
    if (this.#streams.size >= streamLimit) return this.reset(id, RST_REFUSED_STREAM)
    const stream = new SpdyStream(this, id, headers)
    stream.on('error', () => stream.destroy())
    this.#streams.set(id, stream)
    this.#replies = this.#replies.then(() => this.#sendReply(id))
    await this.#replies
    this.#onStream(stream)
    if (flags & FLAG_FIN) stream.receiveEnd()
  }

  /** Header block: count, then names and values, each with its length before it (section 2.6.10). */
  async #readHeaders(block: Buffer): Promise<SpdyHeaders> {
    this.#inflated = []
    await new Promise<void>((done, fail) => this.#inflate.write(block, (error) => (error ? fail(error) : done())))
    const bytes = Buffer.concat(this.#inflated)
    if (bytes.length > controlLimitBytes) throw new RangeError('header block too long')
    const headers = new Map<string, string>()
    let offset = 4
    const text = (): string => {
      const length = bytes.readUInt32BE(offset)
      offset += 4
      if (offset + length > bytes.length) throw new RangeError('header block cut short')
      offset += length
      return bytes.toString('utf8', offset - length, offset)
    }
    for (let count = bytes.readUInt32BE(0); count > 0; count--) {
      const name = text()
      headers.set(name.toLowerCase(), text())
    }
    return headers
  }

  /** An empty SYN_REPLY. */
  async #sendReply(id: number): Promise<void> {
    this.#deflated = []
    await new Promise<void>((done) => {
      this.#deflate.write(Buffer.alloc(4))
      this.#deflate.flush(constants.Z_SYNC_FLUSH, () => done())
    })
    if (this.#closed) return
    const head = Buffer.alloc(4)
    head.writeUInt32BE(id)
    this.#sendControl(SYN_REPLY, 0, Buffer.concat([head, ...this.#deflated]))
  }
}
