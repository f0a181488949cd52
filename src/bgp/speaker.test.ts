/**
 * Whole speakers over simulated streams in virtual time: sessions, collisions, restarts, limits, live changes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type BgpEvent,
  type ChosenRoute,
  type LocalRoute,
  MISPLACED_RULE,
  type PeerConfig,
  type PeerStatus,
  type SpeakerConfig,
} from '../model/bgp.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { SimulatedNetwork, SimulatedTime, type SimulatedWire } from './simulated-wire.ts'
import { Speaker } from './speaker.ts'

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed}`)

const peerDefaults: Omit<PeerConfig, 'name' | 'address' | 'remoteAsn'> = {
  port: 179,
  passive: false,
  timers: {
    holdSeconds: 90,
    connectRetrySeconds: 5,
    connectDelaySeconds: 0,
    errorWaitMinSeconds: 1,
    errorWaitMaxSeconds: 30,
  },
  families: (['ipv4', 'ipv6'] as const).map((family) => ({
    family,
    importPolicies: [],
    exportPolicies: [],
    nextHop: 'auto',
    addPathReceive: false,
    addPathSend: 0,
  })),
  capabilities: { routeRefresh: true, extendedMessages: true, extendedNextHop: false },
  gracefulRestart: { mode: 'full', restartSeconds: 120, notification: true, longLivedStaleSeconds: 0 },
  reflectorClient: false,
  allowedLocalAsns: 0,
}

const speakerDefaults = {
  listen: { port: 179, addresses: [] },
  dynamicPeers: [],
  multipath: { maxPaths: 4, asPathRelax: true },
  policies: [],
  prefixSets: [],
  ownership: [],
  externalNeedsPolicy: false,
  deferralSeconds: 60,
} as const

class World {
  readonly time = new SimulatedTime()
  readonly network = new SimulatedNetwork(this.time)
  #seed = seed

  node(address: string, asn: number, peers: readonly PeerConfig[], more: NodeOptions = {}): Node {
    return new Node(this, address, asn, peers, more, this.#seed++)
  }

  /** Lets time pass until it is so; fails after so many virtual seconds. */
  until(what: string, done: () => boolean, seconds = 60): void {
    const began = this.time.now
    assert.ok(this.time.run(seconds * 1000, done), `${what}: not within ${seconds} s (from ${began})`)
  }
}

interface NodeOptions {
  readonly config?: Partial<SpeakerConfig>
  readonly restarted?: boolean
  readonly wire?: SimulatedWire
  readonly later?: boolean
}

class Node {
  readonly world: World
  readonly address: string
  readonly wire: SimulatedWire
  readonly speaker: Speaker
  readonly events: BgpEvent[] = []
  readonly logs: string[] = []
  /** What the speaker has told to be chosen. */
  readonly chosen = new Map<string, ChosenRoute>()

  constructor(
    world: World,
    address: string,
    asn: number,
    peers: readonly PeerConfig[],
    { config, restarted = false, wire, later = false }: NodeOptions,
    chance: number,
  ) {
    this.world = world
    this.address = address
    const v6 = Ip.parse(`fd00::${Ip.parse(address).w3 & 0xffff}`)
    this.wire = wire ?? world.network.host(Ip.parse(address), v6)
    this.speaker = new Speaker({
      config: { asn, routerId: address, peers, ...speakerDefaults, ...config },
      wire: this.wire,
      clock: world.time.clock(chance),
      host: {
        event: (event) => {
          this.events.push(event)
          if (event.type !== 'routes') return
          for (const route of event.routes)
            if (route.nextHops.length > 0) this.chosen.set(route.prefix, route)
            else this.chosen.delete(route.prefix)
        },
        log: (level, message, fields) => this.logs.push(`${level} ${message} ${JSON.stringify(fields)}`),
        surroundings: () => ({ ipv4: Ip.parse(address), ipv6: v6, networks: [Cidr.parse('10.0.0.0/24')] }),
        resolveNextHop: () => 0,
      },
      restarted,
    })
    if (!later) this.speaker.start()
  }

  status(name: string): PeerStatus {
    return this.speaker.status().peers.find((peer) => peer.name === name)!
  }

