import assert from 'node:assert/strict'
import { test } from 'node:test'
import { availableCondition, networkConditionOf } from './network-condition.ts'

const now = '2026-01-02T03:04:05Z'

test('what says that there is no network is taken back, but not what the controller says of agents', () => {
  for (const held of [
    undefined,
    { status: 'True', reason: 'NoRouteCreated' },
    { status: 'Unknown', reason: 'NodeStatusUnknown' },
    { status: 'True', reason: 'NoWeftYet' },
  ]) {
    const { lastTransitionTime, status } = availableCondition(held, now) as Record<string, string>
    assert.deepEqual([status, lastTransitionTime], ['False', now], JSON.stringify(held))
  }
  assert.equal(availableCondition({ status: 'True', reason: 'WeftAgentGone' }, now), undefined)
})

test('a condition that stands is not written; the time of the last change is that of a change', () => {
  assert.equal(availableCondition({ status: 'False', reason: 'WeftIsUp' }, now), undefined)
  const taken = availableCondition({ status: 'False', reason: 'FlannelIsUp' }, now) as Record<string, string>
  assert.equal(taken.reason, 'WeftIsUp')
  assert.equal('lastTransitionTime' in taken, false)
})

test('a Node may hold anything', () => {
  for (const conditions of [undefined, null, 'x', {}, [null, 1, { type: 'Ready' }]])
    assert.equal(networkConditionOf({ status: { conditions } }), undefined)
  assert.equal(networkConditionOf({}), undefined)
  const long = networkConditionOf({ status: { conditions: [{ type: 'NetworkUnavailable', reason: 'x'.repeat(999) }] } })
  assert.deepEqual(long, { status: 'undefined', reason: 'x'.repeat(256) })
})
