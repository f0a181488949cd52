/**
 * When to try a key again. Two causes, one shape: an operation that failed, and a wanted object that somebody else keeps
 * taking away. The first repetition is quick; each further one within the quiet time waits twice as long, so that two
 * agents that fight over an object cost little, and a change made once by hand is mended at once.
 */
import type { KernelKey } from '../model/kernel-object.ts'

/** Time as a value, so that tests can turn it. */
export interface Clock {
  /** Milliseconds from any fixed point; never goes back. */
  now(): number
  /** Calls once after `ms`; the result cancels. Does not keep a process alive. */
  after(ms: number, call: () => void): () => void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, call) {
    const timer = setTimeout(call, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}

export interface BackoffLimits {
  readonly firstMs: number
  readonly longestMs: number
  /** After this long without a repetition a key starts from the beginning. */
  readonly quietMs: number
}

interface Entry {
  count: number
  lastAt: number
  dueAt: number | undefined
}

/** Keys that wait for their time. One timer runs for all. */
export class Schedule {
  readonly #clock: Clock
  readonly #wake: () => void
  readonly #entries = new Map<KernelKey, Entry>()
  readonly #waiting = new Set<KernelKey>()
  #cancelTimer: (() => void) | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** `wake` is called when at least one key is due. */
  constructor(clock: Clock, wake: () => void) {
    this.#clock = clock
    this.#wake = wake
  }

  /** Makes a key wait, longer than last time. Returns how long, in milliseconds. A key that waits already keeps its time. */
  postpone(key: KernelKey, limits: BackoffLimits): number {
    const now = this.#clock.now()
    let entry = this.#entries.get(key)
    if (entry?.dueAt !== undefined) return Math.max(entry.dueAt - now, 0)
    if (!entry || now - entry.lastAt > limits.quietMs) {
      entry = { count: 0, lastAt: 0, dueAt: undefined }
      this.#entries.set(key, entry)
    }
    const delay = Math.min(limits.firstMs * 2 ** Math.min(entry.count, 20), limits.longestMs)
    entry.count++
    entry.lastAt = entry.dueAt = now + delay
    this.#waiting.add(key)
    this.#arm(entry.dueAt)
    return delay
  }

  /** True while a key waits. */
  waits(key: KernelKey): boolean {
    return this.#waiting.has(key)
  }

  /** Makes a waiting key due now, keeping its count. False when it does not wait. */
  hurry(key: KernelKey): boolean {
    if (!this.#waiting.delete(key)) return false
    this.#entries.get(key)!.dueAt = undefined
    return true
  }

  /** Forgets a key: it is wanted differently now, or no more. */
  forget(key: KernelKey): void {
    this.#waiting.delete(key)
    this.#entries.delete(key)
  }

  /** Takes the keys whose time has come. */
  takeDue(): KernelKey[] {
    const now = this.#clock.now()
    const due: KernelKey[] = []
    let next = Number.POSITIVE_INFINITY
    for (const key of this.#waiting) {
      const entry = this.#entries.get(key)!
      if (entry.dueAt! <= now) due.push(key)
      else next = Math.min(next, entry.dueAt!)
    }
    for (const key of due) this.hurry(key)
    if (next < Number.POSITIVE_INFINITY) this.#arm(next)
    return due
  }

  /** Drops counts of keys that have been quiet for long. */
  prune(quietMs: number): void {
    const before = this.#clock.now() - quietMs
    for (const [key, entry] of this.#entries)
      if (entry.dueAt === undefined && entry.lastAt < before) this.#entries.delete(key)
  }

  close(): void {
    this.#cancelTimer?.()
    this.#entries.clear()
    this.#waiting.clear()
  }

  #arm(at: number): void {
    if (at >= this.#timerAt) return
    this.#cancelTimer?.()
    this.#timerAt = at
    this.#cancelTimer = this.#clock.after(Math.max(at - this.#clock.now(), 0), () => {
      this.#timerAt = Number.POSITIVE_INFINITY
      this.#wake()
    })
  }
}
