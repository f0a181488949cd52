import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { BlockPool } from './block-pool.ts'
import { type CidrHolder, NodeCidrs } from './node-cidrs.ts'

const cidr = Cidr.parse
const node = (name: string, podCidrs: string[] = [], addresses: string[] = [], uid = `uid-${name}`): CidrHolder => ({
  name,
  uid,
  podCidrs: podCidrs.map(cidr),
  addresses: addresses.map((text) => Ip.parse(text)),
})
const pool = (network: string, length: number) => new BlockPool(cidr(network), length)
const seed = Math.floor(Math.random() * 2 ** 31)

/** A small generator with a seed, so that a failure can be run again. */
function random(state: number): () => number {
  let at = state
  return () => {
    at = (Math.imul(at, 1664525) + 1013904223) >>> 0
    return at / 2 ** 32
  }
}

describe('a pool of blocks', () => {
  test('gives blocks in turn and goes round the end', () => {
    const blocks = pool('10.0.0.0/22', 24)
    const given: string[] = []
    for (let i = 0; i < 4; i++) {
      const block = blocks.next()!
      given.push(String(block))
      blocks.occupy(`n${i}`, [block])
      blocks.rotateAfter(block)
    }
    assert.deepEqual(given, ['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24', '10.0.3.0/24'])
    assert.equal(blocks.next(), undefined)
    blocks.vacate('n1')
    assert.equal(String(blocks.next()), '10.0.1.0/24')
    assert.equal(blocks.occupied, 3n)
  })

  test('a released block comes last, not next', () => {
    const blocks = pool('10.0.0.0/22', 24)
    blocks.occupy('a', [cidr('10.0.0.0/24')])
    blocks.rotateAfter(cidr('10.0.0.0/24'))
    blocks.vacate('a')
    assert.equal(String(blocks.next()), '10.0.1.0/24')
  })

  test('smaller and larger prefixes and addresses spoil what they touch', () => {
    const blocks = pool('10.0.0.0/21', 24)
    blocks.occupy('part', [cidr('10.0.0.64/26'), cidr('10.0.1.7/32')])
    blocks.occupy('wide', [cidr('10.0.2.0/23'), cidr('10.0.4.0/23')])
    blocks.occupy('elsewhere', [cidr('192.168.0.0/16'), cidr('fd00::/64')])
    assert.equal(String(blocks.next()), '10.0.6.0/24')
    assert.equal(blocks.occupied, 6n)
    blocks.occupy('all', [cidr('10.0.0.0/8')])
    assert.equal(blocks.next(), undefined)
    assert.equal(blocks.occupied, 8n)
    assert.deepEqual(blocks.rivalsOf('part'), ['all'])
    assert.deepEqual(blocks.rivalsOf('all').sort(), ['part', 'wide'])
  })

  test('bounds are kept, also when they lie inside a block', () => {
    const blocks = new BlockPool(cidr('10.0.0.0/20'), 24, { min: Ip.parse('10.0.1.1'), max: Ip.parse('10.0.3.200') })
    assert.equal(blocks.total, 2n)
    assert.equal(String(blocks.next()), '10.0.2.0/24')
    assert.equal(blocks.gives(cidr('10.0.1.0/24')), false)
    assert.equal(blocks.gives(cidr('10.0.3.0/24')), true)
  })

  test('a network of 2^64 blocks costs what is occupied', () => {
    const blocks = pool('fd00::/16', 80)
    assert.equal(blocks.total, 1n << 64n)
    assert.equal(String(blocks.next()), 'fd00::/80')
    blocks.occupy('wide', [cidr('fd00::/17')])
    assert.equal(String(blocks.next()), 'fd00:8000::/80')
  })

  test(`random walks agree with a list searched by hand (seed ${seed})`, () => {
    const chance = random(seed)
    for (let round = 0; round < 40; round++) {
      const blocks = pool('10.0.0.0/20', 24)
      const held = new Map<string, Cidr[]>()
      for (let step = 0; step < 60; step++) {
        const owner = `o${Math.floor(chance() * 12)}`
        if (chance() < 0.3) {
          held.delete(owner)
          blocks.vacate(owner)
        } else {
          const length = 18 + Math.floor(chance() * 10)
          const prefixes = [Cidr.of(cidr('10.0.0.0/20').base.plus(Math.floor(chance() * 4096)), length)]
          held.set(owner, prefixes)
          blocks.occupy(owner, prefixes)
        }
        const taken = [...held.values()].flat()
        const all = Array.from({ length: 16 }, (_, i) => cidr(`10.0.${i}.0/24`))
        const free = all.filter((block) => !taken.some((each) => each.overlaps(block)))
        assert.equal(blocks.occupied, BigInt(16 - free.length))
        const next = blocks.next()
        if (next) assert.ok(free.some((each) => each.equals(next)))
        else assert.equal(free.length, 0)
        for (const [name, own] of held) {
          const rivals = [...held].filter(
            ([other, theirs]) => other !== name && theirs.some((a) => own.some((b) => a.overlaps(b))),
          )
          assert.deepEqual(blocks.rivalsOf(name).sort(), rivals.map(([other]) => other).sort())
        }
        if (next && chance() < 0.5) blocks.rotateAfter(next)
      }
    }
  })
})

