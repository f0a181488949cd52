import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type ElectionEffect,
  type ElectionEvent,
  type ElectionState,
  type ElectionTiming,
  initialElection,
  JITTER_FACTOR,
  type LeaseRecord,
  leadsAt,
  type SeenLease,
  stepElection,
} from './election.ts'

const timing = (identity: string): ElectionTiming => ({
  identity,
  leaseDuration: 15_000,
  renewDeadline: 10_000,
  retryPeriod: 2000,
})

/** One replica whose steps are written out by the test. */
class Replica {
  state: ElectionState = initialElection
  readonly timing: ElectionTiming

  constructor(identity: string) {
    this.timing = timing(identity)
  }

  step(event: ElectionEvent, now: number): readonly ElectionEffect[] {
    const { state, effects } = stepElection(this.state, event, now, this.timing)
    this.state = state
    return effects
  }

  /** Leads from time 0 on, with version 1. */
  static leading(): Replica {
    const replica = new Replica('a')
    replica.step({ type: 'tick', chance: 0 }, 0)
    replica.step({ type: 'read', lease: undefined, chance: 0 }, 0)
    replica.step({ type: 'written', lease: lease('a', '1'), chance: 0 }, 0)
    return replica
  }
}

const lease = (holder: string, version: string, more: Partial<LeaseRecord> = {}): SeenLease => ({
  record: { holder, durationSeconds: 15, transitions: 0, ...more },
  version,
})
const types = (effects: readonly ElectionEffect[]) => effects.map(({ type }) => type)

describe('an election', () => {
  test('the first one creates the lease and leads', () => {
    const a = new Replica('a')
    assert.deepEqual(a.step({ type: 'tick', chance: 0 }, 0), [{ type: 'read' }])
    assert.deepEqual(a.step({ type: 'read', lease: undefined, chance: 0 }, 5), [
      {
        type: 'write',
        record: { holder: 'a', durationSeconds: 15, transitions: 0 },
        version: undefined,
        fresh: true,
      },
    ])
    assert.deepEqual(a.step({ type: 'written', lease: lease('a', '1'), chance: 0 }, 30), [
      { type: 'lead' },
      { type: 'wait', milliseconds: 2000 },
    ])
    assert.equal(leadsAt(a.state, 10_004), true, 'counted from when the request was sent')
    assert.equal(leadsAt(a.state, 10_005), false)
  })

  test('a leader renews without reading, and a conflict makes it read', () => {
    const a = Replica.leading()
    assert.deepEqual(types(a.step({ type: 'tick', chance: 0 }, 2000)), ['write'])
    assert.deepEqual(types(a.step({ type: 'failed', conflict: true, chance: 0 }, 2001)), ['read'])
    // Somebody labelled the lease: still ours.
    const effects = a.step({ type: 'read', lease: lease('a', '7'), chance: 0 }, 2002)
    assert.equal(effects[0]?.type === 'write' && effects[0].version, '7')
    assert.deepEqual(types(a.step({ type: 'written', lease: lease('a', '8'), chance: 0 }, 2003)), ['wait'])
    assert.equal(a.state.until, 12_002)
  })

  test('a leader that finds another holder follows at once', () => {
    const a = Replica.leading()
    a.step({ type: 'tick', chance: 0 }, 2000)
    a.step({ type: 'failed', conflict: true, chance: 0 }, 2001)
    assert.deepEqual(a.step({ type: 'read', lease: lease('b', '9'), chance: 0 }, 2002), [
      { type: 'follow', reason: 'b holds the lease' },
      { type: 'wait', milliseconds: 2000 },
    ])
  })

  test('a leader that cannot renew goes on until the deadline and no longer', () => {
    const a = Replica.leading()
    for (let now = 2000; now < 10_000; now += 2000) {
      a.step({ type: 'tick', chance: 0 }, now)
      assert.deepEqual(a.step({ type: 'failed', conflict: false, chance: 0.5 }, now + 1), [
        { type: 'wait', milliseconds: 2000 },
      ])
      assert.equal(leadsAt(a.state, now + 1), true)
    }
    assert.deepEqual(types(a.step({ type: 'tick', chance: 0 }, 10_000)), ['follow', 'read'])
  })

  test('a leader that was stopped past its deadline follows before it does anything else, whatever wakes it', () => {
    for (const event of [
      { type: 'tick', chance: 0 },
      { type: 'written', lease: lease('a', '2'), chance: 0 },
      { type: 'failed', conflict: false, chance: 0 },
    ] as const) {
      const a = Replica.leading()
      if (event.type !== 'tick') a.step({ type: 'tick', chance: 0 }, 2000)
      const effects = a.step(event, 60_000)
      assert.equal(effects[0]?.type, 'follow', event.type)
      assert.ok(!types(effects).includes('lead'), event.type)
      assert.equal(leadsAt(a.state, 60_000), false)
    }
  })

  test('followers take a record over that did not change for its duration by their own clock', () => {
    const b = new Replica('b')
    const held = lease('a', '5', { transitions: 3, durationSeconds: 20 })
    b.step({ type: 'tick', chance: 0 }, 100_000)
    assert.deepEqual(b.step({ type: 'read', lease: held, chance: 0.5 }, 100_000), [
      { type: 'wait', milliseconds: 2000 * (1 + 0.5 * JITTER_FACTOR) },
    ])
    b.step({ type: 'tick', chance: 0 }, 119_999)
    assert.deepEqual(types(b.step({ type: 'read', lease: held, chance: 0 }, 119_999)), ['wait'])
    b.step({ type: 'tick', chance: 0 }, 120_000)
    assert.deepEqual(b.step({ type: 'read', lease: held, chance: 0 }, 120_000), [
      { type: 'write', record: { holder: 'b', durationSeconds: 15, transitions: 4 }, version: '5', fresh: true },
    ])
  })

  test('each renewal begins the wait anew', () => {
    const b = new Replica('b')
    for (let i = 0; i < 20; i++) {
      b.step({ type: 'tick', chance: 0 }, i * 10_000)
      assert.deepEqual(types(b.step({ type: 'read', lease: lease('a', `${i}`), chance: 0 }, i * 10_000)), ['wait'])
    }
  })

  test('one that lost the race for a free lease waits', () => {
    const b = new Replica('b')
    b.step({ type: 'tick', chance: 0 }, 0)
    assert.deepEqual(types(b.step({ type: 'read', lease: lease('', '5'), chance: 0 }, 0)), ['write'])
    assert.deepEqual(types(b.step({ type: 'failed', conflict: true, chance: 0 }, 1)), ['wait'])
    assert.equal(b.state.role, 'following')
  })

  test('an answer that came after the deadline makes no leader', () => {
    const b = new Replica('b')
    b.step({ type: 'tick', chance: 0 }, 0)
    b.step({ type: 'read', lease: undefined, chance: 0 }, 0)
    assert.deepEqual(types(b.step({ type: 'written', lease: lease('b', '1'), chance: 0 }, 10_000)), ['wait'])
    assert.equal(b.state.role, 'following')
  })

  test('stopping gives the lease back, also in the middle of a renewal', () => {
    const a = Replica.leading()
    assert.deepEqual(a.step({ type: 'stop' }, 1000), [
      { type: 'follow', reason: 'stopping' },
      { type: 'write', record: { holder: '', durationSeconds: 1, transitions: 0 }, version: '1', fresh: true },
    ])
    assert.deepEqual(types(a.step({ type: 'written', lease: lease('', '2'), chance: 0 }, 1001)), ['done'])
    const b = Replica.leading()
    b.step({ type: 'tick', chance: 0 }, 2000)
    assert.deepEqual(types(b.step({ type: 'stop' }, 2001)), ['follow'])
    const back = b.step({ type: 'written', lease: lease('a', '2'), chance: 0 }, 2002)
    assert.equal(back[0]?.type === 'write' && back[0].version, '2')
    assert.deepEqual(types(b.step({ type: 'failed', conflict: false, chance: 0 }, 2003)), ['done'])
  })

  test('a follower stops without a write', () => {
    const b = new Replica('b')
    assert.deepEqual(types(b.step({ type: 'stop' }, 0)), ['done'])
    const c = new Replica('c')
    c.step({ type: 'tick', chance: 0 }, 0)
    assert.deepEqual(c.step({ type: 'stop' }, 0), [])
    assert.deepEqual(types(c.step({ type: 'read', lease: undefined, chance: 0 }, 0)), ['done'])
  })
})

