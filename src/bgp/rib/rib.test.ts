/**
 * What the random walk does not say: roles, confederations, restarts that last, multipath, refusals in words, messages that peers
 * share, and the bounds that a hostile peer meets.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { BgpFamily, ChosenRoute } from '../../model/bgp.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { decodeAttributes } from '../../wire/bgp/attribute.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'
import type { WireContext } from '../../wire/bgp/context.ts'
import { IPV4_UNICAST, IPV6_UNICAST } from '../../wire/bgp/family.ts'
import { prefixAt, runOf } from '../../wire/bgp/nlri.ts'
import { decodeUpdate } from '../../wire/bgp/update.ts'
import type { Rib } from './interface.ts'
import { defaultRibOptions, type RibOptions, type RibPeer, type RibPeerFamily } from './peer.ts'
import { acceptAll } from './policy.ts'
import { createRib } from './rib.ts'

const P = '10.1.0.0/24'
const both = new Set([IPV4_UNICAST, IPV6_UNICAST])

interface PeerChanges extends Partial<Omit<RibPeer, 'families'>> {
  readonly families?: readonly Partial<RibPeerFamily>[]
}

class Bench {
  readonly rib: Rib
  readonly sent: { to: string; bytes: Uint8Array; messages: number }[] = []
  readonly chosen = new Map<string, ChosenRoute>()
  readonly ended: string[] = []
  readonly metrics = new Map<string, number>()
  takes = true
  readonly #peers = new Map<string, RibPeer>()

  constructor(options: Partial<RibOptions> = {}) {
    this.rib = createRib(
      { ...defaultRibOptions, asn: 65000, routerId: 1, clusterId: 1, ...options },
      (address) => this.metrics.get(address.toString()) ?? 0,
      {
        send: (to, bytes, messages) => {
          this.sent.push({ to, bytes, messages })
          return this.takes
        },
        chosen: (_, routes) => {
          for (const route of routes) this.chosen.set(route.prefix, route)
        },
        endOfRibSent: (peer, family) => this.ended.push(`${peer} ${family}`),
      },
    )
  }

  attach(name: string, changes: PeerChanges = {}): void {
    const { families = [{}], ...rest } = changes
    const number = this.#peers.size + 2
    const peer: RibPeer = {
      name,
      kind: 'external',
      reflectorClient: false,
      remoteAsn: 65000 + number,
      localAsn: 65000,
      routerId: number,
      address: Ip.parse(`172.16.0.${number}`),
      ownNextHops: { ipv4: Ip.parse('172.16.0.1'), ipv6: Ip.parse('fd00::1') },
      fourOctetAs: true,
      messageBytesMax: 4096,
      allowedLocalAsns: 0,
      ...rest,
      families: families.map((family) => ({
        family: 'ipv4',
        importPolicy: acceptAll,
        exportPolicy: acceptAll,
        nextHop: 'auto',
        addPathReceive: false,
        addPathSend: 0,
        extendedNextHop: false,
        longLivedRestart: false,
        ...family,
      })),
    }
    this.#peers.set(name, peer)
    this.rib.attach(peer)
    this.settle()
  }

  announce(name: string, prefix: string, attributes: Attributes = {}): void {
    const { kind, remoteAsn, address } = this.#peers.get(name)!
    const own: Attributes = {
      origin: 0,
      asPath:
        kind === 'internal' ? [] : [{ kind: kind === 'external' ? 'sequence' : 'confed-sequence', asns: [remoteAsn] }],
      nextHop: { address: prefix.includes(':') ? Ip.parse(`fd00::${address.w3 & 255}`) : address },
    }
    this.rib.announce(name, runOfText(prefix), Object.freeze({ ...own, ...attributes }))
    this.settle()
  }

  settle(): void {
    while (this.rib.work(100));
  }

  best(prefix = P): string | undefined {
    return this.rib.why(prefix).find(({ route }) => route.best)?.route.fromPeer
  }

  rejected(name: string): string | undefined {
    return [...this.rib.adjIn(name, 'ipv4')][0]?.rejected
  }

  /** What a peer has of a prefix, by the bytes that it was sent. */
  has(name: string, prefix = P): Attributes | undefined {
    const { kind } = this.#peers.get(name)!
    const context: WireContext = {
      fourOctetAs: true,
      peerType: kind,
      families: both,
      addPathReceive: new Set(),
      addPathSend: new Set(),
      extendedNextHop: both,
      messageBytesMax: 4096,
    }
    let known: Attributes | undefined
    for (const { to, bytes } of this.sent)
      for (let at = 0; to === name && at < bytes.length; at += bytes[at + 16]! * 256 + bytes[at + 17]!) {
        const body = bytes.subarray(at + 19, at + bytes[at + 16]! * 256 + bytes[at + 17]!)
        const { reach, unreach } = decodeUpdate(body, context)
        const within = (run: (typeof unreach)[number]) =>
          Array.from({ length: run.count }, (_, i) => prefixAt(run, i).toString()).includes(prefix)
        if (unreach.some(within)) known = undefined
        const run = reach.find(within)
        if (run) known = decodeAttributes(run.attributes, context).attributes
      }
    return known
  }
}

