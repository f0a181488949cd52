import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpamBlock } from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import {
  addressAt,
  allocationsOf,
  BlockDraft,
  findDamage,
  hasSpace,
  isEmpty,
  isInUse,
  newBlock,
  ordinalOf,
} from './block.ts'

const start = Date.parse('2026-11-21T10:00:00Z')
const cooldown = (seconds: number, after = 0) => ({ nowMilliseconds: start + after, seconds })

const fresh = (cidr = '172.26.4.0/29'): IpamBlock =>
  newBlock({
    cidr: Cidr.parse(cidr),
    owner: { type: 'host', name: 'n1' },
    at: '2026-11-21T10:00:00Z',
    sequenceNumber: 1_763_000_000_000_000_000n,
  })

const never = (): boolean => false

/** Changes a block as one write does. */
function write(block: IpamBlock, change: (draft: BlockDraft) => void): IpamBlock {
  const draft = new BlockDraft(block)
  change(draft)
  return draft.finish()
}

const give = (block: IpamBlock, handleId: string): IpamBlock =>
  write(block, (draft) => draft.take(draft.nextFree(never)!, handleId, { node: 'n1', pod: handleId }))

test('an address has its place in a block, in both families', () => {
  for (const [text, ip, ordinal] of [
    ['172.26.4.64/26', '172.26.4.127', 63],
    ['fd00:26::40/122', 'fd00:26::7f', 63],
    ['10.0.0.0/20', '10.0.15.255', 4095],
  ] as const) {
    const cidr = Cidr.parse(text)
    assert.equal(ordinalOf(cidr, Ip.parse(ip)), ordinal)
    assert.equal(`${addressAt(cidr, ordinal)}`, ip)
    assert.equal(ordinalOf(cidr, Ip.parse('192.0.2.1')), undefined)
  }
})

test('addresses are given in the order in which they became free', () => {
  let block = fresh()
  for (const handle of ['a', 'b', 'c']) block = give(block, handle)
  assert.deepEqual(block.allocations, [0, 1, 2, null, null, null, null, null])
  block = write(block, (draft) => draft.release(draft.ordinalsOf('a'), cooldown(0)))
  assert.deepEqual(block.unallocated, [3, 4, 5, 6, 7, 0])
  assert.deepEqual(
    block.attributes.map(({ handleId }) => handleId),
    ['b', 'c'],
  )
  assert.deepEqual(block.allocations, [null, 0, 1, null, null, null, null, null])
  for (const handle of ['d', 'e', 'f', 'g', 'h', 'i']) block = give(block, handle)
  assert.deepEqual(block.unallocated, [])
  assert.equal(new BlockDraft(block).nextFree(never), undefined)
  assert.deepEqual(
    [...allocationsOf(block)].map(({ handleId }) => handleId),
    ['i', 'b', 'c', 'd', 'e', 'f', 'g', 'h'],
  )
  assert.deepEqual(findDamage(block), [])
})

test('an allocation bears the number that the block had before its write', () => {
  const first = fresh()
  const second = give(first, 'a')
  assert.equal(second.sequenceNumber, first.sequenceNumber + 1n)
  assert.deepEqual(second.sequenceNumberForAllocation, { '0': first.sequenceNumber })
  const third = write(second, (draft) => draft.release([0], cooldown(0)))
  assert.deepEqual(third.sequenceNumberForAllocation, {})
  assert.equal(third.sequenceNumber, second.sequenceNumber + 1n)
  assert.equal(
    write(third, () => {}),
    third,
  )
})

test('addresses of one handle share an attribute, and go together', () => {
  const block = write(fresh(), (draft) => {
    for (const ordinal of [1, 4]) draft.take(ordinal, 'a', { node: 'n1' })
    draft.take(2, 'a\r\neth0', { node: 'n1' })
    draft.take(3, 'b', { node: 'n1' })
  })
  assert.equal(block.attributes.length, 3)
  const draft = new BlockDraft(block)
  assert.deepEqual(draft.ordinalsOf('a'), [1, 2, 4])
  draft.release(draft.ordinalsOf('a'), cooldown(0))
  assert.deepEqual(
    [...allocationsOf(draft.finish())].map(({ handleId }) => handleId),
    ['b'],
  )
})

