/**
 * Gives addresses of pools back, whenever that can be done. A container goes at once, whether or not the store can be asked; its
 * entry stays in the journal as deleting until the store has taken the addresses back, over restarts of agent and node.
 *
 *   device gone ─► add ─► release(handle) ─► done: journal `gone`
 *                            └── the store is away: again after 1 s, 2 s, … 30 s
 */
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { Entry } from './journal.ts'
import type { Log } from './network.ts'

const firstRetryMilliseconds = 1000
const longestRetryMilliseconds = 30_000
/** So many at once. */
const atOnce = 16

export class PoolReleases {
  readonly #log: Log
  readonly #done: (entry: Entry) => void
  readonly #waiting = new Map<string, Entry[]>()
  readonly #underWay = new Map<string, Promise<boolean>>()
  #addresses: PoolAddresses | undefined
  #timer: NodeJS.Timeout | undefined
  #retryMilliseconds = firstRetryMilliseconds
  #stopped = false

  /** `done` is called when the addresses of an entry are given back. */
  constructor(log: Log, done: (entry: Entry) => void) {
    this.#log = log
    this.#done = done
  }

  /** Handles whose addresses are not given back yet. */
  get length(): number {
    return this.#waiting.size
  }

  /** Whether it is known whom to ask. */
  get hasAddresses(): boolean {
    return this.#addresses !== undefined
  }

  has(handle: string): boolean {
    return this.#waiting.has(handle)
  }

  /** Whom to ask from now on. */
  setAddresses(addresses: PoolAddresses): void {
    if (this.#addresses === addresses) return
    this.#addresses = addresses
    this.#retryMilliseconds = firstRetryMilliseconds
    this.#work()
  }

  add(entry: Entry): void {
    const handle = entry.attachment.handle!
    this.#waiting.set(handle, [...(this.#waiting.get(handle) ?? []), entry])
    this.#work()
  }

  /** Tries now to give a handle's addresses back. False when they are not: the store is away. */
  async settle(handle: string): Promise<boolean> {
    await this.#underWay.get(handle)
    if (!this.has(handle)) return true
    if (this.#addresses === undefined) return false
    return this.#underWay.get(handle) ?? this.#release(handle, this.#addresses)
  }

  #work(): void {
    const addresses = this.#addresses
    if (!addresses || this.#stopped || this.#timer) return
    for (const handle of this.#waiting.keys()) {
      if (this.#underWay.size >= atOnce) return
      if (!this.#underWay.has(handle)) void this.#release(handle, addresses)
    }
  }

  #release(handle: string, addresses: PoolAddresses): Promise<boolean> {
    const entries = this.#waiting.get(handle)!
    const attempt = addresses.release(handle).then(
      () => {
        this.#retryMilliseconds = firstRetryMilliseconds
        // One that came meanwhile waits for a release of its own.
        const others = (this.#waiting.get(handle) ?? []).filter((entry) => !entries.includes(entry))
        if (others.length) this.#waiting.set(handle, others)
        else this.#waiting.delete(handle)
        for (const entry of entries) this.#done(entry)
        return true
      },
      (err) => {
        this.#log.warn({ err, handle }, 'Addresses cannot be given back now; trying again')
        this.#later()
        return false
      },
    )
    this.#underWay.set(handle, attempt)
    void attempt.then(() => {
      this.#underWay.delete(handle)
      this.#work()
    })
    return attempt
  }

  #later(): void {
    if (this.#timer || this.#stopped) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#work()
    }, this.#retryMilliseconds)
    this.#timer.unref()
    this.#retryMilliseconds = Math.min(2 * this.#retryMilliseconds, longestRetryMilliseconds)
  }

  /** Waits for what is under way; what waits is in the journal. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await Promise.all(this.#underWay.values())
  }
}
