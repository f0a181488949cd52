/**
 * Calico's share of the loop: address pools, blocks, what nodes say in Calico's words, and what the planner of pools makes of
 * them.
 *
 *   IPPools ───────► judged (calico-pools.ts) ─┐                        ┌─► fragments
 *   IPAM blocks ───► routes; the allocator ────┼─► planner of pools ────┤
 *   Nodes, Felix ──────────────────────────────┘        ▲               └─► tunnel addresses needed
 *   interface ─────► own addresses, tunnel addresses ───┘                          │
 *                                        ▲──────────── the allocator ◄─────────────┘
 *
 * Active as soon as there is a pool or a block. A store that has none, or has no such objects at all, costs nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { CalicoEvent, CalicoSource } from '../cluster/calico/calico-source.ts'
import { defaultFelixSettings, parseFelix } from '../config/calico/felix.ts'
import { defaultIpamSettings } from '../config/calico/ipam-settings.ts'
import { poolPaths } from '../datapath/pools/pool-path.ts'
import type { TransitionPlan } from '../datapath/transition.ts'
import { BlockIpam } from '../ipam/stores/block-ipam.ts'
import type { IpamStore } from '../ipam/stores/ipam-store.ts'
import { type FelixSettings, familiesOf, type IpamSettings, type IpPool, type IpReservation } from '../model/calico.ts'
import type { NodeContext, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Cidr } from '../net/cidr.ts'
import { blockRoutesOf, headRoutesOf } from './block-routes.ts'
import { CalicoPools, selects } from './calico-pools.ts'
import type { Complaints } from './complaints.ts'
import type { Detected } from './external-interface.ts'
import type { LoopLog, Writer } from './network-loop.ts'
import type { NetworkPart, PartChecks, PartWords, PodShare, Surroundings } from './network-part.ts'
import { poolContextOf } from './own-place.ts'
import { PathDrains } from './path-drains.ts'
import type { PlanChange } from './planner.ts'
import { PoolPlanner, type PoolPlannerSettings } from './pool-planner.ts'
import type { ReadTraffic } from './traffic.ts'
import { TunnelAddresses } from './tunnel-addresses.ts'

/** How long a path of an earlier agent may take to stand again before it is taken back. */
const RESTART_PATIENCE_MS = 10_000
/** How long the end of an agent may wait for the store. */
const RETIRE_PATIENCE_MS = 2000

/** What the part is made of that the loop does not have. */
export interface CalicoStores {
  readonly source: Pick<CalicoSource, 'pods' | 'reconnect'>
  readonly store: IpamStore
  readonly settings: Omit<PoolPlannerSettings, 'nodeName'>
  /** How many addresses of each pool are kept ready for pods. */
  readonly spareAddresses: number
  /** Which addresses of pods have an IPAMHandle: those that somebody else looks for by it, or all. */
  readonly handles?: 'needed' | 'all'
  /** Unix time in milliseconds. */
  now(): number
}

export interface CalicoPartOptions extends CalicoStores {
  readonly nodeName: string
  readonly writer: Pick<Writer, 'inPlace'>
  readonly log: LoopLog
  readonly complaints: Complaints
  readonly readTraffic: ReadTraffic
  /** There is reason for another turn. */
  onChange(): void
}

export interface PoolCounts {
  readonly pools: { readonly used: number; readonly refused: number }
  readonly blocks: { readonly own: number; readonly other: number }
  readonly requests: { readonly reads: number; readonly writes: number; readonly conflicts: number }
}

export class CalicoPart implements NetworkPart {
  readonly ipam: BlockIpam
  readonly #options: CalicoPartOptions
  readonly #planner: PoolPlanner
  readonly #drains: PathDrains
  readonly #tunnels: TunnelAddresses
  readonly #pools = new CalicoPools()
  /** What the planner was told of pools. */
  readonly #told = new Map<string, IpPool>()
  readonly #reservations = new Map<string, IpReservation>()
  readonly #felixSpecs = new Map<string, unknown>()
  #felix: FelixSettings = defaultFelixSettings
  #ipamSettings: IpamSettings = defaultIpamSettings
  #state: 'unknown' | 'remembered' | 'synced' = 'unknown'
  #wasActive = false
  /** The words are this agent's own to change. */
  #maySpeak = false
  #patience: NodeJS.Timeout | undefined
  #own: NodeInfo | undefined
  #detected: Detected | undefined
  #contextText = ''

