/**
 * The agent's one loop. Everything that may change what this node should do ends here as a change of a field and a mark;
 * a later turn of the event loop works off all marks at once:
 *
 *   net-conf ──► last good config ─┐
 *   own Node ──► podCIDRs, wishes ─┼─► NodeContext ─► planner ─► fragments ─► applier
 *   interface ─► external ─────────┘        ▲                        │
 *   other Nodes ────────────────────────────┘      in place ─► announce, pods served
 *
 * Nothing is swept before the cluster's first complete list, and never on a configuration that could not be read. While the
 * store is away from the start, what the node remembers of it serves: pods come and go and drift is healed, but nothing is
 * swept and nothing announced before the real list has taken its place.
 */
import type { ApplyReport } from '../apply/applier.ts'
import { DesiredConflict } from '../apply/desired.ts'
import type { Announcement, ClusterEvent, ClusterSource, NodeReport } from '../cluster/cluster.ts'
import type { NetworkConfig } from '../config/config.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Check } from '../status/checks.ts'
import { Announcer } from './announcer.ts'
import { Drain } from './drain.ts'
import type { Detected } from './external-interface.ts'
import { LastGoodConfig } from './last-good-config.ts'
import { contextWith, partSubnets } from './own-place.ts'
import { leaseOf, type PlanChange, Planner, type PlannerSettings } from './planner.ts'
import { SubnetAcquisition } from './subnet-acquisition.ts'
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

/** What pods get, told to the CNI server and written to subnet.env. */
export interface PodNetwork {
  readonly podCidrs: readonly Cidr[]
  readonly clusterNetworks: readonly Cidr[]
  readonly mtuBytes: number
}

export interface NetworkLoopOptions {
  readonly nodeName: string
  readonly source: ClusterSource
  readonly writer: Writer
  readonly log: LoopLog
  /** Subnets of an earlier run, for stores where nodes take them. */
  readonly previousSubnets: readonly Cidr[]
  readonly settings: PlannerSettings
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

const MESSAGES_KEPT = 8

export class NetworkLoop {
  readonly #options: NetworkLoopOptions
  readonly #planner: Planner
  readonly #lastGood: LastGoodConfig
  readonly #announcer: Announcer
  readonly #acquisition: SubnetAcquisition
  #own: NodeInfo | undefined
  #detected: Detected | undefined
  #synced = false
  /** When the view was saved that this node works from, before the store's first list. */
  #remembered: string | undefined
  #connected = false
  #marked = false
  #complete = false
  #scheduled = false
  #closed = false
  #concluding = false
  #concludeAgain = false
  readonly #leaving: Drain
  readonly #arriving: Drain
  #podNetwork = ''
  #serving = false
  /** The last few messages about each node, so that each is said once although there are several. */
  readonly #reported = new Map<string, string[]>()

