/**
 * Who of several replicas leads: client-go's rules over one Lease object, as a state machine without clock, timer or socket.
 * The driver (elector.ts) does what the effects say and comes back with what happened.
 *
 *              ┌──────── held by another, record fresh: wait, jittered ───────┐
 *              ▼                                                              │
 *   tick ──► read ──► none: create │ free, or unchanged for its duration: take ──► written: leads
 *              ▲                                                              │       │ renew every retry period
 *              └──── not renewed for the renew deadline: leads no more ◄──────┴───────┘
 *
 * How old a record is, is measured here: by the monotonic time at which this replica first saw it, never by the times written
 * in it, so clocks may differ by any amount. A leader's own time counts from before the request was sent: it ends before
 * any other replica may begin, as long as both clocks run at about one speed. What a leader that was stopped in between does
 * must be fenced elsewhere (ledger.ts); no lease can do that.
 *
 * Sources: k8s.io/client-go tools/leaderelection (semantics, defaults), coordination.k8s.io/v1 Lease.
 */

/** What a Lease object says, as far as elections go. Durations in seconds. */
export interface LeaseRecord {
  /** Empty when it was given back. */
  readonly holder: string
  readonly durationSeconds: number
  /** How often the holder changed. */
  readonly transitions: number
}

export interface SeenLease {
  readonly record: LeaseRecord
  readonly version: string
}

/** Milliseconds. */
export interface ElectionTiming {
  readonly identity: string
  /** How long a record that does not change keeps others off. */
  readonly leaseDuration: number
  /** How long a leader goes on that cannot renew. Less than leaseDuration. */
  readonly renewDeadline: number
  /** Between two attempts. renewDeadline is more than this times the jitter. */
  readonly retryPeriod: number
}

/** Retries of those who wait are spread over this many times the period. */
export const JITTER_FACTOR = 1.2

export interface ElectionState {
  readonly role: 'following' | 'leading' | 'done'
  /** The record last seen, and when it was first seen so. A renewal by anyone is another version. */
  readonly seen: (SeenLease & { readonly at: number }) | undefined
  /** Leading: until when, if no renewal succeeds. */
  readonly until: number
  /** What is under way, and when it was begun. */
  readonly busy: { readonly what: 'read' | 'write'; readonly at: number } | undefined
  readonly stopping: boolean
}

export type ElectionEvent =
  /** Begin, or the wait is over. `chance` is in [0, 1). */
  | { readonly type: 'tick'; readonly chance: number }
  | { readonly type: 'read'; readonly lease: SeenLease | undefined; readonly chance: number }
  /** The create or update was taken. */
  | { readonly type: 'written'; readonly lease: SeenLease; readonly chance: number }
  /** The request failed, or somebody else wrote first (`conflict`). */
  | { readonly type: 'failed'; readonly conflict: boolean; readonly chance: number }
  /** Leave in order: give the lease back. */
  | { readonly type: 'stop' }

export type ElectionEffect =
  | { readonly type: 'read' }
  /** Create when there is no `version`; else update that version only. */
  | {
      readonly type: 'write'
      readonly record: LeaseRecord
      readonly version: string | undefined
      readonly fresh: boolean
    }
  | { readonly type: 'wait'; readonly milliseconds: number }
  /** This replica leads from now on. */
  | { readonly type: 'lead' }
  /** It does no longer. */
  | { readonly type: 'follow'; readonly reason: string }
  /** Nothing more will come. */
  | { readonly type: 'done' }

export interface ElectionStep {
  readonly state: ElectionState
  readonly effects: readonly ElectionEffect[]
}

export const initialElection: ElectionState = {
  role: 'following',
  seen: undefined,
  until: 0,
  busy: undefined,
  stopping: false,
}

/** True while this replica may act as the leader. Asked again before each write. */
export const leadsAt = (state: ElectionState, now: number): boolean => state.role === 'leading' && now < state.until

/** One step. `now` is monotonic milliseconds. */
export function stepElection(
  state: ElectionState,
  event: ElectionEvent,
  now: number,
  timing: ElectionTiming,
): ElectionStep {
  if (state.role === 'done') return { state, effects: [] }
  // A leader that slept past its deadline hears of it before anything else, whatever woke it.
  if (state.role === 'leading' && now >= state.until) {
    const next = stepElection({ ...state, role: 'following' }, event, now, timing)
    return { ...next, effects: [lost, ...next.effects] }
  }
  if (event.type === 'stop') return stop(state, now, timing)
  if (event.type === 'tick') return state.busy ? { state, effects: [] } : begin(state, now, timing)
  const idle = { ...state, busy: undefined }
  if (event.type === 'read') return onRead(idle, event, now, timing)
  if (event.type === 'written') return onWritten(idle, state.busy?.at ?? now, event, now, timing)
  return onFailed(idle, event, now, timing)
}

const lost: ElectionEffect = { type: 'follow', reason: 'the lease could not be renewed in time' }

