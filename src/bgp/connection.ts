/**
 * One connection of a peering: its stream, its state machine and the framing of messages. Bytes come as they like; whole
 * messages go to the owner. What the machine decides is carried out here; what it means for routes is the owner's.
 *
 * A peer that sends slowly keeps at most one message's bytes here, and only whole messages count as a sign of life.
 *
 * Sources: RFC 4271 sections 4.1, 6.1, 8; RFC 8654 (messages of up to 65535 bytes).
 */
import { DecodeError } from '../bytes/errors.ts'
import type { MessageCounts, SessionState } from '../model/bgp.ts'
import { HEADER_BYTES, MESSAGE_BYTES_MAX, MessageType } from '../wire/bgp/constants.ts'
import { BgpError } from '../wire/bgp/error.ts'
import type { RouteFamily } from '../wire/bgp/family.ts'
import { beginMessage, decodeHeader, endMessage } from '../wire/bgp/header.ts'
import { decodeNotification, encodeNotification, type Notification } from '../wire/bgp/notification.ts'
import { decodeOpen, encodeOpen, type Open } from '../wire/bgp/open.ts'
import {
  decodeRouteRefresh,
  encodeRouteRefresh,
  type RefreshKind,
  type RouteRefresh,
} from '../wire/bgp/route-refresh.ts'
import {
  type EndCause,
  type FsmEffect,
  type FsmEvent,
  type FsmSettings,
  type FsmState,
  initialState,
  nextDeadline,
  step,
} from './fsm.ts'
import type { Negotiated } from './negotiation.ts'
import type { Attempt, Clock, Stream, StreamListener, Timer } from './transport.ts'

/** What a connection asks of its peering. */
export interface ConnectionOwner {
  readonly settings: FsmSettings
  /** Calls the peer; undefined when nobody knows where it is. */
  connect(listener: StreamListener): Attempt | undefined
  offer(): Open
  /** What both OPENs agree upon; throws BgpError. */
  negotiate(sent: Open, received: Open): Negotiated
  /** An acceptable OPEN came: false when another connection survives instead of this one. */
  mayProceed(connection: Connection, negotiated: Negotiated): boolean
  stateChanged(connection: Connection, before: SessionState): void
  established(connection: Connection, negotiated: Negotiated): void
  ended(connection: Connection, from: SessionState, cause: EndCause): void
  /** A whole UPDATE without its header, the owner's during the call; throws BgpError. */
  update(body: Uint8Array): void
  routeRefresh(message: RouteRefresh): void
  /** After `send` answered false. */
  drained(): void
  notified(direction: 'received' | 'sent', notification: Notification): void
}

type Counts = { -readonly [K in keyof MessageCounts]: MessageCounts[K] }
export const noMessages = (): Counts => ({
  open: 0,
  update: 0,
  keepalive: 0,
  notification: 0,
  routeRefresh: 0,
  bytes: 0,
})

const keepaliveBytes = endMessage(beginMessage(MessageType.KEEPALIVE)).slice()

export class Connection implements StreamListener {
  readonly #owner: ConnectionOwner
  readonly #clock: Clock
  #state: FsmState
  #stream: Stream | undefined
  #attempt: Attempt | undefined
  #timer: Timer | undefined
  #timerAt = Number.POSITIVE_INFINITY
  #openedBy: 'us' | 'peer' | undefined
  #sentOpen: Open | undefined
  #negotiated: Negotiated | undefined
  /** The beginning of a message whose end has not come. */
  #partial = new Uint8Array(MESSAGE_BYTES_MAX)
  #partialLength = 0
  readonly received: Counts
  readonly sent: Counts

  /** Counts are the peering's and outlive its connections. */
  constructor(owner: ConnectionOwner, clock: Clock, counts: { readonly received: Counts; readonly sent: Counts }) {
    this.#owner = owner
    this.#clock = clock
    this.#state = initialState(owner.settings)
    this.received = counts.received
    this.sent = counts.sent
  }

  get phase(): SessionState {
    return this.#state.phase
  }
  get state(): FsmState {
    return this.#state
  }
  get stream(): Stream | undefined {
    return this.#stream
  }
  get negotiated(): Negotiated | undefined {
    return this.#negotiated
  }
  /** Who opened the stream (section 6.8). */
  get openedBy(): 'us' | 'peer' | undefined {
    return this.#openedBy
  }

