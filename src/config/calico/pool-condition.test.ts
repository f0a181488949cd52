import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePool } from './pool.ts'
import { judgeAllocatable } from './pool-condition.ts'

interface Further {
  readonly seconds?: number
  readonly spec?: object
  readonly leaving?: boolean
  readonly said?: 'True' | 'False'
}

const pool = (name: string, cidr: string, { seconds = 0, spec, leaving, said }: Further = {}) =>
  parsePool({
    metadata: {
      name,
      creationTimestamp: new Date(1_790_000_000_000 + seconds * 1000).toISOString(),
      ...(leaving && { deletionTimestamp: '2026-11-22T02:00:00Z' }),
    },
    spec: { cidr, ...spec },
    ...(said && {
      status: {
        conditions: [
          { type: 'Other', status: 'True' },
          { type: 'Allocatable', status: said },
        ],
      },
    }),
  }).pool

const reasons = (...pools: ReturnType<typeof pool>[]) =>
  Object.fromEntries([...judgeAllocatable(pools)].map(([name, { status, reason }]) => [name, `${status} ${reason}`]))

test('a pool gives out addresses unless it is disabled, is being deleted, or another stands there', () => {
  const pools = [
    pool('plain', '10.1.0.0/16'),
    pool('off', '10.2.0.0/16', { spec: { disabled: true } }),
    pool('leaves', '10.3.0.0/16', { leaving: true }),
    pool('under', '10.1.4.0/24', { seconds: 5 }),
    pool('off-and-leaves', '10.5.0.0/16', { spec: { disabled: true }, leaving: true }),
  ]
  assert.deepEqual(reasons(...pools), {
    plain: 'True OK',
    off: 'False PoolDisabled',
    leaves: 'False Terminating',
    under: 'False CIDROverlap',
    'off-and-leaves': 'False PoolDisabled',
  })
  assert.match(judgeAllocatable(pools).get('under')!.message, /pool plain \(10\.1\.0\.0\/16\)/)
})

test('which pool stands is not changed by an older one that comes back', () => {
  const young = pool('young', '10.1.0.0/16', { seconds: 9, said: 'True' })
  const old = pool('old', '10.1.0.0/17', { said: 'False' })
  assert.deepEqual(reasons(old, young), { old: 'False CIDROverlap', young: 'True OK' })
  assert.deepEqual(reasons(old), { old: 'True OK' }, 'what was said does not hold for ever')
  const fresh = pool('fresh', '10.1.0.0/18', { seconds: -9 })
  assert.deepEqual(reasons(fresh, old), { old: 'True OK', fresh: 'False CIDROverlap' }, 'who waits longer is first')
})

test('a pool that is being deleted keeps others from its addresses until it is gone', () => {
  const leaves = pool('leaves', '10.1.0.0/16', { seconds: 9, leaving: true, said: 'False' })
  const waits = pool('waits', '10.1.0.0/17', { said: 'False' })
  assert.deepEqual(reasons(waits, leaves), { waits: 'False CIDROverlap', leaves: 'False Terminating' })
  assert.equal(leaves.disabled, true, 'nobody is given an address of it')
})
