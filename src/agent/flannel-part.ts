/**
 * flannel's share of the loop: net-conf.json, the node's podCIDRs, and what the planner makes of them.
 *
 *   net-conf ──► last good config ─┐
 *   own Node ──► podCIDRs, wishes ─┼─► NodeContext ─► planner ─► fragments
 *   interface ─► external ─────────┘        ▲
 *   other Nodes ────────────────────────────┘
 */
import type { ClusterSource, LeaseAnnouncement } from '../cluster/cluster.ts'
import type { NetworkConfig } from '../config/config.ts'
import { flannelPaths } from '../datapath/path.ts'
import type { TransitionPlan } from '../datapath/transition.ts'
import type { NodeContext, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Complaints } from './complaints.ts'
import type { Detected } from './external-interface.ts'
import { LastGoodConfig } from './last-good-config.ts'
import type { LoopLog, Writer } from './network-loop.ts'
import type { NetworkPart, PartChecks, PartWords, PodShare, Surroundings } from './network-part.ts'
import { contextWith, partSubnets } from './own-place.ts'
import { PathDrains } from './path-drains.ts'
import { leaseOf, type PlanChange, Planner, type PlannerSettings } from './planner.ts'
import { SubnetAcquisition } from './subnet-acquisition.ts'
import type { ReadTraffic } from './traffic.ts'

export interface FlannelPartOptions {
  readonly nodeName: string
  readonly source: ClusterSource
  readonly writer: Pick<Writer, 'inPlace'>
  readonly log: LoopLog
  readonly complaints: Complaints
  /** Subnets of an earlier run, for stores where nodes take them. */
  readonly previousSubnets: readonly Cidr[]
  readonly settings: PlannerSettings
  readonly readTraffic: ReadTraffic
  onConfigError(): void
  /** There is reason for another turn. */
  onChange(): void
}

const isFlannelPath = (path: string): boolean => flannelPaths.isKnown(path)

export class FlannelPart implements NetworkPart {
  readonly #options: FlannelPartOptions
  readonly #planner: Planner
  readonly #drains: PathDrains
  readonly #lastGood: LastGoodConfig
  readonly #acquisition: SubnetAcquisition
  #own: NodeInfo | undefined
  #detected: Detected | undefined
  #marked = false
  /** The store has said whether there is a net-conf.json. */
  #heard = false

  constructor(options: FlannelPartOptions) {
    this.#options = options
    const { source, log, previousSubnets: previous, settings, writer, readTraffic, onChange } = options
    this.#planner = new Planner(settings, (name) => writer.inPlace(name))
    this.#drains = new PathDrains(this.#planner, readTraffic)
    this.#lastGood = new LastGoodConfig(log, settings.overlay)
    this.#acquisition = new SubnetAcquisition({ source, previous, log, onChange })
  }

  ownsPath(path: string): boolean {
    return isFlannelPath(path)
  }

