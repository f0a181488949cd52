import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findBreaches } from './layers.ts'

test('every import follows the layer table', () => {
  assert.deepEqual(findBreaches(), [])
})
