/**
 * The state machine of one connection's session: a pure step from state and event to state and effects, one function per
 * state. Timers are deadlines in the state; the owner calls `step` with a `timer` event when the first of them has come.
 *
 *             start            connected            OPEN               KEEPALIVE
 *     Idle ─────────▶ Connect ───────────▶ OpenSent ─────▶ OpenConfirm ─────────▶ Established
 *      ▲               │   ▲                  ▲ │
 *      │        failed ▼   │ retry  connected │ │ closed
 *      │               Active ────────────────┘ │            every error, from every state: Idle, for a time that
 *      └───────────────  ▲ ─────────────────────┘            doubles while errors go on (DampPeerOscillations)
 *
 * A peering has one machine that lives as long as it, and a second one while a connection of the peer's meets one of ours;
 * which of the two survives is decided in collision.ts. DelayOpen is not used (section 8.2.1.3 makes it optional).
 *
 * Sources: RFC 4271 sections 4.2, 4.4, 6, 8, 10; RFC 6608 (subcodes), RFC 9687 (SendHoldTimer).
 */
import type { SessionState } from '../model/bgp.ts'
import { CeaseCode, ErrorCode, FsmError } from '../wire/bgp/constants.ts'
import { cease, type Notification } from '../wire/bgp/notification.ts'
import type { Negotiated } from './negotiation.ts'

export interface FsmSettings {
  /** Waits for the peer to connect; never connects. */
  readonly passive: boolean
  readonly connectRetrySeconds: number
  /** How long the peer may take to send its OPEN (section 8.2.2 suggests 4 minutes). */
  readonly openSeconds: number
  /** First time in Idle after an error, doubled by each that follows… */
  readonly idleHoldSeconds: number
  /** …up to this. */
  readonly idleHoldMaxSeconds: number
  /** A session that was up for so long starts again with the shortest time in Idle. */
  readonly stableSeconds: number
}

export interface FsmState {
  readonly phase: SessionState
  /** Attempts since the peering was started (ConnectRetryCounter). */
  readonly connectRetryCounter: number
  /** Deadlines in milliseconds; undefined is a stopped timer. */
  readonly connectRetryAt: number | undefined
  readonly holdAt: number | undefined
  readonly keepaliveAt: number | undefined
  readonly idleHoldAt: number | undefined
  readonly sendHoldAt: number | undefined
  /** Negotiated; 0 is a session without keepalives. */
  readonly holdSeconds: number
  readonly keepaliveSeconds: number
  /** The time in Idle that the next error costs. */
  readonly idleHoldSeconds: number
  readonly establishedAt: number | undefined
}

/** The numbers are those of section 8.1. */
export type FsmEvent =
  /** 1, 3..7: start; `afterMilliseconds` spreads the starts of many peers. */
  | { readonly type: 'start'; readonly afterMilliseconds?: number }
  /** 2, 8: stop; with what the peer is told. The session stays in Idle. */
  | { readonly type: 'stop'; readonly notification: Notification }
  /** Ends and starts again at once, by ourselves: a changed configuration, an operator's clear. */
  | { readonly type: 'reset'; readonly notification: Notification }
  /** 9..13, 29: a deadline has come. */
  | { readonly type: 'timer' }
  /** The peer's address is known now, or is another: no need to wait for the ConnectRetryTimer. */
  | { readonly type: 'found' }
  /** 16, 17: the connection stands. */
  | { readonly type: 'connected' }
  /** 18: it does not, or no more. */
  | { readonly type: 'disconnected'; readonly reason: string }
  /** 19: an OPEN that is acceptable, and what both agreed on. */
  | { readonly type: 'open'; readonly negotiated: Negotiated }
  /** 21, 22, 28: a message that is not acceptable, or a fault found above. */
  | { readonly type: 'fault'; readonly notification: Notification; readonly reason: string }
  /** 23: the other connection of this peering survives. */
  | { readonly type: 'collision' }
  /** 24, 25 */
  | { readonly type: 'notification'; readonly notification: Notification }
  /** 26 */
  | { readonly type: 'keepalive' }
  /** 27, and ROUTE-REFRESH: one or several of them. */
  | { readonly type: 'update' }
  /** Our messages wait for the peer to read, or no longer do. */
  | { readonly type: 'blocked' }
  | { readonly type: 'drained' }

