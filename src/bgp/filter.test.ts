import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PolicyConfig, PolicyRule, PrefixOwner, PrefixRange, RouteChange, RouteMatch } from '../model/bgp.ts'
import {
  formatExtendedCommunity,
  formatLargeCommunity,
  formatStandardCommunity,
  parseCommunity,
} from '../model/bgp-community.ts'
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, Ip } from '../net/ip.ts'
import type { AsPathSegment, Attributes } from '../wire/bgp/attributes.ts'
import { PolicyLibrary, type PolicyUse } from './filter.ts'
import type { FilteredAttributes } from './filter-change.ts'
import { isRefusal, type PolicySource, type RoutePolicy } from './rib/policy.ts'

const fromPeer: PolicySource = { fromPeer: 'a', localKind: undefined, device: undefined }
const local: PolicySource = { fromPeer: undefined, localKind: 'block', device: 'eth1' }

function decide(policy: RoutePolicy, attributes: Attributes, prefix: Cidr, source: PolicySource) {
  const { w0, w1, w2, w3 } = prefix.base
  const prefixClass = policy.classOf?.(prefix.length, w0, w1, w2, w3) ?? 0
  return policy.evaluate(attributes, prefixClass, source)
}

/** A library of one policy, and its program. */
function programOf(rules: readonly PolicyRule[], use: Partial<PolicyUse> = {}): RoutePolicy {
  const library = new PolicyLibrary()
  library.load({ policies: [{ name: 'p', rules }], prefixSets: [], ownership: [] })
  return library.policyFor({ names: ['p'], family: 4, peerType: 'ebgp', otherwise: 'reject', ...use })
}

const rule = (match: RouteMatch, verdict: PolicyRule['verdict'], changes: readonly RouteChange[] = []): PolicyRule => ({
  match,
  changes,
  verdict,
})

test('a program says whether it looks at prefixes and at the source', () => {
  const plain = programOf([rule({ communities: ['1:1'] }, 'accept')])
  assert.equal(plain.classOf, undefined)
  assert.equal(plain.looksAtSource, false)
  const prefixed = programOf([rule({ prefixes: { set: [{ prefix: '10.0.0.0/8' }] } }, 'accept')])
  assert.ok(prefixed.classOf)
  assert.equal(programOf([rule({ source: 'peers' }, 'accept')]).looksAtSource, true)
  const behind = programOf([rule({}, 'accept'), rule({ prefixes: { set: [{ prefix: '10.0.0.0/8' }] } }, 'reject')])
  assert.equal(behind.classOf, undefined, 'what stands behind a rule for every route is not there')
  const others = programOf([
    rule({ peerType: 'ibgp', prefixes: { set: [{ prefix: '10.0.0.0/8' }] } }, 'reject'),
    rule({ family: 'ipv6', source: 'local' }, 'reject'),
  ])
  assert.equal(others.classOf, undefined)
  assert.equal(others.looksAtSource, false)
})

test('programs that say the same are the same, also after other things have changed', () => {
  const library = new PolicyLibrary()
  const guard: PolicyConfig = { name: 'guard', rules: [rule({ misplaced: true }, 'reject')] }
  const tagged: PolicyConfig = { name: 'tag', rules: [rule({ prefixes: { set: 'pods' } }, 'accept')] }
  const sets = [{ name: 'pods', ranges: [{ prefix: '10.244.0.0/16' }] }]
  const owner = (nextHop: string): PrefixOwner => ({ prefix: '10.244.1.0/24', nextHops: [nextHop], owner: 'b' })
  const use = { names: ['tag'], family: 4, peerType: 'ibgp', otherwise: 'reject' } as const
  library.load({ policies: [guard, tagged], prefixSets: sets, ownership: [owner('192.0.2.2')] })
  const before = library.policyFor(use)
  assert.equal(library.policyFor({ ...use }), before)
  const guarded = library.policyFor({ ...use, names: ['guard'] })
  assert.notEqual(guarded.key, before.key)
  library.load({ policies: [guard, { ...tagged }], prefixSets: [...sets], ownership: [owner('192.0.2.3')] })
  assert.equal(library.policyFor({ ...use }), before)
  assert.notEqual(library.policyFor({ ...use, names: ['guard'] }).key, guarded.key)
  library.load({ policies: [guard, tagged], prefixSets: [{ ...sets[0]!, ranges: [] }], ownership: [] })
  assert.notEqual(library.policyFor({ ...use }).key, before.key, 'a set that changed')
})