  constructor(options: NetworkLoopOptions) {
    this.#options = options
    const { source, log, previousSubnets: previous } = options
    const readTraffic = options.readTraffic ?? (async () => ({ sent: 0, received: 0 }))
    this.#leaving = new Drain('sent', readTraffic)
    this.#arriving = new Drain('received', readTraffic)
    this.#planner = new Planner(options.settings, (name) => options.writer.inPlace(name))
    this.#lastGood = new LastGoodConfig(log)
    this.#announcer = new Announcer({
      source,
      log,
      onWrite: ({ weft }) => this.#planner.addPending(weft),
      onWritten: () => void this.#conclude(),
    })
    this.#acquisition = new SubnetAcquisition({ source, previous, log, onChange: () => this.#schedule() })
  }

  /** What has to be there before pods can be served, in the order in which it comes. */
  checks(): Check[] {
    const check = (name: string, ok: boolean, problem: string): Check => ({ name, problem: ok ? undefined : problem })
    const [own, config] = [this.#own, this.#config]
    const held = own && config ? partSubnets(own, config).inside : (own?.podCidrs ?? [])
    const noLease = own?.podCidrs.length
      ? `${own.podCidrs.join(', ')} is outside the network of net-conf.json`
      : 'this node has no pod subnet yet'
    return [
      check('cluster', this.#knowsPeers, 'the cluster has not been listed yet'),
      check('net-conf', config !== undefined, this.#lastGood.problem ?? 'there is no network configuration yet'),
      check('node', own !== undefined, `the cluster has no node ${this.#options.nodeName}`),
      check('lease', held.length > 0, noLease),
      check('interface', this.#detected !== undefined, 'the external interface is not known'),
      check('kernel', this.#serving, 'the kernel is not programmed yet'),
    ]
  }

  /** When the view of the cluster was saved that this node works from, ISO 8601; undefined once the store has listed. */
  get remembered(): string | undefined {
    return this.#remembered
  }

  /** For people and the lab. */
  state(): object {
    return {
      config: this.#config,
      configProblem: this.#lastGood.problem,
      connected: this.#connected,
      synced: this.#synced,
      workingFromCacheOf: this.#remembered,
      node: this.#context(),
      interface: this.#detected?.reason,
      peers: [...this.#planner.peers.values()].map(({ name, podCidrs, lease, weft }) => ({
        name,
        podCidrs,
        lease,
        weft,
        by: this.#planner.modes.get(name),
      })),
      problems: [...this.#planner.problems.values()].flat(),
      status: this.#planner.transition?.status,
      settled: this.#planner.transition?.settled ?? false,
      mtuBytes: this.#planner.transition?.mtuBytes,
    }
  }

  /** How many peers are sent to by each path. */
  peersByPath(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const { path, direct } of this.#planner.modes.values()) {
      const name = direct ? `${path} direct` : path
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    return counts
  }

  /** Other nodes: believed ones, and those that were refused. */
  get peerCounts(): { readonly believed: number; readonly refused: number } {
    const believed = this.#planner.peers.size
    return { believed, refused: this.#planner.knownPeers - believed }
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
        this.#onNetwork(event.text, event.object)
        break
      case 'synced':
        if (this.#remembered) log.info({}, 'the cluster was listed: it takes the place of what was remembered')
        this.#remembered = undefined
        this.#synced = true
        this.#connected = true
        this.#planner.forgetRestored()
        break
      case 'remembered':
        log.warn({}, `working from the cache of ${event.savedAt}: the store is away`)
        this.#remembered = event.savedAt
        this.#planner.restorePending(event.written)
        break
      case 'node-gone':
        if (event.name === nodeName) log.warn({}, 'the cluster no longer has this node; what is programmed stays')
        else this.#planner.removePeer(event.name)
        this.#reported.delete(event.name)
        break
      case 'node':
        this.#onNode(event)
    }
    this.#schedule()
  }

  onDetected(detected: Detected): void {
    const { device, mtuBytes } = detected.external
    const fields = {
      device,
      mtuBytes,
      publicIp: detected.publicIp,
      publicIpv6: detected.publicIpv6,
      by: detected.reason,
    }
    this.#options.log.info(fields, this.#detected ? 'external interface changed' : 'external interface')
    // Connections to the store may go by what is no more; another MTU leaves them alone.
    const placeOf = (known: Detected | undefined) => JSON.stringify([known?.external.device, known?.external.addresses])
    if (this.#detected && placeOf(this.#detected) !== placeOf(detected)) this.#options.source.reconnect()
    this.#detected = detected
    this.#marked = true
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

  close(): void {
    this.#closed = true
    this.#leaving.close()
    this.#arriving.close()
  }

  #onNetwork(text: string | undefined, object: string): void {
    const { source, nodeName, onConfigError } = this.#options
    const { changed, error } = this.#lastGood.read(text, object)
    if (changed) this.#marked = true
    if (!error) return
    onConfigError()
    source.report({ node: nodeName, severity: 'Warning', reason: 'BadNetworkConfiguration', message: error.message })
  }

  #onNode(event: Extract<ClusterEvent, { type: 'node' }>): void {
    const { node, problems } = event
    if (node.name === this.#options.nodeName) {
      const placeOf = (own: NodeInfo | undefined) => JSON.stringify([own?.podCidrs, own?.uid])
      if (placeOf(this.#own) !== placeOf(node)) this.#marked = true
      this.#own = node
      this.#announcer.hear(node)
      this.#planner.setAnnounced(node.weft)
      this.#options.onOwnNode(event)
      return
    }
    this.#planner.setPeer(node)
    for (const problem of problems) this.#refuse(node, problem.message)
  }

  #refuse(node: Pick<NodeInfo, 'name' | 'uid'>, message: string): void {
    if (!this.#isNews(node.name, message)) return
    const { log, source, onPeerProblem } = this.#options
    onPeerProblem()
    log.warn({ peer: node.name }, message)
    const report: NodeReport = {
      node: node.name,
      ...(node.uid === undefined ? {} : { uid: node.uid }),
      severity: 'Warning',
      reason: 'PeerRefused',
      message,
    }
    source.report(report)
  }

  #isNews(node: string, message: string): boolean {
    const before = this.#reported.get(node) ?? []
    if (before.includes(message)) return false
    this.#reported.set(node, [...before.slice(1 - MESSAGES_KEPT), message])
    return true
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#closed) this.#turn()
    })
  }

  get #config(): NetworkConfig | undefined {
    return this.#lastGood.config
  }

  /** By the store's own list, or by what this node remembers of it. */
  get #knowsPeers(): boolean {
    return this.#synced || this.#remembered !== undefined
  }

  #turn(): void {
    if (!this.#knowsPeers || !this.#config || !this.#detected) return
    const node = this.#context()
    if (this.#synced && !(this.#acquisition.isDone && (node || !this.#options.source.acquire))) this.#acquire()
    if (!node || (this.#synced && !this.#acquisition.isDone)) return
    if (this.#marked) {
      this.#marked = false
      this.#planner.setNode(this.#config, node)
    }
    this.#write(this.#planner.plan())
    for (const [name, problems] of this.#planner.problems)
      for (const { key, problem } of problems)
        this.#refuse(this.#planner.peers.get(name) ?? { name }, `Node ${name}: ${key}: ${problem}`)
    if (!this.#complete && this.#synced && this.#planner.isComplete) {
      this.#complete = true
      this.#options.writer.markComplete()
    }
    void this.#conclude()
  }

  /**
   * Hands a plan to the applier; false when it is empty. Peers whose words passed every check and still want one kernel
   * object differently are told apart here: the first stands, the other is refused.
   */
  #write({ set, removed }: PlanChange): boolean {
    if (set.length + removed.length === 0) return false
    const { writer } = this.#options
    try {
      writer.change(set, removed)
    } catch (error) {
      if (!(error instanceof DesiredConflict)) throw error
      writer.change([], removed)
      for (const fragment of set) this.#writeAlone(fragment)
    }
    return true
  }

  #writeAlone(fragment: Fragment): void {
    try {
      this.#options.writer.change([fragment], [])
    } catch (error) {
      if (!(error instanceof DesiredConflict)) throw error
      const name = /^node\/([^/]+)/.exec(fragment.source)?.[1]
      if (name === undefined) throw error
      this.#refuse(this.#planner.peers.get(name) ?? { name }, `Node ${name}: ${error.message}`)
    }
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
      if (complete) this.#settleDrained()
      const before = JSON.stringify(this.#planner.transition?.status)
      await this.#serve()
      if (this.#synced) this.#announcer.say(this.#planner.announcement())
      if (this.#write(this.#planner.plan())) this.#concludeAgain = true
      if (JSON.stringify(this.#planner.transition?.status) !== before) this.#concludeAgain = true
    } while (this.#concludeAgain && !this.#closed)
    this.#concluding = false
    const settled = this.#complete && this.#serving && this.#planner.transition?.settled
    if (settled && !this.#announcer.isWriting) this.#options.onIdle?.()
  }

  /**
   * Notes that a path is not sent by any more, or that nothing comes in by it, once its last packets have had time. Not
   * before all that an earlier agent left in the kernel is swept or wanted: its routes may still send.
   */
  #settleDrained(): void {
    const planner = this.#planner
    const { draining, waning } = planner
    if (draining.length === 0) planner.noteSettled()
    this.#leaving.wait(draining, planner.devicesOf(draining), (paths) => {
      if (planner.draining.join() === paths.join()) planner.noteSettled()
      void this.#conclude()
    })
    this.#arriving.wait(waning, planner.devicesOf(waning), (paths) => {
      planner.noteDry(paths)
      void this.#conclude()
    })
  }

  /** Tells the CNI server what pods get, when it changed and some path stands. */
  async #serve(): Promise<void> {
    const [node, plan, config] = [this.#context(), this.#planner.transition, this.#config]
    if (!node || !config || plan?.mtuBytes === undefined || plan.status.accepts.length === 0) return
    const clusterNetworks = [config.v4?.network, config.v6?.network].filter((network) => network !== undefined)
    const network: PodNetwork = { podCidrs: node.podCidrs, clusterNetworks, mtuBytes: plan.mtuBytes }
    const text = JSON.stringify(network)
    if (text === this.#podNetwork) return
    try {
      await this.#options.onPodNetwork(network)
      this.#podNetwork = text
      this.#planner.setPodMtu(network.mtuBytes)
      this.#serving = true
    } catch (error) {
      this.#options.log.error({ err: error }, 'pods cannot be served')
    }
  }

  #acquire(): void {
    const [config, detected] = [this.#config!, this.#detected!]
    const { nodeName } = this.#options
    const announce = (podCidrs: readonly Cidr[]): Announcement => ({
      lease: leaseOf(config.backend, contextWith(nodeName, podCidrs, detected, this.#own)),
      weft: { accepts: [], sends: [] },
    })
    this.#acquisition.begin(config, detected.publicIp, announce)
  }

  #context(): NodeContext | undefined {
    const { log, nodeName, source } = this.#options
    if (!this.#own || !this.#config || !this.#detected || this.#own.podCidrs.length === 0) return undefined
    const { inside, outside } = partSubnets(this.#own, this.#config)
    if (outside.length > 0) {
      const message = `Node ${nodeName}: spec.podCIDRs: ${outside.join(', ')} is outside the network of net-conf.json`
      if (this.#isNews(nodeName, message)) {
        log.error({}, message)
        source.report({ node: nodeName, severity: 'Warning', reason: 'SubnetOutsideNetwork', message })
      }
    }
    return inside.length === 0 ? undefined : contextWith(nodeName, inside, this.#detected, this.#own)
  }
}
