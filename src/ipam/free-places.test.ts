import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { BlockDraft, hasSpace, isEmpty, newBlock } from './block.ts'
import { FreePlaces } from './free-places.ts'

const cooldown = { nowMilliseconds: 0, seconds: 0 }
const owner = { type: 'host', name: 'n2' } as const
const at = '2026-11-22T00:00:00Z'
const blockOf = (cidr: string) => newBlock({ cidr: Cidr.parse(cidr), owner, at, sequenceNumber: 7n })

for (const cidr of ['172.26.0.0/26', '172.26.0.0/32', '172.16.0.0/20', 'fd00::/122'])
  test(`what is free in ${cidr} is known, and nothing else`, () => {
    const whole = blockOf(cidr)
    const size = whole.allocations.length
    const empty = new FreePlaces(whole)
    assert.ok(isEmpty(empty))
    assert.deepEqual(empty.allocations, whole.allocations)
    assert.deepEqual(empty.unallocated, whole.unallocated)
    const draft = new BlockDraft(whole)
    const taken = new Set<number>()
    for (let ordinal = 0; ordinal < size; ordinal += 1 + (ordinal % 5)) taken.add(ordinal)
    for (const ordinal of taken) draft.take(ordinal, 'handle', {})
    const used = draft.finish()
    const known = new FreePlaces(used)
    assert.ok(!isEmpty(known))
    assert.deepEqual([known.cidr, known.owner, known.ownedSince], [used.cidr, owner, at])
    assert.equal(known.sequenceNumber, used.sequenceNumber)
    for (const [ordinal, index] of known.allocations.entries())
      assert.equal(index === null, !taken.has(ordinal), `ordinal ${ordinal}`)
    assert.equal(known.unallocated.length, size - taken.size)
    const left = (count: number) => hasSpace(known, cooldown, count, () => false)
    assert.ok(size === taken.size || left(size - taken.size - 1))
    assert.ok(!left(size - taken.size))
  })