/** Why a session ended. */
export type EndCause =
  | { readonly by: 'transport'; readonly reason: string }
  | { readonly by: 'sent'; readonly notification: Notification; readonly reason: string }
  | { readonly by: 'received'; readonly notification: Notification }
  | { readonly by: 'collision' }

export type FsmEffect =
  | { readonly do: 'connect' }
  /** Ends the connection or the attempt; what was sent still goes out. */
  | { readonly do: 'disconnect' }
  | { readonly do: 'sendOpen' }
  | { readonly do: 'sendKeepalive' }
  | { readonly do: 'sendNotification'; readonly notification: Notification }
  | { readonly do: 'established' }
  /** The session or the attempt ended, having been in `phase`. */
  | { readonly do: 'ended'; readonly phase: SessionState; readonly cause: EndCause }

export interface FsmStep {
  readonly state: FsmState
  readonly effects: readonly FsmEffect[]
}

/** Of an event: when it is, and a random number 0 ≤ x < 1 for jitter. */
export interface Moment {
  readonly now: number
  readonly random: number
}

export const initialState = (settings: FsmSettings): FsmState => ({
  phase: 'idle',
  connectRetryCounter: 0,
  connectRetryAt: undefined,
  holdAt: undefined,
  keepaliveAt: undefined,
  idleHoldAt: undefined,
  sendHoldAt: undefined,
  holdSeconds: 0,
  keepaliveSeconds: 0,
  idleHoldSeconds: settings.idleHoldSeconds,
  establishedAt: undefined,
})

/** The first deadline of a state; Infinity when no timer runs. */
export const nextDeadline = ({ connectRetryAt, holdAt, keepaliveAt, idleHoldAt, sendHoldAt }: FsmState): number =>
  Math.min(
    connectRetryAt ?? Number.POSITIVE_INFINITY,
    holdAt ?? Number.POSITIVE_INFINITY,
    keepaliveAt ?? Number.POSITIVE_INFINITY,
    idleHoldAt ?? Number.POSITIVE_INFINITY,
    sendHoldAt ?? Number.POSITIVE_INFINITY,
  )

/** Section 6.5 and 6.6, RFC 6608, RFC 9687. */
const none = new Uint8Array(0)
const holdTimerExpired: Notification = { code: ErrorCode.HOLD_TIMER_EXPIRED, subcode: 0, data: none }
const sendHoldTimerExpired: Notification = { code: ErrorCode.SEND_HOLD_TIMER_EXPIRED, subcode: 0, data: none }
const unexpectedIn: Readonly<Record<SessionState, number>> = {
  idle: FsmError.UNSPECIFIED,
  connect: FsmError.UNSPECIFIED,
  active: FsmError.UNSPECIFIED,
  'open-sent': FsmError.IN_OPEN_SENT,
  'open-confirm': FsmError.IN_OPEN_CONFIRM,
  established: FsmError.IN_ESTABLISHED,
}
const collisionResolution = cease(CeaseCode.CONNECTION_COLLISION_RESOLUTION)

export function step(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (state.phase) {
    case 'idle':
      return idle(state, event, moment, settings)
    case 'connect':
      return connect(state, event, moment, settings)
    case 'active':
      return active(state, event, moment, settings)
    case 'open-sent':
      return openSent(state, event, moment, settings)
    case 'open-confirm':
      return openConfirm(state, event, moment, settings)
    case 'established':
      return established(state, event, moment, settings)
  }
}

// --- the states ---

/** "In this state, BGP FSM refuses all incoming BGP connections for this peer. No resources are allocated to the peer." */
function idle(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'start':
      // "…starts the ConnectRetryTimer with the initial value, initiates a TCP connection to the other BGP peer".
      if (!event.afterMilliseconds) return begin({ ...state, connectRetryCounter: 0 }, moment, settings)
      return stay({ ...state, connectRetryCounter: 0, idleHoldAt: moment.now + event.afterMilliseconds })
    case 'timer':
      // IdleHoldTimer_Expires (Event 13): an automatic start.
      return passed(state.idleHoldAt, moment) ? begin(state, moment, settings) : stay(state)
    case 'connected':
      return { state, effects: [{ do: 'disconnect' }] }
    case 'stop':
      return stay({ ...initialState(settings) })
    case 'reset':
      return begin({ ...state, idleHoldSeconds: settings.idleHoldSeconds }, moment, settings)
    default:
      return stay(state)
  }
}

