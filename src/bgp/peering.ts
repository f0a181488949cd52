/**
 * One configured (or dynamic) peer: its connections, which of two survives, its session's routes on their way to and from
 * the RIB, its restarts, limits and counters. Everything that a peer sends ends here; nothing of one reaches another but
 * through the RIB.
 *
 * Sources: RFC 4271 sections 6.8 (collision) and 8; RFC 4486 and 8538 (Cease), RFC 7313 (refresh), RFC 7606 (faults), RFC 9003
 * (shutdown text), RFC 6286 section 2.3 (collision with equal identifiers), RFC 4724 section 5.
 */
import type {
  BgpEvent,
  BgpFamily,
  NotificationText,
  PeerConfig,
  PeerStatus,
  PeerTemplate,
  SessionState,
  SpeakerConfig,
} from '../model/bgp.ts'
import { Ip } from '../net/ip.ts'
import { CeaseCode } from '../wire/bgp/constants.ts'
import { type Fault, strongestReaction } from '../wire/bgp/error.ts'
import {
  cease,
  formatNotification,
  hardReset,
  type Notification,
  shutdownNotification,
} from '../wire/bgp/notification.ts'
import type { Open } from '../wire/bgp/open.ts'
import type { RouteRefresh } from '../wire/bgp/route-refresh.ts'
import { decodeUpdate, type UpdateBuffers } from '../wire/bgp/update.ts'
import { Connection, type ConnectionOwner, noMessages } from './connection.ts'
import type { PolicyLibrary } from './filter.ts'
import type { EndCause, FsmSettings } from './fsm.ts'
import { localAsnToward, type Negotiated, negotiate, offerOpen } from './negotiation.ts'
import type { PathState, WatchedPath } from './path-watch.ts'
import { bgpFamilyOfRoutes, PeerRestart, routeFamilyOf } from './peer-restart.ts'
import { formatPeerStatus } from './peer-status.ts'
import type { AttributeCache } from './rib/attribute-cache.ts'
import type { Rib } from './rib/interface.ts'
import type { PeerRouteCounts, RibPeer } from './rib/peer.ts'
import { ribPeerOf, type Surroundings } from './session-routes.ts'
import type { Attempt, Clock, Endpoint, Stream, StreamListener, Timer, TtlRule, Wire } from './transport.ts'

/** What a peering shares with the others of its speaker. */
export interface PeeringHost {
  readonly clock: Clock
  readonly wire: Wire
  readonly rib: Rib
  readonly cache: AttributeCache
  readonly buffers: UpdateBuffers
  readonly policies: PolicyLibrary
  readonly config: SpeakerConfig
  /** The speaker restarted and its routes were kept meanwhile. */
  readonly restarted: boolean
  surroundings(local: Endpoint): Surroundings
  /** The only neighbour on a device, for peers without an address. */
  neighbourOn(device: string): Ip | undefined
  event(event: BgpEvent): void
  log(level: LogLevel, peer: string, message: string, fields?: LogFields): void
  /** The RIB has work. */
  changed(): void
  /** A family of a peer has said all that there was at the start, or is not to be waited for. */
  settled(): void
  /** A dynamic peer has ended. */
  vanished(peering: Peering): void
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug'
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>

/** RFC 4271 section 8.2.2: "a HoldTimer value of 4 minutes is suggested"; no peer of ours needs half of it. */
const OPEN_SECONDS = 120
/** Faults that are told one by one; the others are counted. */
const FAULTS_TOLD_MAX = 20

export class Peering implements ConnectionOwner {
  readonly name: string
  readonly dynamic: boolean
  readonly #host: PeeringHost
  #config: PeerConfig
  readonly #restart: PeerRestart
  readonly counts = { received: noMessages(), sent: noMessages() }
  #main: Connection
  /** A connection of the peer's that met ours. */
  #other: Connection | undefined
  /** The connection whose session is established. */
  #session: Connection | undefined
  #told: SessionState = 'idle'
  #reason: string | undefined
  #sinceMs: number
  #establishedCount = 0
  #lastReceived: NotificationText | undefined
  #lastSent: NotificationText | undefined
  readonly #endOfRibReceived = new Set<BgpFamily>()
  readonly #endOfRibSent = new Set<BgpFamily>()
  readonly #refreshing = new Set<BgpFamily>()
  readonly #warned = new Set<BgpFamily>()
  /** Idle until something changes: by the operator or by max-prefixes. */
  #held = false
  #heldTimer: Timer | undefined
  #faultsTold = 0
  #complaint: string | undefined
  #path: PathState['state'] | undefined
  #removed = false

