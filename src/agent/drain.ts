/**
 * Nobody may hear that a path is not sent by any more while its last packets wait somewhere: the others would take their
 * side away. The user-space tunnel's process waits for a processor, perhaps for long.
 */
import type { PathId } from '../datapath/path.ts'

/** How long packets may still be on their way after the last one was sent by a path: in the kernel, and in a process of its own. */
const DRAIN_MS = { kernel: 50, process: 1000 } as const

export class Drain {
  #key = ''
  #timer: NodeJS.Timeout | undefined

  /** Calls back with the same paths once they have had their time, unless others were waited for meanwhile. */
  wait(paths: readonly PathId[], onDrained: (key: string) => void): void {
    const key = paths.join()
    if (key === this.#key) return
    this.#key = key
    const slow = paths.some((path) => path.startsWith('udp/'))
    clearTimeout(this.#timer)
    this.#timer = setTimeout(
      () => {
        this.#key = ''
        onDrained(key)
      },
      slow ? DRAIN_MS.process : DRAIN_MS.kernel,
    )
  }

  close(): void {
    clearTimeout(this.#timer)
  }
}
