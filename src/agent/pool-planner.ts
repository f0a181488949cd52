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
import { isOnLink } from '../datapath/peer.ts'
import {
  mtuOfPath,
  type PoolNode,
  planPoolPath,
  poolPathSource,
  tunnelAddressOf,
} from '../datapath/pools/pool-devices.ts'
import {
  addressOf,
  ipipPath,
  isSameSubnet,
  modeOf,
  type PoolMode,
  pathsOfMode,
  plainPath,
  vxlanPath,
  wantedPath,
} from '../datapath/pools/pool-mode.ts'
import { deviceOfPoolPath, type PoolPath, parsePoolPath, poolPaths } from '../datapath/pools/pool-path.ts'
import { blockSource, hopToward, peerEndsSource, planBlock, planPeerEnds } from '../datapath/pools/pool-routes.ts'
import {
  POOL_RULES_SOURCE,
  type PoolTunnel,
  planPoolNode,
  planPoolRules,
  poolNodeSource,
} from '../datapath/pools/pool-rules.ts'
import { planTransition, type TransitionPlan } from '../datapath/transition.ts'
import type { BlockRoutes, CalicoNode, FelixSettings, IpPool } from '../model/calico.ts'
import type { NodeContext, NodeInfo, PeerProblem, WeftNodeStatus } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import { bitsOf, type Family, type Ip } from '../net/ip.ts'
import { PathLedger } from './path-ledger.ts'
import type { PlanChange } from './planner.ts'
import { PoolFlows } from './pool-flows.ts'
import { type CheckedPeer, PoolPeers, tunnelMacOf } from './pool-peers.ts'
import { neededTunnelAddresses, type TunnelAddressNeed } from './pool-tunnels.ts'

export interface PoolPlannerSettings {
  /** This node's own. */
  readonly nodeName: string
  /** Random source ports for masqueraded packets. */
  readonly fullyRandom: boolean
  /** Encapsulations that this node's kernel has not, each with a sentence that says so. */
  readonly missing?: ReadonlyMap<'ipip' | 'vxlan' | 'geneve', string>
}

/** What Calico's part of this node's announcement says. */
export interface PoolAnnouncement {
  /** Paths of pools alone; they go into one status with those of other parts. */
  readonly weft: { readonly accepts: readonly PathId[]; readonly sends: readonly PathId[] }
  readonly calico: CalicoNode
}

interface Block {
  readonly routes: BlockRoutes
  readonly text: string
  /** Name of its pool, or `noPool`. */
  pool: string
  /** It has routes among the fragments that were handed out. */
  isRouted: boolean
}

/** In place of the name of a pool, for blocks whose pool is gone. No object has such a name. */
const noPool = { 4: '/4', 6: '/6' } as const

export class PoolPlanner {
  readonly #settings: PoolPlannerSettings
  readonly #inPlace: (source: string) => boolean
  readonly #ledger = new PathLedger(poolPaths)
  readonly #peers = new PoolPeers()
  readonly #flows = new PoolFlows((mode) => this.#ledger.noteLeft(mode))
  readonly #pools = new Map<string, IpPool>()
  readonly #blocks = new Map<string, Block>()
  /** Blocks that a node has, or has borrowed addresses of. */
  readonly #blocksOf = new Map<string, Set<Block>>()
  /** Blocks that have lent an address. */
  readonly #lentBy = new Map<string, Set<Block>>()
  #context: NodeContext | undefined
  #felix: FelixSettings | undefined
  #otherNetworks: readonly Cidr[] = []
  #node: PoolNode | undefined
  /** By name of the pool, towards weft's nodes and towards Calico's. */
  #modes = new Map<string, { readonly weft: PoolMode; readonly calico: PoolMode }>()
  #podMtuBytes: number | undefined
  #isDirty = false
  readonly #dirtyPeers = new Set<string>()
  /** How each peer was reached when its blocks were planned. */
  readonly #reaches = new Map<string, string>()
  readonly #dirtyBlocks = new Set<Block>()
  #removed: string[] = []
  #plan: TransitionPlan | undefined
  readonly #problems = new Map<string, readonly PeerProblem[]>()

  /** `inPlace` tells whether all that a source wants is in the kernel. */
  constructor(settings: PoolPlannerSettings, inPlace: (source: string) => boolean) {
    this.#settings = settings
    this.#inPlace = inPlace
  }

