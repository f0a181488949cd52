import assert from 'node:assert/strict'
import { test } from 'node:test'
import { markEnded, waitBeforeStart } from './back-off.ts'
import type { ContainerRecord } from './record.ts'

test('the first restart is at once, later ones wait longer each time', () => {
  const record: ContainerRecord = { restartCount: 0 }
  const waits: number[] = []
  for (; record.restartCount < 4; record.restartCount++) {
    markEnded(record, { exitCode: 1, reason: 'Error' })
    waits.push(Math.round(Math.max(0, waitBeforeStart(record)) / 10_000) * 10_000)
  }
  assert.deepEqual(waits, [0, 10_000, 20_000, 40_000])
})

test('a clock that is set back makes nobody wait longer than meant', () => {
  const record: ContainerRecord = { restartCount: 1 }
  markEnded(record, { exitCode: 1, reason: 'Error' })
  const dayBefore = Date.now() - 86_400_000
  const wait = waitBeforeStart(record, dayBefore)
  assert.ok(wait > 0 && wait <= 10_000, `${wait}`)
  assert.ok(waitBeforeStart(record, dayBefore + wait) <= 0)
})
