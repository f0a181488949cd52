import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BfdDiagnostic, type BfdPacket, BfdState, decodeBfdPacket, encodeBfdPacket } from '../wire/bfd/packet.ts'
import {
  type BfdEffect,
  type BfdEvent,
  type BfdSession,
  type BfdSettings,
  makeBfdSession,
  nextDeadline,
  step,
} from './bfd.ts'

const settings = (milliseconds: number, detectMultiplier = 3): BfdSettings => ({
  minTransmitMicroseconds: milliseconds * 1000,
  minReceiveMicroseconds: milliseconds * 1000,
  detectMultiplier,
})

/** xorshift: the same sequence for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

type Changed = Extract<BfdEffect, { do: 'changed' }> & { readonly at: number }

/** Two sessions on a link that takes a millisecond, in virtual time. Packets travel as bytes. */
class Link {
  now = 0
  readonly sessions: [BfdSession, BfdSession]
  readonly changes: [Changed[], Changed[]] = [[], []]
  readonly sent: [BfdPacket[], BfdPacket[]] = [[], []]
  /** Whether a packet of this side arrives. */
  passes: (from: 0 | 1, packet: BfdPacket) => boolean = () => true
  readonly #random: () => number
  #flying: { readonly at: number; readonly to: 0 | 1; readonly bytes: Uint8Array }[] = []

  constructor(first: BfdSettings, second: BfdSettings, seed = 1) {
    this.#random = randomOf(seed)
    this.sessions = [makeBfdSession(first, 11), makeBfdSession(second, 22)]
  }

  tell(side: 0 | 1, event: BfdEvent): void {
    const { session, effects } = step(this.sessions[side], event, { now: this.now, random: this.#random() })
    this.sessions[side] = session
    for (const effect of effects)
      if (effect.do === 'changed') this.changes[side].push({ ...effect, at: this.now })
      else {
        this.sent[side].push(effect.packet)
        if (this.passes(side, effect.packet))
          this.#flying.push({ at: this.now + 1, to: side === 0 ? 1 : 0, bytes: encodeBfdPacket(effect.packet) })
      }
  }

  start(): this {
    this.tell(0, { type: 'start' })
    this.tell(1, { type: 'start' })
    return this
  }

  run(milliseconds: number): this {
    const end = this.now + milliseconds
    for (;;) {
      const deadlines = this.sessions.map(nextDeadline)
      const next = Math.min(...deadlines, this.#flying[0]?.at ?? Number.POSITIVE_INFINITY)
      if (next > end) break
      this.now = Math.max(this.now, next)
      if ((this.#flying[0]?.at ?? Number.POSITIVE_INFINITY) <= next) {
        const { to, bytes } = this.#flying.shift()!
        this.tell(to, { type: 'packet', packet: decodeBfdPacket(bytes) })
      } else this.tell(deadlines[0] === next ? 0 : 1, { type: 'timer' })
    }
    this.now = end
    return this
  }

  get states(): readonly BfdState[] {
    return this.sessions.map(({ state }) => state)
  }
}

const up = [BfdState.Up, BfdState.Up]

test('two sessions come up through Init and then send as fast as they agreed', () => {
  const link = new Link(settings(100), settings(50)).start().run(3000)
  assert.deepEqual(link.states, up)
  for (const side of [0, 1] as const) assert.equal(link.changes[side].at(-1)!.diagnostic, BfdDiagnostic.None)
  const before = link.sent.map((packets) => packets.length)
  link.run(10_000)
  // 100 ms on both sides, for the slower one's wish counts; jitter makes it 75 to 100.
  for (const side of [0, 1] as const) {
    const count = link.sent[side].length - before[side]!
    assert.ok(count >= 100 && count <= 134, `side ${side} sent ${count}`)
  }
  assert.deepEqual(
    link.sent.map((packets) => packets.at(-1)!.poll),
    [false, false],
  )
})

test('what is announced before Up is no faster than a second', () => {
  const link = new Link(settings(50), settings(50))
  link.passes = () => false
  link.start().run(10_000)
  assert.ok(link.sent[0].length <= 15)
  for (const packet of link.sent[0]) assert.equal(packet.desiredMinTransmitMicroseconds, 1_000_000)
})

test('silence of one side is noticed within the detection time and told to the other', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  const cut = link.now
  link.passes = (from) => from !== 0
  link.run(2000)
  const [told, noticed] = [link.changes[0].at(-1)!, link.changes[1].findLast(({ from }) => from === BfdState.Up)!]
  assert.equal(noticed.diagnostic, BfdDiagnostic.DetectionTimeExpired)
  assert.ok(noticed.at - cut <= 300, `after ${noticed.at - cut} ms`)
  // Down is told at once, not at the next packet's time.
  assert.equal(link.changes[0].find(({ from }) => from === BfdState.Up)!.at, noticed.at + 1)
  assert.equal(told.byPeersOperator, false)
  link.passes = () => true
  assert.deepEqual(link.run(5000).states, up)
})

test('a peer that stops forgets nothing: its discriminator goes with the detection time', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  link.passes = () => false
  link.run(1000)
  assert.deepEqual(
    link.sessions.map((session) => session.remoteDiscriminator),
    [0, 0],
  )
})

test('the operator takes a session down and back; the other side knows that it is no fault', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  link.tell(0, { type: 'admin', down: true })
  link.run(5000)
  assert.deepEqual(link.states, [BfdState.AdminDown, BfdState.Down])
  const change = link.changes[1].at(-1)!
  assert.equal(change.byPeersOperator, true)
  assert.equal(change.diagnostic, BfdDiagnostic.NeighborSignaledDown)
  assert.equal(link.sessions[0].diagnostic, BfdDiagnostic.AdministrativelyDown)
  link.tell(0, { type: 'admin', down: false })
  assert.deepEqual(link.run(5000).states, up)
})

test('intervals change in any order on a living session and it never falls, whatever single packet is lost', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = randomOf(seed * 7919)
    const link = new Link(settings(100), settings(100), seed).start().run(5000)
    assert.deepEqual(link.states, up, `seed ${seed}`)
    const lastLost = [0, 0]
    // No two losses of a side within one detection time: three packets in a row must be missing before it may fall.
    link.passes = (from) => {
      if (link.now - lastLost[from]! < 10_000 || random() > 0.05) return true
      lastLost[from] = link.now
      return false
    }
    for (let change = 0; change < 20; change++) {
      const side = random() < 0.5 ? 0 : 1
      const pick = () => [10, 50, 100, 300, 1000][Math.floor(random() * 5)]! * 1000
      link.tell(side, {
        type: 'settings',
        settings: {
          minTransmitMicroseconds: pick(),
          minReceiveMicroseconds: pick(),
          detectMultiplier: 3 + Math.floor(random() * 3),
        },
      })
      link.run(random() * 4000)
    }
    for (const side of [0, 1] as const)
      assert.equal(link.changes[side].filter(({ from }) => from === BfdState.Up).length, 0, `seed ${seed} side ${side}`)
    link.passes = () => true
    link.run(5000)
    for (const session of link.sessions) {
      assert.equal(session.polling, false, `seed ${seed}`)
      assert.equal(session.transmitMicroseconds, session.settings.minTransmitMicroseconds)
      assert.equal(session.receiveMicroseconds, session.settings.minReceiveMicroseconds)
    }
  }
})

