/**
 * Preloaded into an agent (`node --import`): its wall clock stands apart from the machine's by what the file
 * WEFT_TEST_CLOCK holds, in milliseconds; the file may change at any time. The monotonic clock is left as it is, which is
 * what a jump of the real clock does.
 */
import { readFileSync } from 'node:fs'

const file = process.env.WEFT_TEST_CLOCK!
const RealDate = Date

/** Read on every call: a jump is seen at once. */
const now = (): number => RealDate.now() + Number(readFileSync(file, 'utf8'))

globalThis.Date = new Proxy(RealDate, {
  construct: (target, given, newTarget) => Reflect.construct(target, given.length === 0 ? [now()] : given, newTarget),
  apply: () => new RealDate(now()).toString(),
  get: (target, key) => (key === 'now' ? now : Reflect.get(target, key)),
})
