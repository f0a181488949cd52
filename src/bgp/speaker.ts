/**
 * The whole speaker: peerings, one RIB, policies, and what holds them together. It stands on a `Wire` and a `Clock` alone; its
 * host gives it the machine's addresses and takes its events. A new configuration is compared with the old one, and only
 * what the protocol cannot change under a session resets one.
 *
 *   SpeakerConfig ─► configure ─► peerings ◄─streams─► Wire
 *   LocalRoute[] ──► setLocalRoutes ─► RIB ─► events (chosen routes), UPDATEs to peerings
 *
 * Sources: RFC 4271 sections 3 and 8.2; RFC 4724 section 4.1 (restart and deferral), RFC 4486 (why a session is reset).
 */
import { EncodeError } from '../bytes/errors.ts'
import type {
  BgpEvent,
  BgpFamily,
  DynamicPeerConfig,
  LocalRoute,
  PeerConfig,
  PrefixText,
  RibRoute,
  SpeakerConfig,
  SpeakerStatus,
} from '../model/bgp.ts'
import { ConfigError } from '../model/errors.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { CeaseCode } from '../wire/bgp/constants.ts'
import { encodeOpen } from '../wire/bgp/open.ts'
import { UpdateBuffers } from '../wire/bgp/update.ts'
import { PolicyLibrary } from './filter.ts'
import { LeakWatch } from './leak-watch.ts'
import { localAsnToward, offerOpen } from './negotiation.ts'
import type { PathState, WatchedPath } from './path-watch.ts'
import { type LogFields, type LogLevel, Peering, type PeeringHost, ttlRuleOf } from './peering.ts'
import { AttributeCache } from './rib/attribute-cache.ts'
import type { Candidate, Rib } from './rib/interface.ts'
import type { NextHopResolver, RibOptions } from './rib/peer.ts'
import { createRib } from './rib/rib.ts'
import type { Surroundings } from './session-routes.ts'
import type { AcceptRule, Clock, Endpoint, ListenPlan, Stream, StreamListener, Timer, Wire } from './transport.ts'

/** What the speaker asks of the machine that it runs on, and where its words go. */
export interface SpeakerHost {
  event(event: BgpEvent): void
  log(level: LogLevel, message: string, fields: LogFields): void
  /** Addresses and networks of the device that has one of our addresses. */
  surroundings(local: Endpoint): Surroundings
  resolveNextHop: NextHopResolver
  /** BFD is to watch these paths and no others; told when they change. */
  watchPaths?(paths: readonly WatchedPath[]): void
  /** False: nobody hears `routes` events just now. */
  wantsRoutes?(): boolean
}

export interface SpeakerOptions {
  readonly config: SpeakerConfig
  readonly wire: Wire
  readonly clock: Clock
  readonly host: SpeakerHost
  /** The kernel still has the routes of the speaker that ran here before (RFC 4724: the Restart State bit). */
  readonly restarted: boolean
}

/** Which routes: of the local RIB, or as received from or sent to one peer. */
export type RouteView = { readonly view: 'local' } | { readonly view: 'in' | 'out'; readonly peer: string }

const families: readonly BgpFamily[] = ['ipv4', 'ipv6']
/** Prefixes of one slice of the RIB's work: a few milliseconds. */
const WORK_BUDGET = 4096

export class Speaker implements PeeringHost {
  readonly clock: Clock
  readonly wire: Wire
  rib: Rib
  readonly cache = new AttributeCache()
  readonly buffers = new UpdateBuffers()
  readonly policies = new PolicyLibrary()
  readonly restarted: boolean
  #config: SpeakerConfig
  readonly #host: SpeakerHost
  readonly #peerings = new Map<string, Peering>()
  readonly #neighbours = new Map<string, Ip>()
  #localRoutes: ReadonlyMap<PrefixText, LocalRoute> = new Map()
  #work: Timer | undefined
  #deferral: Timer | undefined
  #holding = false
  readonly #unsettled = new Set<BgpFamily>(families)
  readonly #leaks: LeakWatch
  #stopped = false

