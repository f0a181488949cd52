/**
 * One BFD session: a pure step from state and event to state and effects, in asynchronous mode. The echo function is not
 * offered; a peer that asks for demand mode is given it.
 *
 *              received                 Down: neighbour says Down, or nothing yet
 *                 Down                  Init: it says Down, so it hears us or will; we hear it
 *        ┌───▶ Down ─────▶ Init         Up:   both hear each other
 *        │      │ received  │ received
 *        │      │ Init      │ Init, Up
 *        │      └──▶ Up ◀───┘           AdminDown: ours by the operator; says nothing about the path
 *        └────────── │
 *      received Down, │ or nothing for the detection time
 *
 * Times are milliseconds of the owner's clock, intervals microseconds as on the wire. The owner calls `step` with a `timer`
 * event at `nextDeadline`.
 *
 * Sources: RFC 5880 sections 6.2 (states), 6.5 (poll), 6.6 (demand), 6.8 (variables and rules); RFC 5881 section 4 (single
 * hop), RFC 5882 section 3.2 (what a client concludes).
 */
import { BfdDiagnostic, type BfdPacket, BfdState } from '../wire/bfd/packet.ts'

export interface BfdSettings {
  readonly minTransmitMicroseconds: number
  readonly minReceiveMicroseconds: number
  /** 1 to 255: so many of our packets in a row may be missing before the peer gives up. */
  readonly detectMultiplier: number
}

/** Sent no faster than this while the session is not Up (section 6.8.3). */
const SLOW_TRANSMIT_MICROSECONDS = 1_000_000

export interface BfdSession {
  readonly settings: BfdSettings
  readonly state: BfdState
  readonly diagnostic: number
  readonly localDiscriminator: number
  /** 0 as long as nothing was heard (bfd.RemoteDiscr). */
  readonly remoteDiscriminator: number
  readonly remoteState: BfdState
  readonly remoteMinReceiveMicroseconds: number
  readonly remoteMinTransmitMicroseconds: number
  readonly remoteDetectMultiplier: number
  readonly remoteDemand: boolean
  /** The peer's BFD outlives its control plane (its C bit). */
  readonly remoteControlPlaneIndependent: boolean
  /** A poll sequence is under way: every packet asks to be answered (section 6.5). */
  readonly polling: boolean
  /** What we send by and detect by; another than announced while a poll sequence has not ended (section 6.8.3). */
  readonly transmitMicroseconds: number
  readonly receiveMicroseconds: number
  readonly lastTransmitAt: number | undefined
  readonly transmitAt: number | undefined
  readonly detectAt: number | undefined
}

export type BfdEvent =
  | { readonly type: 'start' }
  /** A packet that decoded, is of this session, and came with the TTL it must have. */
  | { readonly type: 'packet'; readonly packet: BfdPacket }
  | { readonly type: 'timer' }
  | { readonly type: 'settings'; readonly settings: BfdSettings }
  /** The operator's word; `up` takes it back. */
  | { readonly type: 'admin'; readonly down: boolean }

export type BfdEffect =
  | { readonly do: 'send'; readonly packet: BfdPacket }
  | {
      readonly do: 'changed'
      readonly from: BfdState
      readonly to: BfdState
      readonly diagnostic: number
      /** The peer took the session down by its operator's will: no reason to think the path broken (RFC 5882 section 3.2). */
      readonly byPeersOperator: boolean
    }

export interface BfdMoment {
  readonly now: number
  /** 0 ≤ x < 1, for jitter. */
  readonly random: number
}

export interface BfdStep {
  readonly session: BfdSession
  readonly effects: readonly BfdEffect[]
}

/** A session that has not started. `localDiscriminator` is unique on this system and not 0. */
export const makeBfdSession = (settings: BfdSettings, localDiscriminator: number): BfdSession => ({
  settings,
  state: BfdState.Down,
  diagnostic: BfdDiagnostic.None,
  localDiscriminator,
  remoteDiscriminator: 0,
  remoteState: BfdState.Down,
  // Section 6.8.1: one microsecond, until the peer says.
  remoteMinReceiveMicroseconds: 1,
  remoteMinTransmitMicroseconds: 0,
  remoteDetectMultiplier: 0,
  remoteDemand: false,
  remoteControlPlaneIndependent: false,
  polling: false,
  transmitMicroseconds: Math.max(settings.minTransmitMicroseconds, SLOW_TRANSMIT_MICROSECONDS),
  receiveMicroseconds: settings.minReceiveMicroseconds,
  lastTransmitAt: undefined,
  transmitAt: undefined,
  detectAt: undefined,
})