function runOfText(prefix: string) {
  const cidr = Cidr.parse(prefix)
  return runOf(cidr.family === 4 ? IPV4_UNICAST : IPV6_UNICAST, [cidr])
}

const asns = ({ asPath = [] }: Attributes): string => asPath.map((each) => `${each.kind} ${each.asns}`).join(', ')

describe('what comes in', () => {
  test('routes that are not for us are kept, with the reason', () => {
    const cases: [string, PeerChanges, Attributes][] = [
      ['AS loop', {}, { asPath: [{ kind: 'sequence', asns: [65002, 65000] }] }],
      ['AS path does not begin with 65002', {}, { asPath: [{ kind: 'sequence', asns: [65009] }] }],
      ['next hop is ourselves', {}, { nextHop: { address: Ip.parse('172.16.0.1') } }],
      ['reflected: it is our own', { kind: 'internal' }, { originatorId: 1 }],
      ['reflected: it went through our cluster', { kind: 'internal' }, { clusterList: [7, 1] }],
      ['route leak: only for customers', { role: 'provider' }, { onlyToCustomer: 65002 }],
      ['route leak: only for customers of another', { role: 'peer' }, { onlyToCustomer: 65009 }],
    ]
    for (const [reason, changes, attributes] of cases) {
      const bench = new Bench()
      bench.attach('a', changes)
      bench.announce('a', P, attributes)
      assert.equal(bench.rejected('a'), reason)
      assert.equal(bench.best(), undefined)
      assert.deepEqual(
        { ...bench.rib.counts('a', 'ipv4'), sent: 0 },
        { received: 1, accepted: 0, stale: 0, best: 0, sent: 0 },
      )
    }
  })

  test('our own AS may stand in the path as often as is allowed', () => {
    const bench = new Bench()
    bench.attach('a', { allowedLocalAsns: 1 })
    bench.announce('a', P, { asPath: [{ kind: 'sequence', asns: [65002, 65000] }] })
    assert.equal(bench.best(), 'a')
    bench.announce('a', P, { asPath: [{ kind: 'sequence', asns: [65002, 65000, 65000] }] })
    assert.equal(bench.rejected('a'), 'AS loop')
  })

  test('LOCAL_PREF of an external peer counts for nothing', () => {
    const bench = new Bench()
    bench.attach('a')
    bench.attach('b')
    bench.announce('a', P)
    bench.announce('b', P, { localPreference: 500 })
    assert.equal(bench.best(), 'a')
  })
})

