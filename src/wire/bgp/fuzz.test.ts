import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MessageFuzzer } from './fuzz.ts'
import { judge } from './fuzz-judge.ts'
import { UpdateBuffers } from './update.ts'

const MESSAGES = 25_000

test(`${MESSAGES} messages out of the grammar with lies in them: every one has an answer`, () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  const fuzzer = new MessageFuzzer(seed)
  // One set of buffers for all: what one message leaves behind must not show in another.
  const buffers = new UpdateBuffers()
  const verdicts: Record<string, number> = {}
  for (let n = 0; n < MESSAGES; n++) {
    const context = fuzzer.context()
    const message = fuzzer.next(context)
    try {
      const verdict = judge(message, context, buffers, n % 4 === 0)
      verdicts[verdict] = (verdicts[verdict] ?? 0) + 1
    } catch (error) {
      assert.fail(
        `message ${n} of seed ${seed}: ${Buffer.from(message).toString('hex')}: ${error instanceof Error ? error.stack : error}`,
      )
    }
  }
  console.log(verdicts)
  // Lies in some places only: every kind of answer is asked for, and often.
  for (const verdict of ['accepted', 'discardAttribute', 'treatAsWithdraw', 'sessionReset'])
    assert((verdicts[verdict] ?? 0) > MESSAGES / 20, `${verdict}: ${verdicts[verdict]}`)
})