/** The first deadline; Infinity when no timer runs. */
export const nextDeadline = ({ transmitAt, detectAt }: BfdSession): number =>
  Math.min(transmitAt ?? Number.POSITIVE_INFINITY, detectAt ?? Number.POSITIVE_INFINITY)

/** What we announce as DesiredMinTxInterval. */
const announcedTransmit = ({ settings, state }: Pick<BfdSession, 'settings' | 'state'>): number =>
  state === BfdState.Up
    ? settings.minTransmitMicroseconds
    : Math.max(settings.minTransmitMicroseconds, SLOW_TRANSMIT_MICROSECONDS)

/** Section 6.8.4: how long silence may last; 0 before anything was heard. */
export const detectionMicroseconds = (session: BfdSession): number =>
  session.remoteDetectMultiplier * Math.max(session.receiveMicroseconds, session.remoteMinTransmitMicroseconds)

/** Between two of our packets, before jitter. */
export const transmitIntervalMicroseconds = (session: BfdSession): number =>
  Math.max(session.transmitMicroseconds, session.remoteMinReceiveMicroseconds)

export function step(session: BfdSession, event: BfdEvent, moment: BfdMoment): BfdStep {
  switch (event.type) {
    case 'start':
      return transmit(session, moment)
    case 'packet':
      return receive(session, event.packet, moment)
    case 'timer':
      return onTimer(session, moment)
    case 'settings':
      return onSettings(session, event.settings, moment)
    case 'admin':
      return onAdmin(session, event.down, moment)
  }
}

function packetOf(session: BfdSession, final: boolean): BfdPacket {
  return {
    diagnostic: session.diagnostic,
    state: session.state,
    // Section 6.5: an answer does not ask.
    poll: session.polling && !final,
    final,
    // The session lives in the process whose routes it guards.
    controlPlaneIndependent: false,
    demand: false,
    detectMultiplier: session.settings.detectMultiplier,
    myDiscriminator: session.localDiscriminator,
    yourDiscriminator: session.remoteDiscriminator,
    desiredMinTransmitMicroseconds: announcedTransmit(session),
    requiredMinReceiveMicroseconds: session.settings.minReceiveMicroseconds,
    requiredMinEchoReceiveMicroseconds: 0,
  }
}

/** Section 6.8.7: whether packets go out by themselves. */
function isPeriodic(session: BfdSession): boolean {
  if (session.remoteMinReceiveMicroseconds === 0) return false
  const demanded =
    session.remoteDemand && session.state === BfdState.Up && session.remoteState === BfdState.Up && !session.polling
  return !demanded
}

/** Sets the time of the next packet from that of the last, with section 6.8.7's jitter. */
function scheduled(session: BfdSession, { now, random }: BfdMoment): BfdSession {
  if (!isPeriodic(session)) return { ...session, transmitAt: undefined }
  // Up to a quarter shorter; with a multiplier of 1 at least a tenth, so that no packet comes too late.
  const share = session.settings.detectMultiplier === 1 ? 0.75 + 0.15 * random : 0.75 + 0.25 * random
  const from = session.lastTransmitAt ?? now
  return { ...session, transmitAt: from + (transmitIntervalMicroseconds(session) / 1000) * share }
}

/** Sends now, and the next one an interval later. */
function transmit(session: BfdSession, moment: BfdMoment): BfdStep {
  const sent = scheduled({ ...session, lastTransmitAt: moment.now }, moment)
  return { session: sent, effects: [{ do: 'send', packet: packetOf(session, false) }] }
}

/** Another state: both sides' intervals follow from it, and the peer is told at once (section 6.8.7). */
function enter(
  session: BfdSession,
  state: BfdState,
  diagnostic: number,
  moment: BfdMoment,
  byPeersOperator = false,
): BfdStep {
  const changed = announce({ ...session, state, diagnostic })
  const told = transmit(changed, moment)
  const effect: BfdEffect = { do: 'changed', from: session.state, to: state, diagnostic, byPeersOperator }
  return { session: told.session, effects: [effect, ...told.effects] }
}

/**
 * Section 6.8.3: what we announce may have changed. While Up the peer is polled, and until it has answered we neither send
 * more slowly nor detect faster than it knows of.
 */
