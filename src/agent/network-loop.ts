/**
 * The agent's one loop. Everything that may change what this node should do ends here as a change of a field and a mark; a
 * later turn of the event loop works off all marks at once, for every part of the network (network-part.ts) together:
 *
 *   cluster ────► parts ─► fragments ─► applier ─► in place? ─► announce what all parts say, serve pods
 *   interface ──►   ▲                                 │
 *                   └──── decide anew ◄───────────────┘
 *
 * Nothing is swept before the cluster's first complete list and before every part knows what it wants, and never on a
 * configuration that could not be read. While the store is away from the start, what the node remembers of it serves: pods
 * come and go and drift is healed, but nothing is swept and nothing announced before the real list has taken its place.
 */
import type { ApplyReport } from '../apply/applier.ts'
import type { CalicoEvent } from '../cluster/calico/calico-source.ts'
import type { ClusterEvent, ClusterSource, WiringChoice } from '../cluster/cluster.ts'
import type { PoolAddresses } from '../ipam/stores/pool-addresses.ts'
import type { FelixSettings } from '../model/calico.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Check } from '../status/checks.ts'
import { Announcer } from './announcer.ts'
import { CalicoPart, type CalicoStores, type PoolCounts } from './calico-part.ts'
import { Complaints } from './complaints.ts'
import type { Detected } from './external-interface.ts'
import { FlannelPart } from './flannel-part.ts'
import { FragmentWriter } from './fragment-writer.ts'
import type { NetworkPart, Surroundings } from './network-part.ts'
import { mergeWords, type Speaker } from './own-words.ts'
import type { PlannerSettings } from './planner.ts'
import { decideWiring, type PodNetwork, podNetworkOf, routedText, type Wiring } from './pod-network.ts'
import type { ReadTraffic } from './traffic.ts'

export interface LoopLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** The part of the applier that the loop drives. */
export interface Writer {
  change(fragments: readonly Fragment[], removed: readonly string[]): void
  markComplete(): void
  settle(): Promise<void>
  inPlace(source: string): boolean
}

export interface NetworkLoopOptions {
  readonly nodeName: string
  readonly source: ClusterSource
  readonly writer: Writer
  readonly log: LoopLog
  /** Subnets of an earlier run, for stores where nodes take them. */
  readonly previousSubnets: readonly Cidr[]
  readonly settings: PlannerSettings
  /** Where address pools are; left out: there are none. */
  readonly calico?: CalicoStores
  /** How new pods are wired, unless the node's annotation says otherwise; `auto` when left out. */
  readonly wiring?: WiringChoice
  /** What devices carried, for seeing that a path is not used any more; without it only time counts. */
  readonly readTraffic?: ReadTraffic
  /** The cluster spoke of this node. */
  onOwnNode(event: Extract<ClusterEvent, { type: 'node' }>): void
  /** Packets of pods can be carried. Called again with every change. */
  onPodNetwork(network: PodNetwork): Promise<void>
  onConfigError(): void
  onPeerProblem(): void
  /** Everything that is known is planned, programmed and announced. */
  onIdle?(): void
}

export class NetworkLoop {
  readonly #options: NetworkLoopOptions
  readonly #flannel: FlannelPart
  readonly #calico: CalicoPart | undefined
  readonly #parts: readonly NetworkPart[]
  readonly #announcer: Announcer
  readonly #complaints: Complaints
  readonly #fragments: FragmentWriter
  #own: NodeInfo | undefined
  #wish: WiringChoice | undefined
  #detected: Detected | undefined
  #synced = false
  /** When the view was saved that this node works from, before the store's first list. */
  #remembered: string | undefined
  #connected = false
  #complete = false
  #scheduled = false
  #closed = false
  #concluding = false
  #concludeAgain = false
  #podNetwork = ''
  #serving = false
  /** How pods are wired that join now. */
  #served: Wiring | undefined

  constructor(options: NetworkLoopOptions) {
    this.#options = options
    const { source, log, nodeName, writer, previousSubnets, settings, onConfigError } = options
    const readTraffic = options.readTraffic ?? (async () => ({ sent: 0, received: 0 }))
    this.#complaints = new Complaints(source, log, nodeName, () => options.onPeerProblem())
    const onChange = () => this.#schedule()
    const shared = { nodeName, source, writer, log, complaints: this.#complaints, readTraffic, onChange }
    this.#flannel = new FlannelPart({ ...shared, previousSubnets, settings, onConfigError })
    this.#calico = options.calico && new CalicoPart({ ...shared, ...options.calico })
    this.#parts = this.#calico ? [this.#flannel, this.#calico] : [this.#flannel]
    const peer = (name: string) => this.#parts.map((part) => part.peer(name)).find((found) => found)
    this.#fragments = new FragmentWriter(writer, this.#complaints, peer)
    this.#announcer = new Announcer({
      nodeName,
      source,
      log,
      onWrite: ({ weft }) => {
        for (const part of this.#parts) part.addPending(weft)
      },
      onWritten: () => void this.#conclude(),
    })
  }