test('a route of a block is refused where its next hop is not its owner', () => {
  const library = new PolicyLibrary()
  library.load({
    policies: [{ name: 'guard', rules: [{ ...rule({ misplaced: true }, 'reject'), name: "another node's block" }] }],
    prefixSets: [],
    ownership: [
      { prefix: '10.244.1.0/24', nextHops: ['192.0.2.1', '2001:db8::1'], owner: 'a' },
      { prefix: '10.244.1.7/32', nextHops: ['192.0.2.2'], owner: 'b' },
      { prefix: '10.244.9.0/24', nextHops: [], owner: 'nobody' },
    ],
  })
  const policy = library.policyFor({ names: ['guard'], family: 4, peerType: 'ibgp', otherwise: 'accept' })
  const via = (prefix: string, nextHop: string) =>
    !isRefusal(decide(policy, { nextHop: { address: Ip.parse(nextHop) } }, Cidr.parse(prefix), fromPeer))
  assert.ok(via('10.244.1.0/24', '192.0.2.1'))
  assert.ok(via('10.244.1.0/24', '2001:db8::1'))
  assert.ok(!via('10.244.1.0/24', '192.0.2.2'), 'the whole block by another node')
  assert.ok(!via('10.244.1.128/25', '192.0.2.2'), 'a part of it')
  assert.ok(via('10.244.1.7/32', '192.0.2.2'), 'an address that another node borrowed')
  assert.ok(!via('10.244.1.7/32', '192.0.2.1'))
  assert.ok(!via('10.244.9.0/24', '192.0.2.1'), 'what belongs to nobody')
  assert.ok(via('10.244.0.0/16', '192.0.2.2'), 'what is more than a block')
  assert.ok(via('198.51.100.0/24', '192.0.2.9'))
})

test('AS paths: what a path begins with, and what comes in front', () => {
  const path: AsPathSegment[] = [
    { kind: 'confed-sequence', asns: [65001] },
    { kind: 'sequence', asns: [100, 200] },
    { kind: 'set', asns: [300] },
  ]
  const matches = (asPathPrefix: number[], asPath: readonly AsPathSegment[] = path) =>
    !isRefusal(decide(programOf([rule({ asPathPrefix }, 'accept')]), { asPath }, Cidr.all(4), fromPeer))
  assert.ok(matches([100]) && matches([100, 200]))
  assert.ok(!matches([200]) && !matches([100, 200, 300]) && !matches([65001]) && !matches([100], []))
  assert.ok(
    matches(
      [100, 200],
      [
        { kind: 'sequence', asns: [100] },
        { kind: 'sequence', asns: [200] },
      ],
    ),
  )
  const prepend = programOf([rule({}, 'accept', [{ kind: 'prepend-as-path', asns: [7, 8] }])])
  const pathOf = (asPath?: readonly AsPathSegment[]) =>
    (decide(prepend, asPath ? { asPath } : {}, Cidr.all(4), fromPeer) as Attributes).asPath
  assert.deepEqual(pathOf(path), [path[0], { kind: 'sequence', asns: [7, 8, 100, 200] }, path[2]])
  assert.deepEqual(pathOf(), [{ kind: 'sequence', asns: [7, 8] }])
  assert.deepEqual(pathOf([path[2]!]), [{ kind: 'sequence', asns: [7, 8] }, path[2]])
})

test('next hops: an address, our own, or as it came', () => {
  const nextHop = { address: Ip.parse('192.0.2.1') }
  const of = (text: string) =>
    decide(
      programOf([rule({}, 'accept', [{ kind: 'set-next-hop', nextHop: text }])]),
      { nextHop },
      Cidr.all(4),
      local,
    ) as FilteredAttributes
  assert.equal(`${of('198.51.100.1').nextHop?.address} ${of('198.51.100.1').nextHopDecision}`, '198.51.100.1 set')
  assert.equal(of('self').nextHopDecision, 'self')
  assert.equal(of('keep').nextHop, nextHop)
})