test('what is released cools down for as long as it is told', () => {
  const given = give(fresh('172.26.4.0/32'), 'a')
  const released = write(given, (draft) => draft.release([0], cooldown(30, 400)))
  const [mark] = [...allocationsOf(released)]
  assert.equal(mark!.attribute!.releasedAt, '2026-11-21T10:00:00Z')
  assert.equal(isInUse(mark!), false)
  assert.deepEqual(new BlockDraft(released).ordinalsOf('a'), [])
  for (const [after, isOver] of [
    [29_000, false],
    [30_399, false],
    [31_000, true],
  ] as const) {
    const settled = write(released, (draft) => draft.settle(cooldown(30, after)))
    assert.equal(isEmpty(settled), isOver, `after ${after}`)
    assert.equal(hasSpace(released, cooldown(30, after), 0, never), isOver, `after ${after}`)
  }
  const twice = write(released, (draft) => draft.release([0], cooldown(30, 20_000)))
  assert.equal(twice, released, 'a second release does not begin the cooldown again')
})

test('a clock that was ahead costs one more cooldown, and no more', () => {
  const ahead = write(give(fresh('172.26.4.0/32'), 'a'), (draft) => draft.release([0], cooldown(30, 86_400_000)))
  const seen = write(ahead, (draft) => draft.settle(cooldown(30)))
  assert.equal(seen.attributes[0]!.releasedAt, '2026-11-21T10:00:00Z')
  assert.ok(isEmpty(write(seen, (draft) => draft.settle(cooldown(30, 31_000)))))
  const garbage = { ...ahead, attributes: [{ secondary: {}, releasedAt: 'yesterday' }] }
  assert.equal(write(garbage, (draft) => draft.settle(cooldown(30))).attributes[0]!.releasedAt, '2026-11-21T10:00:00Z')
})

test('what contradicts itself is in use', () => {
  const sound = give(give(fresh(), 'a'), 'b')
  const damaged: readonly [string, Partial<IpamBlock>, RegExp][] = [
    ['short', { allocations: sound.allocations.slice(0, 4) }, /4 entries, not 8/],
    ['dangling', { allocations: [9, 1, null, null, null, null, null, null] }, /attribute 9, which does not exist/],
    ['outside', { unallocated: [...sound.unallocated, 8, -1] }, /ordinal 8, which is not in the block/],
    ['twice', { unallocated: [2, ...sound.unallocated] }, /ordinal 2 twice/],
    ['both', { unallocated: [0, ...sound.unallocated] }, /allocated and unallocated/],
    ['neither', { unallocated: sound.unallocated.slice(1) }, /neither allocated nor unallocated/],
    ['nobody', { attributes: [...sound.attributes, { secondary: {} }] }, /attribute 2 is nobody's/],
  ]
  assert.deepEqual(findDamage(sound), [])
  for (const [what, change, words] of damaged) {
    let block: IpamBlock = { ...sound, ...change }
    assert.match(findDamage(block).join('; '), words, what)
    const given = new Set<number>()
    for (;;) {
      const ordinal = new BlockDraft(block).nextFree(never)
      if (ordinal === undefined) break
      assert.ok(ordinal >= 2 && ordinal < 8 && !given.has(ordinal), `${what}: ${ordinal}`)
      given.add(ordinal)
      block = write(block, (draft) => draft.take(ordinal, `c${ordinal}`, {}))
    }
    assert.deepEqual(new BlockDraft(block).ordinalsOf('b'), [1], what)
    assert.equal(isEmpty(block), false)
  }
})
