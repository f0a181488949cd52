/**
 * How late the event loop is: a timer that is due twice a second notes by how much it was missed. A loop that stood still
 * for long is what makes a liveness probe fail; a histogram of the rest shows whether pods wait for this process.
 */

const SAMPLE_MS = 500
/** A loop that was held up this long, and has not had one timely turn since, is not alive. */
const STALL_MS = 5000

export class EventLoopWatch {
  readonly #timer: NodeJS.Timeout
  readonly #stallMs: number
  #lastLagMs = 0

  /** `onSample` gets every lag in seconds. Keeps no process alive. */
  constructor(onSample: (seconds: number) => void, stallMs = STALL_MS) {
    this.#stallMs = stallMs
    let due = performance.now() + SAMPLE_MS
    this.#timer = setInterval(() => {
      const now = performance.now()
      this.#lastLagMs = Math.max(0, now - due)
      due = now + SAMPLE_MS
      onSample(this.#lastLagMs / 1000)
    }, SAMPLE_MS).unref()
  }

  /** What is wrong with the loop; undefined when it turns in time. */
  get problem(): string | undefined {
    if (this.#lastLagMs < this.#stallMs) return undefined
    return `the event loop stood still for ${(this.#lastLagMs / 1000).toFixed(1)} s`
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
