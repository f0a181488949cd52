/**
 * Many messages for the BGP codec, out of the unit test's generator: how many, what became of them, how fast. Ends with 1 at the
 * first message that has no answer of the protocol, and prints it.
 *
 *   tsx scripts/fuzz-bgp.ts [--messages 10000000] [--seed N] [--deeply 16]
 *
 * One of `--deeply` messages is encoded and decoded again as well.
 */
import { parseArgs } from 'node:util'
import { MessageFuzzer } from '../src/wire/bgp/fuzz.ts'
import { judge } from '../src/wire/bgp/fuzz-judge.ts'
import { UpdateBuffers } from '../src/wire/bgp/update.ts'

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '10000000' },
    seed: { type: 'string', default: `${Date.now() % 1_000_000_000}` },
    deeply: { type: 'string', default: '16' },
  },
})
const messages = Number(values.messages)
const seed = Number(values.seed)
const deeply = Number(values.deeply)

console.log(`seed ${seed}`)
// A quarter of the messages end in an error; where each was made is not worth its time.
const frames = Error.stackTraceLimit
Error.stackTraceLimit = 0
const fuzzer = new MessageFuzzer(seed)
const buffers = new UpdateBuffers()
const verdicts: Record<string, number> = {}
let bytes = 0
const start = performance.now()
for (let n = 0; n < messages; n++) {
  const context = fuzzer.context()
  const message = fuzzer.next(context)
  bytes += message.length
  try {
    const verdict = judge(message, context, buffers, n % deeply === 0)
    verdicts[verdict] = (verdicts[verdict] ?? 0) + 1
  } catch (error) {
    console.error(`message ${n} of seed ${seed}: ${Buffer.from(message).toString('hex')}`, error)
    Error.stackTraceLimit = frames
    // Once more, for the stack.
    judge(message, context, buffers, true)
    process.exit(1)
  }
}
const seconds = (performance.now() - start) / 1000
console.log(`${messages} messages, ${bytes} bytes, ${seconds.toFixed(1)} s, ${Math.round(messages / seconds)} a second`)
console.log(JSON.stringify(verdicts))