  constructor(host: PeeringHost, config: PeerConfig, dynamic: boolean) {
    this.#host = host
    this.#config = config
    this.name = config.name
    this.dynamic = dynamic
    this.#sinceMs = host.clock.wallTime()
    this.#main = new Connection(this, host.clock, this.counts)
    this.#restart = new PeerRestart(host.clock, {
      sweep: (family) => {
        if (host.rib.has(this.name)) host.rib.sweepStale(this.name, family)
        host.changed()
        if (this.dynamic) this.#vanishUnlessUsed()
      },
      keepLongLived: (family) => {
        if (host.rib.has(this.name)) host.rib.keepLongLived(this.name, family)
        host.changed()
      },
    })
  }

  get config(): PeerConfig {
    return this.#config
  }

  get negotiated(): Negotiated | undefined {
    return this.#session?.negotiated
  }

  get state(): SessionState {
    return this.#session?.phase ?? furthest(this.#main.phase, this.#other?.phase)
  }

  get settings(): FsmSettings {
    const { timers, passive } = this.#config
    return {
      passive: passive || this.dynamic,
      connectRetrySeconds: timers.connectRetrySeconds,
      openSeconds: OPEN_SECONDS,
      idleHoldSeconds: this.#host.config.damping?.idleHoldMinSeconds ?? timers.errorWaitMinSeconds,
      idleHoldMaxSeconds: this.#host.config.damping?.idleHoldMaxSeconds ?? timers.errorWaitMaxSeconds,
      stableSeconds: Math.max(60, timers.errorWaitMaxSeconds),
    }
  }

  // --- the operator's and the speaker's words ---

  start(): void {
    if (this.#config.shutdown) return this.#hold('administratively down')
    const afterMilliseconds = this.#config.timers.connectDelaySeconds * 1000
    this.#main.handle({ type: 'start', afterMilliseconds })
  }

  /** Ends for good; the speaker forgets it. */
  remove(subcode: number = CeaseCode.PEER_DECONFIGURED): void {
    this.#removed = true
    this.#stop(this.#hard(cease(subcode)))
    this.#heldTimer?.cancel()
    this.#restart.forget()
    this.#loseRoutes()
  }

  /** Closes its connections without a word: the process is about to stop, and the peer shall keep our routes (RFC 4724). */
  suspend(): void {
    this.#removed = true
    this.#heldTimer?.cancel()
    this.#restart.forget()
    for (const connection of [this.#main, this.#other]) connection?.suspend()
  }

  /** Ends the session and lets it begin again. */
  reset(text: string): void {
    this.#release()
    this.#endOther()
    const notification = shutdownNotification(CeaseCode.ADMINISTRATIVE_RESET, text)
    this.#main.handle({ type: 'reset', notification: this.#hard(notification) })
  }

  /** Asks the peer to send everything again; false when it does not know how. */
  askRefresh(): boolean {
    const negotiated = this.negotiated
    if (!negotiated?.routeRefresh) return false
    for (const family of negotiated.context.families) this.#session?.sendRouteRefresh(family, 'request')
    return true
  }

  /**
   * Another configuration of the same peer. What the OPENs say, where the peer is and its key cannot change under a session:
   * that resets it. Everything else takes effect at once.
   */
  reconfigure(config: PeerConfig, resets: boolean): void {
    const before = this.#config
    this.#config = config
    if (config.shutdown) {
      if (!before.shutdown || !this.#held) {
        this.#stop(this.#hard(shutdownNotification(CeaseCode.ADMINISTRATIVE_SHUTDOWN, config.shutdown.message)))
        this.#hold('administratively down')
      }
      return
    }
    if (before.shutdown || (this.#held && JSON.stringify(before) !== JSON.stringify(config))) {
      this.#release()
      this.#main.handle({ type: 'start' })
      return
    }
    if (resets) {
      this.#endOther()
      this.#main.handle({ type: 'reset', notification: cease(CeaseCode.OTHER_CONFIGURATION_CHANGE) })
      return
    }
    const session = this.#session
    if (!session) return
    session.stream?.setTtl(ttlRuleOf(this.#config, this.#isInternal()))
    const peer = this.#ribPeer(session)
    if (peer) this.#host.rib.reconfigure(peer)
    for (const { family } of config.families) this.#checkLimit(family)
    this.#host.changed()
  }

  /** The path that BFD is to watch; none without BFD, and as long as the peer has no address. */
  get watchedPath(): WatchedPath | undefined {
    const { bfd, device, localAddress } = this.#config
    const remote = this.address
    if (!bfd || !remote) return undefined
    return {
      peer: this.name,
      remote,
      device,
      localAddress: localAddress === undefined ? undefined : Ip.parse(localAddress),
      config: bfd,
    }
  }

  /**
   * BFD's word. A path that fails ends the session; the will of the peer's operator does not (RFC 5882 section 3.2). A peer
   * whose BFD shares the fate of its control plane may only be restarting, so its routes are kept as graceful restart has it;
   * of any other the forwarding has failed (section 4.3.2).
   */
  pathChanged(path: PathState): void {
    this.#path = path.state
    const session = this.#session
    if (!session || path.before !== 'up' || path.state === 'up' || path.byPeersOperator) return
    const reason = `BFD: ${path.reason}`
    if (this.negotiated?.restart && !path.controlPlaneIndependent) session.handle({ type: 'disconnected', reason })
    else session.handle({ type: 'fault', notification: this.#hard(cease(CeaseCode.BFD_DOWN)), reason })
  }

  /** The device's neighbour is known now, or is another. */
  neighbourChanged(): void {
    const { phase } = this.#main
    if (phase === 'connect' || (phase === 'active' && !this.settings.passive)) this.#main.handle({ type: 'found' })
  }

  // --- connections ---

  /** A stream that the peer opened; undefined refuses it. */
  accept(stream: Stream): StreamListener | undefined {
    if (this.#removed || this.#held) return undefined
    const { localAddress } = this.#config
    if (localAddress !== undefined && !stream.local.address.equals(Ip.parse(localAddress))) return undefined
    switch (this.#main.phase) {
      case 'idle':
        return undefined
      case 'active':
        this.#main.take(stream)
        return this.#main
      default: {
        // One of ours is on its way or stands: both go on until the OPENs tell which survives. Of several calls the last
        // counts, unless the one before has said who it is.
        if (this.#other && this.#other.phase !== 'open-sent') return undefined
        this.#endOther()
        const other = new Connection(this, this.#host.clock, this.counts)
        this.#other = other
        other.take(stream)
        return other
      }
    }
  }

  connect(listener: StreamListener): Attempt | undefined {
    const { device, port, localAddress, password } = this.#config
    const address = this.address
    if (!address) return undefined
    return this.#host.wire.connect(
      {
        remote: { address, port, device },
        localAddress: localAddress === undefined ? undefined : Ip.parse(localAddress),
        password,
        ...ttlRuleOf(this.#config, this.#isInternal()),
      },
      listener,
    )
  }

  /** Where the peer is: configured, or found on its device. */
  get address(): Ip | undefined {
    const { address, device } = this.#config
    if (address !== undefined) return Ip.parse(address)
    return this.#session?.stream?.remote.address ?? (device === undefined ? undefined : this.#host.neighbourOn(device))
  }

  offer(): Open {
    const restarted = this.#host.restarted && this.#establishedCount === 0
    const forwarding = this.#host.restarted || this.#establishedCount > 0
    return offerOpen(this.#host.config, this.#config, { restarted, forwarding })
  }

  negotiate(sent: Open, received: Open): Negotiated {
    return negotiate(this.#host.config, this.#config, sent, received)
  }

  /** Section 6.8, when one of two connections has an acceptable OPEN. */
  mayProceed(connection: Connection, negotiated: Negotiated): boolean {
    const rival = connection === this.#main ? this.#other : this.#main
    if (!rival) return true
    if (rival.phase === 'established') {
      // RFC 4724 section 5: with graceful restart a new connection of the peer's means that it lost the old one.
      if (!rival.negotiated?.restart) return false
      rival.handle({ type: 'disconnected', reason: 'the peer opened a new connection' })
      return true
    }
    if (rival.phase !== 'open-confirm') return true
    const survivor = survivingSide(negotiated)
    if (connection.openedBy !== survivor) return false
    rival.handle({ type: 'collision' })
    return true
  }

  stateChanged(connection: Connection): void {
    // A second connection is worth nothing without its stream.
    if (connection === this.#other && !isOpen(connection.phase)) {
      this.#other = undefined
      connection.discard()
    }
    // The connection that is left is the peering's.
    if (connection === this.#main && connection.phase === 'idle' && this.#other) {
      const other = this.#other
      this.#other = undefined
      this.#main = other
      other.inherit(connection.state)
      connection.discard()
    }
    if (this.dynamic && this.#main.phase === 'active') this.#vanishUnlessUsed()
    this.#tell()
  }

  established(connection: Connection, negotiated: Negotiated): void {
    const rival = connection === this.#main ? this.#other : this.#main
    if (rival) {
      this.#main = connection
      this.#other = undefined
      connection.inherit(rival.state)
      rival.handle({ type: 'collision' })
      rival.discard()
    }
    this.#session = connection
    this.#establishedCount++
    this.#reason = undefined
    this.#complaint = undefined
    for (const set of [this.#endOfRibReceived, this.#endOfRibSent, this.#refreshing, this.#warned]) set.clear()
    this.#faultsTold = 0
    const peer = this.#ribPeer(connection)
    if (peer) this.#host.rib.attach(peer)
    this.#restart.regained(negotiated)
    this.#host.log('info', this.name, 'session established', {
      remoteAsn: negotiated.remoteAsn,
      address: String(connection.stream?.remote.address),
      holdSeconds: negotiated.holdSeconds,
    })
    this.#host.changed()
    this.#host.settled()
  }

  ended(connection: Connection, from: SessionState, cause: EndCause): void {
    const reason = formatCause(cause)
    if (cause.by !== 'collision' && connection === this.#main) this.#reason = reason
    if (connection !== this.#session) {
      if (from !== 'connect' && from !== 'active' && cause.by !== 'collision') {
        // A peer that hangs up again and again is told of once, whatever word the kernel has for it.
        const kind = cause.by === 'transport' ? cause.by : reason
        this.#host.log(kind === this.#complaint ? 'debug' : 'warn', this.name, 'no session', { state: from, reason })
        this.#complaint = kind
      }
      return
    }
    this.#session = undefined
    const kept = this.#removed ? [] : this.#restart.lost(connection.negotiated!, cause)
    this.#loseRoutes(kept)
    this.#host.log('warn', this.name, 'session ended', { reason, kept: kept.join(' ') || undefined })
    this.#host.settled()
  }

  notified(direction: 'received' | 'sent', notification: Notification): void {
    const { code, subcode } = notification
    const text = { atMs: this.#host.clock.wallTime(), code, subcode, text: formatNotification(notification) }
    if (direction === 'received') this.#lastReceived = text
    else this.#lastSent = text
  }

  // --- routes ---

  update(body: Uint8Array): void {
    const { rib, cache, buffers } = this.#host
    const { context } = this.#session!.negotiated!
    const { unreach, reach, endOfRib, faults } = decodeUpdate(body, context, buffers)
    if (faults.length > 0) this.#tellFaults(faults)
    for (const run of unreach) rib.withdraw(this.name, run)
    for (const run of reach) {
      const { attributes, faults: within } = cache.decode(run.attributes, context)
      if (within.length > 0) this.#tellFaults(within)
      // RFC 7606 section 2: "treat-as-withdraw".
      if (strongestReaction(within) === 'treatAsWithdraw') rib.withdraw(this.name, run)
      else rib.announce(this.name, run, attributes)
    }
    const family = endOfRib === undefined ? undefined : bgpFamilyOfRoutes(endOfRib)
    if (family) this.#endOfRib(family)
    if (reach.length > 0) for (const each of this.#config.families) this.#checkLimit(each.family)
    this.#host.changed()
  }

  routeRefresh({ family: routes, kind }: RouteRefresh): void {
    const { rib } = this.#host
    const family = bgpFamilyOfRoutes(routes)
    const session = this.#session
    if (!family || !session?.negotiated?.context.families.has(routes)) return
    switch (kind) {
      case 'request':
        if (session.negotiated.enhancedRouteRefresh) {
          this.#refreshing.add(family)
          session.sendRouteRefresh(routes, 'begin')
        }
        rib.refresh(this.name, family)
        break
      // RFC 7313 section 4: what was not sent again between the two marks is gone.
      case 'begin':
        rib.markStale(this.name, family)
        break
      case 'end':
        rib.sweepStale(this.name, family)
        break
      default:
        return
    }
    this.#host.changed()
  }

  drained(): void {
    this.#host.rib.resume(this.name)
    this.#host.changed()
  }

  /** The RIB is another one: nothing of this peer is kept in it. */
  forgetRoutes(): void {
    this.#restart.forget()
  }

  /** The RIB's words. */
  send(bytes: Uint8Array, messages: number): boolean {
    return this.#session?.sendUpdates(bytes, messages) ?? true
  }

  endOfRibSent(family: BgpFamily): void {
    this.#endOfRibSent.add(family)
    if (this.#refreshing.delete(family)) this.#session?.sendRouteRefresh(routeFamilyOf(family), 'end')
  }

  /** Whether a peer is still to be waited for before routes are chosen after our restart (RFC 4724 section 4.1). */
  owes(family: BgpFamily): boolean {
    if (this.#config.shutdown || this.#held || this.dynamic) return false
    if (!this.#config.families.some((each) => each.family === family)) return false
    const negotiated = this.negotiated
    if (!negotiated) return true
    if (!negotiated.context.families.has(routeFamilyOf(family))) return false
    // "excluding those that have the Restart State bit set", and those that never promised an End-of-RIB.
    if (!negotiated.restart || negotiated.restart.restarted) return false
    return !this.#endOfRibReceived.has(family)
  }

  status(): PeerStatus {
    const negotiated = this.negotiated
    return formatPeerStatus({
      config: this.#config,
      state: this.state,
      address: this.address,
      reason: this.#reason,
      sinceMs: this.#sinceMs,
      establishedCount: this.#establishedCount,
      localAsn: negotiated?.localAsn ?? localAsnToward(this.#host.config, this.#config),
      negotiated,
      localAddress: this.#session?.stream?.local.address,
      counts: this.counts,
      lastReceived: this.#lastReceived,
      lastSent: this.#lastSent,
      path: this.#config.bfd && this.#path,
      routes: (family) => (this.#host.rib.has(this.name) ? this.#host.rib.counts(this.name, family) : noRoutes),
      endOfRibReceived: this.#endOfRibReceived,
      endOfRibSent: this.#endOfRibSent,
      internal: this.#isInternal(),
    })
  }

  // --- inside ---

  #endOfRib(family: BgpFamily): void {
    this.#endOfRibReceived.add(family)
    this.#restart.swept(family)
    this.#host.settled()
  }

  #tellFaults(faults: readonly Fault[]): void {
    for (const { reaction, problem } of faults) {
      if (this.#faultsTold++ >= FAULTS_TOLD_MAX) return
      this.#host.log('warn', this.name, 'malformed UPDATE', { problem, reaction })
    }
  }

  #checkLimit(family: BgpFamily): void {
    const limits = this.#config.families.find((each) => each.family === family)?.maxPrefixes
    if (!limits || !this.#session) return
    const { received } = this.#host.rib.counts(this.name, family)
    const { limit, warnPercent, action, restartSeconds } = limits
    const warns = received > (limit * warnPercent) / 100
    if (!warns) return void this.#warned.delete(family)
    if (!this.#warned.has(family)) {
      this.#warned.add(family)
      this.#host.log('warn', this.name, 'many prefixes', { family, received, limit })
      this.#host.event({ type: 'max-prefixes', peer: this.name, family, count: received })
    }
    if (received <= limit || action === 'warn') return
    // RFC 4486 section 4: AFI, SAFI and the limit.
    const data = Uint8Array.of(0, family === 'ipv4' ? 1 : 2, 1, limit >>> 24, limit >>> 16, limit >>> 8, limit)
    this.#stop(this.#hard({ ...cease(CeaseCode.MAXIMUM_PREFIXES_REACHED), data }))
    this.#hold(`${received} prefixes of ${family}, ${limit} are allowed`)
    if (action === 'restart')
      this.#heldTimer = this.#host.clock.at(this.#host.clock.now() + (restartSeconds ?? 60) * 1000, () => {
        this.#release()
        this.#main.handle({ type: 'start' })
      })
  }

  /** RFC 8538 section 3: with the Notification bit only a hard reset ends forwarding too. */
  #hard(notification: Notification): Notification {
    return this.negotiated?.restart?.notification ? hardReset(notification) : notification
  }

  #stop(notification: Notification): void {
    this.#endOther()
    this.#main.handle({ type: 'stop', notification })
  }

  #endOther(): void {
    const other = this.#other
    this.#other = undefined
    other?.handle({ type: 'collision' })
    other?.discard()
  }

  #hold(reason: string): void {
    this.#held = true
    this.#reason = reason
    this.#host.settled()
  }

  #release(): void {
    this.#held = false
    this.#heldTimer?.cancel()
    this.#heldTimer = undefined
  }

  #loseRoutes(kept: readonly BgpFamily[] = []): void {
    if (!this.#host.rib.has(this.name)) return
    if (kept.length > 0) this.#host.rib.lose(this.name, 'keep stale', kept)
    else this.#host.rib.lose(this.name, 'withdraw')
    this.#host.changed()
  }

  #ribPeer(session: Connection): RibPeer | undefined {
    const { negotiated, stream } = session
    if (!negotiated || !stream) return undefined
    return ribPeerOf(this.#host.config, this.#config, negotiated, stream, this.#host)
  }

  #isInternal(): boolean {
    const { remoteAsn } = this.#config
    if (this.negotiated) return this.negotiated.context.peerType === 'internal'
    return remoteAsn === 'internal' || remoteAsn === localAsnToward(this.#host.config, this.#config)
  }

  /** A dynamic peer stays for as long as its errors are damped; then it is forgotten, unless it is here again. */
  #vanishUnlessUsed(): void {
    this.#host.clock.soon(() => {
      if (this.#main.phase !== 'active' || this.#other || this.#restart.stale.length > 0 || this.#removed) return
      this.#removed = true
      this.#main.discard()
      this.#host.vanished(this)
    })
  }

  #tell(): void {
    const state = this.state
    if (state === this.#told) return
    if ((state === 'established') !== (this.#told === 'established')) this.#sinceMs = this.#host.clock.wallTime()
    this.#told = state
    const reason = state === 'established' || this.#reason === undefined ? {} : { reason: this.#reason }
    this.#host.event({ type: 'session', peer: this.name, state, ...reason })
  }
}

const noRoutes: PeerRouteCounts = { received: 0, accepted: 0, best: 0, sent: 0, stale: 0 }

const isOpen = (phase: SessionState): boolean =>
  phase === 'open-sent' || phase === 'open-confirm' || phase === 'established'

const order: readonly SessionState[] = ['idle', 'connect', 'active', 'open-sent', 'open-confirm', 'established']
const furthest = (a: SessionState, b: SessionState | undefined): SessionState =>
  b !== undefined && order.indexOf(b) > order.indexOf(a) ? b : a

/**
 * Section 6.8: "the connection initiated by the BGP speaker with the higher-valued BGP Identifier" is kept; of equal ones the
 * higher AS decides (RFC 6286 section 2.3).
 */
const survivingSide = ({ sent, received }: Negotiated): 'us' | 'peer' => {
  if (sent.identifier !== received.identifier) return sent.identifier > received.identifier ? 'us' : 'peer'
  return sent.asn > received.asn ? 'us' : 'peer'
}

/** TTL of a peer's packets and of ours (RFC 5082 section 3; one hop toward external neighbours). */
export function ttlRuleOf({ ttlSecurityHops, multihopTtl }: PeerTemplate, internal: boolean): TtlRule {
  if (ttlSecurityHops !== undefined) return { sendTtl: 255, minimumTtl: 256 - ttlSecurityHops }
  return { sendTtl: multihopTtl ?? (internal ? 64 : 1) }
}

function formatCause(cause: EndCause): string {
  switch (cause.by) {
    case 'transport':
      return cause.reason
    case 'sent':
      return `sent ${formatNotification(cause.notification)} (${cause.reason})`
    case 'received':
      return `received ${formatNotification(cause.notification)}`
    case 'collision':
      return 'the other connection was kept'
  }
}
