/**
 * What the speaker stands on: byte streams to its peers, and time. It is handed both, so that the same speaker runs over
 * TCP in a worker thread and over simulated streams in virtual time, hundreds in one process.
 *
 * Sources: RFC 4271 section 8.2.1 (connections), RFC 2385 (MD5), RFC 5082 (TTL security), RFC 8950 and RFC 4007 (link-local
 * addresses and their zone).
 */
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'

/** One end of a stream. A link-local address is meant on a device. */
export interface Endpoint {
  readonly address: Ip
  readonly port: number
  readonly device?: string | undefined
}

/** An established byte stream. */
export interface Stream {
  readonly local: Endpoint
  readonly remote: Endpoint
  /**
   * Queues bytes, which nobody may change afterwards. False when so much waits that the sender shall hold back until
   * `drained`; the bytes are queued all the same.
   */
  send(bytes: Uint8Array): boolean
  /** Count of bytes that were sent and not yet taken over by the transport. */
  readonly queuedBytes: number
  /** Another rule from here on. */
  setTtl(rule: TtlRule): void
  /** Stops `data` until `resume`; the peer feels it through TCP's window. */
  pause(): void
  resume(): void
  /** Ends in order: what is queued goes out first. The listener hears nothing more. */
  close(): void
  /** Ends at once. The listener hears nothing more. */
  abort(): void
}

/** What a stream tells its owner. Nothing is told after `closed`, nor after the owner closed it. */
export interface StreamListener {
  /** Only after `connect`. */
  opened?(stream: Stream): void
  /** The bytes are the listener's during the call alone. */
  data(bytes: Uint8Array): void
  /** After a `send` that answered false. */
  drained(): void
  /** The attempt failed, or the peer or the network ended the stream. `reason` is for people. */
  closed(reason: string): void
}

/** How far away a peer may be. Of the time to live of what is sent, and the least that received packets may have. */
export interface TtlRule {
  /** Sent with this TTL: 1 for neighbours, more for multihop, 255 with TTL security. */
  readonly sendTtl: number
  /** Packets below are dropped by the kernel; undefined: any. */
  readonly minimumTtl?: number | undefined
}

export interface ConnectTarget extends TtlRule {
  readonly remote: Endpoint
  /** Source address; by routing when undefined. */
  readonly localAddress?: Ip | undefined
  /** TCP MD5 key; none when undefined. */
  readonly password?: string | undefined
}

/** Who may connect to us: a peer's address or a prefix of dynamic peers, on a device when link-local. */
export interface AcceptRule extends TtlRule {
  readonly from: Cidr
  readonly device?: string | undefined
  readonly password?: string | undefined
}

/** Where to listen and whom to let in. */
export interface ListenPlan {
  readonly endpoints: readonly Endpoint[]
  readonly rules: readonly AcceptRule[]
}

export interface Attempt {
  /** Gives up; the listener hears nothing more. No effect once opened. */
  cancel(): void
}

export interface Wire {
  connect(target: ConnectTarget, listener: StreamListener): Attempt
  /**
   * Replaces the plan. What stays the same stays open; keys and limits change on the living listeners. `accept` returns
   * the listener of a stream that somebody opened to us, or undefined to drop it.
   */
  listen(plan: ListenPlan, accept: (stream: Stream) => StreamListener | undefined): void
  /** Closes the listeners; streams are their owners'. */
  close(): void
}

export interface Timer {
  cancel(): void
}

/** Time and chance. */
export interface Clock {
  /** Milliseconds of a clock that never goes back. */
  now(): number
  /** Milliseconds since 1970, for people and files. */
  wallTime(): number
  /** Calls once, when `now()` has reached a time. */
  at(milliseconds: number, callback: () => void): Timer
  /** Calls after everything that waits to be read was read: work that is done in slices goes on there. */
  soon(callback: () => void): Timer
  /** A number in 0 ≤ x < 1. */
  random(): number
}