describe('what nodes have', () => {
  const make = (holdMilliseconds = 1000) =>
    new NodeCidrs({ pools: [pool('10.244.0.0/22', 24), pool('fd00::/62', 64)], holdMilliseconds })

  test('a node gets a block of each family, and never one that somebody has', () => {
    const cidrs = make()
    cidrs.setNode(node('old', ['10.244.0.0/24', 'fd00:0:0:1::/64']), 0)
    cidrs.setNode(node('new', [], ['10.244.1.9', '192.0.2.1']), 0)
    assert.deepEqual(cidrs.choose('new', 'uid-new'), { cidrs: [cidr('10.244.2.0/24'), cidr('fd00::/64')] })
    assert.deepEqual([...cidrs.promises.keys()], ['new'])
  })

  test('a family without a free block promises nothing of the other either', () => {
    const cidrs = make()
    for (let i = 0; i < 4; i++) cidrs.setNode(node(`n${i}`, [`fd00:0:0:${i}::/64`]), 0)
    const choice = cidrs.choose('new', 'uid-new')
    assert.ok('full' in choice && choice.full.family === 6)
    assert.equal(cidrs.promises.size, 0)
    assert.equal(cidrs.pools[0]!.occupied, 0n)
  })

  test('blocks of a node that is gone are free after the hold, also those of an earlier life under the name', () => {
    const cidrs = new NodeCidrs({ pools: [pool('10.244.0.0/23', 24)], holdMilliseconds: 1000 })
    cidrs.setNode(node('a', ['10.244.0.0/24']), 0)
    cidrs.setNode(node('b', ['10.244.1.0/24']), 0)
    cidrs.removeNode('a', 5000)
    cidrs.setNode(node('b', [], [], 'another'), 5200)
    assert.ok('full' in cidrs.choose('c', 'uid-c'))
    assert.equal(cidrs.expire(5999), 6000)
    assert.ok('full' in cidrs.choose('c', 'uid-c'))
    assert.equal(cidrs.expire(6000), 6200)
    assert.deepEqual(cidrs.choose('c', 'uid-c'), { cidrs: [cidr('10.244.0.0/24')] })
    assert.equal(cidrs.expire(6200), undefined)
    assert.deepEqual(cidrs.choose('b', 'another'), { cidrs: [cidr('10.244.1.0/24')] })
  })

  test('promises are settled when the node has its blocks, is gone, or is another one', () => {
    const cidrs = make()
    for (const name of ['kept', 'waiting', 'gone', 'other']) {
      cidrs.setNode(node(name), 0)
      cidrs.choose(name, `uid-${name}`)
    }
    cidrs.setNode(node('kept', ['10.244.0.0/24', 'fd00::/64']), 0)
    cidrs.removeNode('gone', 0)
    cidrs.setNode(node('other', [], [], 'another life'), 0)
    assert.deepEqual(cidrs.settled().sort(), ['gone', 'kept', 'other'])
    for (const name of cidrs.settled()) cidrs.settle(name)
    assert.deepEqual([...cidrs.promises.keys()], ['waiting'])
  })

  test('two nodes with one block are rivals', () => {
    const cidrs = make()
    cidrs.setNode(node('a', ['10.244.0.0/24']), 0)
    cidrs.setNode(node('b', ['10.244.0.128/25']), 0)
    cidrs.setNode(node('c', ['10.244.1.0/24']), 0)
    assert.deepEqual(cidrs.rivalsOf('a'), ['b'])
    assert.deepEqual(cidrs.rivalsOf('c'), [])
  })

  test('ranges that are kept are not given', () => {
    const pools = [pool('10.96.0.0/14', 16)]
    const cidrs = new NodeCidrs({ pools, holdMilliseconds: 0, kept: [cidr('10.96.0.0/15')] })
    assert.deepEqual(cidrs.choose('a', 'u'), { cidrs: [cidr('10.98.0.0/16')] })
  })
})
