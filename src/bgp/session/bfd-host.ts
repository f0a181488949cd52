/**
 * All BFD sessions of a speaker: which there are, their sockets and their timers. It is meant for a thread with nothing else
 * to do, since a detection time of 150 ms leaves no room for somebody's long computation.
 *
 * Sources: RFC 5880 section 6.8.6 (which session a packet is of), RFC 5881, RFC 5883.
 */
import type { Socket } from 'node:dgram'
import type { Ip } from '../../net/ip.ts'
import { type BfdPacket, type BfdState, decodeBfdPacket, encodeBfdPacket } from '../../wire/bfd/packet.ts'
import {
  type BfdEvent,
  type BfdSession,
  type BfdSettings,
  detectionMicroseconds,
  makeBfdSession,
  nextDeadline,
  step,
  transmitIntervalMicroseconds,
} from '../bfd.ts'
import type { Clock, Endpoint, Timer } from '../transport.ts'
import { BFD_MULTIHOP_PORT, BFD_PORT, BFD_TTL, BfdSender, openBfdReceiver } from './bfd-sockets.ts'

export interface BfdPeer {
  /** The caller's name for the session. */
  readonly key: string
  readonly remote: Ip
  /** With a link-local address. */
  readonly device?: string | undefined
  readonly localAddress?: Ip | undefined
  readonly multihop: boolean
  /** Undefined: 3784, over several hops 4784. */
  readonly port?: number | undefined
  /** Over several hops: what a packet's TTL must still be, at least. */
  readonly minimumTtl?: number | undefined
  readonly settings: BfdSettings
}

export interface BfdChange {
  readonly key: string
  readonly from: BfdState
  readonly to: BfdState
  readonly diagnostic: number
  /** The peer's operator took the session down, which says nothing of the path (RFC 5882 section 3.2). */
  readonly byPeersOperator: boolean
  /** The peer's C bit: its BFD failing means that its forwarding failed (RFC 5882 section 4.3). */
  readonly controlPlaneIndependent: boolean
}

/** For `weft bgp neighbor`. Intervals in microseconds. */
export interface BfdReport {
  readonly key: string
  readonly state: BfdState
  readonly remoteState: BfdState
  readonly diagnostic: number
  readonly localDiscriminator: number
  readonly remoteDiscriminator: number
  readonly transmitMicroseconds: number
  /** 0 before anything was heard. */
  readonly detectionMicroseconds: number
  readonly sent: number
  readonly received: number
}

interface Held {
  peer: BfdPeer
  session: BfdSession
  readonly sender: BfdSender
  timer: Timer | undefined
  deadline: number
  sent: number
  received: number
}

interface Receiver {
  readonly socket: Socket
  readonly minimumTtl: number
}

const portOf = ({ port, multihop }: BfdPeer): number => port ?? (multihop ? BFD_MULTIHOP_PORT : BFD_PORT)
/** What a first packet, which does not know our discriminator, is told apart by. */
const placeOf = (remote: Ip, device: string | undefined, port: number): string =>
  `${remote}%${remote.isLinkLocal ? device : ''} ${port}`
const ownPlaceOf = (peer: BfdPeer): string => placeOf(peer.remote, peer.device, portOf(peer))
/** What cannot change while the session lives. */
const identityOf = (peer: BfdPeer): string => `${ownPlaceOf(peer)} ${peer.localAddress ?? ''} ${peer.multihop}`

export class BfdHost {
  readonly #clock: Clock
  readonly #changed: (change: BfdChange) => void
  readonly #problem: (key: string, problem: Error) => void
  readonly #byKey = new Map<string, Held>()
  readonly #byPlace = new Map<string, Held>()
  readonly #byDiscriminator = new Map<number, Held>()
  readonly #receivers = new Map<string, Receiver>()
  /** Packets that were of no session, or could not be read. */
  dropped = 0

  constructor(clock: Clock, changed: (change: BfdChange) => void, problem: (key: string, problem: Error) => void) {
    this.#clock = clock
    this.#changed = changed
    this.#problem = problem
  }

  /** Makes the sessions be these: new ones start, others learn of their settings, those that are gone say so to their peers. */
  setPeers(peers: readonly BfdPeer[]): void {
    const wanted = new Map(peers.map((peer) => [peer.key, peer]))
    for (const [key, held] of this.#byKey) {
      const peer = wanted.get(key)
      if (!peer || identityOf(peer) !== identityOf(held.peer)) this.#end(held)
    }
    this.#openReceivers(peers)
    for (const peer of peers) {
      const held = this.#byKey.get(peer.key)
      if (!held) this.#begin(peer)
      else {
        const same = JSON.stringify(held.peer.settings) === JSON.stringify(peer.settings)
        held.peer = peer
        if (!same) this.#step(held, { type: 'settings', settings: peer.settings })
      }
    }
  }