describe('what goes out', () => {
  test('external peers get our AS, our next hop, no MED of others; the source gets nothing', () => {
    const bench = new Bench()
    for (const name of ['a', 'b']) bench.attach(name)
    bench.announce('a', P, { med: 5 })
    const { med, nextHop, localPreference, ...rest } = bench.has('b')!
    assert.deepEqual(
      [med, `${nextHop!.address}`, localPreference, asns(rest)],
      [undefined, '172.16.0.1', undefined, 'sequence 65000,65002'],
    )
    assert.equal(bench.has('a'), undefined)
  })

  test('a third party on the same network stays the next hop', () => {
    const bench = new Bench()
    bench.attach('a')
    bench.attach('b', { sharesNetwork: (nextHop) => Cidr.parse('172.16.0.0/24').contains(nextHop) })
    bench.announce('a', P)
    assert.equal(`${bench.has('b')!.nextHop!.address}`, '172.16.0.2')
  })

  test('a reflector says whose route it is and that it passed it on', () => {
    const bench = new Bench()
    bench.attach('client', { kind: 'internal', reflectorClient: true, remoteAsn: 65000 })
    bench.attach('other', { kind: 'internal', remoteAsn: 65000 })
    bench.attach('third', { kind: 'internal', remoteAsn: 65000 })
    bench.announce('client', P)
    const { originatorId, clusterList, nextHop, localPreference } = bench.has('other')!
    assert.deepEqual([originatorId, clusterList, `${nextHop!.address}`, localPreference], [2, [1], '172.16.0.2', 100])
    bench.announce('other', '10.2.0.0/24')
    assert.equal(bench.has('third', '10.2.0.0/24'), undefined)
    assert.ok(bench.has('client', '10.2.0.0/24'))
  })

  test('roles mark what goes down and keep it from going up', () => {
    const bench = new Bench()
    bench.attach('provider', { role: 'customer' })
    bench.attach('customer', { role: 'provider' })
    bench.attach('other', { role: 'customer' })
    bench.announce('provider', P)
    assert.equal(bench.has('customer')!.onlyToCustomer, 65002)
    assert.equal(bench.has('other'), undefined)
    bench.announce('customer', '10.2.0.0/24')
    assert.equal(bench.has('other', '10.2.0.0/24')!.onlyToCustomer, undefined)
  })

  test('within a confederation the path grows by a member, outside it is the confederation', () => {
    const bench = new Bench({ confederation: { identifier: 100, members: [65000, 65003] } })
    bench.attach('member', { kind: 'confederation', remoteAsn: 65003 })
    bench.attach('far', { kind: 'confederation', remoteAsn: 65004 })
    bench.attach('outside', { localAsn: 100 })
    bench.announce('member', P, { localPreference: 300, med: 4 })
    const inside = bench.has('far')!
    assert.deepEqual([asns(inside), inside.localPreference, inside.med], ['confed-sequence 65000,65003', 300, 4])
    assert.equal(`${inside.nextHop!.address}`, '172.16.0.2')
    assert.equal(asns(bench.has('outside')!), 'sequence 100')
    bench.announce('member', P, { asPath: [{ kind: 'confed-sequence', asns: [65003, 65000] }] })
    assert.equal(bench.rejected('member'), 'AS loop')
  })

  test('a route server leaves path and next hop as they are', () => {
    const bench = new Bench()
    bench.attach('a', { role: 'route-server' })
    bench.attach('b', { role: 'route-server' })
    bench.announce('a', P)
    const { nextHop, ...rest } = bench.has('b')!
    assert.deepEqual([asns(rest), `${nextHop!.address}`], ['sequence 65002', '172.16.0.2'])
  })

  test('well-known communities keep a route where it is', () => {
    const bench = new Bench({ confederation: { identifier: 100, members: [65000, 65003] } })
    bench.attach('source', { kind: 'internal', remoteAsn: 65000, reflectorClient: true })
    bench.attach('ibgp', { kind: 'internal', remoteAsn: 65000, reflectorClient: true })
    bench.attach('member', { kind: 'confederation' })
    bench.attach('ebgp', { localAsn: 100 })
    for (const [community, who] of [
      [0xffffff01, ['ibgp', 'member']],
      [0xffffff02, []],
      [0xffffff03, ['ibgp']],
    ] as const) {
      bench.announce('source', P, { communities: [community] })
      assert.deepEqual(
        ['ibgp', 'member', 'ebgp'].filter((name) => bench.has(name)),
        [...who],
      )
    }
  })

  test('IPv4 with an IPv6 next hop where that was agreed upon, and nothing where no next hop fits', () => {
    const bench = new Bench()
    const ownNextHops = { linkLocal: Ip.parse('fe80::1') }
    bench.attach('a')
    bench.attach('unnumbered', { ownNextHops, families: [{ extendedNextHop: true }] })
    bench.attach('old', { ownNextHops })
    bench.announce('a', P)
    assert.equal(`${bench.has('unnumbered')!.nextHop!.linkLocal}`, 'fe80::1')
    assert.equal(bench.has('old'), undefined)
  })

  test('peers that are told the same share the bytes; a peer of another kind does not', () => {
    const bench = new Bench()
    for (const name of ['a', 'b', 'c'])
      bench.attach(name, { kind: 'internal', reflectorClient: true, remoteAsn: 65000 })
    bench.attach('x')
    bench.sent.length = 0
    bench.announce('a', P)
    const to = (name: string) => bench.sent.filter((each) => each.to === name)
    assert.equal(to('b').length, 1)
    assert.equal(to('b')[0]!.bytes, to('c')[0]!.bytes)
    assert.notEqual(to('b')[0]!.bytes, to('x')[0]!.bytes)
    assert.equal(to('a').length, 0)
  })
})