test('what cannot be used names the policy and the rule', () => {
  const refusals: readonly [PolicyRule, RegExp][] = [
    [rule({ prefixes: { set: 'none' } }, 'accept'), /policy p: rules\[0\]\.match\.prefixes: .*set with the name none/],
    [rule({ prefixes: { set: [{ prefix: '10.0.0.1/8' }] } }, 'accept'), /policy p: .*prefixes\[0\]: 10\.0\.0\.1\/8/],
    [rule({ communities: ['x'] }, 'accept'), /policy p: rules\[0\]\.match\.communities: "x" is no community/],
    [rule({}, 'next', [{ kind: 'set-med', med: -1 }]), /policy p: rules\[0\]\.changes\[0\]: -1/],
    [rule({}, 'next', [{ kind: 'set-next-hop', nextHop: 'me' }]), /me is no address/],
  ]
  for (const [each, expected] of refusals) assert.throws(() => programOf([each]), expected)
  assert.throws(
    () => new PolicyLibrary().policyFor({ names: ['x'], family: 4, peerType: 'ebgp', otherwise: 'accept' }),
    /there is none with the name x/,
  )
})

// ---- random policies against the plainest evaluator there is ------------------------------------------------------------

function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

type Random = (below: number) => number
const pick = <T>(random: Random, items: readonly T[]): T => items[random(items.length)]!
const some = <T>(random: Random, items: readonly T[], most: number): T[] => [
  ...new Set(Array.from({ length: random(most + 1) }, () => pick(random, items))),
]

const communityTexts = ['65000:1', '65000:2', 'no-export', '65000:1:1', '65000:1:2', 'rt:65000:1', 'ro:192.0.2.1:9']
const nextHops = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '2001:db8::2']

function randomPrefix(random: Random, family: Family): Cidr {
  const word = () => (random(3) << 30) | (random(2) << 16) | random(2)
  const ip = family === 4 ? Ip.v4(word()) : new Ip(6, word(), 0, random(2), word())
  return Cidr.of(ip, pick(random, family === 4 ? [0, 1, 2, 16, 24, 31, 32] : [0, 2, 16, 64, 112, 127, 128]))
}

function randomRange(random: Random, family: Family): PrefixRange {
  const cidr = randomPrefix(random, random(8) === 0 ? (family === 4 ? 6 : 4) : family)
  const least = random(2) ? random(bitsOf(cidr.family) + 1) : undefined
  return {
    prefix: `${cidr}`,
    ...(least !== undefined && { minLength: least }),
    ...(random(2) && { maxLength: Math.min(bitsOf(cidr.family), (least ?? cidr.length) + random(20)) }),
  }
}

function randomMatch(random: Random, family: Family): RouteMatch {
  const often = () => random(4) === 0
  const ranges = Array.from({ length: random(4) }, () => randomRange(random, family))
  return {
    ...(often() && { family: pick(random, ['ipv4', 'ipv6'] as const) }),
    ...(random(2) && {
      prefixes: { set: random(3) ? ranges : pick(random, ['s0', 's1']), ...(random(3) === 0 && { negated: true }) },
    }),
    ...(often() && { source: pick(random, ['peers', 'local'] as const) }),
    ...(often() && { localKinds: some(random, ['block', 'aggregate'] as const, 2) }),
    ...(often() && { device: pick(random, ['eth*', 'eth1', '*', 'e?h0', 'tun.']) }),
    ...(often() && { peerType: pick(random, ['ebgp', 'ibgp'] as const) }),
    ...(often() && { communities: some(random, communityTexts, 2) }),
    ...(often() && { asPathPrefix: Array.from({ length: random(3) }, () => 1 + random(3)) }),
    ...(often() && { priority: pick(random, [1024, 512]) }),
    ...(often() && { misplaced: true }),
  }
}

function randomChange(random: Random): RouteChange {
  const communities = some(random, communityTexts, 3)
  return pick<RouteChange>(random, [
    { kind: 'add-communities', communities },
    { kind: 'remove-communities', communities },
    { kind: 'set-communities', communities },
    { kind: 'prepend-as-path', asns: Array.from({ length: random(3) }, () => 1 + random(3)) },
    { kind: 'set-med', med: random(2) ? random(5) : undefined },
    { kind: 'set-local-preference', localPreference: random(200) },
    { kind: 'set-priority', priority: pick(random, [1024, 512]) },
    { kind: 'set-next-hop', nextHop: pick(random, [...nextHops, 'self', 'keep']) },
  ])
}

