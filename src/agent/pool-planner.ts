/**
 * From pools, blocks and nodes to fragments: Calico's side of what planner.ts is for flannel. What is sent to one peer is
 * decided for each pool by itself (datapath/transition.ts), so a pool changes its mode alone:
 *
 *   pool: mode ────────┐
 *   peer: address,     ├─► flow (peer × pool): wanted way ─► transition ─► way in use ─► routes of the blocks of that flow
 *   subnet, accepts ───┘
 *
 * A change costs what it changes: a block its routes, a peer its flows and their blocks. A pool, a setting or this node's
 * own place cost everything anew, on paper: the applier writes what differs.
 *
 * Fragments: `calico/rules`, `calico/path/<id>` (this node's end), `calico/node/<peer>/from` (who may send),
 * `calico/node/<peer>` (neighbours, forwarding entries), `calico/block/<cidr>` (routes).
 */
import type { PathId } from '../datapath/path.ts'
import { planPoolPath, poolPathSource, tunnelAddressOf } from '../datapath/pools/pool-devices.ts'
import { deviceOfPoolPath, type PoolPath, parsePoolPath, poolPaths } from '../datapath/pools/pool-path.ts'
import { blockSource, hopToward, peerEndsSource, planBlock, planPeerEnds } from '../datapath/pools/pool-routes.ts'
import { POOL_RULES_SOURCE, planPoolNode, poolNodeSource } from '../datapath/pools/pool-rules.ts'
import { planTransition, type TransitionPlan } from '../datapath/transition.ts'
import type { BlockRoutes, CalicoNode, FelixSettings, IpPool } from '../model/calico.ts'
import type { NodeContext, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import { PathLedger } from './path-ledger.ts'
import type { PlanChange } from './planner.ts'
import { noPool, type PoolBlock, PoolBlocks } from './pool-blocks.ts'
import { PoolFlows } from './pool-flows.ts'
import { type MissingEncapsulations, PoolGround } from './pool-ground.ts'
import { PoolPeers } from './pool-peers.ts'
import { neededTunnelAddresses, type TunnelAddressNeed } from './pool-tunnels.ts'

export interface PoolPlannerSettings {
  /** This node's own. */
  readonly nodeName: string
  /** Random source ports for masqueraded packets. */
  readonly fullyRandom: boolean
  readonly missing?: MissingEncapsulations
}

/** What Calico's part of this node's announcement says. */
export interface PoolAnnouncement {
  /** Paths of pools alone; they go into one status with those of other parts. */
  readonly weft: { readonly accepts: readonly PathId[]; readonly sends: readonly PathId[] }
  readonly calico: CalicoNode
}

const nothing: PlanChange = { set: [], removed: [] }

export class PoolPlanner {
  readonly #settings: PoolPlannerSettings
  readonly #inPlace: (source: string) => boolean
  readonly #ledger = new PathLedger(poolPaths)
  readonly #peers = new PoolPeers()
  readonly #flows = new PoolFlows((mode) => this.#ledger.noteLeft(mode))
  readonly #blocks: PoolBlocks
  readonly #pools = new Map<string, IpPool>()
  #context: NodeContext | undefined
  #felix: FelixSettings | undefined
  #otherNetworks: readonly Cidr[] = []
  #ground: PoolGround | undefined
  #podMtuBytes: number | undefined
  /** The ground is to be made anew. */
  #isDirty = false
  /** The last decision may be another today: something that it rests on changed, if only by what it led to. */
  #isStale = true
  readonly #dirtyPeers = new Set<string>()
  /** How each peer was reached when its blocks were planned. */
  readonly #reaches = new Map<string, string>()
  #plan: TransitionPlan | undefined
  readonly #problems = new Map<string, readonly PeerProblem[]>()

  /** `inPlace` tells whether all that a source wants is in the kernel. */
  constructor(settings: PoolPlannerSettings, inPlace: (source: string) => boolean) {
    this.#settings = settings
    this.#inPlace = inPlace
    this.#blocks = new PoolBlocks(settings.nodeName, this.#flows, (node) => this.#dirtyPeers.add(node))
  }

  /** What is wrong with other nodes' words, by node. */
  get problems(): ReadonlyMap<string, readonly PeerProblem[]> {
    return this.#problems
  }

  /** Why a pool's packets cannot go as the pool says, by pool. */
  get poolProblems(): ReadonlyMap<string, string> {
    return this.#ground?.problems ?? new Map()
  }

  get transition(): TransitionPlan | undefined {
    return this.#plan
  }

  peer(name: string): NodeInfo | undefined {
    return this.#peers.get(name)?.info
  }

  /** What pods may use as their MTU now. */
  get mtuBytes(): number | undefined {
    return this.#plan?.mtuBytes
  }

  /** True when nothing would be missed by a sweep: every path in use stands, and this node's words are in the store. */
  get isComplete(): boolean {
    const { announced, paths, placed } = this.#ledger
    return announced !== undefined && this.#plan !== undefined && paths.every((path) => placed.has(path))
  }

  /** Paths by which a peer is sent to, each with the number of peers. */
  peersByPath(): ReadonlyMap<PathId, number> {
    const counts = new Map<PathId, number>()
    for (const name of this.#blocks.nodes()) {
      const paths = new Set([...this.#flows.of(name)].map(({ current }) => current))
      for (const path of paths) if (path !== undefined) counts.set(path, (counts.get(path) ?? 0) + 1)
    }
    return counts
  }

  /** How packets to a pool's addresses on a node go; undefined while they do not. */
  pathToward(node: string, pool: string): PathId | undefined {
    return this.#flows.get(node, pool)?.current
  }

  setNode(context: NodeContext): void {
    this.#context = context
    this.#isDirty = true
  }

  setFelix(settings: FelixSettings): void {
    this.#felix = settings
    this.#isDirty = true
  }

  /** Networks of the cluster that are no pools: natOutgoing leaves packets to them alone. */
  setOtherNetworks(networks: readonly Cidr[]): void {
    if (networks.join() !== this.#otherNetworks.join()) this.#isDirty = true
    this.#otherNetworks = networks
  }

  setPool(pool: IpPool): void {
    this.#pools.set(pool.name, pool)
    this.#isDirty = true
  }

  removePool(name: string): void {
    if (this.#pools.delete(name)) this.#isDirty = true
  }

  /** How many blocks there are. */
  get blockCounts(): { readonly own: number; readonly other: number } {
    return this.#blocks.counts
  }

  hasRoutes(cidr: Cidr): boolean {
    return this.#blocks.has(cidr)
  }

  setRoutes(routes: BlockRoutes): void {
    this.#blocks.set(routes, this.#poolOf(routes.cidr))
  }

  removeRoutes(cidr: Cidr): void {
    this.#blocks.delete(cidr)
  }

  setPeer(peer: NodeInfo): void {
    for (const name of this.#peers.set(peer)) this.#dirtyPeers.add(name)
  }

  removePeer(name: string): void {
    for (const touched of this.#peers.delete(name)) this.#dirtyPeers.add(touched)
  }

  /** The store says this of this node, of all parts together; what was written before it has come back. */
  setAnnounced(status: WeftNodeStatus | undefined): void {
    this.#ledger.setAnnounced(status)
    this.#isStale = true
  }

  addPending(status: WeftNodeStatus): void {
    this.#ledger.addPending(status)
    this.#isStale = true
  }

  /** An earlier agent was writing these when it ended: until the store speaks, any of them may stand. */
  restorePending(statuses: readonly WeftNodeStatus[]): void {
    this.#ledger.restorePending(statuses)
    this.#isStale = true
  }

  forgetRestored(): void {
    this.#ledger.forgetRestored()
    this.#isStale = true
  }

  /** Pods were told this MTU. */
  setPodMtu(bytes: number): void {
    this.#podMtuBytes = bytes
    this.#isStale = true
  }

  /** Paths that nobody is to be sent to by any more, whose last packets may still wait in a queue. */
  get draining(): readonly PathId[] {
    return this.#ledger.drainingBeside(this.#flows.modes)
  }

  /** Paths that nobody needs any more but whose devices stay until nothing comes in by them. */
  get waning(): readonly PathId[] {
    return this.#ledger.waning
  }

  noteDry(paths: readonly PathId[]): void {
    this.#ledger.noteDry(paths)
    this.#isStale = true
  }

  /** The kernel has been given everything: what nobody is sent to by any more is not sent by. */
  noteSettled(): void {
    if (!this.#ledger.isLingering) return
    for (const { routes, isRouted } of this.#blocks) if (isRouted && !this.#inPlace(blockSource(routes.cidr))) return
    this.#ledger.noteSettled()
    this.#isStale = true
  }

  /** Devices that packets of these paths go by. */
  devicesOf(paths: readonly PathId[]): readonly string[] {
    return paths.flatMap((id) => {
      const path = parsePoolPath(id)
      const device = path && deviceOfPoolPath(path)
      return device === undefined ? [] : [device]
    })
  }

  /** Addresses that this node's tunnel ends need, and where from; those it has and does not need are to be given back. */
  tunnelAddressesNeeded(): readonly TunnelAddressNeed[] {
    return this.#context && this.#felix
      ? neededTunnelAddresses(this.#context, [...this.#pools.values()], this.#felix, this.#plan?.paths ?? [])
      : []
  }

  /** What this node tells the others now; undefined while it accepts nothing and has not said otherwise. */
  announcement(): PoolAnnouncement | undefined {
    const [ground, plan] = [this.#ground, this.#plan]
    if (!ground || !plan || (plan.status.accepts.length === 0 && !this.#ledger.hasSaid)) return undefined
    const { accepts, sends } = plan.status
    return {
      weft: { accepts: [...accepts].sort(), sends: [...sends].sort() },
      calico: ground.wordsOf(plan.paths),
    }
  }

  /** Decides anew, where there is reason to, and plans what differs from the last call. */
  plan(): PlanChange {
    const all = this.#isDirty
    const ground = all ? this.#renew() : this.#ground
    if (!ground) return nothing
    if (this.#notePlaced(ground)) this.#isStale = true
    if (!all && !this.#isStale && !this.#blocks.isDirty && this.#dirtyPeers.size === 0) return nothing
    const set: Fragment[] = []
    const removed: string[] = []
    for (const name of this.#dirtyPeers) this.#judgePeer(name, ground)
    const plan = this.#ledger.keepWaning(this.#decide(ground), (paths) => this.devicesOf(paths))
    this.#plan = plan
    const changed = this.#flows.take(plan.toward)
    for (const { node, pool } of changed) this.#blocks.touchFlow(node, pool)
    const pathsChanged = this.#planPaths(plan.paths, all, ground, set, removed)
    if (all || pathsChanged) set.push(ground.planRules(plan.paths, this.#otherNetworks, this.#settings.fullyRandom))
    const peers = all || pathsChanged ? new Set([...this.#peers.names(), ...this.#dirtyPeers]) : this.#dirtyPeers
    for (const name of peers) this.#planPeer(name, plan.paths, set, removed)
    this.#planBlocks(ground, set, removed)
    this.#isDirty = false
    this.#dirtyPeers.clear()
    this.#isStale = changed.length > 0 || pathsChanged
    return { set, removed }
  }

  /** Everything rests on what changed. Undefined while too little is known. */
  #renew(): PoolGround | undefined {
    if (!this.#context || !this.#felix) return undefined
    const ground = new PoolGround(this.#context, this.#felix, this.#pools.values(), this.#settings.missing)
    this.#ground = ground
    this.#peers.setGround(ground.forPeers)
    this.#blocks.regroup((cidr) => this.#poolOf(cidr))
    for (const name of this.#peers.names()) this.#dirtyPeers.add(name)
    return ground
  }

  #poolOf(cidr: Cidr): string {
    for (const pool of this.#pools.values()) if (pool.cidr.covers(cidr)) return pool.name
    return noPool[cidr.family]
  }

  /** What is wanted for each of a peer's flows, and what it can take. */
  #judgePeer(name: string, ground: PoolGround): void {
    const peer = this.#peers.get(name)
    const problems: PeerProblem[] = [...(peer?.problems ?? [])]
    const isMoved = peer?.reach !== this.#reaches.get(name)
    if (peer) this.#reaches.set(name, peer.reach)
    else this.#reaches.delete(name)
    for (const { pool } of this.#flows.of(name)) {
      const { wanted, accepts, problem } = ground.judge(peer, pool)
      if (this.#flows.judge(name, pool, wanted, accepts) || isMoved) this.#blocks.touchFlow(name, pool)
      if (problem && peer && !problems.some(({ key }) => key === problem.key)) problems.push(problem)
    }
    problems.sort((a, b) => (a.key < b.key ? -1 : 1))
    if (problems.length > 0) this.#problems.set(name, problems)
    else this.#problems.delete(name)
  }

  #decide(ground: PoolGround): TransitionPlan {
    const { placed, announced, pending } = this.#ledger
    const isCalicoNear = [...this.#peers.views()].some(({ isForeign }) => isForeign)
    const mtus = new Map<PathId, number | undefined>()
    return planTransition({
      words: poolPaths,
      wanted: ground.wantedPaths(isCalicoNear).map((path) => ({ path, direct: false })),
      inPlace: placed,
      sending: this.#ledger.sendingBeside(this.#flows.modes),
      announced,
      pending,
      peers: this.#peers.views(),
      flows: this.#flows.kinds,
      ...(this.#podMtuBytes === undefined ? {} : { podMtuBytes: this.#podMtuBytes }),
      mtuOf: (path) => {
        if (!mtus.has(path)) mtus.set(path, ground.mtuOf(path))
        return mtus.get(path)
      },
    })
  }

  /** True when the tunnels that packets may come in by are others than before. */
  #planPaths(
    paths: readonly PathId[],
    all: boolean,
    { node }: PoolGround,
    set: Fragment[],
    removed: string[],
  ): boolean {
    const before = this.#ledger.paths
    for (const path of before) if (!paths.includes(path)) removed.push(poolPathSource(path))
    for (const path of paths) if (all || !before.includes(path)) set.push(planPoolPath(path, node))
    this.#ledger.setPaths(paths)
    return paths.join() !== before.join()
  }

  #planPeer(name: string, paths: readonly PathId[], set: Fragment[], removed: string[]): void {
    const peer = this.#peers.get(name)
    if (!peer) {
      removed.push(poolNodeSource(name), peerEndsSource(name))
      return
    }
    set.push(planPoolNode(name, peer.sources), planPeerEnds(peer, paths))
  }

  #planBlocks(ground: PoolGround, set: Fragment[], removed: string[]): void {
    const blocks = this.#blocks.take()
    for (const cidr of blocks.removed) removed.push(blockSource(cidr))
    for (const block of blocks.dirty) {
      const fragment = this.#planRoutes(block, ground)
      if (fragment.objects.length > 0) set.push(fragment)
      else if (block.isRouted) removed.push(fragment.source)
      block.isRouted = fragment.objects.length > 0
    }
  }

  #planRoutes({ routes, pool }: PoolBlock, { node: { context, settings } }: PoolGround): Fragment {
    const { family } = routes.cidr
    if (family === 6 && !settings.ipv6Support) return { source: blockSource(routes.cidr), objects: [] }
    return planBlock(
      routes,
      context.name,
      settings,
      (name) => {
        const [path, peer] = [this.#flows.get(name, pool)?.current, this.#peers.get(name)]
        return path === undefined || !peer ? undefined : hopToward(path, peer, family, context.external.device)
      },
      (address) => this.#blocks.has(address),
    )
  }

  /** Whether some pool gives this node's end of the path an address. */
  #givesAddress(path: PoolPath): boolean {
    const device = deviceOfPoolPath(path)
    return this.tunnelAddressesNeeded().some((need) => need.device === device && need.pools.length > 0)
  }

  /** Paths that were handed out and have come into place stay so: what is lost by another hand is mended. True when one has. */
  #notePlaced({ node }: PoolGround): boolean {
    const { paths, placed } = this.#ledger
    const before = placed.size
    for (const id of paths) {
      if (placed.has(id) || !this.#inPlace(poolPathSource(id)) || !this.#inPlace(POOL_RULES_SOURCE)) continue
      const path = parsePoolPath(id)!
      // Others reach a VXLAN end by its tunnel address, except one that no pool selects, which has no blocks.
      if (path.type === 'vxlan' && !tunnelAddressOf(path, node.words) && this.#givesAddress(path)) continue
      let whole = true
      for (const name of this.#peers.names()) if (!this.#inPlace(poolNodeSource(name))) whole = false
      if (whole) this.#ledger.notePlaced(id)
    }
    return placed.size > before
  }
}