function announce(session: BfdSession): BfdSession {
  const transmitMicroseconds = announcedTransmit(session)
  const receiveMicroseconds = session.settings.minReceiveMicroseconds
  if (session.state !== BfdState.Up) return { ...session, transmitMicroseconds, receiveMicroseconds, polling: false }
  const same =
    transmitMicroseconds === session.transmitMicroseconds && receiveMicroseconds === session.receiveMicroseconds
  if (same) return session
  return {
    ...session,
    polling: true,
    transmitMicroseconds: Math.min(transmitMicroseconds, session.transmitMicroseconds),
    receiveMicroseconds: Math.max(receiveMicroseconds, session.receiveMicroseconds),
  }
}

function receive(before: BfdSession, packet: BfdPacket, moment: BfdMoment): BfdStep {
  // Section 6.8.6: we use no authentication, so neither may the packet; and it must know us, if it knows anybody.
  const others = packet.yourDiscriminator !== 0 && packet.yourDiscriminator !== before.localDiscriminator
  if (packet.authentication || others) return { session: before, effects: [] }
  let session: BfdSession = {
    ...before,
    remoteDiscriminator: packet.myDiscriminator,
    remoteState: packet.state,
    remoteDemand: packet.demand,
    remoteControlPlaneIndependent: packet.controlPlaneIndependent,
    remoteMinReceiveMicroseconds: packet.requiredMinReceiveMicroseconds,
    remoteMinTransmitMicroseconds: packet.desiredMinTransmitMicroseconds,
    remoteDetectMultiplier: packet.detectMultiplier,
  }
  if (session.polling && packet.final)
    session = {
      ...session,
      polling: false,
      transmitMicroseconds: announcedTransmit(session),
      receiveMicroseconds: session.settings.minReceiveMicroseconds,
    }
  if (session.state === BfdState.AdminDown) return { session, effects: [] }
  const next = transition(session, packet, moment)
  session = next.session
  const effects = [...next.effects]
  session = { ...session, detectAt: moment.now + detectionMicroseconds(session) / 1000 }
  // Section 6.8.6, the last but one: the answer waits for no timer.
  if (packet.poll) effects.push({ do: 'send', packet: packetOf(session, true) })
  const told = next.effects.length > 0
  const intervalsChanged =
    isPeriodic(before) !== isPeriodic(session) ||
    transmitIntervalMicroseconds(before) !== transmitIntervalMicroseconds(session)
  if (!told && intervalsChanged) session = scheduled(session, moment)
  return { session, effects }
}

/** Section 6.8.6: the table of states. */
function transition(session: BfdSession, { state }: BfdPacket, moment: BfdMoment): BfdStep {
  const stay = { session, effects: [] }
  if (state === BfdState.AdminDown)
    return session.state === BfdState.Down
      ? stay
      : enter(session, BfdState.Down, BfdDiagnostic.NeighborSignaledDown, moment, true)
  switch (session.state) {
    case BfdState.Down:
      if (state === BfdState.Down) return enter(session, BfdState.Init, BfdDiagnostic.None, moment)
      return state === BfdState.Init ? enter(session, BfdState.Up, BfdDiagnostic.None, moment) : stay
    case BfdState.Init:
      return state === BfdState.Down ? stay : enter(session, BfdState.Up, BfdDiagnostic.None, moment)
    case BfdState.Up:
      return state === BfdState.Down ? enter(session, BfdState.Down, BfdDiagnostic.NeighborSignaledDown, moment) : stay
    default:
      return stay
  }
}

function onTimer(session: BfdSession, moment: BfdMoment): BfdStep {
  if (session.detectAt !== undefined && moment.now >= session.detectAt) {
    // Section 6.8.1: the peer's discriminator does not outlive the detection time.
    const silent = { ...session, detectAt: undefined, remoteDiscriminator: 0 }
    if (session.state === BfdState.Init || session.state === BfdState.Up)
      return enter(silent, BfdState.Down, BfdDiagnostic.DetectionTimeExpired, moment)
    return onTimer(silent, moment)
  }
  if (session.transmitAt !== undefined && moment.now >= session.transmitAt) return transmit(session, moment)
  return { session, effects: [] }
}

function onSettings(before: BfdSession, settings: BfdSettings, moment: BfdMoment): BfdStep {
  const session = announce({ ...before, settings })
  if (session.polling && !before.polling) return transmit(session, moment)
  return { session: scheduled(session, moment), effects: [] }
}

function onAdmin(session: BfdSession, down: boolean, moment: BfdMoment): BfdStep {
  const is = session.state === BfdState.AdminDown
  if (is === down) return { session, effects: [] }
  return down
    ? enter(session, BfdState.AdminDown, BfdDiagnostic.AdministrativelyDown, moment)
    : enter(session, BfdState.Down, BfdDiagnostic.None, moment)
}
