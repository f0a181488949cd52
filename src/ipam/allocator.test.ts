import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { RangeFullError, RangeSetAllocator } from './allocator.ts'
import { checkRangeSets, type Range, rangeOf } from './range.ts'

const range = (subnet: string, first?: string, last?: string, gateway?: string): Range =>
  rangeOf('test', Cidr.parse(subnet), {
    first: first ? Ip.parse(first) : undefined,
    last: last ? Ip.parse(last) : undefined,
    gateway: gateway ? Ip.parse(gateway) : undefined,
  })
const next = (allocator: RangeSetAllocator) => `${allocator.allocate().ip}`

test('a block gives every address but network, gateway and broadcast, then is full and says so', () => {
  const allocator = new RangeSetAllocator([range('10.1.2.0/29')])
  const given = Array.from({ length: 5 }, () => next(allocator))
  assert.deepEqual(given, ['10.1.2.2', '10.1.2.3', '10.1.2.4', '10.1.2.5', '10.1.2.6'])
  assert.throws(
    () => allocator.allocate(),
    (error) =>
      error instanceof RangeFullError && error.message === 'No free address in 10.1.2.1-10.1.2.6 (6 addresses)',
  )
})

test('an address given back is the last to be given again', () => {
  const allocator = new RangeSetAllocator([range('10.1.2.0/29')])
  assert.equal(next(allocator), '10.1.2.2')
  allocator.release(Ip.parse('10.1.2.2'))
  assert.deepEqual(
    Array.from({ length: 5 }, () => next(allocator)),
    ['10.1.2.3', '10.1.2.4', '10.1.2.5', '10.1.2.6', '10.1.2.2'],
  )
})

test('the rotation goes on where an earlier process left it, over several ranges of a set', () => {
  const ranges = [range('10.0.0.0/29'), range('10.0.1.0/29', '10.0.1.3', '10.0.1.4')]
  const allocator = new RangeSetAllocator(ranges)
  allocator.rotateAfter(Ip.parse('10.0.0.6'))
  assert.deepEqual(
    Array.from({ length: 4 }, () => next(allocator)),
    ['10.0.1.3', '10.0.1.4', '10.0.0.2', '10.0.0.3'],
  )
})

test('a refused candidate is skipped and stays free', () => {
  const allocator = new RangeSetAllocator([range('10.1.2.0/29')])
  assert.equal(`${allocator.allocate((ip) => `${ip}` === '10.1.2.2').ip}`, '10.1.2.3')
  assert.ok(!allocator.isTaken(Ip.parse('10.1.2.2')))
  assert.throws(() => allocator.allocate(() => true), RangeFullError)
})

test('the gateway is never given back to the pool, wherever it is', () => {
  const allocator = new RangeSetAllocator([range('10.1.2.0/29', undefined, undefined, '10.1.2.4')])
  allocator.release(Ip.parse('10.1.2.4'))
  const given = Array.from({ length: 5 }, () => next(allocator))
  assert.ok(!given.includes('10.1.2.4') && given.includes('10.1.2.1'))
})

test('an IPv6 /64 is walked without a bitmap', () => {
  const allocator = new RangeSetAllocator([range('fd00:10:244:1::/64')])
  for (let i = 2; i < 300; i++) assert.equal(next(allocator), `fd00:10:244:1::${i.toString(16)}`)
  allocator.rotateAfter(Ip.parse('fd00:10:244:1:ffff:ffff:ffff:ffff'))
  assert.equal(next(allocator), 'fd00:10:244:1::12c')
})

test('random takes and releases agree with a plain set; a full /16 is filled', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31)
  let state = seed
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return state % n
  }
  const allocator = new RangeSetAllocator([range('10.9.0.0/26'), range('10.9.1.0/27', '10.9.1.9', '10.9.1.20')])
  const held = new Set<string>()
  const capacity = 61 + 12
  for (let i = 0; i < 20_000; i++) {
    if (held.size && random(100) < 48) {
      const ip = [...held][random(held.size)]!
      held.delete(ip)
      allocator.release(Ip.parse(ip))
    } else if (held.size === capacity) {
      assert.throws(() => allocator.allocate(), RangeFullError)
    } else {
      const ip = next(allocator)
      assert.ok(!held.has(ip), `seed ${seed}: ${ip} given twice`)
      held.add(ip)
    }
  }
  const large = new RangeSetAllocator([range('10.0.0.0/16')])
  for (let i = 0; i < 65_533; i++) large.allocate()
  large.release(Ip.parse('10.0.77.7'))
  assert.equal(next(large), '10.0.77.7')
  assert.throws(() => large.allocate(), /65534 addresses/)
})

test('ranges that make no sense are refused by key', () => {
  assert.throws(() => range('10.0.0.0/31'), /subnet: 10.0.0.0\/31 is too small/)
  assert.throws(() => range('10.0.0.0/24', '10.0.1.1'), /rangeStart: 10.0.1.1 is not in/)
  assert.throws(() => range('10.0.0.0/24', '10.0.0.9', '10.0.0.8'), /rangeStart: 10.0.0.9 is after/)
  assert.throws(() => range('10.0.0.0/24', undefined, undefined, 'fd00::1'), /gateway/)
  assert.throws(() => checkRangeSets('x', [[range('10.0.0.0/24')], [range('10.0.0.128/25')]]), /overlaps/)
  assert.throws(() => checkRangeSets('x', [[range('10.0.0.0/24'), range('fd00::/64')]]), /mixes address families/)
  checkRangeSets('x', [[range('10.0.0.0/24')], [range('fd00::/64')]])
})

test('usage counts what is taken and free, each once, without the gateway', () => {
  const small = new RangeSetAllocator([range('10.1.2.0/29')])
  for (let times = 0; times < 2; times++) small.take(Ip.parse('10.1.2.3'))
  next(small)
  assert.deepEqual(
    small.usage().map(({ taken, free }) => [taken, free]),
    [[2, 3n]],
  )
  for (let times = 0; times < 2; times++) small.release(Ip.parse('10.1.2.3'))
  small.release(Ip.parse('10.1.2.1'))
  assert.deepEqual(
    small.usage().map(({ taken, free }) => [taken, free]),
    [[1, 4n]],
  )
  const large = new RangeSetAllocator([range('fd00:10:244:1::/64')])
  next(large)
  const [usage] = large.usage()
  assert.equal(usage?.taken, 1)
  assert.ok(usage.free > 2n ** 63n)
})
