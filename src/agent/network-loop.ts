/**
 * The agent's one loop. Everything that may change what this node should do ends here as a change of a field and a mark;
 * a later turn of the event loop works off all marks at once:
 *
 *   net-conf ──► last good config ─┐
 *   own Node ──► podCIDRs, wishes ─┼─► NodeContext ─► planner ─► fragments ─► applier
 *   interface ─► external ─────────┘        ▲                        │
 *   other Nodes ────────────────────────────┘      in place ─► announce, pods served
 *
 * Nothing is swept before the cluster's first complete list, and never on a configuration that could not be read.
 */
import type { ApplyReport } from '../apply/applier.ts'
import { DesiredConflict } from '../apply/desired.ts'
import type { Announcement, ClusterEvent, ClusterSource, NodeReport, SubnetRange } from '../cluster/cluster.ts'
import type { NetworkConfig } from '../config/config.ts'
import { parseNetConf } from '../config/flannel/net-conf.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import { ConfigError } from '../model/errors.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Detected } from './external-interface.ts'
import { leaseOf, type PlanChange, Planner, type PlannerSettings } from './planner.ts'

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
  /** The cluster spoke of this node. */
  onOwnNode(event: Extract<ClusterEvent, { type: 'node' }>): void
  /** Packets of pods can be carried. Called again with every change. */
  onPodNetwork(network: PodNetwork): Promise<void>
  onConfigError(): void
  onPeerProblem(): void
  /** Everything that is known is planned, programmed and announced. */
  onIdle?(): void
}

const ACQUIRE_RETRY_MS = 30_000
/** How long packets may still be on their way after the last one was sent by a path: in the kernel, and in a process of its own. */
const DRAIN_MS = { kernel: 50, process: 1000 } as const

export class NetworkLoop {
  readonly #options: NetworkLoopOptions
  readonly #planner: Planner
  #config: NetworkConfig | undefined
  #configProblem: string | undefined
  #own: NodeInfo | undefined
  #detected: Detected | undefined
  #synced = false
  #connected = false
  #marked = false
  #complete = false
  #scheduled = false
  #closed = false
  #announced = ''
  /** The store has spoken of this node since the last write. */
  #ownHeard = false
  #concluding = false
  #concludeAgain = false
  #acquiring = false
  #acquired = false
  #draining = ''
  #drainTimer: NodeJS.Timeout | undefined
  #podNetwork = ''
  #serving = false
  readonly #reported = new Map<string, string>()

  constructor(options: NetworkLoopOptions) {
    this.#options = options
    this.#planner = new Planner(options.settings, (source) => options.writer.inPlace(source))
  }

