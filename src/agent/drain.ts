/**
 * Nobody may hear that a path is not sent by any more while its last packets wait somewhere, and no device may go while
 * packets are still coming in by it: on a busy machine they wait for long. What counts is not time but traffic: a path is
 * dry when several looks in a row found that its devices carried nothing more, and that nothing waits in its tunnels.
 */
import type { PathId } from '../datapath/path.ts'
import type { ReadTraffic } from './traffic.ts'

/** Time between two looks. */
const LOOK_MS = 30
/** Looks in a row that must find the same. */
const SAME_LOOKS = 5
/** The same of a path without a device whose counters would tell: then only time counts, and a busy machine needs more of it. */
const BLIND_LOOKS = 30
/** Somebody who goes on sending without saying so does not hold a switch up for ever. */
const LONGEST_MS = 10_000

export class Drain {
  readonly #direction: 'sent' | 'received'
  readonly #read: ReadTraffic
  #key = ''
  #timer: NodeJS.Timeout | undefined

  constructor(direction: 'sent' | 'received', read: ReadTraffic) {
    this.#direction = direction
    this.#read = read
  }

  /** Calls back with the same paths once they are dry, unless others were waited for, or none, meanwhile. */
  wait(paths: readonly PathId[], devices: readonly string[], onDry: (paths: readonly PathId[]) => void): void {
    const key = paths.join()
    if (key === this.#key) return
    this.close()
    if (paths.length === 0) return
    this.#key = key
    const end = performance.now() + LONGEST_MS
    const looks = devices.length > 0 ? SAME_LOOKS : BLIND_LOOKS
    let [last, same] = [Number.NaN, 0]
    const look = async (): Promise<void> => {
      // Counters that cannot be read are no reason to wait: the device has gone.
      const traffic = devices.length > 0 ? await this.#read(devices).catch(() => undefined) : undefined
      if (this.#key !== key) return
      const count = traffic?.[this.#direction] ?? 0
      same = count === last ? same + 1 : 0
      last = count
      if (same < looks && performance.now() < end) return again()
      this.#key = ''
      onDry(paths)
    }
    const again = (): void => {
      this.#timer = setTimeout(() => void look(), LOOK_MS)
    }
    again()
  }

  close(): void {
    this.#key = ''
    clearTimeout(this.#timer)
  }
}