/** "In this state, BGP FSM is waiting for the TCP connection to be completed." */
function connect(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'connected':
      // "stops the ConnectRetryTimer …, sends an OPEN message to its peer, and changes its state to OpenSent."
      return sendOpen(state, moment, settings)
    case 'disconnected':
      // Without DelayOpen section 8.2.2 says Idle; waiting in Active until the ConnectRetryTimer, as after any other failure
      // to connect, lets the peer come to us meanwhile.
      return stay({ ...stopped(state), phase: 'active', connectRetryAt: retryAt(moment, settings) })
    case 'timer':
      // "drops the TCP connection, restarts the ConnectRetryTimer, … initiates a TCP connection … stays in the Connect state."
      if (!passed(state.connectRetryAt, moment)) return stay(state)
      return {
        state: { ...state, connectRetryAt: retryAt(moment, settings) },
        effects: [{ do: 'disconnect' }, { do: 'connect' }],
      }
    case 'found':
      return { state, effects: [{ do: 'disconnect' }, { do: 'connect' }] }
    default:
      return withoutConnection(state, event, moment, settings)
  }
}

/** "In this state, BGP FSM is trying to acquire a peer by listening for, and accepting, a TCP connection." */
function active(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'connected':
      return sendOpen(state, moment, settings)
    case 'timer':
      // "restarts the ConnectRetryTimer, initiates a TCP connection to the other BGP peer, … changes its state to Connect."
      return passed(state.connectRetryAt, moment) ? begin(state, moment, settings) : stay(state)
    case 'found':
      return begin(state, moment, settings)
    case 'disconnected':
      return stay(state)
    default:
      return withoutConnection(state, event, moment, settings)
  }
}

/** What Connect and Active do alike: no message can come yet. */
function withoutConnection(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'collision':
      return lost(state, settings)
    case 'stop':
    case 'reset':
      return leave(state, event, moment, settings)
    case 'start':
    case 'blocked':
    case 'drained':
      return stay(state)
    default:
      return fail(state, { by: 'transport', reason: 'a message without a connection' }, moment, settings)
  }
}

/** "In this state, BGP FSM waits for an OPEN message from its peer." */
function openSent(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'open': {
      // "sends a KEEPALIVE message, sets a KeepaliveTimer, sets the HoldTimer according to the negotiated value".
      const { holdSeconds, keepaliveSeconds } = event.negotiated
      const next = { ...state, phase: 'open-confirm' as const, holdSeconds, keepaliveSeconds }
      return {
        state: { ...next, ...keepaliveTimer(next, moment), ...holdTimer(next, moment) },
        effects: [{ do: 'sendKeepalive' }],
      }
    }
    case 'disconnected':
      // "closes the BGP connection, restarts the ConnectRetryTimer, continues to listen …, changes its state to Active."
      return {
        state: { ...stopped(state), phase: 'active', connectRetryAt: retryAt(moment, settings) },
        effects: [{ do: 'ended', phase: state.phase, cause: { by: 'transport', reason: event.reason } }],
      }
    case 'timer':
      if (passed(state.holdAt, moment)) return expire(state, moment, settings)
      return stay(state)
    case 'start':
    case 'found':
    case 'blocked':
    case 'drained':
      return stay(state)
    case 'keepalive':
    case 'update':
      return unexpected(state, event, moment, settings)
    default:
      return end(state, event, moment, settings)
  }
}

/** "In this state, BGP waits for a KEEPALIVE or NOTIFICATION message." */
function openConfirm(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'keepalive':
      // "restarts the HoldTimer and changes its state to Established."
      return {
        state: { ...state, phase: 'established', ...holdTimer(state, moment), establishedAt: moment.now },
        effects: [{ do: 'established' }],
      }
    case 'timer':
      if (passed(state.holdAt, moment)) return expire(state, moment, settings)
      return keepalive(state, moment)
    case 'start':
    case 'found':
    case 'blocked':
    case 'drained':
      return stay(state)
    case 'open':
    case 'update':
      return unexpected(state, event, moment, settings)
    default:
      return end(state, event, moment, settings)
  }
}

