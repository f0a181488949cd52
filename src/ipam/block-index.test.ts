import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpPool } from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { AddressSet } from './address-set.ts'
import { BlockIndex, openBlocks } from './block-index.ts'

const cidrs = (texts: readonly string[]) => texts.map((text) => Cidr.parse(text))
const none = AddressSet.of([])

const pool = (cidr: string, blockSize: number): IpPool => ({
  name: 'p',
  cidr: Cidr.parse(cidr),
  blockSize,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: true,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload'],
  assignmentMode: 'Automatic',
})

test('a set of prefixes knows what it covers, whole, in part, not at all', () => {
  const set = AddressSet.of(cidrs(['10.0.0.0/25', '10.0.0.128/26', '10.0.1.7/32', 'fd00::/64']))
  assert.ok(set.covers(Cidr.parse('10.0.0.0/26')))
  assert.ok(set.covers(Cidr.parse('10.0.0.64/26')))
  assert.ok(!set.covers(Cidr.parse('10.0.0.0/24')))
  assert.ok(set.overlaps(Cidr.parse('10.0.0.0/24')))
  assert.ok(!set.overlaps(Cidr.parse('10.0.0.192/26')))
  assert.ok(set.has(Ip.parse('10.0.1.7')) && !set.has(Ip.parse('10.0.1.8')) && set.has(Ip.parse('fd00::ffff')))
  assert.equal(set.countIn(Cidr.parse('10.0.0.0/23')), 193n)
  assert.equal(set.countIn(Cidr.parse('10.9.0.0/16')), 0n)
})

test('blocks are found by what they cover, whatever their sizes', () => {
  const index = new BlockIndex()
  const known = cidrs(['10.0.0.0/26', '10.0.0.64/28', '10.0.0.128/25', '10.0.0.0/24', 'fd00::/122'])
  for (const cidr of known) index.add(cidr)
  index.add(known[0]!)
  assert.equal(index.size, 5)
  const overlapping = (text: string) => index.overlapping(Cidr.parse(text)).map(String).sort()
  assert.deepEqual(overlapping('10.0.0.64/26'), ['10.0.0.0/24', '10.0.0.64/28'])
  assert.deepEqual(overlapping('10.0.0.200/32'), ['10.0.0.0/24', '10.0.0.128/25'])
  assert.deepEqual(overlapping('10.0.1.0/26'), [])
  assert.deepEqual(overlapping('fd00::3f/128'), ['fd00::/122'])
  index.remove(Cidr.parse('10.0.0.0/24'))
  assert.deepEqual(overlapping('10.0.0.64/26'), ['10.0.0.64/28'])
})

test('any prefix finds what a look at every block finds, in order', () => {
  const small = [28, 29, 30, 31, 32].flatMap((length) =>
    Array.from({ length: 2 ** (length - 27) }, (_, n) =>
      Cidr.of(Ip.parse('10.0.0.0').plus(n * 2 ** (32 - length)), length),
    ),
  )
  const index = new BlockIndex()
  const known: Cidr[] = []
  const toggle = (cidr: Cidr) => {
    const at = known.findIndex((other) => other.equals(cidr))
    if (at < 0) known.push(cidr)
    else known.splice(at, 1)
    if (at < 0) index.add(cidr)
    else index.remove(cidr)
  }
  for (let step = 0; step < 200; step++) {
    toggle(small[(step * 23 + (step >> 3)) % small.length]!)
    for (const asked of small) {
      const expected = known.filter((each) => each.overlaps(asked)).map(String)
      const found = index.overlapping(asked)
      assert.deepEqual(found.map(String).sort(), expected.sort(), `step ${step}, ${asked}`)
      assert.ok(found.every((each, i) => i === 0 || found[i - 1]!.base.compare(each.base) <= 0))
    }
  }
})

test('every block of a pool is found once, from another place on for each node', () => {
  const firsts = new Set<string>()
  for (const node of ['n1', 'n2', 'n3', 'n4', 'n5']) {
    const found = [...openBlocks(pool('10.0.0.0/20', 26), none, new BlockIndex(), node)].map(String)
    assert.equal(found.length, 64)
    assert.equal(new Set(found).size, 64)
    firsts.add(found[0]!)
  }
  assert.ok(firsts.size > 2)
  assert.deepEqual([...openBlocks(pool('10.0.0.0/26', 26), none, new BlockIndex(), 'n')].map(String), ['10.0.0.0/26'])
  assert.equal([...openBlocks(pool('10.0.0.0/26', 25), none, new BlockIndex(), 'n')].length, 0)
})

test('reservations are left out without being walked through', () => {
  const reserved = AddressSet.of(cidrs(['10.0.0.0/17', '10.0.200.0/24', '10.0.201.3/32', '10.0.202.0/27']))
  for (const node of ['n1', 'n2', 'n3', 'n4']) {
    const counted = { steps: 0 }
    const [first] = openBlocks(pool('10.0.0.0/16', 26), reserved, new BlockIndex(), node, counted)
    assert.ok(!reserved.covers(first!))
    assert.equal(counted.steps, 1, 'as in an empty pool')
  }
  const all = [...openBlocks(pool('10.0.0.0/16', 26), reserved, new BlockIndex(), 'n')]
  assert.equal(all.length, 512 - 4)
  const half = AddressSet.of(cidrs(['fd00::/49']))
  const counted = { steps: 0 }
  const [sixth] = openBlocks(pool('fd00::/48', 122), half, new BlockIndex(), 'n', counted)
  assert.ok(sixth && !half.overlaps(sixth))
  assert.equal(counted.steps, 1)
  assert.equal([...openBlocks(pool('10.0.0.0/17', 26), reserved, new BlockIndex(), 'n')].length, 0)
})

test('blocks of another size are stepped over at once, and never overlapped', () => {
  const index = new BlockIndex()
  for (const cidr of cidrs(['10.0.0.0/20', '10.0.16.8/29', '10.0.17.0/26'])) index.add(cidr)
  const counted = { steps: 0 }
  const found = [...openBlocks(pool('10.0.0.0/19', 26), none, index, 'n', counted)]
  assert.equal(found.length, 64 - 2)
  for (const cidr of found) assert.deepEqual(index.overlapping(cidr), [])
  assert.ok(counted.steps <= 64 + 2, `${counted.steps}`)
})
