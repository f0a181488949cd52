/**
 * Which reports about nodes may go out: one of a kind in five minutes, and no more than a few a minute altogether, so
 * that a peer that misbehaves a thousand times costs the cluster one Event.
 */
import type { NodeReport } from './cluster.ts'

const REPEAT_MS = 5 * 60_000
const BURST = 20
const REFILL_MS = 10_000
const MAX_REMEMBERED = 1024

export class ReportLimiter {
  readonly #now: () => number
  readonly #last = new Map<string, number>()
  #tokens = BURST
  #refilledAt: number

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#refilledAt = now()
  }

  /** True when the report is to be sent; counts it then. */
  admit(report: NodeReport): boolean {
    const now = this.#now()
    const key = `${report.node}\n${report.reason}\n${report.message}`
    const last = this.#last.get(key)
    if (last !== undefined && now - last < REPEAT_MS) return false
    const refill = Math.floor((now - this.#refilledAt) / REFILL_MS)
    if (refill > 0) {
      this.#tokens = Math.min(BURST, this.#tokens + refill)
      this.#refilledAt += refill * REFILL_MS
    }
    if (this.#tokens === 0) return false
    this.#tokens--
    this.#last.delete(key)
    this.#last.set(key, now)
    if (this.#last.size > MAX_REMEMBERED) this.#last.delete(this.#last.keys().next().value!)
    return true
  }
}