test('a poll is answered at once by a packet that does not poll', () => {
  const link = new Link(settings(1000), settings(1000)).start().run(5000)
  const count = link.sent[1].length
  link.tell(0, { type: 'settings', settings: settings(500) })
  link.run(2)
  const answer = link.sent[1].at(-1)!
  assert.equal(link.sent[1].length, count + 1)
  assert.deepEqual([answer.final, answer.poll], [true, false])
})

test('a peer that wants to receive nothing is sent nothing by itself', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  const peer = { ...link.sent[1].at(-1)!, requiredMinReceiveMicroseconds: 0, poll: true }
  link.passes = () => false
  const count = link.sent[0].length
  link.tell(0, { type: 'packet', packet: peer })
  assert.equal(link.sessions[0].transmitAt, undefined)
  assert.equal(link.sent[0].length, count + 1, 'a poll is answered all the same')
  link.tell(0, { type: 'packet', packet: { ...peer, requiredMinReceiveMicroseconds: 50_000, poll: false } })
  assert.notEqual(link.sessions[0].transmitAt, undefined)
})

test('in demand mode nothing is sent but polls', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  const peer = { ...link.sent[1].at(-1)!, demand: true, poll: false }
  link.passes = () => false
  link.tell(0, { type: 'packet', packet: peer })
  assert.equal(link.sessions[0].transmitAt, undefined)
  link.tell(0, { type: 'settings', settings: settings(50) })
  assert.equal(link.sent[0].at(-1)!.poll, true)
  assert.notEqual(link.sessions[0].transmitAt, undefined)
})

test('packets for somebody else, or with authentication, change nothing', () => {
  const link = new Link(settings(100), settings(100)).start().run(5000)
  const before = link.sessions[0]
  const peer = link.sent[1].at(-1)!
  link.tell(0, { type: 'packet', packet: { ...peer, state: BfdState.Down, yourDiscriminator: 99 } })
  link.tell(0, {
    type: 'packet',
    packet: { ...peer, state: BfdState.Down, authentication: { type: 1, body: Uint8Array.of(1, 2) } },
  })
  assert.equal(link.sessions[0], before)
})

test('jitter keeps a session with a multiplier of 1 alive', () => {
  const link = new Link(settings(100, 1), settings(100, 1)).start().run(60_000)
  assert.deepEqual(link.states, up)
  for (const side of [0, 1] as const)
    assert.equal(link.changes[side].filter(({ from }) => from === BfdState.Up).length, 0)
})
