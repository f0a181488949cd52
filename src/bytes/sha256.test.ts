import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { sha256 } from './sha256.ts'

test('digests are those of the standard, at every length around a block', () => {
  for (let length = 0; length < 260; length++) {
    const message = randomBytes(length)
    assert.deepEqual(Buffer.from(sha256(message)), createHash('sha256').update(message).digest(), `${length} bytes`)
  }
})
