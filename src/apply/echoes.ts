/**
 * The kernel announces our own changes too, and late: an announcement that arrives after an operation may tell of a
 * moment before it. For every operation the one announcement that it causes is awaited; whatever is said about its key
 * until then is older than the operation and is not believed.
 *
 *   op sent ─► (older word: ignored) ─► its echo ─► (later word: another hand's)
 *
 * Some operations cause none. A while after the answer the wait is given up, and when something was ignored in vain the kind is to be
 * read again.
 */

import type { KernelEvent } from '../kernel/kernel.ts'
import { type KernelKey, keyOf, type ObjectKind } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import { covers } from './covering.ts'
import type { Clock } from './schedule.ts'

/** A wait is given up in the second round of this length that finds it: between two rounds the event loop reads what has come, even when it stood still for long. */
const ROUND_MS = 500

interface Expected {
  readonly op: KernelOp
  ignored: boolean
  /** The kernel has answered. Until then any time may pass: a tunnel's process is started by an operation. */
  answered: boolean
  /** Rounds that found it waiting after that. */
  rounds: number
}

export class Echoes {
  readonly #clock: Clock
  readonly #readAgain: (kinds: Iterable<ObjectKind>) => void
  readonly #expected = new Map<KernelKey, Expected>()
  #cancelTimer: (() => void) | undefined

  constructor(clock: Clock, readAgain: (kinds: Iterable<ObjectKind>) => void) {
    this.#clock = clock
    this.#readAgain = readAgain
  }

  expect(op: KernelOp): void {
    this.#expected.set(keyOf(op.object), { op, ignored: false, answered: false, rounds: 0 })
    this.#cancelTimer ??= this.#clock.after(ROUND_MS, () => this.#giveUp())
  }

  /** True while the echo of an operation on the key has not come. */
  awaits(key: KernelKey): boolean {
    return this.#expected.has(key)
  }

  /** The operation succeeded: what it causes comes soon, or never. */
  answer(key: KernelKey): void {
    const expected = this.#expected.get(key)
    if (expected) expected.answered = true
  }

  /** The operation failed: there will be no echo. */
  dismiss(key: KernelKey): void {
    this.#expected.delete(key)
  }

  /** True when the event may be believed: nothing is awaited for its key, or this is it. */
  admit(event: Exclude<KernelEvent, { type: 'resync' }>): boolean {
    const expected = this.#expected.get(event.key)
    if (!expected) return true
    const { verb, object } = expected.op
    if (verb === 'delete' ? event.type === 'delete' : event.type === 'new' && covers(event.object, object)) {
      this.#expected.delete(event.key)
      return true
    }
    expected.ignored = true
    return false
  }

  /** Everything is read anew: nothing is awaited any more. */
  clear(): void {
    this.#expected.clear()
  }

  close(): void {
    this.#cancelTimer?.()
    this.#expected.clear()
  }

  #giveUp(): void {
    const kinds = new Set<ObjectKind>()
    for (const [key, expected] of this.#expected) {
      if (!expected.answered || ++expected.rounds < 2) continue
      this.#expected.delete(key)
      if (expected.ignored) kinds.add(expected.op.object.kind)
    }
    this.#cancelTimer = this.#expected.size > 0 ? this.#clock.after(ROUND_MS, () => this.#giveUp()) : undefined
    if (kinds.size > 0) this.#readAgain(kinds)
  }
}