  /** Throws ConfigError when a peer names a policy that is not there. */
  constructor({ config, wire, clock, host, restarted }: SpeakerOptions) {
    this.clock = clock
    this.wire = wire
    this.restarted = restarted
    this.#config = config
    this.#host = host
    this.#loadPolicies(config)
    this.rib = this.#openRib(config)
    this.#leaks = new LeakWatch(clock, () => ({
      ownership: this.#config.ownership,
      event: (event) => this.event(event),
      received: () => this.#received(),
    }))
  }

  get config(): SpeakerConfig {
    return this.#config
  }

  /** Listens and begins to call. Throws KernelError when it cannot listen. */
  start(): void {
    if (this.restarted) {
      this.#holding = true
      this.rib.hold()
    }
    this.wire.listen(this.#listenPlan(), (stream) => this.#accept(stream))
    for (const peer of this.#config.peers) this.#add(peer)
    this.#watchPaths()
    this.#deferral = this.clock.at(this.clock.now() + this.#config.deferralSeconds * 1000, () => {
      this.#deferral = undefined
      this.settled()
    })
    this.settled()
  }

  /** Makes a configuration the living one. Throws ConfigError before anything is changed. */
  configure(next: SpeakerConfig): void {
    const before = this.#config
    try {
      this.#loadPolicies(next)
    } catch (error) {
      this.policies.load(before)
      throw error
    }
    this.#config = next
    // What the decision itself is made of belongs to a RIB for as long as it lives.
    const renews = JSON.stringify(ribOptionsOf(before)) !== JSON.stringify(ribOptionsOf(next))
    const wanted = new Map(next.peers.map((peer) => [peer.name, peer]))
    for (const peering of [...this.#peerings.values()]) {
      const config = peering.dynamic ? this.#dynamicConfig(peering) : wanted.get(peering.name)
      if (config) peering.reconfigure(config, renews || demandsReset(before, peering.config, next, config))
      else this.#remove(peering)
    }
    if (renews) this.#renewRib()
    this.#listen()
    for (const peer of next.peers) if (!this.#peerings.has(peer.name)) this.#add(peer)
    this.#watchPaths()
    this.settled()
    this.changed()
  }

  /** All routes that we originate; those of before that are not among them are withdrawn. */
  setLocalRoutes(routes: readonly LocalRoute[]): void {
    const next = new Map(routes.map((route) => [route.prefix, route]))
    for (const prefix of this.#localRoutes.keys()) if (!next.has(prefix)) this.rib.removeLocal(prefix)
    for (const route of next.values()) {
      const before = this.#localRoutes.get(route.prefix)
      if (before === undefined || JSON.stringify(before) !== JSON.stringify(route)) this.rib.setLocal(route)
    }
    this.#localRoutes = next
    this.changed()
  }

  /** The neighbour on a device, for peers that are configured by the device alone; undefined: it is gone. */
  setNeighbour(device: string, address: Ip | undefined): void {
    const before = this.#neighbours.get(device)
    if (address === undefined ? before === undefined : before?.equals(address)) return
    if (address) this.#neighbours.set(device, address)
    else this.#neighbours.delete(device)
    for (const peering of this.#peerings.values())
      if (peering.config.device === device && peering.config.address === undefined && address)
        peering.neighbourChanged()
    this.#watchPaths()
  }

  /** BFD's word about a peer's path. */
  setPath(peer: string, path: PathState): void {
    this.#peerings.get(peer)?.pathChanged(path)
  }

  /** The kernel's routes changed. */
  nextHopsChanged(): void {
    this.rib.nextHopsChanged()
    this.changed()
  }

  /** Ends a session and lets it begin again; false when there is no such peer. */
  reset(peer: string, text: string): boolean {
    const peering = this.#find(peer)
    peering?.reset(text)
    return peering !== undefined
  }

  /** Asks a peer for all its routes once more; false when there is none such, or it does not know how. */
  askRefresh(peer: string): boolean {
    return this.#find(peer)?.askRefresh() ?? false
  }

  /**
   * The end. With `keepRoutes` connections are closed without a word, and peers with graceful restart keep our routes until
   * we are back; otherwise they are told so.
   */
  stop({ keepRoutes }: { readonly keepRoutes: boolean }): void {
    this.#stopped = true
    this.wire.close()
    for (const peering of this.#peerings.values())
      if (keepRoutes) peering.suspend()
      else peering.remove(CeaseCode.ADMINISTRATIVE_SHUTDOWN)
    this.#peerings.clear()
    this.#work?.cancel()
    this.#deferral?.cancel()
    this.#leaks.close()
  }

  status(): SpeakerStatus {
    const { asn, routerId, clusterId, listen } = this.#config
    return {
      asn,
      routerId,
      ...(clusterId === undefined ? {} : { clusterId }),
      listen,
      peers: [...this.#peerings.values()].map((peering) => peering.status()),
      rib: this.rib.size,
      attributeSets: this.rib.attributeSets,
    }
  }

  /** Routes one by one; undefined when there is no such peer. The RIB must not change while they are read. */
  routes(view: RouteView, family: BgpFamily): Iterable<RibRoute> | undefined {
    if (view.view === 'local') return this.rib.local(family)
    const peering = this.#find(view.peer)
    if (!peering) return undefined
    if (!this.rib.has(peering.name)) return []
    return view.view === 'in' ? this.rib.adjIn(peering.name, family) : this.rib.adjOut(peering.name, family)
  }

  why(prefix: PrefixText): readonly Candidate[] {
    return this.rib.why(prefix)
  }

  // --- what peerings ask ---

  surroundings(local: Endpoint): Surroundings {
    return this.#host.surroundings(local)
  }

  neighbourOn(device: string): Ip | undefined {
    return this.#neighbours.get(device)
  }

  event(event: BgpEvent): void {
    if (!this.#stopped) this.#host.event(event)
  }

  log(level: LogLevel, peer: string, message: string, fields: LogFields = {}): void {
    this.#host.log(level, message, { peer, ...fields })
  }

  changed(): void {
    if (this.#stopped) return
    if (this.#config.ownership.length > 0) this.#leaks.changed()
    this.#work ??= this.clock.soon(() => this.#slice())
  }

  settled(): void {
    if (this.#unsettled.size === 0 || this.#stopped) return
    const waits = (family: BgpFamily): boolean =>
      this.#deferral !== undefined && [...this.#peerings.values()].some((peering) => peering.owes(family))
    if ([...this.#unsettled].every((family) => !waits(family)) && this.#holding) {
      this.#holding = false
      this.rib.release()
    }
    // Told by the slice that finds nothing more to do: the routes come first.
    this.changed()
  }

  vanished(peering: Peering): void {
    if (this.#peerings.get(peering.name) !== peering) return
    this.#peerings.delete(peering.name)
    this.log('debug', peering.name, 'dynamic peer forgotten')
    this.#watchPaths()
  }

  // --- inside ---

  *#received(): Generator<{ peer: string; routes: Iterable<RibRoute> }> {
    for (const { name } of this.#peerings.values())
      if (this.rib.has(name)) for (const family of families) yield { peer: name, routes: this.rib.adjIn(name, family) }
  }

  #openRib(config: SpeakerConfig): Rib {
    return createRib(ribOptionsOf(config), this.#host.resolveNextHop, {
      send: (peer, bytes, messages) => this.#peerings.get(peer)?.send(bytes, messages) ?? true,
      endOfRibSent: (peer, family) => this.#peerings.get(peer)?.endOfRibSent(family),
      chosen: (_family, routes) => this.event({ type: 'routes', routes }),
      wantsChosen: () => this.#host.wantsRoutes?.() ?? true,
    })
  }

  /** Every session was reset. What was chosen is told again as it comes back; what does not come back is told as gone. */
  #renewRib(): void {
    const gone = families.flatMap((family) => [...this.rib.local(family)].map(({ prefix }) => prefix))
    for (const peering of this.#peerings.values()) peering.forgetRoutes()
    this.rib = this.#openRib(this.#config)
    this.event({
      type: 'routes',
      routes: [...new Set(gone)].map((prefix) => ({
        prefix,
        nextHops: [],
        fromPeers: [],
        communities: [],
        stale: false,
      })),
    })
    for (const route of this.#localRoutes.values()) this.rib.setLocal(route)
  }

  #slice(): void {
    this.#work = undefined
    if (this.rib.work(WORK_BUDGET)) return this.changed()
    if (this.#unsettled.size === 0 || this.#holding) return
    for (const family of families) {
      if (!this.#unsettled.has(family)) continue
      const waits = this.#deferral && [...this.#peerings.values()].some((peering) => peering.owes(family))
      if (waits) continue
      this.#unsettled.delete(family)
      this.event({ type: 'converged', family })
    }
    if (this.#unsettled.size > 0) return
    this.#deferral?.cancel()
    this.#deferral = undefined
  }

  /** Compiles what every peer names, so that a name that is not there is found now. */
  #loadPolicies(config: SpeakerConfig): void {
    this.policies.load(config)
    for (const peer of [...config.peers, ...config.dynamicPeers]) {
      const internal = peer.remoteAsn === 'internal' || peer.remoteAsn === localAsnToward(config, peer)
      for (const { family, importPolicies, exportPolicies } of peer.families)
        for (const names of [importPolicies, exportPolicies])
          this.policies.policyFor({
            names,
            family: family === 'ipv4' ? 4 : 6,
            peerType: internal ? 'ibgp' : 'ebgp',
            otherwise: 'accept',
          })
      try {
        encodeOpen(offerOpen(config, peer, { restarted: false, forwarding: false }))
      } catch (error) {
        if (!(error instanceof EncodeError)) throw error
        throw new ConfigError(`BGP peer ${peer.name}`, 'capabilities', error.message, { cause: error })
      }
    }
  }

  #watchPaths(): void {
    this.#host.watchPaths?.([...this.#peerings.values()].flatMap((peering) => peering.watchedPath ?? []))
  }

  #add(config: PeerConfig): void {
    const peering = new Peering(this, config, false)
    this.#peerings.set(config.name, peering)
    peering.start()
  }

  #remove(peering: Peering): void {
    peering.remove()
    this.#peerings.delete(peering.name)
  }

  #find(nameOrAddress: string): Peering | undefined {
    const named = this.#peerings.get(nameOrAddress)
    if (named) return named
    for (const peering of this.#peerings.values())
      if (peering.address?.toString() === nameOrAddress || peering.config.device === nameOrAddress) return peering
    return undefined
  }

  #listen(): void {
    try {
      this.wire.listen(this.#listenPlan(), (stream) => this.#accept(stream))
    } catch (error) {
      this.#host.log('error', 'cannot listen', { reason: (error as Error).message })
    }
  }

  #listenPlan(): ListenPlan {
    const { listen, peers, dynamicPeers } = this.#config
    const addresses = listen.addresses.length > 0 ? listen.addresses.map(Ip.parse) : [Ip.any(4), Ip.any(6)]
    const internal = (peer: PeerConfig | DynamicPeerConfig): boolean =>
      peer.remoteAsn === 'internal' || peer.remoteAsn === localAsnToward(this.#config, peer)
    const ruleOf = (peer: PeerConfig | DynamicPeerConfig, from: Cidr, device?: string): AcceptRule => ({
      from,
      device,
      password: peer.password,
      ...ttlRuleOf(peer, internal(peer)),
    })
    return {
      endpoints: listen.port === 0 ? [] : addresses.map((address) => ({ address, port: listen.port })),
      rules: [
        ...peers.flatMap((peer) => {
          if (peer.address === undefined) return ruleOf(peer, linkLocal, peer.device)
          const address = Ip.parse(peer.address)
          return ruleOf(peer, Cidr.host(address), address.isLinkLocal ? peer.device : undefined)
        }),
        ...dynamicPeers.map((peer) => ruleOf(peer, Cidr.parse(peer.prefix))),
      ],
    }
  }

  #accept(stream: Stream): StreamListener | undefined {
    const { address, device } = stream.remote
    for (const peering of this.#peerings.values()) {
      const { config } = peering
      if (config.address === undefined) {
        if (address.isLinkLocal && config.device === device) {
          if (device !== undefined) this.setNeighbour(device, address)
          return peering.accept(stream)
        }
      } else if (config.address === address.toString() && (!address.isLinkLocal || config.device === device))
        return peering.accept(stream)
    }
    return this.#acceptDynamic(stream)
  }

  #acceptDynamic(stream: Stream): StreamListener | undefined {
    const { address, device } = stream.remote
    const template = longestMatch(this.#config.dynamicPeers, address)
    if (!template) return undefined
    const { name, maxPeers } = template
    const already = [...this.#peerings.values()].filter((each) => each.dynamic && templateOf(each.name) === name)
    if (already.length >= maxPeers) {
      this.log('warn', name, 'a dynamic peer is refused: there are enough', { address: address.toString(), maxPeers })
      return undefined
    }
    const config = configOfDynamic(template, address, device)
    const peering = new Peering(this, config, true)
    this.#peerings.set(config.name, peering)
    peering.start()
    this.#watchPaths()
    return peering.accept(stream)
  }

  /** What a dynamic peering is to be now; undefined when nothing lets it in any more. */
  #dynamicConfig(peering: Peering): PeerConfig | undefined {
    const { address, device } = peering.config
    if (address === undefined || this.#config.peers.some((peer) => peer.address === address)) return undefined
    const template = longestMatch(this.#config.dynamicPeers, Ip.parse(address))
    if (!template || template.name !== templateOf(peering.name)) return undefined
    return configOfDynamic(template, Ip.parse(address), device)
  }
}

const linkLocal = Cidr.parse('fe80::/10')

const templateOf = (name: string): string => name.slice(0, name.lastIndexOf(' '))

function configOfDynamic(template: DynamicPeerConfig, address: Ip, device: string | undefined): PeerConfig {
  const { prefix: _prefix, maxPeers: _maxPeers, ...common } = template
  const timers = { ...template.timers, connectDelaySeconds: 0 }
  const place = device === undefined ? {} : { device }
  return {
    ...common,
    ...place,
    timers,
    name: `${template.name} ${address}`,
    address: address.toString(),
    port: 0,
    passive: true,
  }
}

function longestMatch(templates: readonly DynamicPeerConfig[], address: Ip): DynamicPeerConfig | undefined {
  let best: DynamicPeerConfig | undefined
  let bestLength = -1
  for (const template of templates) {
    const prefix = Cidr.parse(template.prefix)
    if (!prefix.contains(address) || prefix.length <= bestLength) continue
    best = template
    bestLength = prefix.length
  }
  return best
}

/** Whether a session cannot go on under a new configuration: other OPEN, other place, other key, other limits of who it is. */
function demandsReset(before: SpeakerConfig, old: PeerConfig, next: SpeakerConfig, peer: PeerConfig): boolean {
  const claim = { restarted: false, forwarding: false }
  const openBefore = encodeOpen(offerOpen(before, old, claim)).slice()
  const openNext = encodeOpen(offerOpen(next, peer, claim))
  return (
    openBefore.length !== openNext.length ||
    openBefore.some((octet, i) => octet !== openNext[i]) ||
    old.address !== peer.address ||
    old.device !== peer.device ||
    old.localAddress !== peer.localAddress ||
    old.password !== peer.password ||
    old.remoteAsn !== peer.remoteAsn ||
    old.role !== peer.role ||
    old.roleStrict !== peer.roleStrict ||
    isMember(before, peer) !== isMember(next, peer)
  )
}

const isMember = ({ confederation }: SpeakerConfig, { remoteAsn }: PeerConfig): boolean =>
  typeof remoteAsn === 'number' && confederation?.members.includes(remoteAsn) === true

const ribOptionsOf = ({ asn, routerId, clusterId, confederation, multipath }: SpeakerConfig): RibOptions => ({
  asn,
  routerId: Ip.parse(routerId).w3,
  clusterId: Ip.parse(clusterId ?? routerId).w3,
  confederation,
  alwaysCompareMed: false,
  maxExternalPaths: multipath.maxPaths,
  maxInternalPaths: multipath.maxPaths,
  asPathRelax: multipath.asPathRelax,
  enforceFirstAs: true,
})