/** A leader renews what it wrote last without reading it first; everybody else reads. */
function begin(state: ElectionState, now: number, timing: ElectionTiming): ElectionStep {
  if (state.role === 'leading' && state.seen?.record.holder === timing.identity)
    return write(state, renewed(state.seen.record, timing), state.seen.version, false, now)
  return { state: { ...state, busy: { what: 'read', at: now } }, effects: [{ type: 'read' }] }
}

function onRead(
  state: ElectionState,
  { lease, chance }: { readonly lease: SeenLease | undefined; readonly chance: number },
  now: number,
  timing: ElectionTiming,
): ElectionStep {
  if (state.stopping) return finish(state)
  if (!lease) {
    const record = { holder: timing.identity, durationSeconds: seconds(timing), transitions: 0 }
    return write({ ...state, seen: undefined }, record, undefined, true, now)
  }
  const same = state.seen?.version === lease.version
  const seen = same ? state.seen! : { ...lease, at: now }
  const next = { ...state, seen }
  const { holder, durationSeconds, transitions } = lease.record
  if (holder === timing.identity) return write(next, renewed(lease.record, timing), lease.version, false, now)
  if (holder !== '' && now < seen.at + durationSeconds * 1000) {
    const after = retry(next, chance, timing)
    if (state.role === 'following') return after
    const reason = `${holder} holds the lease`
    return { state: { ...after.state, role: 'following' }, effects: [{ type: 'follow', reason }, ...after.effects] }
  }
  const record = { holder: timing.identity, durationSeconds: seconds(timing), transitions: transitions + 1 }
  return write(next, record, lease.version, true, now)
}

function onWritten(
  state: ElectionState,
  sentAt: number,
  { lease, chance }: { readonly lease: SeenLease; readonly chance: number },
  now: number,
  timing: ElectionTiming,
): ElectionStep {
  const until = sentAt + timing.renewDeadline
  const next = { ...state, seen: { ...lease, at: now }, until }
  if (state.stopping) return lease.record.holder === '' ? finish(next) : release(next, now)
  // The answer took longer than the deadline: it proves nothing any more.
  if (now >= until) {
    const after = retry({ ...next, role: 'following' as const }, chance, timing)
    return { ...after, effects: [...(state.role === 'leading' ? [lost] : []), ...after.effects] }
  }
  const wait: ElectionEffect = { type: 'wait', milliseconds: timing.retryPeriod }
  if (state.role === 'leading') return { state: next, effects: [wait] }
  return { state: { ...next, role: 'leading' }, effects: [{ type: 'lead' }, wait] }
}

function onFailed(
  state: ElectionState,
  { conflict, chance }: { readonly conflict: boolean; readonly chance: number },
  now: number,
  timing: ElectionTiming,
): ElectionStep {
  if (state.stopping) return finish(state)
  // Somebody else wrote: look at what stands there before anything is said of it.
  if (conflict && state.role === 'leading')
    return { state: { ...state, busy: { what: 'read', at: now } }, effects: [{ type: 'read' }] }
  return retry(state, chance, timing)
}

function retry(state: ElectionState, chance: number, { retryPeriod }: ElectionTiming): ElectionStep {
  const milliseconds = state.role === 'leading' ? retryPeriod : retryPeriod * (1 + chance * JITTER_FACTOR)
  return { state, effects: [{ type: 'wait', milliseconds }] }
}

function stop(state: ElectionState, now: number, timing: ElectionTiming): ElectionStep {
  const stopping = { ...state, role: 'following' as const, stopping: true }
  const effects: ElectionEffect[] = state.role === 'leading' ? [{ type: 'follow', reason: 'stopping' }] : []
  // What is under way is waited for: its answer says which version to give back.
  if (state.busy) return { state: stopping, effects }
  if (state.role !== 'leading' || state.seen?.record.holder !== timing.identity) {
    const end = finish(stopping)
    return { ...end, effects: [...effects, ...end.effects] }
  }
  const next = release(stopping, now)
  return { ...next, effects: [...effects, ...next.effects] }
}

/** As client-go gives a lease back: nobody holds it, for a second. */
function release(state: ElectionState, now: number): ElectionStep {
  const { record, version } = state.seen!
  return write(state, { holder: '', durationSeconds: 1, transitions: record.transitions }, version, true, now)
}

const finish = (state: ElectionState): ElectionStep => ({
  state: { ...state, role: 'done', busy: undefined },
  effects: [{ type: 'done' }],
})

function write(
  state: ElectionState,
  record: LeaseRecord,
  version: string | undefined,
  fresh: boolean,
  now: number,
): ElectionStep {
  return {
    state: { ...state, busy: { what: 'write', at: now } },
    effects: [{ type: 'write', record, version, fresh }],
  }
}

const renewed = (record: LeaseRecord, timing: ElectionTiming): LeaseRecord => ({
  ...record,
  durationSeconds: seconds(timing),
})

/** The duration as a Lease has it: whole seconds, at least one, never less than meant. */
const seconds = ({ leaseDuration }: ElectionTiming): number => Math.max(1, Math.ceil(leaseDuration / 1000))
