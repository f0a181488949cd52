import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../net/ip.ts'
import {
  type ClassOwner,
  type ClassRange,
  MAX_PREFIX_CLASSES,
  OVERFLOW_CLASS,
  PrefixClasses,
} from './prefix-classes.ts'

const classOf = (classes: PrefixClasses, { base, length }: Cidr) =>
  classes.classOf(length, base.w0, base.w1, base.w2, base.w3)

/** mulberry32. */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** Few distinct bits, so that prefixes often cover one another. */
function randomCidr(family: Family, random: (below: number) => number): Cidr {
  const word = () => (random(4) << 30) | (random(4) << 16) | random(4)
  const ip = family === 4 ? Ip.v4(word()) : new Ip(6, word(), word(), word(), word())
  const lengths = family === 4 ? [0, 1, 2, 15, 16, 31, 32] : [0, 2, 32, 33, 64, 65, 112, 127, 128]
  return Cidr.of(ip, lengths[random(lengths.length)]!)
}

test('a class says what holds of each of its prefixes, as one range after the other says', () => {
  const seed = Number(process.env.SEED ?? 1 + (Date.now() % 1_000_000))
  console.log(`seed ${seed}`)
  const random = randomOf(seed)
  for (let round = 0; round < 60; round++) {
    const family: Family = round % 2 === 0 ? 4 : 6
    const ranges = Array.from({ length: random(30) }, (): ClassRange => {
      const cidr = randomCidr(family, random)
      const minLength = cidr.length + random(bitsOf(family) - cidr.length + 1)
      return { cidr, minLength, maxLength: minLength + random(bitsOf(family) - minLength + 1), condition: random(6) }
    })
    const blocks = new Map(Array.from({ length: random(20) }, () => randomCidr(family, random)).map((c) => [`${c}`, c]))
    const owners = [...blocks.values()].map((cidr): ClassOwner => ({ cidr, owner: random(5) }))
    const classes = new PrefixClasses(family, ranges, owners)
    for (let i = 0; i < 300; i++) {
      const prefix = randomCidr(family, random)
      const found = classes.describe(classOf(classes, prefix))
      const holds = ranges
        .filter(
          ({ cidr, minLength, maxLength }) =>
            cidr.covers(prefix) && prefix.length >= minLength && prefix.length <= maxLength,
        )
        .map(({ condition }) => condition)
      const owner = owners
        .filter(({ cidr }) => cidr.covers(prefix))
        .sort((a, b) => b.cidr.length - a.cidr.length)
        .at(0)?.owner
      assert.deepEqual([...found!.holds].sort(), [...new Set(holds)].sort(), `${prefix} of seed ${seed}`)
      assert.equal(found!.owner, owner, `${prefix} of seed ${seed}`)
    }
  }
})

test('signed and unsigned words mean the same', () => {
  const cidr = Cidr.parse('200.1.0.0/16')
  const classes = new PrefixClasses(4, [{ cidr, minLength: 16, maxLength: 32, condition: 0 }])
  const word = Ip.parse('200.1.2.0').w3
  assert.equal(classes.classOf(24, 0, 0, 0, word), classes.classOf(24, 0, 0, 0, word | 0))
  assert.deepEqual([...classes.describe(classes.classOf(24, 0, 0, 0, word))!.holds], [0])
})

test('what comes after the last class is of the one that says nothing', () => {
  const owners = Array.from({ length: MAX_PREFIX_CLASSES + 10 }, (_, owner) => ({
    cidr: Cidr.of(Ip.v4((10 << 24) | owner), 32),
    owner,
  }))
  const classes = new PrefixClasses(4, [], owners)
  for (const [index, { cidr, owner }] of owners.entries()) {
    const found = classOf(classes, cidr)
    if (index < MAX_PREFIX_CLASSES - 1) assert.equal(classes.describe(found)!.owner, owner)
    else assert.equal(found, OVERFLOW_CLASS)
  }
  assert.equal(classes.describe(OVERFLOW_CLASS), undefined)
})
