/**
 * The end of devices, after the answer. Deleting a device makes the kernel wait for every CPU (16 ms and more), and
 * forty deletions by one message wait once. DEL cuts a device off at once and moves it into a group of its own; here
 * the group is deleted when no DEL has come for a moment. Until then its addresses stay taken.
 */
import type { Kernel } from '../kernel/kernel.ts'
import type { KernelError } from '../model/errors.ts'

/** IFLA_GROUP of devices that are going: "WEFT" in ASCII. */
export const drainGroup = 0x57454654

const quietMilliseconds = 20
const longestMilliseconds = 500

export class Drain {
  readonly #kernel: Kernel
  readonly #waiting: (() => void)[] = []
  readonly #failed: (error: KernelError) => void
  #timer: NodeJS.Timeout | undefined
  #oldest = 0
  #underWay = 0
  #running: Promise<void> = Promise.resolve()
  #flushing: Promise<void> | undefined

  constructor(kernel: Kernel, failed: (error: KernelError) => void) {
    this.#kernel = kernel
    this.#failed = failed
  }

  /** How many devices are not deleted yet. */
  get length(): number {
    return this.#waiting.length + this.#underWay
  }

  /** A device is in the group; `gone` is called when the kernel has deleted it. */
  add(gone: () => void): void {
    const now = performance.now()
    if (this.#waiting.length === 0) this.#oldest = now
    this.#waiting.push(gone)
    clearTimeout(this.#timer)
    const left = Math.max(0, this.#oldest + longestMilliseconds - now)
    this.#timer = setTimeout(() => void this.flush(), Math.min(quietMilliseconds, left))
  }

  /** Deletes what waits now, and settles when it is gone. A refusal is tried again later. */
  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return this.#running
    // Those who ask while a deletion runs share the next one.
    this.#flushing ??= this.#running.then(() => {
      this.#flushing = undefined
      this.#running = this.#delete()
      return this.#running
    })
    return this.#flushing
  }

  async #delete(): Promise<void> {
    clearTimeout(this.#timer)
    const going = this.#waiting.splice(0)
    if (going.length === 0) return
    this.#underWay = going.length
    const error = await this.#kernel.deleteGroup(drainGroup)
    this.#underWay = 0
    if (!error) {
      for (const gone of going) gone()
      return
    }
    this.#failed(error)
    this.#waiting.unshift(...going)
    this.#oldest = performance.now()
    this.#timer = setTimeout(() => void this.flush(), longestMilliseconds)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
