/**
 * The only writer of planned kernel state. It keeps a sum of wants (Desired) and a picture of the kernel (Mirror), and makes
 * the second follow the first, key by key:
 *
 *   set / remove a fragment ─► dirty keys ─┐
 *   multicast: changed by another hand ────┼─► plan ─► execute ─► mirror, report
 *   failed before, due again ──────────────┘
 *
 * Work is in proportion to what changed. Nothing is deleted before markComplete(): until every source of wants has spoken,
 * an unwanted object may be one whose want is yet to come. A failed operation is reported, waits and is tried again while
 * all others go on; an object that another hand keeps changing is mended at longer and longer intervals.
 */

import type { Kernel, KernelEvent, OpResult, Watch } from '../kernel/kernel.ts'
import { formatOp } from '../model/format.ts'
import { type KernelKey, keyOf, type ObjectKind } from '../model/kernel-object.ts'
import type { Fragment, KernelOp } from '../model/kernel-state.ts'
import type { ApplierCounts, ApplierOptions, ApplyFailure } from './applier-options.ts'
import { Desired } from './desired.ts'
import { planChanges } from './diff.ts'
import { Echoes } from './echoes.ts'
import { errorCodeMeans } from './failure.ts'
import { Mirror } from './mirror.ts'
import { weftOwnership } from './ownership.ts'

import { type BackoffLimits, type Clock, Schedule, systemClock } from './schedule.ts'

export type { ApplierCounts, ApplierOptions, ApplyFailure, ApplyReport } from './applier-options.ts'

const KINDS: readonly (readonly ObjectKind[])[] = [
  ['link'],
  ['sysctl', 'offload'],
  ['fou'],
  ['address', 'neighbour', 'fdb'],
  ['route', 'rule'],
  ['nft-table', 'nft-set', 'nft-counter', 'nft-chain', 'nft-element'],
  ['tunnel', 'tunnel-peer'],
]
const ROUTES: ReadonlySet<ObjectKind> = new Set(['route'])
const ON_LINK: readonly ObjectKind[] = ['address', 'neighbour', 'fdb']

const DRIFT: BackoffLimits = { firstMs: 10, longestMs: 10_000, quietMs: 30_000 }
const FAILURE: BackoffLimits = { firstMs: 100, longestMs: 30_000, quietMs: 120_000 }
const READ_KEY: KernelKey = '(read)'

/** Most ops of one call: large enough to cost nothing, small enough to let others speak in between. */
const CHUNK = 4000

const isNft = (op: KernelOp): boolean => op.object.kind.startsWith('nft-')

export class Applier {
  readonly desired = new Desired()
  readonly #kernel: Kernel
  readonly #options: ApplierOptions
  readonly #mirror: Mirror
  readonly #clock: Clock
  readonly #schedule: Schedule
  readonly #kinds: readonly (readonly ObjectKind[])[]
  /** Kinds that announce nothing and are not read: written when wanted and again at every resync. */
  readonly #readable: ReadonlySet<ObjectKind>
  readonly #dirty = new Set<KernelKey>()
  readonly #toRead = new Set<ObjectKind>()
  readonly #failures = new Map<KernelKey, ApplyFailure>()
  readonly #echoes: Echoes
  #queued: KernelEvent[] | undefined
  #watch: Watch | undefined
  #cancelResync: (() => void) | undefined
  #started = false
  #complete = false
  #running = false
  #closed = false
  #waiters: (() => void)[] = []
  readonly #counts = { opsDone: 0, opsFailed: 0, driftSeen: 0, readings: 0 }