  /** What has to be there before pods can be served, in the order in which it comes. */
  checks(): Check[] {
    const check = (name: string, ok: boolean, problem: string): Check => ({ name, problem: ok ? undefined : problem })
    const checks = this.#concerned.map((part) => part.checks(this.#around()))
    return [
      check('cluster', this.#knowsPeers, 'the cluster has not been listed yet'),
      ...checks.map(({ configuration }) => configuration),
      check('node', this.#own !== undefined, `the cluster has no node ${this.#options.nodeName}`),
      ...checks.map(({ addresses }) => addresses),
      check('interface', this.#detected !== undefined, 'the external interface is not known'),
      check('kernel', this.#serving, 'the kernel is not programmed yet'),
    ]
  }

  /** When the view of the cluster was saved that this node works from, ISO 8601; undefined once the store has listed. */
  get remembered(): string | undefined {
    return this.#remembered
  }

  /** Settings of Calico's that concern more than its own part; undefined without one. */
  get felix(): FelixSettings | undefined {
    return this.#calico?.felix
  }

  /** What does not keep pods from being served, and should be known. */
  get remarks(): readonly string[] {
    return this.#calico?.remarks ?? []
  }

  /** For people and the lab. */
  state(): object {
    const around = this.#around()
    return {
      connected: this.#connected,
      synced: this.#synced,
      workingFromCacheOf: this.#remembered,
      interface: this.#detected?.reason,
      settled: this.#isSettled,
      wiring: this.#served,
      ...Object.assign({}, ...this.#parts.map((part) => part.state(around))),
    }
  }

  /** How many peers are sent to by each path. */
  peersByPath(): ReadonlyMap<string, number> {
    return new Map(this.#parts.flatMap((part) => [...part.peersByPath()]))
  }

  /** Other nodes: believed ones, and those that were refused. */
  get peerCounts(): { readonly believed: number; readonly refused: number } {
    return this.#flannel.peerCounts
  }

  /** Undefined where there is no store of pools. */
  get poolCounts(): PoolCounts | undefined {
    return this.#calico?.counts
  }

  /** What gives addresses of pools and takes them back; undefined where there is no store of pools. */
  get poolAddresses(): PoolAddresses | undefined {
    return this.#calico?.ipam
  }

  onCluster(event: ClusterEvent): void {
    const { log, nodeName } = this.#options
    switch (event.type) {
      case 'connection':
        this.#connected = event.up
        if (event.up) log.info({}, 'the cluster can be reached again')
        else log.warn({ err: event.problem }, 'the cluster cannot be reached; what is programmed stays')
        return
      case 'network':
        this.#flannel.onNetwork(event.text, event.object)
        break
      case 'synced':
        if (this.#remembered) log.info({}, 'the cluster was listed: it takes the place of what was remembered')
        this.#remembered = undefined
        this.#synced = true
        this.#connected = true
        for (const part of this.#parts) part.forgetRestored()
        break
      case 'remembered':
        log.warn({}, `working from the cache of ${event.savedAt}: the store is away`)
        this.#remembered = event.savedAt
        for (const part of this.#parts) part.restorePending(event.written)
        break
      case 'node-gone':
        if (event.name === nodeName) log.warn({}, 'the cluster no longer has this node; what is programmed stays')
        else for (const part of this.#parts) part.removePeer(event.name)
        this.#complaints.forget(event.name)
        break
      case 'node':
        this.#onNode(event)
    }
    this.#schedule()
  }

  /** The store of the address pools spoke. */
  onCalico(event: CalicoEvent): void {
    this.#calico?.onEvent(event)
    this.#schedule()
  }

  onDetected(detected: Detected): void {
    const { publicIp, publicIpv6, reason: by } = detected
    const { device, mtuBytes } = detected.external
    const fields = { device, mtuBytes, publicIp, publicIpv6, by }
    this.#options.log.info(fields, this.#detected ? 'external interface changed' : 'external interface')
    // Connections to the store may go by what is no more; another MTU leaves them alone.
    const placeOf = (known: Detected | undefined) => JSON.stringify([known?.external.device, known?.external.addresses])
    if (this.#detected && placeOf(this.#detected) !== placeOf(detected)) {
      this.#options.source.reconnect()
      this.#options.calico?.source.reconnect()
    }
    this.#detected = detected
    for (const part of this.#parts) part.setDetected(detected)
    this.#schedule()
  }

  /** The applier finished a pass: what was waited for may be in place. */
  onReport(report: ApplyReport): void {
    const { log, source, nodeName } = this.#options
    for (const { error, sources, retryInMs } of report.failures) {
      log.error({ err: error.message, sources, retryInMs }, 'the kernel refused an operation')
      source.report({ node: nodeName, severity: 'Warning', reason: 'KernelRefused', message: error.message })
    }
    this.#schedule()
  }

  /** The applier saw in the kernel what was waited for, without having to do anything. */
  onFound(): void {
    this.#schedule()
  }

  /** Nobody asks for addresses of pools any more: what was kept ready goes back. */
  async retire(): Promise<void> {
    await this.#calico?.retire()
  }

  close(): void {
    this.#closed = true
    this.#announcer.close()
    for (const part of this.#parts) part.close()
  }

  #onNode(event: Extract<ClusterEvent, { type: 'node' }>): void {
    const { node, problems } = event
    if (node.name === this.#options.nodeName) {
      this.#own = node
      this.#wish = event.wishes.wiring
      this.#announcer.hear(node)
      for (const part of this.#parts) part.setOwn(node)
      this.#options.onOwnNode(event)
      return
    }
    for (const part of this.#parts) part.setPeer(node)
    for (const problem of problems) this.#complaints.ofPeer(node, problem.message)
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#closed) this.#turn()
    })
  }

  #around(): Surroundings {
    return { own: this.#own, detected: this.#detected, synced: this.#synced }
  }

  /** By the store's own list, or by what this node remembers of it. */
  get #knowsPeers(): boolean {
    return this.#synced || this.#remembered !== undefined
  }

  get #active(): readonly NetworkPart[] {
    return this.#parts.filter(({ presence }) => presence === 'active')
  }

  /** Parts that pods depend on, or may: flannel's where nothing is configured at all. */
  get #concerned(): readonly NetworkPart[] {
    const wanted = this.#parts.filter(({ presence }) => presence !== 'absent')
    return wanted.length > 0 ? wanted : [this.#flannel]
  }

  get #isSettled(): boolean {
    const active = this.#active
    return active.length > 0 && active.every(({ transition }) => transition?.settled)
  }

  #turn(): void {
    if (!this.#knowsPeers || !this.#detected) return
    const around = this.#around()
    this.#calico?.setOtherNetworks(this.#flannel.networks)
    this.#flannel.setOtherNetworks(this.#calico?.networks ?? [])
    const ready = this.#parts.filter((part) => part.prepare(around))
    if (ready.length === 0) return
    for (const part of ready) this.#fragments.write(part.plan())
    for (const part of ready)
      for (const [name, problems] of part.problems)
        for (const { key, problem } of problems)
          this.#complaints.ofPeer(part.peer(name) ?? { name }, `Node ${name}: ${key}: ${problem}`)
    if (!this.#complete && this.#synced && this.#mayComplete()) {
      this.#complete = true
      this.#options.writer.markComplete()
    }
    void this.#conclude()
  }

  /** Each part is sure of what it wants, and has it. */
  #mayComplete(): boolean {
    const active = this.#active
    return (
      active.length > 0 &&
      this.#parts.every(({ presence }) => presence !== 'unknown') &&
      active.every(({ isComplete }) => isComplete)
    )
  }

  /** Once the kernel has taken what was planned: serves pods, announces, and decides again if that changed something. */
  async #conclude(): Promise<void> {
    if (this.#concluding) {
      this.#concludeAgain = true
      return
    }
    this.#concluding = true
    do {
      this.#concludeAgain = false
      const complete = this.#complete
      await this.#options.writer.settle()
      if (this.#closed) break
      if (complete) for (const part of this.#parts) part.settleDrained(() => void this.#conclude())
      const before = this.#statuses()
      await this.#serve()
      if (this.#synced && this.#active.some((part) => part.words()))
        this.#announcer.say(mergeWords(this.#speakers(), this.#own))
      for (const part of this.#parts) if (this.#fragments.write(part.plan())) this.#concludeAgain = true
      if (this.#statuses() !== before) this.#concludeAgain = true
    } while (this.#concludeAgain && !this.#closed)
    this.#concluding = false
    if (this.#complete && this.#serving && this.#isSettled && !this.#announcer.isWriting) this.#options.onIdle?.()
  }

  #statuses(): string {
    return JSON.stringify(this.#parts.map(({ transition }) => transition?.status))
  }

  get #wiring(): Wiring | undefined {
    return decideWiring(this.#wish ?? this.#options.wiring ?? 'auto', this.#flannel.presence, this.#calico)
  }

  #speakers(): Speaker[] {
    return this.#parts.map((part) => ({ words: part.words(), ownsPath: (path: string) => part.ownsPath(path) }))
  }

  /** Tells the CNI server what pods get, when it changed and some path stands. */
  async #serve(): Promise<void> {
    const wiring = this.#wiring
    if (!wiring || this.#active.some((part) => !part.pods())) return
    const network = podNetworkOf(wiring, { flannel: this.#flannel.pods(), calico: this.#calico?.pods() }, this.#own)
    if (!network) return
    const text = JSON.stringify({ ...network, routed: routedText(network) })
    if (text === this.#podNetwork) return
    try {
      await this.#options.onPodNetwork(network)
      this.#podNetwork = text
      for (const part of this.#parts) part.setPodMtu(network.mtuBytes)
      this.#serving = true
      this.#served = wiring
    } catch (error) {
      this.#options.log.error({ err: error }, 'pods cannot be served')
    }
  }
}