  /** Why pods cannot be served now; empty when they can. */
  notReady(): string[] {
    const reasons: string[] = []
    if (!this.#synced) reasons.push('the cluster has not been listed yet')
    if (!this.#config) reasons.push(this.#configProblem ?? 'there is no network configuration yet')
    if (!this.#own) reasons.push(`the cluster has no node ${this.#options.nodeName}`)
    else if (this.#own.podCidrs.length === 0) reasons.push('this node has no pod subnet yet')
    if (!this.#detected) reasons.push('the external interface is not known')
    if (reasons.length === 0 && !this.#serving) reasons.push('the kernel is not programmed yet')
    return reasons
  }

  /** For people and the lab. */
  state(): object {
    return {
      config: this.#config,
      configProblem: this.#configProblem,
      connected: this.#connected,
      synced: this.#synced,
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
        this.#synced = true
        this.#connected = true
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
    if (this.#detected) this.#options.source.reconnect()
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

  close(): void {
    this.#closed = true
    clearTimeout(this.#drainTimer)
  }

  #onNetwork(text: string | undefined, object: string): void {
    const { log, source, nodeName, onConfigError } = this.#options
    if (text === undefined) {
      this.#configProblem = `${object} is not there`
      log.warn(
        { object },
        this.#config
          ? 'the network configuration is gone; the last one stays'
          : 'there is no network configuration yet',
      )
      return
    }
    try {
      const { config, warnings } = parseNetConf(text, object)
      for (const warning of warnings) log.warn({ object }, warning)
      if (JSON.stringify(config) !== JSON.stringify(this.#config)) {
        log.info(
          { object, backend: config.backend, v4: config.v4?.network, v6: config.v6?.network },
          'network configuration',
        )
        this.#marked = true
      }
      this.#config = config
      this.#configProblem = undefined
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#configProblem = error.message
      onConfigError()
      log.error(
        { err: error.message },
        this.#config ? 'bad network configuration; the last good one stays' : 'bad network configuration',
      )
      source.report({ node: nodeName, severity: 'Warning', reason: 'BadNetworkConfiguration', message: error.message })
    }
  }

  #onNode(event: Extract<ClusterEvent, { type: 'node' }>): void {
    const { node, problems } = event
    if (node.name === this.#options.nodeName) {
      const placeOf = (own: NodeInfo | undefined) => JSON.stringify([own?.podCidrs, own?.uid])
      if (placeOf(this.#own) !== placeOf(node)) this.#marked = true
      this.#own = node
      this.#ownHeard = true
      this.#planner.setAnnounced(node.weft)
      this.#options.onOwnNode(event)
      return
    }
    this.#planner.setPeer(node)
    for (const problem of problems) this.#refuse(node, problem.message)
  }

  #refuse(node: Pick<NodeInfo, 'name' | 'uid'>, message: string): void {
    if (this.#reported.get(node.name) === message) return
    this.#reported.set(node.name, message)
    const { log, source, onPeerProblem } = this.#options
    onPeerProblem()
    log.warn({ peer: node.name }, message)
    const report: NodeReport = {
      node: node.name,
      ...(node.uid === undefined ? {} : { uid: node.uid }),
      severity: 'Warning',
      reason: 'PeerRefused',
      message: `${message} (seen by node ${this.#options.nodeName})`,
    }
    source.report(report)
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#closed) this.#turn()
    })
  }

  #turn(): void {
    if (!this.#synced || !this.#config || !this.#detected) return
    const node = this.#context()
    if (this.#options.source.acquire && !(this.#acquired && node)) {
      this.#acquire()
      return
    }
    if (!node) return
    if (this.#marked) {
      this.#marked = false
      this.#planner.setNode(this.#config, node)
    }
    this.#write(this.#planner.plan())
    for (const [name, problems] of this.#planner.problems)
      for (const { key, problem } of problems)
        this.#refuse(this.#planner.peers.get(name) ?? { name }, `Node ${name}: ${key}: ${problem}`)
    if (!this.#complete && this.#planner.isComplete) {
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
      await this.#options.writer.settle()
      if (this.#closed) break
      this.#drain()
      const before = JSON.stringify(this.#planner.transition?.status)
      await this.#serve()
      await this.#announce()
      if (this.#write(this.#planner.plan())) this.#concludeAgain = true
      if (JSON.stringify(this.#planner.transition?.status) !== before) this.#concludeAgain = true
    } while (this.#concludeAgain && !this.#closed)
    this.#concluding = false
    if (this.#complete && this.#serving && this.#planner.transition?.settled) this.#options.onIdle?.()
  }

  /**
   * Nobody may hear that a path is not sent by any more while its last packets wait somewhere: the others would take their
   * side away. The user-space tunnel's process waits for a processor, perhaps for long.
   */
  #drain(): void {
    const { draining } = this.#planner
    if (draining.length === 0) return this.#planner.noteSettled()
    const key = draining.join()
    if (key === this.#draining) return
    this.#draining = key
    const slow = draining.some((path) => path.startsWith('udp/'))
    clearTimeout(this.#drainTimer)
    this.#drainTimer = setTimeout(
      () => {
        this.#draining = ''
        if (this.#planner.draining.join() === key) this.#planner.noteSettled()
        if (!this.#closed) void this.#conclude()
      },
      slow ? DRAIN_MS.process : DRAIN_MS.kernel,
    )
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

  /** Writes this node's words when they differ from those in the store, one write at a time. */
  async #announce(): Promise<void> {
    const announcement = this.#planner.announcement()
    if (!announcement) return
    const text = JSON.stringify(announcement)
    if (text === this.#announced && (!this.#ownHeard || text === announcedText(this.#own))) return
    if (text !== this.#announced) this.#options.log.info({ ...announcement.lease, ...announcement.weft }, 'announcing')
    this.#announced = text
    this.#ownHeard = false
    this.#planner.addPending(announcement.weft)
    try {
      await this.#options.source.announce(announcement)
    } catch (error) {
      this.#announced = ''
      this.#options.log.error({ err: (error as Error).message }, 'this node cannot be announced')
    }
  }

  /** Takes subnets where the store leaves it to nodes; they come back as the own node's event. */
  #acquire(): void {
    const { source, previousSubnets, log } = this.#options
    if (!source.acquire || this.#acquiring || !this.#config || !this.#detected) return
    const config = this.#config
    const { publicIp } = this.#detected
    const ranges: SubnetRange[] = [config.v4, config.v6]
      .filter((family) => family !== undefined)
      .map(({ network, subnetLength, subnetMin, subnetMax }) => ({
        network,
        length: subnetLength,
        min: subnetMin,
        max: subnetMax,
      }))
    const announce = (podCidrs: readonly Cidr[]): Announcement => ({
      lease: leaseOf(config.backend, this.#contextWith(podCidrs)!),
      weft: { accepts: [], sends: [] },
    })
    this.#acquiring = true
    source
      .acquire({ ranges, previous: previousSubnets, ...(publicIp ? { publicIp } : {}), announce })
      .then(() => {
        this.#acquired = true
        this.#schedule()
      })
      .catch((error: Error) => {
        log.error({ err: error.message }, 'no subnet for this node')
        setTimeout(() => this.#schedule(), ACQUIRE_RETRY_MS).unref()
      })
      .finally(() => {
        this.#acquiring = false
      })
  }

  #context(): NodeContext | undefined {
    const { log, nodeName, source } = this.#options
    if (!this.#own || !this.#config || !this.#detected || this.#own.podCidrs.length === 0) return undefined
    const { v4, v6 } = this.#config
    const inside = this.#own.podCidrs.filter((cidr) => (cidr.family === 4 ? v4 : v6)?.network.covers(cidr))
    const outside = this.#own.podCidrs.filter((cidr) => !inside.includes(cidr) && (cidr.family === 4 ? v4 : v6))
    if (outside.length > 0) {
      const message = `Node ${nodeName}: spec.podCIDRs: ${outside.join(', ')} is outside the network of net-conf.json`
      if (this.#reported.get(nodeName) !== message) {
        this.#reported.set(nodeName, message)
        log.error({}, message)
        source.report({ node: nodeName, severity: 'Warning', reason: 'SubnetOutsideNetwork', message })
      }
    }
    return inside.length === 0 ? undefined : this.#contextWith(inside)
  }

  #contextWith(podCidrs: readonly Cidr[]): NodeContext | undefined {
    const detected = this.#detected
    if (!detected) return undefined
    const own = this.#own
    const has = (family: 4 | 6) => podCidrs.some((cidr) => cidr.family === family)
    return {
      name: this.#options.nodeName,
      podCidrs,
      external: detected.external,
      ...(own?.uid === undefined ? {} : { uid: own.uid }),
      ...(detected.publicIp && has(4) ? { publicIp: detected.publicIp } : {}),
      ...(detected.publicIpv6 && has(6) ? { publicIpv6: detected.publicIpv6 } : {}),
      ...(own?.lease ? { lease: own.lease } : {}),
      ...(own?.weft ? { weft: own.weft } : {}),
    }
  }
}

/** The words of a node object in the shape that announcements have. */
const announcedText = (own: NodeInfo | undefined): string => JSON.stringify({ lease: own?.lease, weft: own?.weft })
