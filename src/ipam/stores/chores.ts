/**
 * Things to be done at a store that may be away: each is tried again, later and later, until it is done or somebody says that
 * it need not be.
 */
import { setTimeout as sleep } from 'node:timers/promises'

const RETRY_MS = [100, 200, 400, 800, 1600, 3200, 5000]

export class Chores {
  readonly #log: { debug(fields: object, message: string): void }
  readonly #wait: (milliseconds: number, signal: AbortSignal) => Promise<void>
  readonly #chores = new Map<string, () => Promise<void>>()
  readonly #abort = new AbortController()
  #running: Promise<void> | undefined

  constructor(
    log: { debug(fields: object, message: string): void },
    wait = (milliseconds: number, signal: AbortSignal): Promise<void> =>
      sleep(milliseconds, undefined, { signal, ref: false }).catch(() => {}),
  ) {
    this.#log = log
    this.#wait = wait
  }

  /** Replaces a chore of the same name. */
  add(name: string, chore: () => Promise<void>): void {
    if (this.#abort.signal.aborted) return
    this.#chores.set(name, chore)
    this.#running ??= this.#run()
  }

  cancel(name: string): void {
    this.#chores.delete(name)
  }

  /** Resolves when none is left, or they are closed. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running
  }

  close(): void {
    this.#abort.abort()
    this.#chores.clear()
  }

  async #run(): Promise<void> {
    await Promise.resolve()
    for (let failures = 0; this.#chores.size > 0; )
      for (const [name, chore] of [...this.#chores]) {
        if (this.#chores.get(name) !== chore) continue
        try {
          await chore()
          if (this.#chores.get(name) === chore) this.#chores.delete(name)
          failures = 0
        } catch (error) {
          if (this.#abort.signal.aborted) break
          this.#log.debug({ chore: name, err: (error as Error).message }, 'tried again later')
          await this.#wait(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]!, this.#abort.signal)
        }
      }
    this.#running = undefined
  }
}
