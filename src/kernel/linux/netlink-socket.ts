/**
 * A netlink socket and the conversations on it: batches of requests whose failures come back by sequence number, and
 * dumps that are repeated when the kernel says that they were interrupted.
 *
 *   batch ──one send──► kernel works through every message before `send` returns
 *         ◄─recv…────── an error per failed message, one acknowledgement of the last: nothing else is waited for
 *
 * Only the last message of a batch asks for an acknowledgement (errors come unasked), so that 100,000 routes cost no
 * 100,000 answers. Everything here is synchronous and non-blocking, because the kernel has answered by the time that
 * `send` returns; requests that keep the kernel waiting go through `transactAsync` on a socket of their own.
 *
 * Sources: netlink(7); include/uapi/linux/netlink.h; net/netlink/af_netlink.c for when answers are queued.
 */
import type { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import * as nl from '../../wire/netlink/constants.gen.ts'
import {
  type Acknowledgement,
  beginMessage,
  decodeAcknowledgement,
  endMessage,
  type MessageHeader,
  readMessages,
} from '../../wire/netlink/message.ts'
import { kernelError } from '../errno.ts'
import { countDumpRetry, countOverrun, countRefusal } from './netlink-counts.ts'
import { type DescribeMessage, nlDebug } from './netlink-debug.ts'
import * as syscalls from './syscalls.ts'

const EINTR = 4
const EAGAIN = 11
const EPROTO = 71
const ENOBUFS = 105
const NLMSG_DATA_MIN = 16
const MAX_DUMP_ATTEMPTS = 12
/** A slice of work after which the event loop gets its turn, in milliseconds. */
const SLICE_MILLISECONDS = 4

export interface NetlinkSocketOptions {
  /** How WEFT_NLDEBUG prints this protocol's messages; hexadecimal when left out. */
  readonly describe?: DescribeMessage
  /** For the same: which namespace this is. */
  readonly label?: string
  /** Room for unread answers. */
  readonly receiveBufferBytes?: number
  /** Whether dump requests are checked and filtered strictly (NETLINK_GET_STRICT_CHK); rtnetlink only. Default true. */
  readonly strict?: boolean
}

/** Every answer is decoded before the next call of `recv`, so all sockets share one buffer. */
const inbox = new Uint8Array(256 * 1024)

/** Bytes after which a batch is full. */
export const BATCH_BYTES = 128 << 10
/** A send that holds up the event loop stays short. */
const BATCH_MESSAGES = 512

/**
 * Requests of one send. Numbers start at `firstSequence` and follow each other without gaps.
 */
export class RequestBatch {
  readonly writer: Writer
  readonly firstSequence: number
  /**
   * The request whose acknowledgement ends the conversation; the last one when left out. A protocol that acknowledges
   * its last message differently (nfnetlink's batch end) sets it, and NLM_F_ACK on that request, itself.
   */
  awaitedSequence: number | undefined
  /**
   * A request whose failure is that of the whole batch: no other answer may come after it (nfnetlink's batch begin, which a
   * kernel without that subsystem refuses).
   */
  openingSequence: number | undefined
  readonly #messagesMax: number
  #next: number
  #lastStart = 0

  constructor(writer: Writer, firstSequence: number, messagesMax: number) {
    this.#messagesMax = messagesMax
    this.writer = writer
    this.firstSequence = firstSequence
    this.#next = firstSequence
  }

  /** Starts a request; its payload goes to `writer`, then `end`. Returns its offset. */
  begin(type: number, flags: number): number {
    this.#lastStart = this.writer.length
    return beginMessage(this.writer, type, flags | nl.NLM_F_REQUEST, this.#next++)
  }

  end(start: number): void {
    endMessage(this.writer, start)
  }

  /** Takes back the request that `begin` started at `start` and everything after it. */
  abandon(start: number, sequence: number): void {
    this.writer.truncate(start)
    this.#next = sequence
  }

  /** Sequence number that the next request will get. */
  get nextSequence(): number {
    return this.#next
  }
  get count(): number {
    return this.#next - this.firstSequence
  }
  /** Send it and go on with a new one. */
  get isFull(): boolean {
    return this.count >= this.#messagesMax || this.writer.length >= BATCH_BYTES
  }

  /** The bytes to send; unless `awaitedSequence` is set, the last request now asks for an acknowledgement. */
  finish(): Uint8Array {
    if (this.awaitedSequence === undefined)
      this.writer.patchU16le(this.#lastStart + 6, this.#lastFlags() | nl.NLM_F_ACK)
    return this.writer.finish()
  }

  #lastFlags(): number {
    const bytes = this.writer.finish()
    return bytes[this.#lastStart + 6]! | (bytes[this.#lastStart + 7]! << 8)
  }
}

/** What a batch brought: the failures by sequence number; no entry is success. */
export type Failures = ReadonlyMap<number, Acknowledgement>

/** Called for every answer that is no acknowledgement; the reader is valid during the call. */
export type DataListener = (header: MessageHeader, payload: Reader) => void

export class NetlinkSocket {
  readonly fd: number
  readonly protocol: number
  readonly #options: NetlinkSocketOptions
  readonly #writer = new Writer(2048)
  #sequence = 1
  #closed = false

  /** Opens a socket in the namespace that the calling thread is in; the kernel binds it when it is first used. Throws KernelError. */
  constructor(protocol: number, options: NetlinkSocketOptions = {}) {
    const flags = syscalls.SOCK_RAW | syscalls.SOCK_CLOEXEC | syscalls.SOCK_NONBLOCK
    const fd = syscalls.socket(syscalls.AF_NETLINK, flags, protocol)
    if (fd < 0) throw kernelError(`open a netlink socket of protocol ${protocol}`, -fd)
    this.fd = fd
    this.protocol = protocol
    this.#options = options
    setReceiveBuffer(fd, options.receiveBufferBytes ?? 4 << 20)
    syscalls.setsockoptInt(fd, syscalls.SOL_SOCKET, syscalls.SO_SNDBUFFORCE, 2 << 20)
    syscalls.setsockoptInt(fd, syscalls.SOL_NETLINK, nl.NETLINK_EXT_ACK, 1)
    syscalls.setsockoptInt(fd, syscalls.SOL_NETLINK, nl.NETLINK_CAP_ACK, 1)
    if (protocol === nl.NETLINK_ROUTE && options.strict !== false)
      syscalls.setsockoptInt(fd, syscalls.SOL_NETLINK, nl.NETLINK_GET_STRICT_CHK, 1)
  }

  /** An empty batch, over this socket's own writer unless another is given: one batch at a time is being written. */
  batch(writer = this.#writer, messagesMax = BATCH_MESSAGES): RequestBatch {
    writer.reset()
    return new RequestBatch(writer, this.#sequence, messagesMax)
  }

  /** Sends a batch and collects what failed. Throws KernelError when it could not be sent at all. */
  transact(batch: RequestBatch, onData?: DataListener): Failures {
    const bytes = this.#close(batch)
    if (nlDebug) this.#debug('>', bytes)
    this.#send(bytes)
    return this.#collect(batch, onData)
  }

  /**
   * The same on a worker thread, for requests on which the kernel works long. Until it is answered nothing else may be
   * sent through this socket and the batch's writer must not be touched; another batch may be written meanwhile.
   */
  async transactAsync(batch: RequestBatch, onData?: DataListener): Promise<Failures> {
    const bytes = this.#close(batch)
    if (nlDebug) this.#debug('>', bytes)
    if ((await syscalls.sendAsync(this.fd, bytes)) < 0) this.#send(bytes)
    return this.#collect(batch, onData)
  }

  /** One request that is answered with at most a few messages. Throws KernelError when the kernel refuses it. */
  request(op: string, type: number, flags: number, encode: (writer: Writer) => void, onData?: DataListener): void {
    const batch = this.batch()
    const start = batch.begin(type, flags)
    encode(batch.writer)
    batch.end(start)
    for (const failure of this.transact(batch, onData).values()) throw failureError(op, failure)
  }

  /**
   * Asks for a dump and calls back for each object, giving way to the event loop between datagrams. A dump that the
   * kernel marks as interrupted starts again: `restart` is called first, to forget what came. One dump at a time per
   * socket. Throws KernelError.
   */
  async dump(
    op: string,
    type: number,
    encode: (writer: Writer) => void,
    onData: DataListener,
    restart: () => void,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (await this.#dumpOnce(op, type, encode, onData)) return
      if (attempt === MAX_DUMP_ATTEMPTS) throw kernelError(op, EINTR)
      countDumpRetry()
      restart()
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    syscalls.close(this.fd)
  }

  #close(batch: RequestBatch): Uint8Array {
    this.#sequence = (batch.nextSequence & 0x3fffffff) + 1
    return batch.finish()
  }

  #send(bytes: Uint8Array): void {
    for (;;) {
      const sent = syscalls.send(this.fd, bytes)
      if (sent === bytes.length) return
      if (sent === -EINTR) continue
      throw kernelError(`send ${bytes.length} bytes to netlink`, sent < 0 ? -sent : EPROTO)
    }
  }

  #collect(batch: RequestBatch, onData: DataListener | undefined): Failures {
    const failures = new Map<number, Acknowledgement>()
    const last = batch.nextSequence - 1
    const awaited = batch.awaitedSequence ?? last
    let answered = false
    let lost = false
    while (!answered) {
      const datagram = this.#receive()
      if (typeof datagram === 'number') {
        if (datagram === ENOBUFS) {
          countOverrun()
          lost = true
          continue
        }
        if (datagram === EAGAIN && !lost && syscalls.pollReadable(this.fd, 1000) > 0) continue
        failures.set(last, { errno: lost ? ENOBUFS : datagram, message: 'the kernel’s answer was lost' })
        return failures
      }
      readMessages(datagram, (header, payload) => {
        const ours = header.sequence >= batch.firstSequence && header.sequence <= last
        if (!ours) return
        if (header.type === nl.NLMSG_ERROR) {
          const answer = decodeAcknowledgement(header.flags, payload)
          if (answer.errno !== 0) {
            countRefusal(answer.errno)
            failures.set(header.sequence, answer)
          }
          const refused = answer.errno !== 0 && header.sequence === batch.openingSequence
          if (header.sequence === awaited || refused) answered = true
        } else if (header.type >= NLMSG_DATA_MIN) onData?.(header, payload)
      })
    }
    return failures
  }

  /** The next datagram, or a positive errno. */
  #receive(): Uint8Array | number {
    for (;;) {
      const got = syscalls.recv(this.fd, inbox, syscalls.MSG_DONTWAIT | syscalls.MSG_TRUNC)
      if (got === -EINTR) continue
      if (got < 0) return -got
      if (got > inbox.length) return ENOBUFS
      const datagram = inbox.subarray(0, got)
      if (nlDebug) this.#debug('<', datagram)
      return datagram
    }
  }

  /** False when the dump was interrupted. */
  async #dumpOnce(op: string, type: number, encode: (writer: Writer) => void, onData: DataListener): Promise<boolean> {
    const batch = this.batch()
    const sequence = batch.nextSequence
    const start = batch.begin(type, nl.NLM_F_DUMP)
    encode(batch.writer)
    batch.end(start)
    this.#sequence = (sequence & 0x3fffffff) + 1
    const bytes = batch.writer.finish()
    if (nlDebug) this.#debug('>', bytes)
    this.#send(bytes)
    let done = false
    let interrupted = false
    let failure: Acknowledgement | undefined
    let sliceStart = performance.now()
    while (!done) {
      const datagram = this.#receive()
      if (typeof datagram === 'number') {
        if (datagram === EAGAIN && syscalls.pollReadable(this.fd, 1000) > 0) continue
        throw kernelError(op, datagram)
      }
      readMessages(datagram, (header, payload) => {
        if (header.sequence !== sequence) return
        if (header.flags & nl.NLM_F_DUMP_INTR) interrupted = true
        if (header.type === nl.NLMSG_DONE || header.type === nl.NLMSG_ERROR) {
          const answer = decodeAcknowledgement(header.flags, payload, header.type === nl.NLMSG_DONE)
          if (answer.errno !== 0) failure = answer
          done = true
        } else if (!interrupted && header.type >= NLMSG_DATA_MIN) onData(header, payload)
      })
      if (!done && performance.now() - sliceStart > SLICE_MILLISECONDS) {
        await nextTurn()
        sliceStart = performance.now()
      }
    }
    if (failure && failure.errno !== EINTR) {
      countRefusal(failure.errno)
      throw failureError(op, failure)
    }
    return !interrupted && !failure
  }

  #debug(direction: '>' | '<', bytes: Uint8Array): void {
    nlDebug?.(direction, this.#options.label ?? '', bytes, this.#options.describe)
  }
}

/** Resolves in the event loop's next turn: timers and sockets had theirs. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A slice of synchronous work has run long enough. */
export const sliceIsOver = (sliceStart: number): boolean => performance.now() - sliceStart > SLICE_MILLISECONDS

/** Asks for room beyond the system's limit, and for what the limit allows when that is forbidden. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  if (syscalls.setsockoptInt(fd, syscalls.SOL_SOCKET, syscalls.SO_RCVBUFFORCE, bytes) < 0)
    syscalls.setsockoptInt(fd, syscalls.SOL_SOCKET, syscalls.SO_RCVBUF, bytes)
}

/** The KernelError of an operation that the kernel refused. */
export function failureError(op: string, failure: Acknowledgement): ReturnType<typeof kernelError> {
  const missing = failure.missingType === undefined ? undefined : `attribute ${failure.missingType} is missing`
  return kernelError(op, failure.errno, { extack: failure.message ?? missing, offset: failure.offset })
}