  up(name: string): boolean {
    return this.status(name)?.state === 'established'
  }

  routes(): string[] {
    return [...this.chosen.keys()].sort()
  }

  count(type: BgpEvent['type'], test: (event: BgpEvent) => boolean = () => true): number {
    return this.events.filter((event) => event.type === type && test(event)).length
  }

  /** How often a session was lost. */
  get losses(): number {
    return this.logs.filter((line) => line.includes('session ended')).length
  }
}

const peer = (name: string, address: string, remoteAsn: number, more: Partial<PeerConfig> = {}): PeerConfig => ({
  ...peerDefaults,
  name,
  address,
  remoteAsn,
  ...more,
})

const route = (prefix: string): LocalRoute => ({ prefix, kind: 'static' })

/** Two neighbours that know each other as a and b. */
function pair(a: Partial<PeerConfig> = {}, b: Partial<PeerConfig> = {}, asns: [number, number] = [64512, 64512]) {
  const world = new World()
  const left = world.node('10.0.0.1', asns[0], [peer('b', '10.0.0.2', asns[1], a)])
  const right = world.node('10.0.0.2', asns[1], [peer('a', '10.0.0.1', asns[0], b)])
  return { world, left, right }
}

const bothUp = (left: Node, right: Node) => () => left.up('b') && right.up('a')

test('two speakers call each other at once: one connection survives on both sides, and routes of both families pass', () => {
  for (let i = 0; i < 50; i++) {
    const { world, left, right } = pair({}, {}, i % 2 ? [64512, 64512] : [64512, 64513])
    left.speaker.setLocalRoutes([route('192.0.2.0/24'), route('2001:db8:1::/48')])
    right.speaker.setLocalRoutes([route('198.51.100.0/24'), route('2001:db8:2::/48')])
    world.until('both are up', bothUp(left, right))
    world.until('routes', () => left.chosen.size === 2 && right.chosen.size === 2)
    world.time.run(10_000)
    assert.ok(bothUp(left, right)())
    assert.equal(world.network.streams, 2, 'both ends of one stream are left')
    assert.equal(left.losses + right.losses, 0)
    assert.deepEqual(
      right.chosen.get('192.0.2.0/24')!.nextHops.map(({ address }) => address),
      ['10.0.0.1'],
    )
    assert.deepEqual(
      right.chosen.get('2001:db8:1::/48')!.nextHops.map(({ address }) => address),
      ['fd00::1'],
    )
    assert.equal(left.count('converged'), 2)
    const { families } = left.status('b')
    assert.ok(families.every(({ endOfRibReceived, endOfRibSent }) => endOfRibReceived && endOfRibSent))
  }
})

test('the session stays up for a day without routes, and its silence is noticed within the hold time', () => {
  const { world, left, right } = pair()
  world.until('both are up', bothUp(left, right))
  world.time.run(86_400_000)
  assert.equal(left.losses + right.losses, 0)
  world.network.cut(Ip.parse('10.0.0.1'), Ip.parse('10.0.0.2'))
  const began = world.time.now
  world.until('the hold timer', () => !left.up('b') && !right.up('a'), 100)
  assert.ok(world.time.now - began >= 60_000, 'not before the hold time after the last keepalive')
  assert.match(left.status('b').reason ?? '', /hold timer expired/)
  world.network.heal(Ip.parse('10.0.0.1'), Ip.parse('10.0.0.2'))
  world.until('up again', bothUp(left, right))
})