describe('peers that come and go', () => {
  test('End-of-RIB comes once, behind what there is; a refresh ends with the notice alone', () => {
    const bench = new Bench()
    bench.attach('a')
    bench.announce('a', P)
    bench.attach('b', { families: [{}, { family: 'ipv6' }] })
    assert.deepEqual(bench.ended, ['a ipv4', 'b ipv4', 'b ipv6'])
    const toB = bench.sent.filter(({ to }) => to === 'b')
    assert.deepEqual(
      toB.map(({ messages }) => messages),
      [1, 1, 1],
    )
    assert.equal(toB[1]!.bytes.length, 23)
    bench.rib.refresh('b', 'ipv4')
    bench.settle()
    assert.equal(bench.sent.filter(({ to }) => to === 'b').length, 4)
    assert.deepEqual(bench.ended.slice(3), ['b ipv4'])
  })

  test('a peer that takes no more is told later, once, what is true then', () => {
    const bench = new Bench()
    bench.attach('a')
    bench.attach('b')
    bench.takes = false
    bench.announce('a', P)
    const before = bench.sent.length
    for (let med = 1; med < 20; med++) bench.announce('a', P, { communities: [med] })
    assert.equal(bench.sent.length, before)
    bench.takes = true
    bench.rib.resume('b')
    bench.settle()
    assert.equal(bench.sent.length, before + 1)
    assert.deepEqual(bench.has('b')!.communities, [19])
  })

  test('a peer that takes no more hears nothing of its own routes, come or gone', () => {
    const bench = new Bench()
    bench.attach('one')
    bench.attach('two')
    bench.takes = false
    bench.announce('one', '10.9.0.0/24')
    const before = bench.sent.length
    bench.announce('two', P)
    bench.rib.withdraw('two', runOfText(P))
    bench.settle()
    bench.takes = true
    bench.rib.resume('two')
    bench.settle()
    for (const { to, bytes } of bench.sent.slice(before))
      assert.ok(to !== 'two' || bytes[19]! + bytes[20]! === 0, 'nothing is withdrawn from it')
    assert.equal(bench.has('two'), undefined)
    assert.ok(bench.has('two', '10.9.0.0/24'))
  })

  test('stale routes stay until the sweep, and long-lived ones are the last choice and marked', () => {
    const bench = new Bench()
    bench.attach('a')
    bench.attach('b')
    bench.attach('knows', { families: [{ longLivedRestart: true }] })
    bench.announce('a', P)
    bench.announce('a', '10.2.0.0/24', { communities: [0xffff0007] })
    bench.announce('b', P)
    bench.rib.lose('a', 'keep stale')
    bench.settle()
    assert.equal(bench.best(), 'a')
    assert.equal(bench.rib.counts('a', 'ipv4').stale, 2)
    bench.rib.keepLongLived('a', 'ipv4')
    bench.settle()
    assert.equal(bench.best(), 'b')
    assert.equal(bench.rib.why(P).find(({ route }) => route.fromPeer === 'a')!.lostAt, 'long-lived stale')
    assert.equal(bench.best('10.2.0.0/24'), undefined)
    bench.rib.lose('b', 'withdraw')
    bench.settle()
    assert.deepEqual(bench.has('knows')!.communities, [0xffff0006])
    bench.rib.sweepStale('a', 'ipv4')
    bench.settle()
    assert.equal(bench.rib.has('a'), false)
    assert.equal(bench.has('knows'), undefined)
  })

  test('what was stale when the session is lost once more goes', () => {
    const bench = new Bench()
    bench.attach('a')
    for (const prefix of [P, '10.2.0.0/24']) bench.announce('a', prefix)
    bench.rib.lose('a', 'keep stale')
    bench.attach('a', { remoteAsn: 65002, address: Ip.parse('172.16.0.2') })
    bench.announce('a', P)
    bench.rib.lose('a', 'keep stale')
    bench.settle()
    assert.deepEqual([bench.best(), bench.best('10.2.0.0/24')], ['a', undefined])
  })

  test('a path in the place of another one, before anybody looked, is another path', () => {
    const bench = new Bench()
    for (const name of ['a', 'b', 'c'])
      bench.attach(name, { kind: 'internal', reflectorClient: true, remoteAsn: 65000 })
    const same = Object.freeze({ origin: 0, asPath: [], nextHop: { address: Ip.parse('172.16.0.9') } })
    bench.announce('a', P, same)
    bench.rib.withdraw('a', runOfText(P))
    bench.announce('b', P, same)
    assert.deepEqual([bench.has('c')!.originatorId, bench.has('b'), bench.has('a')!.originatorId], [3, undefined, 3])
    assert.deepEqual(bench.chosen.get(P)!.fromPeers, ['b'])
    assert.equal(bench.rib.counts('a', 'ipv4').best + bench.rib.counts('b', 'ipv4').best, 1)
  })

  test('nothing is chosen or told while selection is deferred', () => {
    const bench = new Bench()
    bench.rib.hold()
    bench.attach('a')
    bench.attach('b')
    bench.announce('a', P)
    assert.deepEqual([bench.best(), bench.sent.length, bench.chosen.size], ['a', 0, 0])
    bench.rib.release()
    bench.settle()
    assert.equal(bench.chosen.get(P)!.fromPeers[0], 'a')
    assert.ok(bench.has('b'))
  })
})