const seed = Math.floor(Math.random() * 2 ** 31)

test(`replicas with clocks of their own, lost answers and stops in between: never two at once (seed ${seed})`, () => {
  let at = seed
  const chance = () => {
    at = (Math.imul(at, 1664525) + 1013904223) >>> 0
    return at / 2 ** 32
  }
  for (let round = 0; round < 30; round++) {
    let stored: SeenLease | undefined
    let version = 0
    let led = 0
    const replicas = ['a', 'b', 'c'].map((name) => ({
      replica: new Replica(name),
      offset: Math.floor(chance() * 1e9),
      due: (chance() * 1000) as number,
      pending: undefined as (() => ElectionEvent) | undefined,
      pausedUntil: 0,
    }))
    for (let now = 0; now < 300_000; now += 250) {
      for (const each of replicas) {
        const local = now + each.offset
        if (chance() < 0.002) each.pausedUntil = now + chance() * 60_000
        if (now < each.pausedUntil || now < each.due) continue
        const event = each.pending?.() ?? ({ type: 'tick', chance: chance() } as const)
        each.pending = undefined
        for (const effect of each.replica.step(event, local)) {
          if (effect.type === 'wait') each.due = now + effect.milliseconds
          if (effect.type === 'lead') led++
          if (effect.type === 'read') {
            const found = stored
            each.due = now + chance() * 500
            each.pending = () =>
              chance() < 0.1
                ? { type: 'failed', conflict: false, chance: chance() }
                : { type: 'read', lease: found, chance: chance() }
          }
          if (effect.type === 'write') {
            const taken = chance() > 0.1 && stored?.version === effect.version
            if (taken) stored = { record: effect.record, version: String(++version) }
            const written = stored
            const heard = taken && chance() > 0.1
            each.due = now + chance() * 500
            each.pending = () =>
              heard
                ? { type: 'written', lease: written!, chance: chance() }
                : { type: 'failed', conflict: !taken, chance: chance() }
          }
        }
      }
      const leaders = replicas.filter(({ replica, offset }) => leadsAt(replica.state, now + offset))
      assert.ok(leaders.length <= 1, `round ${round}, ${now} ms: ${leaders.map((l) => l.replica.timing.identity)}`)
    }
    assert.ok(led > 0, `round ${round}: nobody ever led`)
  }
})
