/**
 * From what is known of the network to fragments: one for each path that this node takes part in, and for each peer how to
 * believe it and how to reach it. Which paths, and which one towards whom, is decided by datapath/transition.ts on every
 * call; objects are planned again only where that decision, or the peer, changed.
 */
import type { LeaseAnnouncement } from '../cluster/cluster.ts'
import type { NetworkConfig } from '../config/config.ts'
import { PeerTable, type PeerVerdict } from '../config/flannel/peers.ts'
import { type Datapath, datapathOf } from '../datapath/datapath.ts'
import { configOfPath, detourOf, flannelPaths, type PathId, pathOf } from '../datapath/path.ts'
import {
  type Flow,
  type PeerView,
  planTransition,
  type SendMode,
  type TransitionPlan,
  viewPeer,
} from '../datapath/transition.ts'
import { type BackendConfig, routesDirectly } from '../model/backend.ts'
import type { FlannelLease, NodeContext, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import { type Route, WEFT_ROUTE_PROTOCOL } from '../model/route.ts'
import type { Cidr } from '../net/cidr.ts'
import { isSameMode, PathLedger } from './path-ledger.ts'
import {
  type FirewallSettings,
  peerFirewallSource,
  planFirewall,
  planPeerFirewall,
  tunnelsOf,
} from './peer-firewall.ts'

/** What the flags say about rules and routes beside the data paths. */
export interface PlannerSettings extends FirewallSettings {
  /** A blackhole route for this node's own subnets, so that what finds no pod goes nowhere else. */
  readonly blackhole: boolean
  /** Stands in place of the configuration's backend. */
  readonly overlay?: BackendConfig
}

export interface PlanChange {
  readonly set: readonly Fragment[]
  readonly removed: readonly string[]
}

const localSource = (path: PathId): string => `path/${path}`
const fromSource = (peer: string, path: PathId): string => `node/${peer}/from/${path}`
const towardSource = (peer: string): string => `node/${peer}`
const BLACKHOLE_SOURCE = 'blackhole'
/** Behind the connected route of the bridge, which has metric 0 (IPv4) or 256 (IPv6). */
const BLACKHOLE_METRIC = 4096

export class Planner {
  readonly #settings: PlannerSettings
  /** Whether all that a source wants is in the kernel. */
  readonly #inPlace: (source: string) => boolean
  /** Every other node as the store has it; `#peers` are those of them that are believed. */
  readonly #known = new Map<string, NodeInfo>()
  #table: PeerTable | undefined
  #config: NetworkConfig | undefined
  #node: NodeContext | undefined
  readonly #ledger = new PathLedger(flannelPaths)
  #podMtuBytes: number | undefined
  readonly #peers = new Map<string, NodeInfo>()
  readonly #views = new Map<string, PeerView>()
  readonly #dirty = new Set<string>()
  #dirtyNode = false
  readonly #modes = new Map<string, SendMode>()
  #plan: TransitionPlan | undefined
  #tunnels = ''
  #otherNetworks: readonly Cidr[] = []
  /** Devices that are for one peer each, by name. */
  readonly #deviceNames = new Map<string, string>()
  readonly #problems = new Map<string, readonly PeerProblem[]>()

  constructor(settings: PlannerSettings, inPlace: (source: string) => boolean) {
    this.#settings = settings
    this.#inPlace = inPlace
  }

  /** The other nodes that are believed. */
  get peers(): ReadonlyMap<string, NodeInfo> {
    return this.#peers
  }

  /** How many other nodes the store has. */
  get knownPeers(): number {
    return this.#known.size
  }

  get modes(): ReadonlyMap<string, SendMode> {
    return this.#modes
  }

  get problems(): ReadonlyMap<string, readonly PeerProblem[]> {
    return this.#problems
  }

  /** The last decision. */
  get transition(): TransitionPlan | undefined {
    return this.#plan
  }

  /** True when nothing would be missed by a sweep: every path in use stands, and this node's words are in the store. */
  get isComplete(): boolean {
    const { announced, paths, placed } = this.#ledger
    return announced !== undefined && this.#plan !== undefined && paths.every((path) => placed.has(path))
  }

  setNode(config: NetworkConfig, node: NodeContext): void {
    this.#config = config
    this.#node = node
    this.#dirtyNode = true
    this.#views.clear()
    this.#table = new PeerTable(config, node)
    for (const peer of this.#known.values()) this.#table.set(peer)
    for (const verdict of this.#table.verdicts()) this.#judge(verdict)
  }

  /** Networks of pods that are not in the configuration: masquerading leaves them alone. */
  setOtherNetworks(networks: readonly Cidr[]): void {
    this.#otherNetworks = networks
  }

  setPeer(peer: NodeInfo): void {
    this.#known.set(peer.name, peer)
    for (const verdict of this.#table?.set(peer) ?? []) this.#judge(verdict)
  }

  removePeer(name: string): void {
    this.#known.delete(name)
    this.#forget(name)
    this.#problems.delete(name)
    for (const verdict of this.#table?.delete(name) ?? []) this.#judge(verdict)
  }

  #judge({ node, problem }: PeerVerdict): void {
    if (problem) {
      this.#forget(node.name)
      this.#problems.set(node.name, [problem])
      return
    }
    this.#problems.delete(node.name)
    this.#peers.set(node.name, node)
    this.#views.delete(node.name)
    this.#dirty.add(node.name)
  }

  /** Names that follow from addresses may be alike: who comes first has it. */
  #ownsName(device: string, peer: string): boolean {
    const owner = this.#deviceNames.get(device)
    if (owner === undefined) this.#deviceNames.set(device, peer)
    return (owner ?? peer) === peer
  }

  #forget(name: string): void {
    for (const [device, owner] of this.#deviceNames) if (owner === name) this.#deviceNames.delete(device)
    if (!this.#peers.delete(name)) return
    this.#views.delete(name)
    this.#dirty.add(name)
  }

  /** The store says this of this node; what was written before it has come back. */
  setAnnounced(status: WeftNodeStatus | undefined): void {
    this.#ledger.setAnnounced(status)
  }

  /** An earlier agent was writing these when it ended: until the store speaks, any of them may stand. */
  restorePending(statuses: readonly WeftNodeStatus[]): void {
    this.#ledger.restorePending(statuses)
  }

  /** The store has spoken: what it does not have of an earlier agent's words was never heard by anybody. */
  forgetRestored(): void {
    this.#ledger.forgetRestored()
  }

  /** A status is about to be written. */
  addPending(status: WeftNodeStatus): void {
    this.#ledger.addPending(status)
  }

  /** Pods were told this MTU. */
  setPodMtu(bytes: number): void {
    this.#podMtuBytes = bytes
  }

  /** Paths that nobody is to be sent to by any more, whose last packets may still wait in a queue. */
  get draining(): readonly PathId[] {
    return this.#ledger.drainingBeside(this.#modes.values())
  }

  /** Paths that nobody needs any more but whose devices stay until nothing comes in by them. */
  get waning(): readonly PathId[] {
    return this.#ledger.waning
  }

  /** Nothing comes in by these any more. */
  noteDry(paths: readonly PathId[]): void {
    this.#ledger.noteDry(paths)
  }

  /** Devices that packets of these paths go by. */
  devicesOf(paths: readonly PathId[]): readonly string[] {
    const node = this.#node
    return node ? paths.flatMap((path) => this.#datapathOf(path).devices(this.#configOf(path), node)) : []
  }

  /** The kernel has been given everything: what nobody is sent to by any more is not sent by. */
  noteSettled(): void {
    if (!this.#ledger.isLingering) return
    for (const name of this.#modes.keys()) if (!this.#inPlace(towardSource(name))) return
    this.#ledger.noteSettled()
  }

  /** What this node tells the others now; undefined while it accepts nothing. */
  announcement(): LeaseAnnouncement | undefined {
    const [config, node, plan] = [this.#config, this.#node, this.#plan]
    if (!config || !node || !plan || plan.status.accepts.length === 0) return undefined
    const wanted = pathOf(config.backend)
    const accepts = [...plan.status.accepts].sort()
    const endpoints: Record<string, unknown> = {}
    for (const path of accepts) {
      const endpoint = this.#datapathOf(path).endpoint(this.#configOf(path), node)
      if ((endpoint.data ?? endpoint.v6Data ?? null) !== null) endpoints[path] = endpoint
    }
    const lease =
      accepts.includes(wanted) || !node.lease ? leaseOf(config.backend, node) : { ...node.lease, ...addressesOf(node) }
    return {
      lease,
      weft: {
        accepts,
        sends: [...plan.status.sends].sort(),
        ...(Object.keys(endpoints).length > 0 ? { endpoints } : {}),
      },
    }
  }

  /** Decides anew and plans what differs from the last call. */
  plan(): PlanChange {
    const set: Fragment[] = []
    const removed: string[] = []
    const [config, node] = [this.#config, this.#node]
    if (!config || !node) return { set, removed }
    this.#notePlaced()
    const plan = this.#ledger.keepWaning(this.#decide(config, node), (paths) => this.devicesOf(paths))
    this.#plan = plan
    const all = this.#dirtyNode
    if (all) this.#planBlackhole(node, set, removed)
    this.#planPaths(plan.paths, all, set, removed)
    const names = all ? new Set([...this.#peers.keys(), ...this.#modes.keys()]) : new Set(this.#dirty)
    for (const [name, mode] of plan.toward) if (!isSameMode(mode, this.#modes.get(name))) names.add(name)
    for (const name of this.#modes.keys()) if (!plan.toward.has(name)) names.add(name)
    for (const name of names) this.#planToward(name, plan.toward.get(name), set, removed)
    this.#planRules(plan.paths, all, set, removed)
    this.#dirtyNode = false
    this.#dirty.clear()
    return { set, removed }
  }

  /** Undefined for a path that this weft does not know. */
  #mtuOf(path: PathId, node: NodeContext): number | undefined {
    if (configOfPath(path) === undefined) return undefined
    return this.#datapathOf(path).mtuBytes(this.#configOf(path), node)
  }

  #decide(config: NetworkConfig, node: NodeContext): TransitionPlan {
    const { backend } = config
    const wanted: SendMode = { path: pathOf(backend), direct: routesDirectly(backend) }
    for (const [name, peer] of this.#peers) if (!this.#views.has(name)) this.#views.set(name, viewPeer(peer, wanted))
    const flows = new Map<string, Flow>()
    for (const [name, { accepts }] of this.#views) flows.set(name, { wanted, accepts, current: this.#modes.get(name) })
    // Asked for each peer, and the same for all of them.
    const mtus = new Map<PathId, number | undefined>()
    const { placed, announced, pending } = this.#ledger
    return planTransition({
      words: flannelPaths,
      wanted: [wanted],
      inPlace: placed,
      sending: this.#ledger.sendingBeside(this.#modes.values()),
      announced,
      pending,
      peers: this.#views.values(),
      flows,
      ...(this.#podMtuBytes === undefined ? {} : { podMtuBytes: this.#podMtuBytes }),
      mtuOf: (path) => {
        if (!mtus.has(path)) mtus.set(path, this.#mtuOf(path, node))
        return mtus.get(path)
      },
    })
  }

  #planBlackhole(node: NodeContext, set: Fragment[], removed: string[]): void {
    if (!this.#settings.blackhole) {
      removed.push(BLACKHOLE_SOURCE)
      return
    }
    const objects = node.podCidrs.map(
      (destination): Route => ({
        kind: 'route',
        destination,
        type: 'blackhole',
        hops: [],
        metric: BLACKHOLE_METRIC,
        protocol: WEFT_ROUTE_PROTOCOL,
      }),
    )
    set.push({ source: BLACKHOLE_SOURCE, objects })
  }

  /** The packet rules follow the paths in use; what they know of peers matters only while there is a tunnel. */
  #planRules(paths: readonly PathId[], all: boolean, set: Fragment[], removed: string[]): void {
    const { v4, v6 } = this.#config!
    const configs = paths.map((path) => this.#configOf(path))
    const tunnels = tunnelsOf(configs, this.#node!)
    const text = JSON.stringify([tunnels, this.#otherNetworks])
    const fresh = all || text !== this.#tunnels
    this.#tunnels = text
    if (fresh) {
      const networks = [v4?.network, v6?.network].filter((network) => network !== undefined)
      set.push(planFirewall(networks, this.#node!, tunnels, this.#settings, this.#otherNetworks))
    }
    for (const name of fresh ? new Set([...this.#peers.keys(), ...this.#dirty]) : this.#dirty) {
      const peer = this.#peers.get(name)
      const garbled = this.#problems.get(name)?.some(({ key }) => key.startsWith('backend-'))
      if (peer?.lease && tunnels.length > 0 && !garbled) set.push(planPeerFirewall(peer))
      else removed.push(peerFirewallSource(name))
    }
  }

  #planPaths(paths: readonly PathId[], all: boolean, set: Fragment[], removed: string[]): void {
    const before = this.#ledger.paths
    for (const path of before)
      if (!paths.includes(path))
        removed.push(
          localSource(path),
          ...[...this.#peers.keys(), ...this.#dirty].map((name) => fromSource(name, path)),
        )
    for (const path of paths) {
      const fresh = all || !before.includes(path)
      const [config, datapath] = [this.#configOf(path), this.#datapathOf(path)]
      if (fresh) set.push(datapath.local(config, this.#node!))
      for (const name of fresh ? this.#peers.keys() : this.#dirty) {
        const peer = this.#peers.get(name)
        const fragment = peer?.lease ? datapath.from(config, this.#node!, peer) : undefined
        if (fragment && fragment.objects.length > 0) set.push(fragment)
        else if (!fresh || all) removed.push(fromSource(name, path))
      }
    }
    this.#ledger.setPaths(paths)
  }

  #planToward(name: string, mode: SendMode | undefined, set: Fragment[], removed: string[]): void {
    const before = this.#modes.get(name)
    if (before && !isSameMode(before, mode)) this.#ledger.noteLeft(before)
    const peer = this.#peers.get(name)
    if (peer) this.#problems.delete(name)
    if (!mode || !peer?.lease) {
      this.#modes.delete(name)
      removed.push(towardSource(name))
      return
    }
    this.#modes.set(name, mode)
    const { fragment, problems } = this.#datapathOf(mode.path).toward(this.#configOf(mode.path), this.#node!, peer, {
      direct: mode.direct,
      ownsName: (device, peer) => this.#ownsName(device, peer),
    })
    if (problems.length > 0) this.#problems.set(name, problems)
    if (fragment.objects.length > 0) set.push(fragment)
    else removed.push(towardSource(name))
  }

  /** Paths that were handed out and have come into place stay so: what is lost by another hand is mended. */
  #notePlaced(): void {
    const { paths, placed } = this.#ledger
    for (const path of paths) {
      if (placed.has(path) || !this.#inPlace(localSource(path))) continue
      let whole = true
      for (const name of this.#peers.keys()) if (!this.#inPlace(fromSource(name, path))) whole = false
      if (whole) this.#ledger.notePlaced(path)
    }
  }

  /** The settings of a path: those of the configuration for its own and the way round to it. */
  #configOf(path: PathId): BackendConfig {
    const wanted = this.#config!.backend
    if (path === pathOf(wanted)) return wanted
    const config = configOfPath(path)!
    const isDetour = path === detourOf(pathOf(wanted)) && wanted.type === 'vxlan' && config.type === 'vxlan'
    return isDetour ? { ...wanted, vni: config.vni } : config
  }

  #datapathOf(path: PathId): Datapath<BackendConfig> {
    return datapathOf(this.#configOf(path))
  }
}

/** The lease of a node that uses a backend alone, as flannel writes it. */
export function leaseOf(backend: BackendConfig, node: NodeContext): FlannelLease {
  const { data, v6Data } = datapathOf(backend).endpoint(backend, node)
  return {
    backendType: backend.type,
    ...addressesOf(node),
    ...(data === null || data === undefined ? {} : { backendData: data }),
    ...(v6Data === null || v6Data === undefined ? {} : { backendV6Data: v6Data }),
  }
}

const addressesOf = ({ publicIp, publicIpv6 }: NodeContext): Pick<FlannelLease, 'publicIp' | 'publicIpv6'> => ({
  ...(publicIp ? { publicIp } : {}),
  ...(publicIpv6 ? { publicIpv6 } : {}),
})
