/**
 * The test reporter inside a guest: one line of JSON per finished test, written as it happens, so that a guest that
 * crashes has told what it did until then.
 */
import type { TestEvent } from 'node:test/reporters'

/** One finished test. */
export interface TestLine {
  readonly name: string
  readonly passed: boolean
  /** Why it was skipped. */
  readonly skip?: string
  readonly error?: string
}

function lineOf(event: TestEvent): TestLine | undefined {
  if (event.type !== 'test:pass' && event.type !== 'test:fail') return undefined
  const { name, skip, details } = event.data
  if (details.type === 'suite') return undefined
  if (event.type === 'test:pass') {
    const skipped = skip !== undefined && skip !== false
    return { name, passed: !skipped, ...(skipped && { skip: skip === true ? 'no reason given' : skip }) }
  }
  const error = event.data.details.error
  const cause = error.cause as { stack?: string; message?: string } | undefined
  return { name, passed: false, error: cause?.stack ?? cause?.message ?? error.message }
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    const line = lineOf(event)
    if (line) yield `${JSON.stringify(line)}\n`
  }
}