test('a restarted peer: its routes are kept stale, nothing is told as gone, and what does not come back goes at End-of-RIB', () => {
  const { world, left, right } = pair()
  right.speaker.setLocalRoutes([route('192.0.2.0/24'), route('198.51.100.0/24')])
  left.speaker.setLocalRoutes([route('203.0.113.0/24')])
  world.until('routes', () => left.chosen.size === 2)
  right.speaker.stop({ keepRoutes: true })
  world.until('the loss', () => !left.up('b'))
  world.time.run(20_000)
  assert.deepEqual(left.routes(), ['192.0.2.0/24', '198.51.100.0/24'])
  assert.equal(left.status('b').families[0]!.stale, 2)
  const again = world.node('10.0.0.2', 64512, right.speaker.config.peers, { wire: right.wire, restarted: true })
  again.speaker.setLocalRoutes([route('192.0.2.0/24')])
  world.until('what is gone goes', () => left.chosen.size === 1)
  assert.deepEqual(left.routes(), ['192.0.2.0/24'])
  assert.equal(left.status('b').families[0]!.stale, 0)
  // The restarted one chose nothing before the other had said all.
  const first = again.events.findIndex(({ type }) => type === 'routes')
  assert.ok(first >= 0)
  world.until('converged', () => again.count('converged') === 2)
  assert.ok(left.status('b').capabilitiesReceived!.some(({ text }) => /graceful-restart 120s restarted/.test(text)))
})

test('a peer that never comes back: its routes go when the restart time is over, or live on long-lived', () => {
  for (const longLivedStaleSeconds of [0, 600]) {
    const gracefulRestart = { ...peerDefaults.gracefulRestart, longLivedStaleSeconds }
    const { world, left, right } = pair({ gracefulRestart }, { gracefulRestart })
    right.speaker.setLocalRoutes([route('192.0.2.0/24')])
    world.until('routes', () => left.chosen.size === 1)
    world.network.breakStreams(right.wire)
    world.network.vanish(right.wire)
    world.time.run(110_000)
    assert.equal(left.chosen.size, 1, 'kept for the restart time')
    world.time.run(20_000)
    if (longLivedStaleSeconds > 0) {
      assert.equal(left.chosen.size, 1, 'kept long-lived')
      assert.equal(left.chosen.get('192.0.2.0/24')!.stale, true)
      world.time.run(longLivedStaleSeconds * 1000)
    }
    assert.equal(left.chosen.size, 0)
  }
})

test('without graceful restart routes go with the session; with it a shutdown takes them too, and its text arrives', () => {
  const off = { ...peerDefaults.gracefulRestart, mode: 'off' as const }
  const { world, left, right } = pair({ gracefulRestart: off })
  right.speaker.setLocalRoutes([route('192.0.2.0/24')])
  world.until('routes', () => left.chosen.size === 1)
  world.network.breakStreams(right.wire)
  world.until('gone', () => left.chosen.size === 0, 1)

  const second = pair()
  second.right.speaker.setLocalRoutes([route('192.0.2.0/24')])
  second.world.until('routes', () => second.left.chosen.size === 1)
  const { config } = second.right.speaker
  const shutdown = { message: 'moving racks' }
  second.right.speaker.configure({ ...config, peers: config.peers.map((each) => ({ ...each, shutdown })) })
  second.world.until('gone', () => second.left.chosen.size === 0, 1)
  assert.match(second.left.status('b').lastReceived!.text, /hard reset: .*administrative shutdown: "moving racks"/)
  second.world.time.run(60_000)
  assert.equal(second.right.status('a').state, 'idle')
  assert.equal(second.right.status('a').reason, 'administratively down')
  second.right.speaker.configure(config)
  second.world.until('up again', () => second.left.chosen.size === 1)
})

