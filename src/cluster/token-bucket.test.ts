import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TokenBucket } from './token-bucket.ts'

test('a burst, then the rate, and never more than a burst after a rest', () => {
  const bucket = new TokenBucket(2, 3, 1000)
  const takes = (now: number) => Array.from({ length: 5 }, () => bucket.take(now)).filter(Boolean).length
  assert.equal(takes(1000), 3)
  assert.equal(takes(1499), 0)
  assert.equal(takes(1500), 1)
  assert.equal(takes(60_000), 3)
})

test('those who reserve stand in line', () => {
  const bucket = new TokenBucket(4, 2, 0)
  assert.deepEqual(
    Array.from({ length: 5 }, () => bucket.reserve(0)),
    [0, 0, 250, 500, 750],
  )
  assert.equal(bucket.reserve(750), 250)
})