/** "In the Established state, the BGP FSM can exchange UPDATE, NOTIFICATION, and KEEPALIVE messages with its peer." */
function established(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'keepalive':
    case 'update':
      // "restarts its HoldTimer, if the negotiated HoldTime value is non-zero, and remains in the Established state."
      return stay({ ...state, ...holdTimer(state, moment) })
    case 'timer':
      if (passed(state.holdAt, moment)) return expire(state, moment, settings)
      if (passed(state.sendHoldAt, moment))
        return tell(state, sendHoldTimerExpired, 'the peer reads nothing (send hold timer)', moment, settings)
      return keepalive(state, moment)
    case 'blocked':
      // RFC 9687 section 3.2: the SendHoldTimer runs while nothing can be sent; "8 minutes or twice the hold time".
      if (state.sendHoldAt !== undefined || state.holdSeconds === 0) return stay(state)
      return stay({ ...state, sendHoldAt: moment.now + Math.max(480, 2 * state.holdSeconds) * 1000 })
    case 'drained':
      return stay({ ...state, sendHoldAt: undefined })
    case 'start':
    case 'found':
      return stay(state)
    case 'open':
      return unexpected(state, event, moment, settings)
    default:
      return end(state, event, moment, settings)
  }
}

// --- what they have in common ---

const stay = (state: FsmState): FsmStep => ({ state, effects: [] })

const passed = (deadline: number | undefined, { now }: Moment): boolean => deadline !== undefined && deadline <= now

/** Section 10: "jitter … multiplying the configured value by a random factor that is uniformly distributed from 0.75 to 1.0." */
const jittered = (seconds: number, { random }: Moment): number => seconds * 1000 * (0.75 + random / 4)

const retryAt = (moment: Moment, { passive, connectRetrySeconds }: FsmSettings): number | undefined =>
  passive ? undefined : moment.now + jittered(connectRetrySeconds, moment)

/** "If the negotiated Hold Time value is zero, then the Hold Time timer and KeepAlive timers are not started." */
const holdTimer = ({ holdSeconds }: FsmState, { now }: Moment): Pick<FsmState, 'holdAt'> => ({
  holdAt: holdSeconds === 0 ? undefined : now + holdSeconds * 1000,
})

const keepaliveTimer = ({ keepaliveSeconds }: FsmState, moment: Moment): Pick<FsmState, 'keepaliveAt'> => ({
  keepaliveAt: keepaliveSeconds === 0 ? undefined : moment.now + jittered(keepaliveSeconds, moment),
})

/** Every timer stopped and what was negotiated forgotten. */
const stopped = (state: FsmState): FsmState => ({
  ...state,
  connectRetryAt: undefined,
  holdAt: undefined,
  keepaliveAt: undefined,
  idleHoldAt: undefined,
  sendHoldAt: undefined,
  holdSeconds: 0,
  keepaliveSeconds: 0,
  establishedAt: undefined,
})

function begin(state: FsmState, moment: Moment, settings: FsmSettings): FsmStep {
  // A passive peering goes from Idle to Active and only listens (section 8.2.2, Events 4, 5, 7).
  if (settings.passive) return stay({ ...stopped(state), phase: 'active' })
  return {
    state: { ...stopped(state), phase: 'connect', connectRetryAt: retryAt(moment, settings) },
    effects: [{ do: 'connect' }],
  }
}

function sendOpen(state: FsmState, { now }: Moment, { openSeconds }: FsmSettings): FsmStep {
  return {
    state: { ...stopped(state), phase: 'open-sent', holdAt: now + openSeconds * 1000 },
    effects: [{ do: 'sendOpen' }],
  }
}

function keepalive(state: FsmState, moment: Moment): FsmStep {
  if (!passed(state.keepaliveAt, moment)) return stay(state)
  return { state: { ...state, ...keepaliveTimer(state, moment) }, effects: [{ do: 'sendKeepalive' }] }
}

