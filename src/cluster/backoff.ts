/**
 * Waiting between attempts: exponential, jittered, capped; and a sleep that an abort ends.
 */

/** Times in milliseconds. */
export interface BackoffOptions {
  readonly first?: number
  readonly cap?: number
}

export class Backoff {
  readonly #first: number
  readonly #cap: number
  #attempt = 0

  constructor(options: BackoffOptions = {}) {
    this.#first = options.first ?? 200
    this.#cap = options.cap ?? 10_000
  }

  /** Milliseconds to wait before the next attempt: half of the exponential step and up to as much again by chance. */
  next(): number {
    const step = Math.min(this.#cap, this.#first * 2 ** Math.min(this.#attempt++, 16))
    return step / 2 + (Math.random() * step) / 2
  }

  reset(): void {
    this.#attempt = 0
  }
}

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
