import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { findOverlaps, parsePool } from './pool.ts'
import { invalidPoolEvent, overlapEvent } from './pool-events.ts'

test('a pool that cannot be read: the reason, and what holds', () => {
  const problem = new ConfigError('IPPool blue', 'spec.nodeSelector', 'is no selector')
  const message = 'IPPool blue: spec.nodeSelector: is no selector'
  assert.deepEqual(invalidPoolEvent(problem, true), {
    type: 'Warning',
    reason: 'InvalidPool',
    message: `${message}; what the pool said before still holds`,
  })
  assert.equal(invalidPoolEvent(problem, false).message, `${message}; the pool is not used`)
})

test('a pool that overlaps: with which, and what to do', () => {
  const pool = (name: string, cidr: string, creationTimestamp: string) =>
    parsePool({ metadata: { name, creationTimestamp }, spec: { cidr } }).pool
  const [overlap] = findOverlaps([
    pool('young', '10.0.0.0/17', '2026-11-21T00:00:01Z'),
    pool('old', '10.0.0.0/16', '2026-11-21T00:00:00Z'),
  ])
  assert.equal(
    overlapEvent(overlap!).message,
    'IPPool young: spec.cidr: 10.0.0.0/17 overlaps 10.0.0.0/16 of the pool old, which came first; ' +
      'it gives out no addresses until one of them is removed or disabled',
  )
})
