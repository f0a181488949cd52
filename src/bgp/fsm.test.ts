import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SessionState } from '../model/bgp.ts'
import { cease } from '../wire/bgp/notification.ts'
import { type FsmEvent, type FsmSettings, type FsmState, initialState, nextDeadline, step } from './fsm.ts'
import type { Negotiated } from './negotiation.ts'

const settings: FsmSettings = {
  passive: false,
  connectRetrySeconds: 100,
  openSeconds: 240,
  idleHoldSeconds: 1,
  idleHoldMaxSeconds: 16,
  stableSeconds: 60,
}
const negotiated = { holdSeconds: 90, keepaliveSeconds: 30 } as Negotiated

/** A machine with its time; `effects` are those of the last event. */
class Machine {
  state: FsmState
  now = 0
  effects: string[] = []
  readonly settings: FsmSettings
  /** 1 makes jitter a factor of exactly 1. */
  random = 1

  constructor(changed: Partial<FsmSettings> = {}) {
    this.settings = { ...settings, ...changed }
    this.state = initialState(this.settings)
  }

  on(event: FsmEvent): this {
    const { state, effects } = step(this.state, event, { now: this.now, random: this.random }, this.settings)
    this.state = state
    this.effects = effects.map((effect) =>
      effect.do === 'sendNotification'
        ? `${effect.do} ${effect.notification.code}/${effect.notification.subcode}`
        : effect.do === 'ended'
          ? `ended by ${effect.cause.by}`
          : effect.do,
    )
    return this
  }

  /** To the next deadline, and the timer's event. */
  wait(): this {
    const deadline = nextDeadline(this.state)
    assert.notEqual(deadline, Number.POSITIVE_INFINITY, 'a timer runs')
    this.now = deadline
    return this.on({ type: 'timer' })
  }

  is(phase: SessionState, ...effects: string[]): this {
    assert.equal(this.state.phase, phase)
    assert.deepEqual(this.effects, effects)
    return this
  }
}

const established = (machine = new Machine()) =>
  machine
    .on({ type: 'start' })
    .is('connect', 'connect')
    .on({ type: 'connected' })
    .is('open-sent', 'sendOpen')
    .on({ type: 'open', negotiated })
    .is('open-confirm', 'sendKeepalive')
    .on({ type: 'keepalive' })
    .is('established', 'established')

test('a session comes up, keeps alive every keepalive time and ends when nothing is heard for the hold time', () => {
  const machine = established()
  for (const at of [30_000, 60_000]) {
    machine.wait().is('established', 'sendKeepalive')
    assert.equal(machine.now, at)
  }
  machine.on({ type: 'update' }).is('established')
  assert.equal(machine.state.holdAt, 150_000)
  for (const at of [90_000, 120_000]) {
    machine.wait().is('established', 'sendKeepalive')
    assert.equal(machine.now, at)
  }
  // Keepalive and hold timer at once: the end counts.
  machine.wait().is('idle', 'sendNotification 4/0', 'disconnect', 'ended by sent')
  assert.equal(machine.now, 150_000)
})

test('jitter shortens timers to three quarters at most', () => {
  const machine = new Machine()
  machine.random = 0
  machine.on({ type: 'start' })
  assert.equal(machine.state.connectRetryAt, 75_000)
})

test('a hold time of zero runs no timers', () => {
  const machine = new Machine()
    .on({ type: 'start' })
    .on({ type: 'connected' })
    .on({ type: 'open', negotiated: { ...negotiated, holdSeconds: 0, keepaliveSeconds: 0 } })
    .on({ type: 'keepalive' })
    .is('established', 'established')
  assert.equal(nextDeadline(machine.state), Number.POSITIVE_INFINITY)
  machine.on({ type: 'blocked' })
  assert.equal(nextDeadline(machine.state), Number.POSITIVE_INFINITY)
})

test('a failed call waits in Active for the retry timer; a call that hangs is dropped and made again', () => {
  const machine = new Machine().on({ type: 'start' })
  machine.on({ type: 'disconnected', reason: 'refused' }).is('active')
  machine.wait().is('connect', 'connect')
  machine.wait().is('connect', 'disconnect', 'connect')
  assert.equal(machine.now, 200_000)
})

test('a passive peering never calls', () => {
  const machine = new Machine({ passive: true }).on({ type: 'start' }).is('active')
  assert.equal(nextDeadline(machine.state), Number.POSITIVE_INFINITY)
  machine.on({ type: 'found' }).is('active')
  const waiting = new Machine({ passive: true })
    .on({ type: 'start' })
    .on({ type: 'connected' })
    .is('open-sent', 'sendOpen')
  waiting.on({ type: 'disconnected', reason: 'closed' }).is('active', 'ended by transport')
  assert.equal(nextDeadline(waiting.state), Number.POSITIVE_INFINITY)
})

test('errors are damped: the time in Idle doubles up to its most, and starts again after a stable session', () => {
  const machine = new Machine()
  const waits: number[] = []
  const faulty = () => {
    machine.on({ type: 'fault', notification: cease(5), reason: 'made up' })
    waits.push((machine.state.idleHoldAt! - machine.now) / 1000)
    machine.wait().is('connect', 'connect')
    machine.on({ type: 'connected' })
  }
  machine.on({ type: 'start' }).on({ type: 'connected' })
  for (let i = 0; i < 7; i++) faulty()
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 16, 16])
  assert.equal(machine.state.connectRetryCounter, 7)
  machine.on({ type: 'open', negotiated }).on({ type: 'keepalive' })
  machine.now += 59_000
  faulty()
  machine.on({ type: 'open', negotiated }).on({ type: 'keepalive' })
  machine.now += 60_000
  faulty()
  assert.deepEqual(waits.slice(-2), [16, 1])
})

