/**
 * Any history of announcements, withdrawals, sessions, policies, next hops and slow peers, against the naive RIB: the same best
 * paths, the same chosen routes told, and every peer, by the bytes that it was sent, knows what it should. WALK_SEED and
 * WALK_STEPS repeat or lengthen a walk.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { decodeAttributes } from '../../wire/bgp/attribute.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'
import type { WireContext } from '../../wire/bgp/context.ts'
import { IPV4_UNICAST } from '../../wire/bgp/family.ts'
import { pathIdAt, prefixAt, runOf } from '../../wire/bgp/nlri.ts'
import { decodeUpdate } from '../../wire/bgp/update.ts'
import { equalAttributes } from './attribute-identity.ts'
import type { Rib } from './interface.ts'
import { NaiveRib } from './naive-rib.ts'
import { defaultRibOptions, type RibOptions, type RibPeer } from './peer.ts'
import { acceptAll, type RoutePolicy, refuseAll } from './policy.ts'
import { createRib } from './rib.ts'

const steps = Number(process.env.WALK_STEPS ?? 600)

function generator(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

const policies: readonly RoutePolicy[] = [
  acceptAll,
  refuseAll,
  {
    key: 'short',
    looksAtSource: false,
    classOf: (length) => (length > 24 ? 1 : 0),
    evaluate: (a, c) => (c ? { refused: 'long' } : a),
  },
  {
    key: 'prefer',
    looksAtSource: false,
    evaluate: (a) => (a.communities?.includes(7) ? { ...a, localPreference: 200 } : a),
  },
  { key: 'not-x0', looksAtSource: true, evaluate: (a, _, { fromPeer }) => (fromPeer === 'x0' ? { refused: 'x0' } : a) },
  {
    key: 'med',
    looksAtSource: false,
    classOf: (_l, _0, _1, _2, w) => (w >>> 8) & 1,
    evaluate: (a, c) => ({ ...a, med: 50 + c }),
  },
]

/** What a peer knows from the bytes alone. */
class Receiver {
  readonly routes = new Map<string, Attributes>()
  endOfRib = 0
  readonly #context: WireContext

  constructor(peer: RibPeer) {
    const families = new Set([IPV4_UNICAST])
    this.#context = {
      fourOctetAs: peer.fourOctetAs,
      peerType: peer.kind,
      families,
      addPathReceive: peer.families[0]!.addPathSend > 0 ? families : new Set(),
      addPathSend: new Set(),
      extendedNextHop: new Set(),
      messageBytesMax: 4096,
    }
  }

  take(bytes: Uint8Array, messages: number): void {
    let count = 0
    for (let at = 0; at < bytes.length; count++) {
      const length = bytes[at + 16]! * 256 + bytes[at + 17]!
      this.#update(bytes.subarray(at + 19, at + length))
      at += length
    }
    assert.equal(count, messages)
  }

  #update(body: Uint8Array): void {
    const update = decodeUpdate(body, this.#context)
    assert.deepEqual(update.faults, [])
    if (update.endOfRib !== undefined) this.endOfRib++
    for (const run of update.unreach)
      for (let i = 0; i < run.count; i++) this.routes.delete(`${prefixAt(run, i)} ${pathIdAt(run, i)}`)
    for (const run of update.reach) {
      const { attributes, faults } = decodeAttributes(run.attributes, this.#context)
      assert.deepEqual(faults, [])
      for (let i = 0; i < run.count; i++) this.routes.set(`${prefixAt(run, i)} ${pathIdAt(run, i)}`, attributes)
    }
  }
}

class Walk {
  readonly #random: (below: number) => number
  readonly #naive: NaiveRib
  readonly #rib: Rib
  readonly #receivers = new Map<string, Receiver>()
  readonly #metrics = new Map<string, number>()
  readonly #chosen = new Map<string, string>()
  readonly #blocked = new Set<string>()
  readonly #prefixes: readonly Cidr[]
  /** Of so many prefixes one is announced at a time: with few, many peers have the same; with many, two or one. */
  readonly #spread: number
  #naughty = true