  constructor(kernel: Kernel, options: ApplierOptions = {}) {
    this.#kernel = kernel
    this.#options = options
    this.#mirror = new Mirror(this.desired, options.ownership ?? weftOwnership())
    this.#clock = options.clock ?? systemClock
    this.#kinds = options.kinds ?? KINDS
    this.#readable = new Set(this.#kinds.flat())
    this.#schedule = new Schedule(this.#clock, () => this.#wake())
    this.#echoes = new Echoes(this.#clock, (kinds) => {
      this.#askToRead(kinds)
      this.#kick()
    })
  }

  /** Objects that a pass has still to look at; those that failed wait elsewhere, see `failures`. */
  get queued(): number {
    return this.#dirty.size
  }

  get counts(): ApplierCounts {
    return { ...this.#counts }
  }

  /** Watches and reads the kernel; fragments may be set before. Rejects when links cannot be read. */
  async start(): Promise<void> {
    this.#watch = this.#kernel.watch([...this.#readable], (event) => this.#onEvent(event))
    this.#askToRead(this.#readable)
    await this.#read()
    this.#started = true
    this.#resyncLater()
    for (const key of this.desired.keys()) if (!this.#mirror.holds(key)) this.#dirty.add(key)
    this.#kick()
  }

  /** Puts fragments in place of their sources' earlier ones. Throws DesiredConflict and changes nothing. */
  set(...fragments: readonly Fragment[]): void {
    this.change(fragments, [])
  }

  /** Drops the fragments of sources. */
  remove(...sources: readonly string[]): void {
    this.change([], sources)
  }

  /** Both as one step; see Desired.setAll. */
  change(fragments: readonly Fragment[], removed: readonly string[]): void {
    for (const key of this.desired.setAll(fragments, removed)) {
      this.#schedule.forget(key)
      this.#failures.delete(key)
      this.#mirror.release(key)
      this.#dirty.add(key)
    }
    this.#kick()
  }

  /** Every source has spoken: what is ours and unwanted goes from now on, what was left by an earlier run first. */
  markComplete(): void {
    this.#complete = true
    for (const key of this.#mirror.staleKeys()) this.#dirty.add(key)
    this.#kick()
  }

  /** Resolves when nothing is left to be tried now; what failed may still wait for its next turn. */
  settle(): Promise<void> {
    const mayRead = this.#toRead.size > 0 && !this.#schedule.waits(READ_KEY)
    if (this.#closed || (!this.#running && this.#dirty.size === 0 && !mayRead)) return Promise.resolve()
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  /** True when everything that a source wants is in the kernel as wanted, to the best of our knowledge. */
  inPlace(source: string): boolean {
    return this.desired.keysOf(source).every((key) => this.#mirror.holds(key))
  }

  /** Operations that failed and wait for another try. */
  failures(): readonly ApplyFailure[] {
    return [...this.#failures.values()]
  }

  /** Reads everything again soon. */
  resync(): void {
    this.#askToRead(this.#readable)
    for (const key of this.desired.keys())
      if (!this.#readable.has(this.desired.get(key)!.kind)) {
        this.#mirror.drop(key)
        this.#dirty.add(key)
      }
    this.#kick()
  }

  /** Stops; the kernel keeps what it has. Waits for a pass that is under way. */
  async close(): Promise<void> {
    this.#closed = true
    this.#watch?.close()
    this.#cancelResync?.()
    this.#schedule.close()
    this.#echoes.close()
    if (this.#running) await new Promise<void>((resolve) => this.#waiters.push(resolve))
  }

  #resyncLater(): void {
    this.#cancelResync = this.#clock.after((this.#options.resyncSeconds ?? 300) * 1000, () => {
      this.#schedule.prune(FAILURE.quietMs)
      this.resync()
      this.#resyncLater()
    })
  }

  #wake(): void {
    for (const key of this.#schedule.takeDue()) {
      if (key === READ_KEY) continue
      // An echo of our own change looked like drift, and was put right by the next message.
      if (this.#mirror.holds(key)) this.#schedule.forget(key)
      else this.#dirty.add(key)
    }
    this.#kick()
  }

  #kick(): void {
    if (this.#running || this.#closed || !this.#started) return
    if (this.#dirty.size === 0 && this.#toRead.size === 0) return
    this.#running = true
    setImmediate(() => void this.#work())
  }

  async #work(): Promise<void> {
    while (!this.#closed) {
      if (this.#toRead.size > 0 && !this.#schedule.waits(READ_KEY)) await this.#read()
      const ops = this.#plan()
      if (ops.length > 0) await this.#executeAll(ops)
      else if (this.#toRead.size === 0 || this.#schedule.waits(READ_KEY)) break
    }
    this.#running = false
    for (const resolve of this.#waiters.splice(0)) resolve()
  }

  #plan(): KernelOp[] {
    const keys: KernelKey[] = []
    for (const key of this.#dirty)
      if (this.desired.get(key) ? !this.#schedule.waits(key) : this.#complete && this.#mirror.isStale(key))
        keys.push(key)
    this.#dirty.clear()
    return planChanges(keys, {
      have: (key) => this.#mirror.get(key),
      want: (key) => this.desired.get(key),
      wantedOnDevice: (device) => this.desired.onDevice(device),
      wanted: () => this.desired.entries(),
      stale: () => this.#mirror.staleKeys(),
    })
  }

  async #executeAll(ops: readonly KernelOp[]): Promise<void> {
    const startedAt = performance.now()
    const failures: ApplyFailure[] = []
    const again: KernelOp[] = []
    for (let at = 0; at < ops.length; ) {
      let end = Math.min(at + CHUNK, ops.length)
      while (end < ops.length && isNft(ops[end - 1]!) && isNft(ops[end]!)) end++
      const chunk = ops.slice(at, end)
      const results = await this.#execute(chunk)
      const renewed = renewedDevices(chunk)
      for (const [i, op] of chunk.entries())
        this.#conclude(op, results[i], again, failures, renewed.has(keyOf(op.object)))
      at = end
    }
    if (again.length > 0) {
      const results = await this.#execute(again)
      for (const [i, op] of again.entries()) this.#conclude(op, results[i], undefined, failures)
    }
    this.#counts.opsDone += ops.length - failures.length
    this.#counts.opsFailed += failures.length
    this.#options.onReport?.({ ops, failures, durationMs: performance.now() - startedAt })
  }

  /** As Kernel.execute; a refused nft transaction is tried in halves, so that one bad rule does not keep the others out. */
  async #execute(ops: readonly KernelOp[]): Promise<readonly OpResult[]> {
    if (this.#options.dryRun) {
      for (const op of ops) this.#options.dryRun(formatOp(op), op)
      return ops.map(() => undefined)
    }
    for (const op of ops) if (this.#readable.has(op.object.kind)) this.#echoes.expect(op)
    for (const key of renewedDevices(ops)) this.#mirror.drop(key)
    const results = [...(await this.#kernel.execute(ops))]
    for (let from = 0; from < ops.length; from++) {
      if (!isNft(ops[from]!)) continue
      let to = from
      while (to < ops.length && isNft(ops[to]!)) to++
      if (to - from > 1 && results.slice(from, to).some((result) => result)) {
        const middle = (from + to) >> 1
        const halves = [await this.#execute(ops.slice(from, middle)), await this.#execute(ops.slice(middle, to))]
        results.splice(from, to - from, ...halves.flat())
      }
      from = to
    }
    return results
  }

  #conclude(
    op: KernelOp,
    error: OpResult,
    again: KernelOp[] | undefined,
    failures: ApplyFailure[],
    isRenewed = false,
  ): void {
    const key = keyOf(op.object)
    if (error) this.#echoes.dismiss(key)
    if (error && op.verb === 'delete' && errorCodeMeans(error, 'gone')) {
      this.#failures.delete(key)
      this.#mirror.drop(key)
      return
    }
    if (!error) {
      this.#failures.delete(key)
      this.#confirm(key, op, isRenewed)
      return
    }
    if (again && op.verb === 'add' && errorCodeMeans(error, 'exists')) {
      again.push({ verb: 'set', object: op.object })
      return
    }
    if (again && op.verb === 'set' && op.was && errorCodeMeans(error, 'gone')) {
      this.#mirror.drop(key)
      again.push({ verb: 'add', object: op.object })
      return
    }
    // A device is made by more than one message: it may stand there half done.
    if (op.object.kind === 'link') this.#askToRead(['link'])
    const retryInMs = this.#schedule.postpone(key, FAILURE)
    const failure = { key, error, sources: this.desired.sourcesOf(key), retryInMs }
    this.#failures.set(key, failure)
    failures.push(failure)
  }

  #confirm(key: KernelKey, op: KernelOp, isRenewed: boolean): void {
    // Where the echo has come already, what followed it counts, not this result.
    const echoed = this.#readable.has(op.object.kind) && !this.#options.dryRun && !this.#echoes.awaits(key)
    this.#echoes.answer(key)
    if (op.verb === 'delete') {
      if (!echoed && !isRenewed) this.#mirror.drop(key)
      return
    }
    const wasOurs = op.object.kind === 'link' && this.#mirror.isOurDevice(op.object.name)
    if (!echoed) this.#mirror.put(key, op.object)
    if (op.object.kind !== 'link') return
    this.#hurryDevice(op.object.name)
    // A device taken over: what hangs on it was another's until now, and was not noted.
    if (op.verb === 'set' && !wasOurs && this.#mirror.isOurDevice(op.object.name)) this.#askToRead(ON_LINK)
  }

  /** What waits for a device need not wait any longer. */
  #hurryDevice(name: string): void {
    for (const key of this.desired.onDevice(name)) if (this.#schedule.hurry(key)) this.#dirty.add(key)
  }

  #drift(key: KernelKey): void {
    // What is to be planned now anyhow need not wait for its turn as drift.
    if (this.#dirty.has(key)) return
    this.#counts.driftSeen++
    this.#schedule.postpone(key, DRIFT)
  }

  #onEvent(event: KernelEvent): void {
    if (this.#closed) return
    if (event.type === 'resync') {
      this.#echoes.clear()
      this.#askToRead(this.#readable)
      this.#kick()
      return
    }
    if (this.#queued) {
      this.#queued.push(event)
      return
    }
    if (!this.#echoes.admit(event)) return
    if (event.type === 'new') this.#noteNew(event)
    else this.#noteGone(event)
    this.#kick()
  }

  #noteNew({ key, object }: Exclude<KernelEvent, { type: 'resync' }>): void {
    const had = this.#mirror.get(key)
    const wasOurs = object.kind === 'link' && this.#mirror.isOurDevice(object.name)
    const held = this.#mirror.holds(key)
    if (!this.#mirror.put(key, object)) return
    if (!held && this.#mirror.holds(key)) this.#options.onFound?.()
    if (object.kind === 'link') {
      const wasUp = had?.kind === 'link' && had.up === true
      if (object.up === true && !wasUp) this.#hurryDevice(object.name)
      // The kernel drops the routes of a device that goes down and announces few of them.
      if (object.up === false && wasUp)
        for (const gone of this.#mirror.dropOnDevice(object.name, wasOurs, ROUTES))
          if (this.desired.get(gone)) this.#drift(gone)
      if (!wasOurs && this.#mirror.isOurDevice(object.name)) this.#askToRead(ON_LINK)
    }
    if (this.desired.get(key) ? !this.#mirror.holds(key) : this.#complete && this.#mirror.isStale(key)) this.#drift(key)
  }

  #noteGone({ key, object }: Exclude<KernelEvent, { type: 'resync' }>): void {
    for (const gone of [key, ...this.#mirror.drop(key)]) if (this.desired.get(gone)) this.#drift(gone)
    // Routes go with the last address of their device, unannounced.
    if (object.kind === 'address')
      for (const other of this.desired.onDevice(object.device))
        if (this.desired.get(other)?.kind === 'route') {
          this.#askToRead(['route'])
          break
        }
  }

  #askToRead(kinds: Iterable<ObjectKind>): void {
    for (const kind of kinds) if (this.#readable.has(kind)) this.#toRead.add(kind)
  }

  /** Reads the kinds asked for, group by group. A group that fails is tried again later; the others stand. */
  async #read(): Promise<void> {
    this.#queued = []
    this.#counts.readings++
    for (const group of this.#kinds) {
      const kinds = group.filter((kind) => this.#toRead.has(kind))
      if (kinds.length === 0) continue
      for (const kind of kinds) this.#toRead.delete(kind)
      try {
        const reading = await this.#kernel.read(...kinds)
        this.#mirror.replace(new Set(kinds), reading)
        if (this.#started) this.#compare(new Set(kinds))
      } catch (error) {
        if (!this.#started && kinds.includes('link')) throw error
        this.#options.onReadError?.(error)
        for (const kind of kinds) this.#toRead.add(kind)
        this.#schedule.postpone(READ_KEY, FAILURE)
      }
    }
    const events = this.#queued
    this.#queued = undefined
    for (const event of events) this.#onEvent(event)
    if (this.#started) this.#options.onFound?.()
  }

  /** Marks everything of these kinds that differs from what is wanted, to be mended as drift is. */
  #compare(kinds: ReadonlySet<ObjectKind>): void {
    for (const key of this.desired.keys())
      if (kinds.has(this.desired.get(key)!.kind) && !this.#mirror.holds(key)) this.#drift(key)
    if (this.#complete)
      for (const key of this.#mirror.staleKeys()) if (kinds.has(this.#mirror.get(key)!.kind)) this.#dirty.add(key)
  }
}

/**
 * Devices that go and come again in one list. What hung on them is forgotten when the list is sent: the word of what is made on
 * the new one may come before the answer about the old one's end, and must not be forgotten with it.
 */
function renewedDevices(ops: readonly KernelOp[]): Set<KernelKey> {
  const gone = new Set<KernelKey>()
  const renewed = new Set<KernelKey>()
  for (const { verb, object } of ops) {
    if (object.kind !== 'link') continue
    const key = keyOf(object)
    if (verb === 'delete') gone.add(key)
    else if (gone.has(key)) renewed.add(key)
  }
  return renewed
}