  /** Takes over what damping knows of another connection of the same peering. */
  inherit({ connectRetryCounter, idleHoldSeconds }: FsmState): void {
    this.#state = { ...this.#state, connectRetryCounter, idleHoldSeconds }
  }

  /** A stream that the peer opened. Only in a state that takes one: active, or a second connection's. */
  take(stream: Stream): void {
    this.#stream = stream
    this.#openedBy = 'peer'
    if (this.#state.phase === 'idle') this.#state = { ...this.#state, phase: 'active' }
    this.handle({ type: 'connected' })
  }

  /** One step of the machine, its effects, and the timer for its next deadline. */
  handle(event: FsmEvent): void {
    const before = this.#state.phase
    const moment = { now: this.#clock.now(), random: this.#clock.random() }
    const { state, effects } = step(this.#state, event, moment, this.#owner.settings)
    this.#state = state
    for (const effect of effects) this.#perform(effect)
    this.#arm()
    if (this.#state.phase !== before) this.#owner.stateChanged(this, before)
  }

  /** Stops its timer: nobody owns it any more. */
  discard(): void {
    this.#disarm()
  }

  /** Closes what is open, without a NOTIFICATION, and does nothing more. */
  suspend(): void {
    this.discard()
    this.#attempt?.cancel()
    this.#stream?.close()
    this.#attempt = undefined
    this.#stream = undefined
  }

  /** Queues whole messages; false when the peer should read first. */
  sendUpdates(bytes: Uint8Array, messages: number): boolean {
    this.sent.update += messages
    const more = this.#send(bytes)
    if (!more) this.handle({ type: 'blocked' })
    return more
  }

  sendRouteRefresh(family: RouteFamily, kind: RefreshKind): void {
    this.sent.routeRefresh++
    this.#send(encodeRouteRefresh(family, kind).slice())
  }

  // --- the stream's words ---

  opened(stream: Stream): void {
    this.#attempt = undefined
    this.#stream = stream
    this.#openedBy = 'us'
    this.handle({ type: 'connected' })
  }

  closed(reason: string): void {
    this.#attempt = undefined
    this.#stream = undefined
    this.handle({ type: 'disconnected', reason })
  }

  drained(): void {
    this.handle({ type: 'drained' })
    this.#owner.drained()
  }

  data(bytes: Uint8Array): void {
    this.received.bytes += bytes.length
    const stream = this.#stream
    let updates = this.received.update
    try {
      this.#consume(bytes, stream)
    } catch (error) {
      if (error instanceof BgpError) {
        const { code, subcode, data, message } = error
        this.handle({ type: 'fault', notification: { code, subcode, data }, reason: message })
      } else if (error instanceof DecodeError) {
        // A decoder that knows no reaction: the strongest one.
        this.handle({ type: 'fault', notification: malformed, reason: error.message })
      } else throw error
    }
    updates = this.received.update - updates
    if (updates > 0 && this.#stream === stream && this.#state.phase === 'established') this.handle({ type: 'update' })
  }

  #consume(bytes: Uint8Array, stream: Stream | undefined): void {
    let at = 0
    while (this.#stream === stream && this.#partialLength + bytes.length - at > 0) {
      if (this.#partialLength > 0) {
        at = this.#complete(bytes, at)
        if (at < 0) return
        continue
      }
      const header = decodeHeader(bytes, this.#messageBytesMax, at)
      if (!header || at + header.length > bytes.length) {
        // The length that a header claims is bounded before a byte of it is waited for.
        this.#keep(bytes.subarray(at))
        return
      }
      this.#message(header.type, bytes.subarray(at + HEADER_BYTES, at + header.length))
      at += header.length
    }
  }

  /** Adds to the message whose beginning is kept; where the next one begins, or -1 when its end has not come. */
  #complete(bytes: Uint8Array, from: number): number {
    let at = from
    const headerRest = Math.max(0, HEADER_BYTES - this.#partialLength)
    this.#keep(bytes.subarray(at, at + headerRest))
    at = Math.min(at + headerRest, bytes.length)
    const header = decodeHeader(this.#partial, this.#messageBytesMax, 0, this.#partialLength)
    if (!header) return -1
    const rest = header.length - this.#partialLength
    this.#keep(bytes.subarray(at, at + rest))
    if (this.#partialLength < header.length) return -1
    this.#partialLength = 0
    this.#message(header.type, this.#partial.subarray(HEADER_BYTES, header.length))
    return at + rest
  }

  #keep(bytes: Uint8Array): void {
    const length = this.#partialLength + bytes.length
    if (length > this.#partial.length) {
      const grown = new Uint8Array(this.#messageBytesMax)
      grown.set(this.#partial.subarray(0, this.#partialLength))
      this.#partial = grown
    }
    this.#partial.set(bytes, this.#partialLength)
    this.#partialLength = length
  }

  get #messageBytesMax(): number {
    return this.#negotiated?.context.messageBytesMax ?? MESSAGE_BYTES_MAX
  }

  #message(type: number, body: Uint8Array): void {
    switch (type) {
      case MessageType.OPEN:
        this.received.open++
        this.#open(decodeOpen(body))
        return
      case MessageType.UPDATE:
        this.received.update++
        // Section 8.2.2: out of place in every other state. In place the machine hears of it once per chunk.
        if (this.#state.phase === 'established') this.#owner.update(body)
        else this.handle({ type: 'update' })
        return
      case MessageType.NOTIFICATION: {
        this.received.notification++
        const notification = decodeNotification(body)
        this.#owner.notified('received', notification)
        this.handle({ type: 'notification', notification })
        return
      }
      case MessageType.KEEPALIVE:
        this.received.keepalive++
        this.handle({ type: 'keepalive' })
        return
      default: {
        this.received.routeRefresh++
        const phase = this.#state.phase
        this.handle({ type: 'update' })
        if (phase === 'established') this.#owner.routeRefresh(decodeRouteRefresh(body))
      }
    }
  }

  #open(received: Open): void {
    const sent = this.#sentOpen
    if (this.#state.phase !== 'open-sent' || !sent) {
      // Without an agreement there is nothing to hand over; the machine refuses an OPEN out of place whatever it says.
      if (this.#negotiated) this.handle({ type: 'open', negotiated: this.#negotiated })
      return
    }
    const negotiated = this.#owner.negotiate(sent, received)
    if (!this.#owner.mayProceed(this, negotiated)) return this.handle({ type: 'collision' })
    this.#negotiated = negotiated
    this.handle({ type: 'open', negotiated })
  }

  // --- the machine's effects ---

  #perform(effect: FsmEffect): void {
    switch (effect.do) {
      case 'connect':
        this.#attempt = this.#owner.connect(this)
        return
      case 'disconnect':
        this.#attempt?.cancel()
        this.#attempt = undefined
        this.#stream?.close()
        this.#stream = undefined
        return
      case 'sendOpen':
        this.#partialLength = 0
        this.#negotiated = undefined
        this.#sentOpen = this.#owner.offer()
        this.sent.open++
        this.#send(encodeOpen(this.#sentOpen).slice())
        return
      case 'sendKeepalive':
        this.sent.keepalive++
        this.#send(keepaliveBytes)
        return
      case 'sendNotification':
        this.sent.notification++
        this.#owner.notified('sent', effect.notification)
        this.#send(encodeNotification(effect.notification).slice())
        return
      case 'established':
        this.#owner.established(this, this.#negotiated!)
        return
      case 'ended':
        this.#owner.ended(this, effect.phase, effect.cause)
    }
  }

  #send(bytes: Uint8Array): boolean {
    this.sent.bytes += bytes.length
    return this.#stream?.send(bytes) ?? true
  }

  #arm(): void {
    const deadline = nextDeadline(this.#state)
    // An earlier wake-up finds nothing due and arms again: cheaper than a new timer for every message.
    if (deadline >= this.#timerAt) {
      if (deadline === Number.POSITIVE_INFINITY) this.#disarm()
      return
    }
    this.#disarm()
    this.#timerAt = deadline
    this.#timer = this.#clock.at(deadline, () => {
      // What lies in the socket counts as heard: a busy thread must not take its own slowness for the peer's silence.
      this.#timer = this.#clock.soon(() => {
        this.#timer = undefined
        this.#timerAt = Number.POSITIVE_INFINITY
        this.handle({ type: 'timer' })
      })
    })
  }

  #disarm(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
  }
}

const malformed: Notification = { code: 3, subcode: 0, data: new Uint8Array(0) }