  /** A text that cannot be read may be one that wants what is in the kernel. */
  get presence(): 'unknown' | 'absent' | 'active' {
    if (this.#config) return 'active'
    return this.#heard && this.#lastGood.isMissing ? 'absent' : 'unknown'
  }

  get isComplete(): boolean {
    return this.#planner.isComplete
  }

  get transition(): TransitionPlan | undefined {
    return this.#planner.transition
  }

  get problems(): ReadonlyMap<string, readonly PeerProblem[]> {
    return this.#planner.problems
  }

  /** Other nodes: believed ones, and those that were refused. */
  get peerCounts(): { readonly believed: number; readonly refused: number } {
    const believed = this.#planner.peers.size
    return { believed, refused: this.#planner.knownPeers - believed }
  }

  peer(name: string): NodeInfo | undefined {
    return this.#planner.peers.get(name)
  }

  setPeer(peer: NodeInfo): void {
    this.#planner.setPeer(peer)
  }

  removePeer(name: string): void {
    this.#planner.removePeer(name)
  }

  setOwn(own: NodeInfo): void {
    const placeOf = (node: NodeInfo | undefined) => JSON.stringify([node?.podCidrs, node?.uid])
    if (placeOf(this.#own) !== placeOf(own)) this.#marked = true
    this.#own = own
    this.#planner.setAnnounced(own.weft)
  }

  setDetected(detected: Detected): void {
    this.#detected = detected
    this.#marked = true
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

  /** Networks of net-conf.json. */
  get networks(): readonly Cidr[] {
    return [this.#config?.v4?.network, this.#config?.v6?.network].filter((network) => network !== undefined)
  }

  /** Networks of pods that are not flannel's. */
  setOtherNetworks(networks: readonly Cidr[]): void {
    this.#planner.setOtherNetworks(networks)
  }

  /** The store's net-conf.json, undefined when there is none. */
  onNetwork(text: string | undefined, object: string): void {
    const { source, nodeName, onConfigError } = this.#options
    this.#heard = true
    const { changed, error } = this.#lastGood.read(text, object)
    if (changed) this.#marked = true
    if (!error) return
    onConfigError()
    source.report({ node: nodeName, severity: 'Warning', reason: 'BadNetworkConfiguration', message: error.message })
  }

  prepare({ synced }: Surroundings): boolean {
    if (!this.#config || !this.#detected) return false
    const node = this.#context()
    if (synced && !(this.#acquisition.isDone && (node || !this.#options.source.acquire))) this.#acquire()
    if (!node || (synced && !this.#acquisition.isDone)) return false
    if (this.#marked) {
      this.#marked = false
      this.#planner.setNode(this.#config, node)
    }
    return true
  }

  plan(): PlanChange {
    return this.#planner.plan()
  }

  settleDrained(again: () => void): void {
    this.#drains.settle(again)
  }

  words(): PartWords | undefined {
    if (this.presence === 'absent') return { status: { accepts: [], sends: [] }, lease: null }
    const announcement = this.#planner.announcement()
    return announcement && { status: announcement.weft, lease: announcement.lease }
  }

  pods(): PodShare | undefined {
    const [node, plan] = [this.#context(), this.#planner.transition]
    if (!node || plan?.mtuBytes === undefined || plan.status.accepts.length === 0) return undefined
    return { podCidrs: node.podCidrs, networks: this.networks, mtuBytes: plan.mtuBytes }
  }

  setPodMtu(bytes: number): void {
    this.#planner.setPodMtu(bytes)
  }

  peersByPath(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const { path, direct } of this.#planner.modes.values()) {
      const name = direct ? `${path} direct` : path
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    return counts
  }

  checks({ own }: Surroundings): PartChecks {
    const config = this.#config
    const held = own && config ? partSubnets(own, config).inside : (own?.podCidrs ?? [])
    const noLease = own?.podCidrs.length
      ? `${own.podCidrs.join(', ')} is outside the network of net-conf.json`
      : 'this node has no pod subnet yet'
    const noConfig = this.#lastGood.problem ?? 'there is no network configuration yet'
    return {
      configuration: { name: 'net-conf', problem: config ? undefined : noConfig },
      addresses: { name: 'lease', problem: held.length > 0 ? undefined : noLease },
    }
  }

  state(): object {
    const planner = this.#planner
    return {
      config: this.#config,
      configProblem: this.#lastGood.problem,
      node: this.#context(),
      peers: [...planner.peers.values()].map(({ name, podCidrs, lease, weft }) => ({
        name,
        podCidrs,
        lease,
        weft,
        by: planner.modes.get(name),
      })),
      problems: [...planner.problems.values()].flat(),
      status: planner.transition?.status,
      mtuBytes: planner.transition?.mtuBytes,
    }
  }

  close(): void {
    this.#drains.close()
  }

  get #config(): NetworkConfig | undefined {
    return this.#lastGood.config
  }

  #acquire(): void {
    const [config, detected] = [this.#config!, this.#detected!]
    const { nodeName } = this.#options
    const announce = (podCidrs: readonly Cidr[]): LeaseAnnouncement => ({
      lease: leaseOf(config.backend, contextWith(nodeName, podCidrs, detected, this.#own)),
      weft: { accepts: [], sends: [] },
    })
    this.#acquisition.begin(config, detected.publicIp, announce)
  }

  #context(): NodeContext | undefined {
    const { complaints, nodeName } = this.#options
    if (!this.#own || !this.#config || !this.#detected || this.#own.podCidrs.length === 0) return undefined
    const { inside, outside } = partSubnets(this.#own, this.#config)
    if (outside.length > 0) {
      const message = `Node ${nodeName}: spec.podCIDRs: ${outside.join(', ')} is outside the network of net-conf.json`
      complaints.ofOwn('SubnetOutsideNetwork', message)
    }
    return inside.length === 0 ? undefined : contextWith(nodeName, inside, this.#detected, this.#own)
  }
}