  constructor(options: CalicoPartOptions) {
    this.#options = options
    const { nodeName, writer, log, complaints, readTraffic, store, settings, now, onChange } = options
    const { spareAddresses, handles = 'needed' } = options
    this.#planner = new PoolPlanner({ ...settings, nodeName }, (source) => writer.inPlace(source))
    this.#planner.setFelix(this.#felix)
    this.#drains = new PathDrains(this.#planner, readTraffic)
    let reservations: readonly IpReservation[] = []
    this.ipam = new BlockIpam({
      store,
      node: { name: nodeName, labels: () => this.#own?.labels ?? {} },
      log,
      pools: () => this.#pools.standing,
      // The allocator compares lists by identity.
      reservations: () => {
        const current = [...this.#reservations.values()]
        if (current.length !== reservations.length || current.some((each, i) => each !== reservations[i]))
          reservations = current
        return reservations
      },
      settings: () => this.#ipamSettings,
      selects,
      spareAddresses,
      handles,
      now,
    })
    this.#tunnels = new TunnelAddresses({ nodeName, addresses: this.ipam, log, complaints, onChange })
  }

  /** What FelixConfiguration says for this node. */
  get felix(): FelixSettings {
    return this.#felix
  }

  ownsPath(path: string): boolean {
    return poolPaths.isKnown(path)
  }

  get presence(): 'unknown' | 'absent' | 'active' {
    if (this.#state === 'unknown') return 'unknown'
    const { own, other } = this.#planner.blockCounts
    return this.#pools.areAny || own + other > 0 ? 'active' : 'absent'
  }

  get isComplete(): boolean {
    return this.#state === 'synced' && this.#planner.isComplete
  }

  get transition(): TransitionPlan | undefined {
    return this.#planner.transition
  }

  get problems(): ReadonlyMap<string, readonly PeerProblem[]> {
    return this.#planner.problems
  }

  /** Networks of the pools. */
  get networks(): readonly Cidr[] {
    return this.#pools.standing.map(({ cidr }) => cidr)
  }

  /** Whether new pods of this node get addresses out of pools. */
  get selectsNode(): boolean {
    return this.#pools.selectNode(this.#own?.labels ?? {})
  }

  /** What does not keep pods from being served, and should be known. */
  get remarks(): readonly string[] {
    if (this.presence !== 'active') return []
    const modes = [...this.#planner.poolProblems].map(([pool, problem]) => `IPPool ${pool}: ${problem}`)
    return [...this.#pools.remarks.map(({ message }) => message), ...modes, ...this.#tunnels.problems]
  }

  get counts(): PoolCounts {
    const { reads, writes, conflicts } = this.ipam.counts
    return {
      pools: { used: this.#pools.standing.length, refused: this.#pools.refused },
      blocks: this.#planner.blockCounts,
      requests: { reads, writes, conflicts },
    }
  }

  peer(name: string): NodeInfo | undefined {
    return this.#planner.peer(name)
  }

  setPeer(peer: NodeInfo): void {
    this.#planner.setPeer(peer)
  }

  removePeer(name: string): void {
    this.#planner.removePeer(name)
  }

  setOwn(own: NodeInfo): void {
    if (!this.#own) this.#tunnels.restore(own.calico)
    const hasMoved = JSON.stringify(own.labels) !== JSON.stringify(this.#own?.labels)
    this.#own = own
    if (hasMoved) this.ipam.reviewSpares()
    this.#planner.setAnnounced(own.weft)
  }

  setDetected(detected: Detected): void {
    this.#detected = detected
    for (const problem of detected.node?.problems ?? []) this.#options.complaints.ofOwn('NodeAddress', problem)
  }

  addPending(status: WeftNodeStatus): void {
    this.#planner.addPending(status)
  }

  restorePending(statuses: readonly WeftNodeStatus[]): void {
    this.#planner.restorePending(statuses)
  }

  forgetRestored(): void {
    this.#planner.forgetRestored()
  }

  /** Networks of pods that are no pools. */
  setOtherNetworks(networks: readonly Cidr[]): void {
    this.#planner.setOtherNetworks(networks)
    if (this.#pools.setOthers(networks)) this.#setPools()
  }

  onEvent(event: CalicoEvent): void {
    const { complaints, log } = this.#options
    switch (event.type) {
      case 'pool':
        if (this.#pools.set(event.name, event.pool, event.problem)) this.#setPools()
        break
      case 'pool-gone':
        complaints.forget(`IPPool ${event.name}`)
        if (this.#pools.delete(event.name)) this.#setPools()
        break
      case 'reservation':
        if (event.reservation) this.#reservations.set(event.name, event.reservation)
        this.ipam.reviewSpares()
        if (event.problem) complaints.ofOwn('InvalidReservation', event.problem.message, event.name)
        break
      case 'reservation-gone':
        this.#reservations.delete(event.name)
        this.ipam.reviewSpares()
        break
      case 'block':
        this.ipam.news.noteBlock(event.held)
        this.#planner.setRoutes(blockRoutesOf(event.held.value))
        break
      case 'block-gone':
        this.ipam.news.noteBlockGone(event.cidr)
        this.#planner.removeRoutes(event.cidr)
        break
      case 'affinity':
        this.ipam.news.noteAffinity(event.held)
        break
      case 'affinity-gone':
        this.ipam.news.noteAffinityGone(event.affinity.owner, event.affinity.cidr)
        break
      case 'corrupt':
        complaints.ofOwn('CorruptObject', `${event.object}: ${event.problem}`, event.object)
        if (event.head) this.ipam.news.noteUnreadable(event.head.cidr)
        if (event.head && !this.#planner.hasRoutes(event.head.cidr)) this.#planner.setRoutes(headRoutesOf(event.head))
        break
      case 'felix':
        this.#onFelix(event.name, event.spec)
        break
      case 'ipam-settings':
        if (event.problem) complaints.ofOwn('InvalidIpamSettings', event.problem.message)
        else this.#ipamSettings = event.settings ?? defaultIpamSettings
        break
      case 'remembered':
        log.warn({}, `address pools and blocks are those of ${event.savedAt}: their store is away`)
        if (this.#state === 'unknown') this.#state = 'remembered'
        break
      case 'synced':
        this.#state = 'synced'
        this.ipam.news.noteListed()
        break
      case 'connection':
        if (event.up) log.info({}, 'the store of the address pools can be reached again')
        else log.warn({ err: event.problem }, 'the store of the address pools cannot be reached')
    }
  }

  get #hasSpoken(): boolean {
    const { accepts = [], sends = [] } = this.#own?.weft ?? {}
    return [...accepts, ...sends].some((path) => this.ownsPath(path))
  }

  prepare({ synced }: Surroundings): boolean {
    const isActive = this.presence === 'active'
    if (!isActive && !this.#wasActive) return false
    const context = this.#context()
    if (!context) return false
    this.#wasActive = true
    this.#patience ??= setTimeout(() => {
      this.#maySpeak = true
      this.#options.onChange()
    }, RESTART_PATIENCE_MS).unref()
    const text = JSON.stringify(context)
    if (text !== this.#contextText) {
      this.#contextText = text
      this.#planner.setNode(context)
    }
    if (synced && this.#state === 'synced') this.#tunnels.want(this.#planner.tunnelAddressesNeeded())
    this.#complain()
    return true
  }

  plan(): PlanChange {
    return this.#planner.plan()
  }

  settleDrained(again: () => void): void {
    this.#drains.settle(again)
  }

  /**
   * What an earlier agent of this node said holds until all of it stands again, or has had its time: others go by it.
   */
  words(): PartWords | undefined {
    this.#maySpeak ||= this.#planner.isComplete || !this.#hasSpoken
    const announcement = this.#maySpeak ? this.#planner.announcement() : undefined
    if (announcement) return { status: announcement.weft, calico: announcement.calico }
    return this.presence === 'absent' ? { status: { accepts: [], sends: [] } } : undefined
  }

  pods(): PodShare | undefined {
    const { mtuBytes, transition } = this.#planner
    if (this.presence !== 'active' || mtuBytes === undefined || !transition?.status.accepts.length) return undefined
    const { nodeName, source } = this.#options
    const usable = this.#pools.standing.filter(
      ({ disabled, allowedUses }) => !disabled && allowedUses.includes('Workload'),
    )
    return {
      podCidrs: [],
      networks: this.networks,
      mtuBytes,
      routed: {
        nodeName,
        families: familiesOf(usable.length > 0 ? usable : this.#pools.standing),
        addresses: this.ipam,
        pods: source.pods,
        interfacePrefix: this.#felix.interfacePrefix,
        sourceSpoofing: this.#felix.workloadSourceSpoofing,
      },
    }
  }

  setPodMtu(bytes: number): void {
    this.#planner.setPodMtu(bytes)
  }

  peersByPath(): ReadonlyMap<string, number> {
    return this.#planner.peersByPath()
  }

  checks(): PartChecks {
    const unknown = this.#state === 'unknown' ? 'the address pools have not been listed yet' : undefined
    const noAddress = this.#context()
      ? undefined
      : 'this node has no address that the others could reach it by (--ip, --ip6)'
    return {
      configuration: { name: 'pools', problem: unknown },
      addresses: { name: 'node-address', problem: unknown ?? noAddress },
    }
  }

  state(): object {
    if (this.presence !== 'active') return {}
    const planner = this.#planner
    return {
      calico: {
        pools: this.#pools.standing,
        remarks: this.remarks,
        node: this.#context(),
        peersByPath: Object.fromEntries(planner.peersByPath()),
        problems: [...planner.problems.values()].flat(),
        status: planner.transition?.status,
        settled: planner.transition?.settled ?? false,
        mtuBytes: planner.mtuBytes,
        counts: this.counts,
      },
    }
  }

  /** Gives back what was kept ready for pods, if the store answers soon. After this nobody asks for addresses any more. */
  async retire(): Promise<void> {
    const { log } = this.#options
    const patience = new AbortController()
    const late = sleep(RETIRE_PATIENCE_MS, 'late' as const, { signal: patience.signal })
    const outcome = await Promise.race([this.ipam.retire(), late]).catch((err: Error) => err)
    patience.abort()
    if (outcome !== undefined) log.info({ outcome: `${outcome}` }, 'addresses kept ready for pods stay as they are')
  }

  close(): void {
    clearTimeout(this.#patience)
    this.#drains.close()
    this.#tunnels.close()
    this.ipam.close()
  }

  #complain(): void {
    const { complaints } = this.#options
    for (const { pool, reason, message } of this.#pools.remarks) complaints.ofOwn(reason, message, `IPPool ${pool}`)
    for (const [pool, problem] of this.#planner.poolProblems)
      complaints.ofOwn('UnsupportedMode', `IPPool ${pool}: ${problem}`, `IPPool ${pool}`)
  }

  #setPools(): void {
    const { standing } = this.#pools
    for (const name of this.#told.keys())
      if (!standing.some((pool) => pool.name === name)) {
        this.#told.delete(name)
        this.#planner.removePool(name)
      }
    for (const pool of standing)
      if (this.#told.get(pool.name) !== pool) {
        this.#told.set(pool.name, pool)
        this.#planner.setPool(pool)
      }
    this.ipam.reviewSpares()
  }

  #onFelix(name: string, spec: unknown): void {
    const { complaints, log, nodeName } = this.#options
    this.#felixSpecs.set(name, spec)
    const reading = parseFelix({
      default: this.#felixSpecs.get('default'),
      node: this.#felixSpecs.get(`node.${nodeName}`),
    })
    for (const warning of reading.warnings) log.info({}, warning)
    for (const problem of reading.problems) complaints.ofOwn('InvalidFelixConfiguration', problem.message)
    this.#felix = reading.settings
    this.#planner.setFelix(reading.settings)
  }

  /** Undefined until the node has an address of its own. */
  #context(): NodeContext | undefined {
    const { nodeName } = this.#options
    return this.#own && poolContextOf(nodeName, this.#own, this.#detected?.node, this.#tunnels.words)
  }
}