/** A route in words, as the naive evaluator has it. */
interface Words {
  prefix: Cidr
  communities: string[]
  path: number[]
  med: number | undefined
  localPreference: number | undefined
  nextHop: string
  decision: string | undefined
}

const attributesOf = (words: Words): Attributes => {
  const parsed = words.communities.map((text) => parseCommunity(text)!)
  const standard = parsed.flatMap(({ kind, value }) => (kind === 'standard' ? [value] : []))
  const large = parsed.flatMap(({ kind, value }) => (kind === 'large' ? [value] : []))
  const extended = parsed.flatMap(({ kind, value }) => (kind === 'extended' ? [value] : []))
  return {
    asPath: words.path.length > 0 ? [{ kind: 'sequence', asns: words.path }] : [],
    nextHop: { address: Ip.parse(words.nextHop) },
    ...(words.med !== undefined && { med: words.med }),
    ...(words.localPreference !== undefined && { localPreference: words.localPreference }),
    ...(standard.length > 0 && { communities: standard }),
    ...(large.length > 0 && { largeCommunities: large }),
    ...(extended.length > 0 && { extendedCommunities: extended }),
  }
}

const shownOf = (attributes: FilteredAttributes) => ({
  communities: [
    ...(attributes.communities ?? []).map(formatStandardCommunity),
    ...(attributes.largeCommunities ?? []).map((each) => formatLargeCommunity(...each)),
    ...(attributes.extendedCommunities ?? []).map(formatExtendedCommunity),
  ].sort(),
  path: (attributes.asPath ?? []).flatMap(({ asns }) => asns),
  med: attributes.med,
  localPreference: attributes.localPreference,
  nextHop: `${attributes.nextHop?.address}`,
  decision: attributes.nextHopDecision,
})

const inRange = (prefix: Cidr, { prefix: text, minLength, maxLength }: PrefixRange): boolean => {
  const cidr = Cidr.parse(text)
  if (cidr.family !== prefix.family || !cidr.covers(prefix)) return false
  return prefix.length >= (minLength ?? cidr.length) && prefix.length <= (maxLength ?? bitsOf(cidr.family))
}

const globMatches = (glob: string, name: string): boolean =>
  glob === ''
    ? name === ''
    : glob[0] === '*'
      ? globMatches(glob.slice(1), name) || (name !== '' && globMatches(glob, name.slice(1)))
      : name !== '' && (glob[0] === '?' || glob[0] === name[0]) && globMatches(glob.slice(1), name.slice(1))

function naiveMatches(
  match: RouteMatch,
  route: Words,
  use: PolicyUse,
  source: PolicySource,
  sets: ReadonlyMap<string, readonly PrefixRange[]>,
  ownership: readonly PrefixOwner[],
): boolean {
  const { prefix } = route
  if (match.family && match.family !== `ipv${use.family}`) return false
  if (match.peerType && match.peerType !== use.peerType) return false
  if (match.prefixes) {
    const set = typeof match.prefixes.set === 'string' ? sets.get(match.prefixes.set)! : match.prefixes.set
    if (set.some((range) => inRange(prefix, range)) === (match.prefixes.negated ?? false)) return false
  }
  if (match.source && (match.source === 'peers') !== (source.fromPeer !== undefined)) return false
  if (match.localKinds && !(source.localKind && match.localKinds.includes(source.localKind))) return false
  if (match.device && !(source.device && globMatches(match.device, source.device))) return false
  if (!(match.communities ?? []).every((each) => route.communities.includes(each))) return false
  if (!(match.asPathPrefix ?? []).every((asn, index) => route.path[index] === asn)) return false
  if (match.priority !== undefined && route.localPreference !== 2147483647 - match.priority) return false
  if (match.misplaced) {
    const owner = ownership
      .filter(({ prefix: text }) => Cidr.parse(text).covers(prefix))
      .sort((a, b) => Cidr.parse(b.prefix).length - Cidr.parse(a.prefix).length)[0]
    if (!owner || owner.nextHops.includes(route.nextHop)) return false
  }
  return true
}

