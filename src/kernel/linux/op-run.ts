/**
 * One list of rtnetlink ops on its way to the kernel: the batch being filled, whose message is whose, and the results.
 *
 *   run.perform(i) ─► batch ─► flush: send, wait, attribute              what the ops stand on may be made by the one before
 *                          └─► sendAhead: send on a worker thread        the kernel works while the next batch is encoded
 *
 * At most one batch is ahead, so the kernel sees all of them in order.
 */
import { Writer } from '../../bytes/writer.ts'
import { KernelError } from '../../model/errors.ts'
import { formatOp } from '../../model/format.ts'
import type { ObjectKind } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import { kernelError } from '../errno.ts'
import type { OpResult } from '../kernel.ts'
import type { DriverContext } from './driver.ts'
import { BATCH_BYTES, type Failures, failureError, type NetlinkSocket, type RequestBatch } from './netlink-socket.ts'
import { closeNetns, openNetns } from './netns.ts'
import type { AnyRtnetlinkKind, RequestSink } from './rtnetlink-kind.ts'
import { createTun } from './tun-device.ts'

const ENODEV = 19
/** On a worker thread a send may take longer than in the event loop. */
const AHEAD_MESSAGES = 2048

/** A batch that left: the op of each of its messages (-1 for messages that may fail), and what must be closed after it. */
interface Departed {
  readonly batch: RequestBatch
  readonly owners: readonly number[]
  readonly netnsFds: readonly number[]
}

export class OpRun implements RequestSink {
  readonly results: OpResult[]
  readonly #ops: readonly KernelOp[]
  readonly #context: DriverContext
  readonly #socket: NetlinkSocket
  readonly #rows: ReadonlyMap<ObjectKind, AnyRtnetlinkKind>
  readonly #indexes = new Map<string, number>()
  /** Devices that an unsent message makes. */
  readonly #unborn = new Set<string>()
  /** Memory of the batches when one of them may be ahead of the other; else the socket's own serves. */
  readonly #writers: Writer[] | undefined
  #netnsFds: number[] = []
  #batch: RequestBatch | undefined
  #owners: number[] = []
  #current = 0
  /** The batch ahead; never rejects. */
  #ahead: Promise<void> | undefined

  /** With `ahead`, `sendAhead` may be used, and nobody else may use the socket. */
  constructor(
    context: DriverContext,
    socket: NetlinkSocket,
    rows: ReadonlyMap<ObjectKind, AnyRtnetlinkKind>,
    ops: readonly KernelOp[],
    ahead = false,
  ) {
    this.#context = context
    this.#socket = socket
    this.#rows = rows
    this.#ops = ops
    if (ahead) this.#writers = [new Writer(BATCH_BYTES), new Writer(BATCH_BYTES)]
    this.results = new Array<OpResult>(ops.length).fill(undefined)
  }

  get writer() {
    return this.#open().writer
  }

  get isFull(): boolean {
    return this.#batch?.isFull ?? false
  }

  /** Encodes the op at `i`; a failure is its result. */
  perform(i: number): void {
    const op = this.#ops[i]!
    this.#current = i
    try {
      if (op.object.kind === 'link' && op.object.type === 'tun' && op.verb === 'add') {
        this.flush()
        createTun(this.#context, op.object)
        this.#encode({ verb: 'set', object: op.object })
        return
      }
      const later = this.#encode(op)
      if (op.verb === 'add' && op.object.kind === 'link') this.#unborn.add(op.object.name)
      if (!later) return
      this.flush()
      if (this.results[i] === undefined) later()
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      this.results[i] = error.op === '' ? kernelError(formatOp(op), error.errno, { extack: error.extack }) : error
    }
  }

  #encode(op: KernelOp): undefined | (() => void) {
    const row = this.#rows.get(op.object.kind)!
    // The row was chosen by the object's kind, so it takes this op.
    return (row.encode as (op: KernelOp, sink: RequestSink) => undefined | (() => void))(op, this)
  }

  begin(type: number, flags: number, mayFail = false): number {
    this.#owners.push(mayFail ? -1 : this.#current)
    return this.#open().begin(type, flags)
  }

  end(start: number): void {
    this.#open().end(start)
  }

  index(device: string): number {
    const known = this.#indexes.get(device)
    if (known !== undefined) return known
    if (this.#unborn.has(device)) this.flush()
    const index = this.#context.deviceIndex(device)
    if (index === undefined)
      throw kernelError(formatOp(this.#ops[this.#current]!), ENODEV, { extack: `there is no device ${device}` })
    this.#indexes.set(device, index)
    return index
  }

  netnsFd(path: string): number {
    const fd = openNetns(path)
    this.#netnsFds.push(fd)
    return fd
  }

  /** The device is about to go: its index means nothing from now on. */
  forget(device: string): void {
    this.#indexes.delete(device)
  }

  /** Sends what is encoded and attributes the failures. Not while a batch is ahead. */
  flush(): void {
    const departed = this.#depart()
    if (!departed) return
    try {
      this.#attribute(departed, this.#socket.transact(departed.batch))
    } catch (error) {
      this.#lose(departed, error)
    } finally {
      for (const fd of departed.netnsFds) closeNetns(fd)
    }
  }

  /** Waits for the batch ahead, then sends what is encoded without waiting for it. */
  async sendAhead(): Promise<void> {
    const departed = this.#depart()
    await this.land()
    if (departed) this.#ahead = this.#follow(departed)
  }

  /** Waits until nothing is ahead. */
  async land(): Promise<void> {
    await this.#ahead
    this.#ahead = undefined
  }

  async #follow(departed: Departed): Promise<void> {
    try {
      this.#attribute(departed, await this.#socket.transactAsync(departed.batch))
    } catch (error) {
      this.#lose(departed, error)
    } finally {
      for (const fd of departed.netnsFds) closeNetns(fd)
    }
  }

  #depart(): Departed | undefined {
    const batch = this.#batch
    if (!batch || batch.count === 0) return undefined
    const departed = { batch, owners: this.#owners, netnsFds: this.#netnsFds }
    this.#batch = undefined
    this.#owners = []
    this.#netnsFds = []
    this.#unborn.clear()
    this.#writers?.reverse()
    return departed
  }

  #attribute({ batch, owners }: Departed, failures: Failures): void {
    for (const [sequence, failure] of failures) {
      const owner = owners[sequence - batch.firstSequence]
      if (owner === undefined || owner < 0) continue
      this.results[owner] ??= failureError(formatOp(this.#ops[owner]!), failure)
    }
  }

  /** The batch could not be sent. */
  #lose({ owners }: Departed, error: unknown): void {
    if (!(error instanceof KernelError)) throw error
    for (const owner of owners) if (owner >= 0) this.results[owner] ??= error
  }

  #open(): RequestBatch {
    this.#batch ??= this.#writers ? this.#socket.batch(this.#writers[0], AHEAD_MESSAGES) : this.#socket.batch()
    return this.#batch
  }
}