test('a changed configuration resets only the session that must be, and only once', () => {
  const world = new World()
  const names = ['10.0.0.2', '10.0.0.3', '10.0.0.4']
  const peers = names.map((address) => peer(address, address, 64512))
  const hub = world.node('10.0.0.1', 64512, peers)
  const others = names.map((address) => world.node(address, 64512, [peer('hub', '10.0.0.1', 64512)]))
  const allUp = () => names.every((name) => hub.up(name)) && others.every((other) => other.up('hub'))
  world.until('all are up', allUp)
  const configure = (change: Partial<PeerConfig>, more: Partial<SpeakerConfig> = {}) => {
    const { config } = hub.speaker
    const changed = config.peers.map((each, i) => (i === 0 ? { ...each, ...change } : each))
    hub.speaker.configure({ ...config, ...more, peers: changed })
    world.time.run(5000)
  }
  // Nothing of this is said in an OPEN.
  configure({ description: 'first', passive: true, multihopTtl: 9, port: 1179 })
  configure({ reflectorClient: true, allowedLocalAsns: 2 })
  configure({ timers: { ...peerDefaults.timers, keepaliveSeconds: 10, connectRetrySeconds: 9 } })
  configure({}, { policies: [{ name: 'none', rules: [] }], externalNeedsPolicy: true, deferralSeconds: 9 })
  assert.equal(hub.losses, 0)
  // This is.
  configure({ passive: false, port: 179, timers: { ...peerDefaults.timers, holdSeconds: 30 } })
  world.until('all are up', allUp)
  assert.equal(hub.losses, 1)
  assert.equal(hub.status(names[0]!).holdSeconds, 30)
  // A peer less, and a peer more.
  const { config } = hub.speaker
  hub.speaker.configure({ ...config, peers: config.peers.slice(1) })
  world.time.run(3000)
  assert.equal(hub.losses, 2)
  assert.match(others[0]!.status('hub').lastReceived!.text, /peer deconfigured/)
  hub.speaker.configure(config)
  world.until('all are up', allUp, 100)
  assert.equal(hub.losses, 2)
  assert.throws(
    () =>
      hub.speaker.configure({
        ...config,
        peers: config.peers.map((each) => ({
          ...each,
          families: each.families.map((family) => ({ ...family, importPolicies: ['nowhere'] })),
        })),
      }),
    /nowhere/,
  )
  world.time.run(5000)
  assert.ok(allUp())
  assert.equal(hub.losses, 2)
})

test('wrong AS, our own router id and a wrong key: no session, an answer that says why, and calls that get rarer', () => {
  const world = new World()
  const left = world.node('10.0.0.1', 64512, [
    peer('wrong-as', '10.0.0.2', 64999),
    peer('twin', '10.0.0.3', 64512),
    peer('wrong-key', '10.0.0.4', 64512, { password: 'one' }),
  ])
  world.node('10.0.0.2', 64513, [peer('left', '10.0.0.1', 64512)])
  const twin = world.node('10.0.0.3', 64512, [peer('left', '10.0.0.1', 64512)], { config: { routerId: '10.0.0.1' } })
  world.node('10.0.0.4', 64512, [peer('left', '10.0.0.1', 64512, { password: 'two' })])
  world.time.run(600_000)
  assert.ok(left.speaker.status().peers.every(({ state }) => state !== 'established'))
  const wrong = left.status('wrong-as')
  assert.match(wrong.lastSent!.text, /bad peer AS/)
  assert.match(left.status('twin').lastSent?.text ?? twin.status('left').lastSent!.text, /bad BGP identifier/)
  assert.equal(left.status('wrong-key').messages.received.open, 0)
  // 600 s, at most every 30 s and both sides call: damped.
  assert.ok(wrong.messages.sent.open < 120, `${wrong.messages.sent.open} OPENs`)
})

test('max-prefixes: a warning, then the session ends, stays down or comes back, and memory is bounded', () => {
  const maxPrefixes = { limit: 100, warnPercent: 80, action: 'restart', restartSeconds: 300 } as const
  const families = peerDefaults.families.map((family) => ({ ...family, maxPrefixes }))
  const { world, left, right } = pair({ families })
  const routes = (count: number) => Array.from({ length: count }, (_, i) => route(`10.1.${i}.0/24`))
  right.speaker.setLocalRoutes(routes(90))
  world.until('routes', () => left.chosen.size === 90)
  assert.equal(left.count('max-prefixes'), 1)
  right.speaker.setLocalRoutes(routes(101))
  world.until('the end', () => !left.up('b') && right.status('a').lastReceived !== undefined)
  assert.match(right.status('a').lastReceived!.text, /maximum number of prefixes/)
  world.until('nothing is left', () => left.chosen.size === 0, 5)
  world.time.run(200_000)
  assert.equal(left.status('b').state, 'idle')
  right.speaker.setLocalRoutes(routes(50))
  world.until('it comes back', () => left.chosen.size === 50, 200)
})

