import assert from 'node:assert/strict'
import { test } from 'node:test'
import { burstBytes, planLimits } from './limits.ts'

test('a burst that nobody named is a twentieth of a second, and never under one offloaded packet', () => {
  assert.equal(burstBytes(1_000_000, 800_000), 100_000)
  assert.equal(burstBytes(1_000_000, 0), 65_536)
  assert.equal(burstBytes(1_000_000_000, 2 ** 31 - 1), 6_250_000)
  assert.equal(burstBytes(8_000_000, 2 ** 63), 65_536)
})

test('only the directions asked for are limited', () => {
  const kinds = (limits: object) =>
    planLimits('veth01234567', 'a', 1450, {
      ingressRate: 0,
      ingressBurst: 0,
      egressRate: 0,
      egressBurst: 0,
      ...limits,
    }).map((object) => `${object.kind} ${'device' in object ? object.device : 'name' in object ? object.name : ''}`)
  assert.deepEqual(kinds({ ingressRate: 8000 }), ['qdisc veth01234567'])
  assert.deepEqual(kinds({ egressRate: 8000 }), [
    'link ifb01234567',
    'qdisc ifb01234567',
    'qdisc veth01234567',
    'filter veth01234567',
  ])
})