describe('paths used at once', () => {
  const next = (bench: Bench) => bench.chosen.get(P)!.nextHops.map(({ address }) => address)

  test('as many as are allowed, each next hop once; another AS only when the path is relaxed', () => {
    for (const [asPathRelax, want] of [
      [false, ['172.16.0.2']],
      [true, ['172.16.0.2', '172.16.0.3']],
    ] as const) {
      const bench = new Bench({ maxExternalPaths: 2, asPathRelax })
      for (const name of ['a', 'b', 'c']) bench.attach(name)
      for (const name of ['c', 'b', 'a']) bench.announce(name, P)
      assert.deepEqual(next(bench), want)
    }
  })

  test('a path beside the best that goes is told, although the best stays', () => {
    const bench = new Bench({ maxInternalPaths: 8 })
    for (const name of ['a', 'b']) bench.attach(name, { kind: 'internal', remoteAsn: 65000 })
    for (const name of ['a', 'b']) bench.announce(name, P)
    assert.equal(next(bench).length, 2)
    bench.metrics.set('172.16.0.3', -1)
    bench.rib.nextHopsChanged()
    bench.settle()
    assert.deepEqual(next(bench), ['172.16.0.2'])
    assert.equal(bench.rib.why(P)[1]!.route.rejected, 'next hop unreachable')
  })
})

test('IPv6 goes the same way', () => {
  const bench = new Bench()
  const families = [{ family: 'ipv6' as BgpFamily }]
  bench.attach('a', { families })
  bench.attach('b', { families })
  const prefix = '2001:db8:1::/48'
  bench.announce('a', prefix)
  assert.equal(`${bench.has('b', prefix)!.nextHop!.address}`, 'fd00::1')
  assert.deepEqual(
    [...bench.rib.adjOut('b', 'ipv6')].map((route) => route.prefix),
    [prefix],
  )
  bench.rib.lose('a', 'withdraw')
  bench.settle()
  assert.equal(bench.has('b', prefix), undefined)
  assert.deepEqual(bench.rib.size.ipv6, { prefixes: 0, paths: 0 })
})

test('a peer that never repeats an attribute set or a prefix leaves nothing behind', () => {
  const bench = new Bench()
  bench.attach('a')
  bench.attach('b')
  for (let i = 0; i < 40_000; i++) {
    const run = runOf(IPV4_UNICAST, [Cidr.of(Ip.v4(0x14000000 + i * 256), 24)])
    const attributes = {
      origin: 0,
      asPath: [{ kind: 'sequence' as const, asns: [65002] }],
      nextHop: { address: Ip.parse('172.16.0.2') },
      communities: [i],
    }
    bench.rib.announce('a', run, attributes)
    bench.rib.work(100)
    bench.rib.withdraw('a', run)
    bench.settle()
    bench.sent.length = 0
  }
  assert.ok(bench.rib.attributeSets < 10_000, `${bench.rib.attributeSets} attribute sets`)
  bench.announce('a', P)
  assert.equal(bench.best(), 'a')
  assert.ok(bench.has('b'))
})