test('dynamic peers: taken by prefix up to a number, gone when they are', () => {
  const world = new World()
  const { ...template } = peerDefaults
  const server = world.node('10.0.0.1', 64512, [], {
    config: {
      dynamicPeers: [{ ...template, name: 'pods', prefix: '10.0.0.0/24', remoteAsn: 'external', maxPeers: 3 }],
    },
  })
  const clients = [2, 3, 4, 5].map((n) => world.node(`10.0.0.${n}`, 64500 + n, [peer('server', '10.0.0.1', 64512)]))
  const upCount = () => clients.filter((client) => client.up('server')).length
  world.until('three of four', () => upCount() === 3)
  world.time.run(30_000)
  assert.equal(upCount(), 3)
  assert.equal(server.speaker.status().peers.length, 3)
  const leaving = clients.find((client) => client.up('server'))!
  leaving.speaker.stop({ keepRoutes: false })
  world.until('the fourth has its place', () => upCount() === 3 && !leaving.up('server'), 200)
  const stranger = world.node('10.0.1.9', 64999, [peer('server', '10.0.0.1', 64512)])
  world.time.run(60_000)
  assert.notEqual(stranger.status('server').state, 'established')
})

test('garbage ends a session with its reason, and no other session feels it', () => {
  const world = new World()
  const left = world.node('10.0.0.1', 64512, [peer('good', '10.0.0.2', 64512), peer('bad', '10.0.0.9', 64512)])
  const good = world.node('10.0.0.2', 64512, [peer('left', '10.0.0.1', 64512)])
  const bad = world.network.host(Ip.parse('10.0.0.9'))
  world.until('the good one is up', () => left.up('good') && good.up('left'))
  let state = seed
  for (let i = 0; i < 200; i++) {
    bad.connect(
      { remote: { address: Ip.parse('10.0.0.1'), port: 179 }, sendTtl: 1 },
      {
        opened: (stream) => {
          const bytes = new Uint8Array(200)
          if (i % 2) bytes.fill(255, 0, 16)
          for (let at = i % 2 ? 16 : 0; at < bytes.length; at++) {
            state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
            bytes[at] = state >> 16
          }
          stream.send(bytes)
        },
        data: () => {},
        drained: () => {},
        closed: () => {},
      },
    )
    world.time.run(1000)
  }
  assert.equal(left.losses, 0)
  assert.ok(left.up('good'))
  assert.match(left.status('bad').lastSent!.text, /message header error/)
  world.time.run(300_000)
  assert.ok(world.network.streams <= 4, `${world.network.streams} ends of streams`)
})

test('one connection that never speaks, and one byte every ten seconds, are given up', () => {
  const { world, left } = pair({ passive: true })
  const slow = world.network.host(Ip.parse('10.0.0.2'))
  let closed = 0
  slow.connect(
    { remote: { address: Ip.parse('10.0.0.1'), port: 179 }, sendTtl: 1 },
    {
      opened: (stream) => {
        const drip = (): void => {
          if (closed > 0) return
          stream.send(Uint8Array.of(255))
          world.time.at(world.time.now + 10_000, drip)
        }
        drip()
      },
      data: () => {},
      drained: () => {},
      closed: () => closed++,
    },
  )
  world.until('it is given up', () => closed === 1, 600)
  assert.match(left.status('b').lastSent!.text, /hold timer expired|cease/)
})

test('route refresh brings everything again, between marks', () => {
  const { world, left, right } = pair()
  right.speaker.setLocalRoutes([route('192.0.2.0/24')])
  world.until('routes', () => left.chosen.size === 1 && right.up('a'))
  world.time.run(5000)
  const before = left.status('b').messages.received
  assert.equal(left.speaker.askRefresh('b'), true)
  world.until('the marks', () => left.status('b').messages.received.routeRefresh === before.routeRefresh + 4, 5)
  assert.ok(left.status('b').messages.received.update > before.update)
  assert.equal(left.chosen.size, 1)
})

const bfd = { multihop: false, minTransmitMicroseconds: 100_000, minReceiveMicroseconds: 100_000, detectMultiplier: 3 }

