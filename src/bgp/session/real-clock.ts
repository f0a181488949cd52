/** The machine's time and chance for the speaker. */
import type { Clock } from '../transport.ts'

/** Node's timers count in 32-bit milliseconds; a later time is reached in several. */
const TIMER_MILLISECONDS_MAX = 0x7fffffff

export const realClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  at(milliseconds, callback) {
    let handle: NodeJS.Timeout
    const arm = (): void => {
      const left = Math.max(0, milliseconds - performance.now())
      // Node's timers may fire up to a millisecond early.
      handle = setTimeout(
        () => (performance.now() < milliseconds ? arm() : callback()),
        Math.min(Math.ceil(left), TIMER_MILLISECONDS_MAX),
      )
    }
    arm()
    return { cancel: () => clearTimeout(handle) }
  },
  soon(callback) {
    const handle = setImmediate(callback)
    return { cancel: () => clearImmediate(handle) }
  },
  random: () => Math.random(),
}