  /** What is wrong with other nodes' words, by node. */
  get problems(): ReadonlyMap<string, readonly PeerProblem[]> {
    return this.#problems
  }

  /** Why a pool's packets cannot go as the pool says, by pool. */
  get poolProblems(): ReadonlyMap<string, string> {
    const out = new Map<string, string>()
    for (const [name, { weft }] of this.#modes) {
      const type = parsePoolPath(weft.wrapped)!.type
      const missing = type === 'plain' ? undefined : this.#settings.missing?.get(type)
      if (missing !== undefined) out.set(name, missing)
      else if (type !== 'plain' && this.#node && this.#mtuOf(weft.wrapped) === undefined)
        out.set(name, this.#whyNot(weft.wrapped))
    }
    return out
  }

  /** How many other nodes the store has. */
  get knownPeers(): number {
    return this.#peers.size
  }

  peer(name: string): NodeInfo | undefined {
    return this.#peers.get(name)?.info
  }

  get transition(): TransitionPlan | undefined {
    return this.#plan
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
    for (const name of this.#blocksOf.keys()) {
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

  setRoutes(routes: BlockRoutes): void {
    const text = `${routes.cidr}`
    const before = this.#blocks.get(text)
    this.#dropBlock(before)
    const block: Block = { routes, text, pool: this.#poolOf(routes.cidr), isRouted: before?.isRouted ?? false }
    this.#blocks.set(text, block)
    this.#dirtyBlocks.add(block)
    for (const { ip } of routes.borrowed) this.#lentBy.set(`${ip}`, (this.#lentBy.get(`${ip}`) ?? new Set()).add(block))
    this.#join(block)
    this.#touchLender(routes.cidr)
  }

  removeRoutes(cidr: Cidr): void {
    const block = this.#blocks.get(`${cidr}`)
    if (!block) return
    this.#dropBlock(block)
    this.#blocks.delete(block.text)
    this.#removed.push(blockSource(cidr))
    this.#touchLender(cidr)
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
  }

  addPending(status: WeftNodeStatus): void {
    this.#ledger.addPending(status)
  }

  /** An earlier agent was writing these when it ended: until the store speaks, any of them may stand. */
  restorePending(statuses: readonly WeftNodeStatus[]): void {
    this.#ledger.restorePending(statuses)
  }

  forgetRestored(): void {
    this.#ledger.forgetRestored()
  }

  /** Pods were told this MTU. */
  setPodMtu(bytes: number): void {
    this.#podMtuBytes = bytes
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
  }

  /** The kernel has been given everything: what nobody is sent to by any more is not sent by. */
  noteSettled(): void {
    if (!this.#ledger.isLingering) return
    for (const { routes, isRouted } of this.#blocks.values())
      if (isRouted && !this.#inPlace(blockSource(routes.cidr))) return
    this.#ledger.noteSettled()
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
    const [node, plan] = [this.#node, this.#plan]
    if (!node || !plan || (plan.status.accepts.length === 0 && !this.#ledger.hasSaid)) return undefined
    const { ipv4, ipv6, asNumber, routeReflectorClusterId } = node.words
    const ends = plan.paths.map((id): Partial<CalicoNode> => {
      const path = parsePoolPath(id)!
      const ip = tunnelAddressOf(path, node.words)
      if (!ip) return {}
      if (path.type === 'ipip') return { ipv4IpipTunnelAddr: ip }
      const mac = node.macOf(path)!
      return ip.family === 4
        ? { ipv4VxlanTunnelAddr: ip, vxlanTunnelMac: mac }
        : { ipv6VxlanTunnelAddr: ip, vxlanTunnelMacV6: mac }
    })
    return {
      weft: { accepts: [...plan.status.accepts].sort(), sends: [...plan.status.sends].sort() },
      calico: Object.assign(
        {
          ...(ipv4 && { ipv4 }),
          ...(ipv6 && { ipv6 }),
          ...(asNumber !== undefined && { asNumber }),
          ...(routeReflectorClusterId !== undefined && { routeReflectorClusterId }),
        },
        ...ends,
      ) as CalicoNode,
    }
  }

  /** Decides anew and plans what differs from the last call. */
  plan(): PlanChange {
    const [context, felix] = [this.#context, this.#felix]
    if (!context || !felix) return { set: [], removed: [] }
    const all = this.#isDirty
    if (all) this.#renew(context, felix)
    const node = this.#node!
    const set: Fragment[] = []
    const removed = this.#removed
    this.#removed = []
    this.#notePlaced()
    for (const name of this.#dirtyPeers) this.#judgePeer(name)
    const plan = this.#ledger.keepWaning(this.#decide(), (paths) => this.devicesOf(paths))
    this.#plan = plan
    for (const flow of this.#flows.take(plan.toward)) this.#touchFlow(flow.node, flow.pool)
    const tunnelsChanged = this.#planPaths(plan.paths, all, set, removed)
    if (all || tunnelsChanged) set.push(this.#planRules(node, felix, plan.paths))
    for (const name of all || tunnelsChanged
      ? new Set([...this.#peers.names(), ...this.#dirtyPeers])
      : this.#dirtyPeers)
      this.#planPeer(name, plan.paths, set, removed)
    for (const block of this.#dirtyBlocks) {
      const fragment = this.#planRoutes(block)
      if (fragment.objects.length > 0) set.push(fragment)
      else if (block.isRouted) removed.push(fragment.source)
      block.isRouted = fragment.objects.length > 0
    }
    this.#isDirty = false
    this.#dirtyPeers.clear()
    this.#dirtyBlocks.clear()
    return { set, removed }
  }

  /** Everything rests on what changed. */
  #renew(context: NodeContext, settings: FelixSettings): void {
    const words = context.calico ?? {}
    const pools = [...this.#pools.values()].filter(({ cidr }) => cidr.family === 4 || settings.ipv6Support)
    this.#node = { context, words, settings, macOf: (path) => tunnelMacOf(context.name, words, path) }
    this.#modes = new Map(
      pools.map((pool) => [pool.name, { weft: modeOf(pool, settings), calico: modeOf(pool, settings, false) }]),
    )
    this.#peers.setGround({
      name: context.name,
      words,
      addresses: context.external.addresses.map(({ ip }) => ip),
      pools,
      foreignPaths: [...new Set([...this.#modes.values()].flatMap(({ calico }) => pathsOfMode(calico)))],
    })
    for (const block of this.#blocks.values()) {
      const pool = this.#poolOf(block.routes.cidr)
      if (pool !== block.pool) {
        this.#leave(block)
        block.pool = pool
        this.#join(block)
      }
      this.#dirtyBlocks.add(block)
    }
    for (const name of this.#peers.names()) this.#dirtyPeers.add(name)
  }

  #poolOf(cidr: Cidr): string {
    for (const pool of this.#pools.values()) if (pool.cidr.covers(cidr)) return pool.name
    return noPool[cidr.family]
  }

  /** The other nodes that a block's routes lead to. */
  #nodesOf({ routes }: Block): ReadonlySet<string> {
    const nodes = new Set(routes.borrowed.map(({ node }) => node))
    if (routes.node !== undefined) nodes.add(routes.node)
    nodes.delete(this.#settings.nodeName)
    return nodes
  }

  #join(block: Block): void {
    for (const name of this.#nodesOf(block)) {
      const blocks = this.#blocksOf.get(name) ?? new Set()
      this.#blocksOf.set(name, blocks.add(block))
      if (this.#flows.use(name, block.pool)) this.#dirtyPeers.add(name)
    }
  }

  #leave(block: Block): void {
    for (const name of this.#nodesOf(block)) {
      const blocks = this.#blocksOf.get(name)
      if (!blocks?.delete(block)) continue
      if (blocks.size === 0) this.#blocksOf.delete(name)
      this.#flows.unuse(name, block.pool)
      this.#dirtyPeers.add(name)
    }
  }

  #dropBlock(block: Block | undefined): void {
    if (!block) return
    this.#leave(block)
    this.#dirtyBlocks.delete(block)
    for (const { ip } of block.routes.borrowed) {
      const lenders = this.#lentBy.get(`${ip}`)
      if (lenders?.delete(block) && lenders.size === 0) this.#lentBy.delete(`${ip}`)
    }
  }

  /** A block of one address takes the place of a route to it as a borrowed one. */
  #touchLender(cidr: Cidr): void {
    if (cidr.length < bitsOf(cidr.family)) return
    for (const block of this.#lentBy.get(cidr.base.toString()) ?? []) this.#dirtyBlocks.add(block)
  }

  #touchFlow(node: string, pool: string): void {
    for (const block of this.#blocksOf.get(node) ?? []) if (block.pool === pool) this.#dirtyBlocks.add(block)
  }

  /** What is wanted for each of a peer's flows, and what it can take. */
  #judgePeer(name: string): void {
    const peer = this.#peers.get(name)
    const problems: PeerProblem[] = [...(peer?.problems ?? [])]
    const isMoved = peer?.reach !== this.#reaches.get(name)
    if (peer) this.#reaches.set(name, peer.reach)
    else this.#reaches.delete(name)
    for (const { pool } of this.#flows.of(name)) {
      const family = this.#pools.get(pool)?.cidr.family ?? (pool === noPool[6] ? 6 : 4)
      const { wanted, accepts, problem } = this.#judgeFlow(peer, pool, family)
      if (this.#flows.judge(name, pool, wanted, accepts) || isMoved) this.#touchFlow(name, pool)
      if (problem && peer && !problems.some(({ key }) => key === problem.key)) problems.push(problem)
    }
    problems.sort((a, b) => (a.key < b.key ? -1 : 1))
    if (problems.length > 0) this.#problems.set(name, problems)
    else this.#problems.delete(name)
  }

  #judgeFlow(
    peer: CheckedPeer | undefined,
    pool: string,
    family: Family,
  ): { wanted?: PathId; accepts: readonly PathId[]; problem?: PeerProblem } {
    const node = this.#node!
    const remote = family === 4 ? peer?.ipv4 : peer?.ipv6
    const problem = (word: string, text: string): PeerProblem => ({
      node: peer!.name,
      key: `projectcalico.org/${word}`,
      problem: text,
    })
    if (!peer || (family === 6 && !node.settings.ipv6Support)) return { accepts: [] }
    if (!remote)
      return {
        accepts: [],
        problem: problem(`IPv${family}Address`, `missing: its blocks of IPv${family} are unreachable`),
      }
    const modes = this.#modes.get(pool)
    const isNear = isOnLink(node.context, remote)
    const isSame = isNear && isSameSubnet(addressOf(node.words, family), addressOf(peer.info.calico, family))
    const mode = peer.view.isForeign ? modes?.calico : modes?.weft
    const wanted = mode ? wantedPath(mode, isSame) : plainPath
    const leads = (id: PathId): boolean =>
      id === plainPath ? isNear : hopToward(id, peer, family, node.context.external.device) !== undefined
    if (wanted === plainPath && !isNear) {
      const text = `${remote} is not on a subnet of ${node.context.external.device}, and the pool is not encapsulated: only routers in between could know the way to its pods`
      return { accepts: [], problem: problem(`IPv${family}Address`, text) }
    }
    const accepts = peer.view.accepts.filter(leads)
    const isUnsaid = peer.view.isForeign && !accepts.includes(wanted)
    return {
      wanted,
      accepts,
      ...(isUnsaid && {
        problem: problem(`IPv${family}VXLANTunnelAddr`, 'missing: its pods cannot be reached by VXLAN'),
      }),
    }
  }

  #decide(): TransitionPlan {
    const { placed, announced, pending } = this.#ledger
    const mtus = new Map<PathId, number | undefined>()
    return planTransition({
      words: poolPaths,
      wanted: this.#wantedPaths().map((path) => ({ path, direct: false })),
      inPlace: placed,
      sending: this.#ledger.sendingBeside(this.#flows.modes),
      announced,
      pending,
      peers: this.#peers.views(),
      flows: this.#flows.kinds,
      ...(this.#podMtuBytes === undefined ? {} : { podMtuBytes: this.#podMtuBytes }),
      mtuOf: (path) => {
        if (!mtus.has(path)) mtus.set(path, this.#mtuOf(path))
        return mtus.get(path)
      },
    })
  }

  /** What the pools ask for towards the kinds of nodes that there are, and devices that FelixConfiguration asks for without a pool. */
  #wantedPaths(): readonly PathId[] {
    const { ipipEnabled, vxlanEnabled } = this.#felix!
    const isCalicoNear = [...this.#peers.views()].some(({ isForeign }) => isForeign)
    return [
      ...new Set([
        ...[...this.#modes.values()].flatMap(({ weft, calico }) => [
          ...pathsOfMode(weft),
          ...(isCalicoNear ? pathsOfMode(calico) : []),
        ]),
        ...(ipipEnabled ? [ipipPath] : []),
        ...(vxlanEnabled ? [vxlanPath(this.#felix!, 4)] : []),
      ]),
    ]
  }

  /** Undefined for a path that this node cannot have. */
  #mtuOf(id: PathId): number | undefined {
    const path = parsePoolPath(id)
    if (!path || !this.#node) return undefined
    if (path.type !== 'plain' && this.#settings.missing?.has(path.type)) return undefined
    if (path.type === 'ipip' && this.#felix!.ipipEnabled === false) return undefined
    if (path.type === 'vxlan' && this.#felix!.vxlanEnabled === false) return undefined
    return mtuOfPath(path, this.#node)
  }

  #whyNot(id: PathId): string {
    const path = parsePoolPath(id)!
    const isOff =
      (path.type === 'ipip' && this.#felix?.ipipEnabled === false) ||
      (path.type === 'vxlan' && this.#felix?.vxlanEnabled === false)
    if (isOff) return `FelixConfiguration: ${path.type}Enabled is false`
    const family = path.type === 'vxlan' ? path.family : 4
    return `this node has no IPv${family} address to wrap packets with`
  }

  /** True when the tunnels that packets may come in by are others than before. */
  #planPaths(paths: readonly PathId[], all: boolean, set: Fragment[], removed: string[]): boolean {
    const before = this.#ledger.paths
    for (const path of before) if (!paths.includes(path)) removed.push(poolPathSource(path))
    for (const path of paths) if (all || !before.includes(path)) set.push(planPoolPath(path, this.#node!))
    this.#ledger.setPaths(paths)
    return paths.join() !== before.join()
  }

  #planRules(node: PoolNode, settings: FelixSettings, paths: readonly PathId[]): Fragment {
    const tunnels = paths.flatMap((id): PoolTunnel[] => {
      const path = parsePoolPath(id)!
      const device = deviceOfPoolPath(path)
      if (path.type === 'plain' || device === undefined) return []
      const ip = tunnelAddressOf(path, node.words)
      return [{ type: path.type, device, ...('port' in path && { port: path.port }), addresses: ip ? [ip] : [] }]
    })
    const own = [node.words.ipv4?.ip, node.words.ipv6?.ip, ...node.context.external.addresses.map(({ ip }) => ip)]
    return planPoolRules({
      pools: [...this.#pools.values()].filter(({ name }) => this.#modes.has(name)),
      otherNetworks: this.#otherNetworks,
      nodeAddresses: own.filter((ip): ip is Ip => ip !== undefined && !ip.isLinkLocal),
      tunnels,
      settings,
      fullyRandom: this.#settings.fullyRandom,
    })
  }

  #planPeer(name: string, paths: readonly PathId[], set: Fragment[], removed: string[]): void {
    const peer = this.#peers.get(name)
    if (!peer) {
      removed.push(poolNodeSource(name), peerEndsSource(name))
      return
    }
    set.push(planPoolNode(name, peer.sources), planPeerEnds(peer, paths))
  }

  #planRoutes({ routes, pool }: Block): Fragment {
    const node = this.#node!
    const { family } = routes.cidr
    if (family === 6 && !node.settings.ipv6Support) return { source: blockSource(routes.cidr), objects: [] }
    return planBlock(
      routes,
      node.context.name,
      node.settings,
      (name) => {
        const [path, peer] = [this.#flows.get(name, pool)?.current, this.#peers.get(name)]
        return path === undefined || !peer ? undefined : hopToward(path, peer, family, node.context.external.device)
      },
      (address) => this.#blocks.has(`${address}`),
    )
  }

  /** Whether some pool gives this node's end of the path an address. */
  #givesAddress(path: PoolPath): boolean {
    const device = deviceOfPoolPath(path)
    return this.tunnelAddressesNeeded().some((need) => need.device === device && need.pools.length > 0)
  }

  /** Paths that were handed out and have come into place stay so: what is lost by another hand is mended. */
  #notePlaced(): void {
    const { paths, placed } = this.#ledger
    for (const id of paths) {
      if (placed.has(id) || !this.#inPlace(poolPathSource(id)) || !this.#inPlace(POOL_RULES_SOURCE)) continue
      const path = parsePoolPath(id)!
      // Others reach a VXLAN end by its tunnel address, except one that no pool selects, which has no blocks.
      if (path.type === 'vxlan' && !tunnelAddressOf(path, this.#node!.words) && this.#givesAddress(path)) continue
      let whole = true
      for (const name of this.#peers.names()) if (!this.#inPlace(poolNodeSource(name))) whole = false
      if (whole) this.#ledger.notePlaced(id)
    }
  }
}