function naiveChange(route: Words, change: RouteChange): Words {
  switch (change.kind) {
    case 'add-communities':
      return { ...route, communities: [...new Set([...route.communities, ...change.communities])] }
    case 'remove-communities':
      return { ...route, communities: route.communities.filter((each) => !change.communities.includes(each)) }
    case 'set-communities':
      return { ...route, communities: [...new Set(change.communities)] }
    case 'prepend-as-path':
      return { ...route, path: [...change.asns, ...route.path] }
    case 'set-med':
      return { ...route, med: change.med }
    case 'set-local-preference':
      return { ...route, localPreference: change.localPreference }
    case 'set-priority':
      return { ...route, localPreference: 2147483647 - change.priority }
    case 'set-next-hop':
      if (change.nextHop === 'self' || change.nextHop === 'keep') return { ...route, decision: change.nextHop }
      return { ...route, nextHop: change.nextHop, decision: 'set' }
  }
}

test('random policies decide as the plainest evaluator does', () => {
  const seed = Number(process.env.SEED ?? 1 + (Date.now() % 1_000_000))
  console.log(`seed ${seed}`)
  const random = randomOf(seed)
  const seen = { accept: 0, reject: 0 }
  for (let round = 0; round < 250; round++) {
    const family: Family = random(2) ? 4 : 6
    const policies = ['a', 'b'].map(
      (name): PolicyConfig => ({
        name,
        rules: Array.from({ length: random(6) }, () => ({
          match: randomMatch(random, family),
          changes: Array.from({ length: random(3) }, () => randomChange(random)),
          verdict: pick(random, ['accept', 'reject', 'next', 'next'] as const),
        })),
      }),
    )
    const prefixSets = ['s0', 's1'].map((name) => ({
      name,
      ranges: Array.from({ length: random(4) }, () => randomRange(random, family)),
    }))
    const owned = new Map(Array.from({ length: random(6) }, () => [`${randomPrefix(random, family)}`, true]))
    const ownership = [...owned.keys()].map((prefix) => ({ prefix, nextHops: some(random, nextHops, 2), owner: 'n' }))
    const use: PolicyUse = {
      names: pick(random, [['a'], ['b', 'a'], ['a', 'b'], []]),
      family,
      peerType: pick(random, ['ebgp', 'ibgp'] as const),
      otherwise: pick(random, ['accept', 'reject'] as const),
    }
    const library = new PolicyLibrary()
    library.load({ policies, prefixSets, ownership })
    const policy = library.policyFor(use)
    const sets = new Map(prefixSets.map(({ name, ranges }) => [name, ranges]))
    for (let i = 0; i < 40; i++) {
      const source = pick(random, [fromPeer, local, { ...local, localKind: 'aggregate', device: undefined } as const])
      let route: Words = {
        prefix: randomPrefix(random, family),
        communities: some(random, communityTexts, 3),
        path: Array.from({ length: random(4) }, () => 1 + random(3)),
        med: random(2) ? random(5) : undefined,
        localPreference: pick(random, [undefined, 100, 2147483647 - 1024]),
        nextHop: pick(random, nextHops),
        decision: undefined,
      }
      const given = attributesOf(route)
      const before = JSON.stringify(shownOf(given))
      const answer = decide(policy, given, route.prefix, source)
      let decided: 'accept' | 'reject' | undefined
      let refusedBy = 'no rule accepts it'
      outer: for (const name of use.names) {
        const { rules } = policies.find((each) => each.name === name)!
        for (const [index, { match, changes, verdict }] of rules.entries()) {
          if (!naiveMatches(match, route, use, source, sets, ownership)) continue
          if (verdict !== 'reject') for (const change of changes) route = naiveChange(route, change)
          else refusedBy = `${name} rules[${index}]`
          if (verdict === 'next') continue
          decided = verdict
          break outer
        }
      }
      const where = `round ${round}, route ${i} of seed ${seed}`
      seen[decided ?? use.otherwise]++
      assert.equal(JSON.stringify(shownOf(given)), before, `what was given is untouched, ${where}`)
      if ((decided ?? use.otherwise) === 'reject') {
        assert.deepEqual(answer, { refused: refusedBy }, where)
        continue
      }
      assert.ok(!isRefusal(answer), where)
      const { prefix: _, ...words } = route
      assert.deepEqual(shownOf(answer), { ...words, communities: words.communities.sort() }, where)
      if (!policy.looksAtSource)
        assert.deepEqual(shownOf(decide(policy, given, route.prefix, fromPeer) as Attributes), shownOf(answer), where)
    }
  }
  assert.ok(seen.accept > 500 && seen.reject > 500, `both answers are met often: ${JSON.stringify(seen)}`)
})