  constructor(seed: number) {
    this.#random = generator(seed)
    this.#spread = seed % 4 < 2 ? 16 : 4
    this.#prefixes = Array.from({ length: this.#spread * 4 }, (_, i) =>
      Cidr.of(Ip.parse(`10.0.${i}.0`), i % 3 === 0 ? 25 : 24),
    )
    const options: RibOptions = {
      ...defaultRibOptions,
      asn: 65000,
      routerId: 0x0a000001,
      clusterId: 0x0a000001,
      alwaysCompareMed: seed % 2 === 1,
    }
    const metric = (nextHop: string) => this.#metrics.get(nextHop) ?? 0
    this.#naive = new NaiveRib(options, metric)
    this.#rib = createRib(options, (address) => metric(address.toString()), {
      send: (name, bytes, messages) => {
        this.#receivers.get(name)!.take(bytes, messages)
        if (!this.#naughty || this.#random(8) > 0) return true
        this.#blocked.add(name)
        return false
      },
      chosen: (_, routes) => {
        for (const { prefix, nextHops, fromPeers } of routes)
          if (nextHops.length === 0 && fromPeers.length === 0) this.#chosen.set(prefix, '')
          else this.#chosen.set(prefix, `${fromPeers[0]} ${nextHops[0]?.address}`)
      },
    })
  }

  run(count: number): void {
    for (let step = 0; step < count; step++) {
      this.#step()
      if (this.#random(3) === 0) this.#rib.work(1 + this.#random(20))
      if (step % 25 === 24) this.#settleAndCompare()
    }
    this.#settleAndCompare()
  }

  #peer(name: string): RibPeer {
    const internal = name[0] === 'i'
    const number = Number(name[1])
    const former = this.#naive.peers.get(name)
    const pick = () => policies[this.#random(policies.length)]!
    return {
      name,
      kind: internal ? 'internal' : 'external',
      reflectorClient: internal && number < 3,
      remoteAsn: internal ? 65000 : 65001 + (number >> 1),
      localAsn: 65000,
      routerId: 100 + ((number * 7) % 5),
      address: Ip.parse(`172.16.${internal ? 1 : 2}.${9 - number}`),
      ownNextHops: { ipv4: Ip.parse(internal ? '172.16.1.100' : '172.16.2.100') },
      fourOctetAs: true,
      messageBytesMax: 4096,
      allowedLocalAsns: 0,
      families: [
        {
          family: 'ipv4',
          importPolicy: former && this.#random(2) ? former.families[0]!.importPolicy : pick(),
          exportPolicy: former && this.#random(2) ? former.families[0]!.exportPolicy : pick(),
          nextHop: (['auto', 'self', 'keep'] as const)[this.#random(3)]!,
          addPathReceive: number % 2 === 0,
          addPathSend: number === 1 ? 2 : 0,
          extendedNextHop: false,
          longLivedRestart: false,
        },
      ],
    }
  }

  #attributes(peer: RibPeer): Attributes {
    const asn = () => 65001 + this.#random(5)
    const asns = Array.from({ length: this.#random(3) }, asn)
    const communities = [7, 8, 0xffffff01, 0xffffff02].filter(() => this.#random(5) === 0)
    return Object.freeze({
      origin: this.#random(2),
      asPath:
        peer.kind === 'external' ? [sequence([peer.remoteAsn, ...asns])] : asns.length > 0 ? [sequence(asns)] : [],
      nextHop: { address: Ip.parse(`172.20.0.${this.#random(4)}`) },
      ...(this.#random(2) && { med: this.#random(3) }),
      ...(peer.kind === 'internal' && { localPreference: 100 + this.#random(2) }),
      ...(peer.kind === 'internal' &&
        this.#random(4) === 0 && { originatorId: 90 + this.#random(30), clusterList: [5 + this.#random(2)] }),
      ...(communities.length > 0 && { communities }),
    })
  }

  #step(): void {
    const name = ['i0', 'i1', 'i2', 'i3', 'x0', 'x1', 'x2', 'x3'][this.#random(8)]!
    const cidr = this.#prefixes[this.#random(this.#prefixes.length)]!
    const action = this.#random(40)
    if (action === 0) this.#changeNextHop()
    else if (action === 1) this.#changeLocal(cidr)
    else if (!this.#naive.attached.has(name)) this.#attach(name)
    else if (action === 2) this.#lose(name)
    else if (action === 3) this.#reconfigure(name)
    else if (action === 4) this.#rib.refresh(name, 'ipv4')
    else if (action === 5) this.#enhancedRefresh(name)
    else if (action < 14) this.#withdraw(name, cidr)
    else this.#announce(name)
    for (const blocked of this.#blocked)
      if (this.#random(6) === 0) {
        this.#blocked.delete(blocked)
        if (this.#naive.attached.has(blocked)) this.#rib.resume(blocked)
      }
  }

  #attach(name: string): void {
    const peer = this.#peer(name)
    this.#naive.peers.set(name, peer)
    this.#naive.attached.add(name)
    this.#receivers.set(name, new Receiver(peer))
    this.#blocked.delete(name)
    this.#rib.attach(peer)
    // Nothing stale is renewed by chance: the sweep is the end of it.
    this.#announce(name)
    this.#sweep(name)
  }

  #sweep(name: string): void {
    for (const [key, path] of this.#naive.of(name)) if (path.stale) this.#naive.paths.delete(key)
    this.#rib.sweepStale(name, 'ipv4')
  }

  #enhancedRefresh(name: string): void {
    this.#rib.markStale(name, 'ipv4')
    for (const [, path] of this.#naive.of(name)) path.stale = true
    for (let i = this.#random(4); i > 0; i--) this.#announce(name)
    if (this.#random(2)) this.#rib.work(5)
    this.#sweep(name)
  }

  #lose(name: string): void {
    this.#naive.attached.delete(name)
    if (this.#random(2) === 0) {
      this.#rib.lose(name, 'withdraw')
      for (const [key] of this.#naive.of(name)) this.#naive.paths.delete(key)
      return
    }
    // What was stale before does not survive a second loss.
    for (const [key, path] of this.#naive.of(name)) if (path.stale) this.#naive.paths.delete(key)
    for (const [, path] of this.#naive.of(name)) path.stale = true
    this.#rib.lose(name, 'keep stale')
  }

  #reconfigure(name: string): void {
    const peer = this.#peer(name)
    this.#naive.peers.set(name, peer)
    this.#rib.reconfigure(peer)
  }

  #announce(name: string): void {
    const peer = this.#naive.peers.get(name)!
    const attributes = this.#attributes(peer)
    const some = this.#prefixes.filter(() => this.#random(this.#spread) === 0)
    const pathIds = some.map(() => (peer.families[0]!.addPathReceive ? this.#random(3) : 0))
    for (const [i, cidr] of some.entries()) this.#naive.announce(name, cidr, pathIds[i]!, attributes)
    this.#rib.announce(name, runOf(IPV4_UNICAST, some, pathIds), attributes)
  }

  #withdraw(name: string, cidr: Cidr): void {
    const pathId = this.#naive.peers.get(name)!.families[0]!.addPathReceive ? this.#random(3) : 0
    this.#naive.withdraw(name, cidr, pathId)
    this.#rib.withdraw(name, runOf(IPV4_UNICAST, [cidr], [pathId]))
  }

  #changeNextHop(): void {
    this.#metrics.set(`172.20.0.${this.#random(4)}`, this.#random(4) - 1)
    this.#rib.nextHopsChanged()
  }

  #changeLocal(cidr: Cidr): void {
    if (this.#random(2)) {
      const med = this.#random(3)
      this.#naive.announce(undefined, cidr, 0, { origin: 0, asPath: [], med })
      this.#rib.setLocal({ prefix: cidr.toString(), kind: 'static', med })
    } else {
      this.#naive.withdraw(undefined, cidr, 0)
      this.#rib.removeLocal(cidr.toString())
    }
  }

  #settleAndCompare(): void {
    this.#naughty = false
    for (const name of this.#naive.attached) this.#rib.resume(name)
    this.#blocked.clear()
    while (this.#rib.work(1 + this.#random(50)));
    this.#naughty = true
    this.#compareBest()
    for (const name of this.#naive.attached) this.#compareTold(name)
  }

  #compareBest(): void {
    for (const cidr of this.#prefixes) {
      const prefix = cidr.toString()
      const ranked = this.#naive.ranked(prefix)
      const best = ranked[0]
      const why = this.#rib.why(prefix)
      assert.equal(why.length, [...this.#naive.paths.values()].filter((path) => path.cidr === cidr).length, prefix)
      const ours = why.find(({ route }) => route.best)?.route
      const text = best && `${best.path.from?.name} ${best.attributes.nextHop?.address}`
      assert.equal(ours && `${ours.fromPeer} ${ours.nextHops[0]?.address}`, text, prefix)
      assert.equal(ours?.pathId ?? 0, best?.path.pathId ?? 0)
      // A route of our own is nothing for the kernel to learn.
      assert.equal(this.#chosen.get(prefix) ?? '', best?.path.from ? text : '', `chosen ${prefix}`)
      const candidates = why.filter(({ route }) => route.rejected === undefined)
      assert.equal(candidates.length, ranked.length)
      assert.equal(candidates.filter(({ lostAt }) => lostAt === undefined).length, best ? 1 : 0)
    }
  }

  #compareTold(name: string): void {
    const { routes, endOfRib } = this.#receivers.get(name)!
    assert.equal(endOfRib, 1, `End-of-RIB to ${name}`)
    const have = new Map<string, Attributes[]>()
    for (const [key, attributes] of routes) {
      const prefix = key.split(' ')[0]!
      have.set(prefix, [...(have.get(prefix) ?? []), attributes])
    }
    const want = this.#naive.toldTo(name)
    assert.deepEqual([...have.keys()].sort(), [...want.keys()].sort(), `prefixes told to ${name}`)
    for (const [prefix, attributes] of want) {
      const left = [...have.get(prefix)!]
      for (const each of attributes) {
        const at = left.findIndex((other) => equalAttributes(other, each))
        assert.ok(at >= 0, `${name} ${prefix}: ${show(each)} is not among ${left.map(show)}`)
        left.splice(at, 1)
      }
      assert.deepEqual(left.map(show), [], `${name} ${prefix}`)
    }
    const out = [...this.#rib.adjOut(name, 'ipv4')].length
    assert.equal(out, routes.size)
    assert.equal(this.#rib.counts(name, 'ipv4').sent, out)
    assert.equal(this.#rib.counts(name, 'ipv4').received, this.#naive.of(name).length)
  }
}

const sequence = (asns: number[]) => ({ kind: 'sequence' as const, asns })
const show = (attributes: Attributes) => JSON.stringify(attributes)

for (const seed of process.env.WALK_SEED ? [Number(process.env.WALK_SEED)] : [1, 2, 3, 4])
  test(`random walk, seed ${seed}`, () => new Walk(seed).run(steps))