test('messages out of place are answered with the state that they came in (RFC 6608)', () => {
  const at = (phase: 'open-sent' | 'open-confirm' | 'established') => {
    const machine = new Machine().on({ type: 'start' }).on({ type: 'connected' })
    if (phase !== 'open-sent') machine.on({ type: 'open', negotiated })
    if (phase === 'established') machine.on({ type: 'keepalive' })
    return machine
  }
  at('open-sent').on({ type: 'keepalive' }).is('idle', 'sendNotification 5/1', 'disconnect', 'ended by sent')
  at('open-sent').on({ type: 'update' }).is('idle', 'sendNotification 5/1', 'disconnect', 'ended by sent')
  at('open-confirm').on({ type: 'update' }).is('idle', 'sendNotification 5/2', 'disconnect', 'ended by sent')
  at('established').on({ type: 'open', negotiated }).is('idle', 'sendNotification 5/3', 'disconnect', 'ended by sent')
})

test('a peer that never sends its OPEN is given up', () => {
  const machine = new Machine().on({ type: 'start' }).on({ type: 'connected' })
  machine.wait().is('idle', 'sendNotification 4/0', 'disconnect', 'ended by sent')
  assert.equal(machine.now, 240_000)
})

test('a peer that reads nothing is given up after eight minutes (RFC 9687)', () => {
  const machine = established()
  machine.on({ type: 'blocked' }).is('established')
  machine.on({ type: 'drained' }).on({ type: 'blocked' })
  let ended = false
  while (!ended) {
    machine.on({ type: 'keepalive' }).wait()
    ended = machine.state.phase === 'idle'
  }
  machine.is('idle', 'sendNotification 8/0', 'disconnect', 'ended by sent')
  assert.equal(machine.now, 480_000)
})

test('stop says why and stays; reset says why and begins again; a lost collision is no error', () => {
  const stopped = established().on({ type: 'stop', notification: cease(2) })
  stopped.is('idle', 'sendNotification 6/2', 'disconnect', 'ended by sent')
  assert.equal(nextDeadline(stopped.state), Number.POSITIVE_INFINITY)
  stopped.on({ type: 'connected' }).is('idle', 'disconnect')
  established()
    .on({ type: 'reset', notification: cease(6) })
    .is('idle', 'sendNotification 6/6', 'disconnect', 'ended by sent')
    .wait()
    .is('connect', 'connect')
  const lost = new Machine().on({ type: 'start' }).on({ type: 'connected' }).on({ type: 'collision' })
  lost.is('idle', 'sendNotification 6/7', 'disconnect', 'ended by collision')
  assert.equal(lost.state.connectRetryCounter, 0)
  new Machine().on({ type: 'start' }).on({ type: 'collision' }).is('idle', 'disconnect', 'ended by collision')
})

test('a random walk never gets stuck, never has a timer without a meaning, never acts without a stream', () => {
  const seed = Math.floor(Math.random() * 2 ** 31)
  console.log(`seed ${seed}`)
  let state = seed
  const next = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (state >> 8) % n
  }
  const machine = new Machine().on({ type: 'start' })
  let open = false
  const seen = new Set<SessionState>()
  for (let i = 0; i < 200_000; i++) {
    const events: FsmEvent[] = open
      ? [
          { type: 'disconnected', reason: 'walk' },
          { type: 'open', negotiated },
          { type: 'keepalive' },
          { type: 'keepalive' },
          { type: 'update' },
          { type: 'notification', notification: cease(4) },
          { type: 'fault', notification: cease(5), reason: 'walk' },
          { type: 'collision' },
          { type: 'blocked' },
          { type: 'drained' },
          { type: 'reset', notification: cease(6) },
        ]
      : [{ type: 'connected' }, { type: 'disconnected', reason: 'walk' }, { type: 'found' }]
    // What a walk may end in for good is begun again from outside.
    if (nextDeadline(machine.state) === Number.POSITIVE_INFINITY && machine.state.phase === 'idle')
      machine.on({ type: 'start' })
    else if (next(4) === 0 && nextDeadline(machine.state) !== Number.POSITIVE_INFINITY) machine.wait()
    else {
      const event = events[next(events.length)]!
      const { phase } = machine.state
      machine.on(event)
      if (event.type === 'connected' && (phase === 'connect' || phase === 'active')) open = true
      if (event.type === 'disconnected') open = false
    }
    const { phase } = machine.state
    seen.add(phase)
    const sends = machine.effects.some((effect) => effect.startsWith('send'))
    assert.ok(!sends || open || machine.effects.includes('disconnect'), `${machine.effects} without a stream`)
    if (machine.effects.includes('disconnect')) open = false
    assert.equal(
      phase === 'open-sent' || phase === 'open-confirm' || phase === 'established',
      open,
      `${phase}, step ${i}`,
    )
    if (phase !== 'established') assert.equal(machine.state.sendHoldAt, undefined)
    assert.ok(nextDeadline(machine.state) > machine.now - 1)
  }
  assert.equal(seen.size, 6)
})