const expire = (state: FsmState, moment: Moment, settings: FsmSettings): FsmStep =>
  tell(state, holdTimerExpired, 'nothing was heard for the hold time', moment, settings)

const unexpected = (state: FsmState, { type }: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep =>
  tell(
    state,
    { code: ErrorCode.FINITE_STATE_MACHINE, subcode: unexpectedIn[state.phase], data: none },
    `${type.toUpperCase()} is out of place in ${state.phase}`,
    moment,
    settings,
  )

/** The events that end a session in each of the states with a connection. */
function end(state: FsmState, event: FsmEvent, moment: Moment, settings: FsmSettings): FsmStep {
  switch (event.type) {
    case 'stop':
    case 'reset':
      return leave(state, event, moment, settings)
    case 'collision':
      return lost(state, settings)
    case 'disconnected':
      return fail(state, { by: 'transport', reason: event.reason }, moment, settings)
    case 'notification':
      return fail(state, { by: 'received', notification: event.notification }, moment, settings)
    case 'fault':
      return tell(state, event.notification, event.reason, moment, settings)
    default:
      // A second connection is the owner's to keep apart.
      return unexpected(state, event, moment, settings)
  }
}

/** "sends a NOTIFICATION message …, sets the ConnectRetryTimer to zero, drops the TCP connection, … Idle." */
function tell(
  state: FsmState,
  notification: Notification,
  reason: string,
  moment: Moment,
  settings: FsmSettings,
): FsmStep {
  const { state: next, effects } = fail(state, { by: 'sent', notification, reason }, moment, settings)
  return { state: next, effects: [{ do: 'sendNotification', notification }, ...effects] }
}

/** "increments the ConnectRetryCounter by 1, (optionally) performs peer oscillation damping, … changes its state to Idle." */
function fail(state: FsmState, cause: EndCause, { now, random }: Moment, settings: FsmSettings): FsmStep {
  const stable = state.establishedAt !== undefined && now - state.establishedAt >= settings.stableSeconds * 1000
  const seconds = stable ? settings.idleHoldSeconds : state.idleHoldSeconds
  return {
    state: {
      ...stopped(state),
      phase: 'idle',
      connectRetryCounter: state.connectRetryCounter + 1,
      idleHoldAt: now + jittered(seconds, { now, random }),
      idleHoldSeconds: Math.min(Math.max(seconds * 2, settings.idleHoldSeconds), settings.idleHoldMaxSeconds),
    },
    effects: [{ do: 'disconnect' }, { do: 'ended', phase: state.phase, cause }],
  }
}

/** ManualStop, and an end of our own making that is no error: nothing is damped. */
function leave(
  state: FsmState,
  { type, notification }: Extract<FsmEvent, { type: 'stop' | 'reset' }>,
  moment: Moment,
  settings: FsmSettings,
): FsmStep {
  const spoken = state.phase !== 'connect' && state.phase !== 'active'
  const effects: FsmEffect[] = spoken ? [{ do: 'sendNotification', notification }] : []
  const cause: EndCause = { by: 'sent', notification, reason: type === 'stop' ? 'stopped' : 'reset' }
  effects.push({ do: 'disconnect' }, { do: 'ended', phase: state.phase, cause })
  const base = { ...stopped(state), phase: 'idle' as const, idleHoldSeconds: settings.idleHoldSeconds }
  // "sets ConnectRetryCounter to zero".
  if (type === 'stop') return { state: { ...base, connectRetryCounter: 0 }, effects }
  return { state: { ...base, idleHoldAt: moment.now }, effects }
}

/** Event 23, OpenCollisionDump: the NOTIFICATION is Cease (section 6.8); nothing is damped. */
function lost(state: FsmState, settings: FsmSettings): FsmStep {
  const spoken = state.phase !== 'connect' && state.phase !== 'active'
  return {
    state: { ...stopped(state), phase: 'idle', idleHoldSeconds: settings.idleHoldSeconds },
    effects: [
      ...(spoken ? [{ do: 'sendNotification', notification: collisionResolution } as const] : []),
      { do: 'disconnect' },
      { do: 'ended', phase: state.phase, cause: { by: 'collision' } },
    ],
  }
}