  reports(): BfdReport[] {
    return [...this.#byKey.values()].map(({ peer, session, sent, received }) => ({
      key: peer.key,
      state: session.state,
      remoteState: session.remoteState,
      diagnostic: session.diagnostic,
      localDiscriminator: session.localDiscriminator,
      remoteDiscriminator: session.remoteDiscriminator,
      transmitMicroseconds: transmitIntervalMicroseconds(session),
      detectionMicroseconds: detectionMicroseconds(session),
      sent,
      received,
    }))
  }

  /** Tells every peer that this is the operator's will, not a broken path. */
  close(): void {
    for (const held of [...this.#byKey.values()]) this.#end(held)
    for (const { socket } of this.#receivers.values()) socket.close()
    this.#receivers.clear()
  }

  #openReceivers(peers: readonly BfdPeer[]): void {
    const wanted = new Map<string, { family: 4 | 6; port: number; minimumTtl: number; keys: string[] }>()
    for (const peer of peers) {
      const { family } = peer.remote
      const name = `${family} ${portOf(peer)}`
      const minimumTtl = peer.multihop ? (peer.minimumTtl ?? 1) : BFD_TTL
      const known = wanted.get(name)
      wanted.set(name, {
        family,
        port: portOf(peer),
        minimumTtl: Math.min(minimumTtl, known?.minimumTtl ?? BFD_TTL),
        keys: [...(known?.keys ?? []), peer.key],
      })
    }
    for (const [name, { socket, minimumTtl }] of this.#receivers)
      if (wanted.get(name)?.minimumTtl !== minimumTtl) {
        socket.close()
        this.#receivers.delete(name)
      }
    for (const [name, { family, port, minimumTtl, keys }] of wanted) {
      if (this.#receivers.has(name)) continue
      try {
        const socket = openBfdReceiver(family, port, minimumTtl, (bytes, from) => this.#receive(bytes, from, port))
        this.#receivers.set(name, { socket, minimumTtl })
      } catch (error) {
        for (const key of keys) this.#problem(key, error as Error)
      }
    }
  }

  #begin(peer: BfdPeer): void {
    const place = ownPlaceOf(peer)
    const other = this.#byPlace.get(place)
    if (other) return this.#problem(peer.key, new Error(`BFD with ${peer.remote} is already that of ${other.peer.key}`))
    let sender: BfdSender
    try {
      const remote = { address: peer.remote, port: portOf(peer), device: peer.device }
      sender = new BfdSender(remote, peer.localAddress, this.#clock.random)
    } catch (error) {
      return this.#problem(peer.key, error as Error)
    }
    const session = makeBfdSession(peer.settings, this.#newDiscriminator())
    const held: Held = { peer, session, sender, timer: undefined, deadline: Infinity, sent: 0, received: 0 }
    this.#byKey.set(peer.key, held)
    this.#byPlace.set(place, held)
    this.#byDiscriminator.set(session.localDiscriminator, held)
    this.#step(held, { type: 'start' })
  }

  /** A random one: nobody beside the link can guess it. */
  #newDiscriminator(): number {
    for (;;) {
      const discriminator = Math.floor(this.#clock.random() * 0xffff_ffff) + 1
      if (!this.#byDiscriminator.has(discriminator)) return discriminator
    }
  }

  #end(held: Held): void {
    this.#byKey.delete(held.peer.key)
    this.#byPlace.delete(ownPlaceOf(held.peer))
    this.#byDiscriminator.delete(held.session.localDiscriminator)
    this.#step(held, { type: 'admin', down: true })
    held.timer?.cancel()
    held.sender.close()
  }

  #receive(bytes: Uint8Array, from: Endpoint, port: number): void {
    let packet: BfdPacket
    try {
      packet = decodeBfdPacket(bytes)
    } catch {
      this.dropped++
      return
    }
    const held =
      packet.yourDiscriminator !== 0
        ? this.#byDiscriminator.get(packet.yourDiscriminator)
        : this.#byPlace.get(placeOf(from.address, from.device, port))
    // Section 6.8.6 trusts the discriminator alone; an address that is not the peer's is nobody's honest packet.
    if (!held?.peer.remote.equals(from.address) || portOf(held.peer) !== port || packet.authentication) {
      this.dropped++
      return
    }
    held.received++
    this.#step(held, { type: 'packet', packet })
  }

  #step(held: Held, event: BfdEvent): void {
    const before = held.session
    const moment = { now: this.#clock.now(), random: this.#clock.random() }
    const { session, effects } = step(before, event, moment)
    held.session = session
    for (const effect of effects) {
      if (effect.do === 'send') {
        held.sent++
        held.sender.send(encodeBfdPacket(effect.packet))
      } else
        this.#changed({
          key: held.peer.key,
          from: effect.from,
          to: effect.to,
          diagnostic: effect.diagnostic,
          byPeersOperator: effect.byPeersOperator,
          controlPlaneIndependent: session.remoteControlPlaneIndependent,
        })
    }
    this.#arm(held)
  }

  /** A deadline that only moves away needs no new timer: the old one looks again. */
  #arm(held: Held): void {
    const deadline = nextDeadline(held.session)
    if (held.timer && deadline >= held.deadline) return
    held.timer?.cancel()
    held.deadline = deadline
    held.timer =
      deadline === Infinity
        ? undefined
        : this.#clock.at(deadline, () => {
            held.timer = undefined
            held.deadline = Infinity
            if (this.#byKey.get(held.peer.key) !== held) return
            if (this.#clock.now() < nextDeadline(held.session)) this.#arm(held)
            else this.#step(held, { type: 'timer' })
          })
  }
}
