/**
 * Waiting between attempts: a window that doubles up to a cap, and a moment in it by chance; and a sleep that an abort ends.
 *
 * The moment is anywhere in the window, not in its later half: when a server comes back, what meets it is not a crowd that
 * waited for the same time but a queue that is spread as wide as it can be.
 */

import { HttpError } from './http-client.ts'

/** Times in milliseconds. */
export interface BackoffOptions {
  readonly first?: number
  readonly cap?: number
  /** Uniform in [0, 1). */
  readonly random?: () => number
}

export class Backoff {
  readonly #first: number
  readonly #cap: number
  readonly #random: () => number
  #attempt = 0

  constructor({ first = 200, cap = 10_000, random = Math.random }: BackoffOptions = {}) {
    this.#first = first
    this.#cap = cap
    this.#random = random
  }

  /** Milliseconds to wait before the next attempt. The window is at least as wide as asked for. */
  next(windowMs = 0): number {
    const step = Math.min(this.#cap, this.#first * 2 ** Math.min(this.#attempt++, 16))
    return this.#random() * Math.max(step, windowMs)
  }

  reset(): void {
    this.#attempt = 0
  }
}

/** A server may ask for no longer pause than this. */
const LONGEST_ASKED_MS = 60_000

/** How long the server that answered so wants to be left alone (Retry-After), in milliseconds. */
export const pauseAskedBy = (error: unknown): number =>
  error instanceof HttpError ? Math.min((error.retryAfterSeconds ?? 0) * 1000, LONGEST_ASKED_MS) : 0

/** Resolves after the time, or at once when the signal aborts. Never rejects. */
export function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', done, { once: true })
  })
}