test('a path that fails by BFD ends the session at once, with what RFC 9384 says', () => {
  const world = new World()
  const gracefulRestart = { ...peerDefaults.gracefulRestart, mode: 'off' as const }
  const one = world.node('10.0.0.1', 65000, [peer('two', '10.0.0.2', 65001, { bfd, gracefulRestart })])
  const two = world.node('10.0.0.2', 65001, [peer('one', '10.0.0.1', 65000, { gracefulRestart })])
  two.speaker.setLocalRoutes([route('10.2.0.0/16')])
  world.until('routes', () => one.routes().includes('10.2.0.0/16'))
  const path = { reason: 'silence', byPeersOperator: false, controlPlaneIndependent: false }
  one.speaker.setPath('two', { ...path, state: 'up', before: 'init' })
  assert.equal(one.status('two').bfd, 'up')
  one.speaker.setPath('two', { ...path, state: 'down', before: 'up', byPeersOperator: true })
  assert.ok(one.up('two'), 'the will of the operator ends nothing')
  one.speaker.setPath('two', { ...path, state: 'down', before: 'init' })
  assert.ok(one.up('two'), 'a path that never was up ends nothing')
  one.speaker.setPath('two', { ...path, state: 'down', before: 'up' })
  assert.ok(!one.up('two'))
  world.until('the route has gone', () => !one.routes().includes('10.2.0.0/16'), 1)
  world.until('told', () => two.status('one').lastReceived !== undefined, 1)
  const { code, subcode } = two.status('one').lastReceived!
  assert.deepEqual([code, subcode], [6, 10])
  world.until('back', () => one.up('two'))
})

test('BFD that shares the fate of a control plane keeps the routes of a peer that may be restarting', () => {
  for (const controlPlaneIndependent of [false, true]) {
    const world = new World()
    const one = world.node('10.0.0.1', 65000, [peer('two', '10.0.0.2', 65000, { bfd })])
    const two = world.node('10.0.0.2', 65000, [peer('one', '10.0.0.1', 65000)])
    two.speaker.setLocalRoutes([route('10.2.0.0/16')])
    world.until('routes', () => one.routes().includes('10.2.0.0/16'))
    const path = { reason: 'silence', byPeersOperator: false, controlPlaneIndependent }
    one.speaker.setPath('two', { ...path, state: 'down', before: 'up' })
    assert.ok(!one.up('two'))
    world.time.run(10, () => false)
    assert.equal(one.routes().includes('10.2.0.0/16'), !controlPlaneIndependent)
  }
})

test("another node's block is refused and told of once, until it is gone", () => {
  const rule = { name: MISPLACED_RULE, match: { misplaced: true }, changes: [], verdict: 'reject' } as const
  const families = peerDefaults.families.map((family) => ({ ...family, importPolicies: ['guard'] }))
  const world = new World()
  const left = world.node('10.0.0.1', 64512, [peer('b', '10.0.0.2', 64512, { families })], {
    config: {
      policies: [{ name: 'guard', rules: [rule] }],
      ownership: [
        { prefix: '10.244.2.0/24', nextHops: ['10.0.0.2'], owner: 'node2' },
        { prefix: '10.244.3.0/24', nextHops: ['10.0.0.3'], owner: 'node3' },
      ],
    },
  })
  const right = world.node('10.0.0.2', 64512, [peer('a', '10.0.0.1', 64512)])
  right.speaker.setLocalRoutes([route('10.244.2.0/24'), route('10.244.3.0/25')])
  world.until('it is told of', () => left.count('misplaced') === 1)
  assert.deepEqual(
    left.events.find(({ type }) => type === 'misplaced'),
    { type: 'misplaced', peer: 'b', prefix: '10.244.3.0/25', nextHop: '10.0.0.2', owner: 'node3' },
  )
  assert.deepEqual(left.routes(), ['10.244.2.0/24'])
  right.speaker.setLocalRoutes([route('10.244.2.0/24'), route('10.244.3.0/25'), route('192.0.2.0/24')])
  world.time.run(30_000)
  assert.equal(left.count('misplaced'), 1)
  right.speaker.setLocalRoutes([route('10.244.2.0/24')])
  world.time.run(30_000)
  right.speaker.setLocalRoutes([route('10.244.2.0/24'), route('10.244.3.0/25')])
  world.until('it is told of again', () => left.count('misplaced') === 2)
})
