/**
 * What the planner of pools decides by: this node's place and settings, and of each pool the ways that it asks for. Made anew when
 * one of them changes; nothing in it changes then.
 */
import type { PathId } from '../datapath/path.ts'
import { isOnLink } from '../datapath/peer.ts'
import { mtuOfPath, type PoolNode, tunnelAddressOf } from '../datapath/pools/pool-devices.ts'
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
import { deviceOfPoolPath, parsePoolPath } from '../datapath/pools/pool-path.ts'
import { hopToward } from '../datapath/pools/pool-routes.ts'
import { type PoolTunnel, planPoolRules } from '../datapath/pools/pool-rules.ts'
import type { CalicoNode, FelixSettings, IpPool } from '../model/calico.ts'
import type { NodeContext, PeerProblem } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Family, Ip } from '../net/ip.ts'
import { noPool } from './pool-blocks.ts'
import { type CheckedPeer, tunnelMacOf } from './pool-peers.ts'

/** Encapsulations that this node's kernel has not, each with a sentence that says so. */
export type MissingEncapsulations = ReadonlyMap<'ipip' | 'vxlan' | 'geneve', string>

/** What is wanted of one flow. */
export interface FlowJudgement {
  /** Undefined while its peer cannot be reached at all. */
  readonly wanted?: PathId
  readonly accepts: readonly PathId[]
  readonly problem?: PeerProblem
}

export class PoolGround {
  readonly node: PoolNode
  readonly #missing: MissingEncapsulations
  /** Those whose family is in use. */
  readonly #pools: readonly IpPool[]
  /** By name of the pool, towards weft's nodes and towards Calico's. */
  readonly #modes: ReadonlyMap<string, { readonly weft: PoolMode; readonly calico: PoolMode }>

  constructor(
    context: NodeContext,
    settings: FelixSettings,
    pools: Iterable<IpPool>,
    missing: MissingEncapsulations = new Map(),
  ) {
    const words: CalicoNode = context.calico ?? {}
    this.node = { context, words, settings, macOf: (path) => tunnelMacOf(context.name, words, path) }
    this.#missing = missing
    this.#pools = [...pools].filter(({ cidr }) => cidr.family === 4 || settings.ipv6Support)
    this.#modes = new Map(
      this.#pools.map((pool) => [pool.name, { weft: modeOf(pool, settings), calico: modeOf(pool, settings, false) }]),
    )
  }

  /** What the checks of peers rest on. */
  get forPeers() {
    const { context, words } = this.node
    return {
      name: context.name,
      words,
      addresses: context.external.addresses.map(({ ip }) => ip),
      pools: this.#pools,
      foreignPaths: [...new Set([...this.#modes.values()].flatMap(({ calico }) => pathsOfMode(calico)))],
    }
  }

  /** Why a pool's packets cannot go as the pool says, by pool. */
  get problems(): ReadonlyMap<string, string> {
    const out = new Map<string, string>()
    for (const [name, { weft }] of this.#modes) {
      const type = parsePoolPath(weft.wrapped)!.type
      const missing = type === 'plain' ? undefined : this.#missing.get(type)
      if (missing !== undefined) out.set(name, missing)
      else if (type !== 'plain' && this.mtuOf(weft.wrapped) === undefined) out.set(name, this.#whyNot(weft.wrapped))
    }
    return out
  }

  /** What the pools ask for towards the kinds of nodes that there are, and devices that FelixConfiguration asks for without a pool. */
  wantedPaths(isCalicoNear: boolean): readonly PathId[] {
    const { settings } = this.node
    return [
      ...new Set([
        ...[...this.#modes.values()].flatMap(({ weft, calico }) => [
          ...pathsOfMode(weft),
          ...(isCalicoNear ? pathsOfMode(calico) : []),
        ]),
        ...(settings.ipipEnabled ? [ipipPath] : []),
        ...(settings.vxlanEnabled ? [vxlanPath(settings, 4)] : []),
      ]),
    ]
  }

  /** Undefined for a path that this node cannot have. */
  mtuOf(id: PathId): number | undefined {
    const { settings } = this.node
    const path = parsePoolPath(id)
    if (!path) return undefined
    if (path.type !== 'plain' && this.#missing.has(path.type)) return undefined
    if (path.type === 'ipip' && settings.ipipEnabled === false) return undefined
    if (path.type === 'vxlan' && settings.vxlanEnabled === false) return undefined
    return mtuOfPath(path, this.node)
  }

  /** How packets to a pool's addresses are to go to a peer, and can. `pool` may be `noPool`. */
  judge(peer: CheckedPeer | undefined, pool: string): FlowJudgement {
    const { context, words, settings } = this.node
    const family = this.#familyOf(pool)
    const remote = family === 4 ? peer?.ipv4 : peer?.ipv6
    const problem = (word: string, text: string): PeerProblem => ({
      node: peer!.name,
      key: `projectcalico.org/${word}`,
      problem: text,
    })
    if (!peer || (family === 6 && !settings.ipv6Support)) return { accepts: [] }
    if (!remote)
      return {
        accepts: [],
        problem: problem(`IPv${family}Address`, `missing: its blocks of IPv${family} are unreachable`),
      }
    const modes = this.#modes.get(pool)
    const isNear = isOnLink(context, remote)
    const isSame = isNear && isSameSubnet(addressOf(words, family), addressOf(peer.info.calico, family))
    const mode = peer.view.isForeign ? modes?.calico : modes?.weft
    const wanted = mode ? wantedPath(mode, isSame) : plainPath
    const leads = (id: PathId): boolean =>
      id === plainPath ? isNear : hopToward(id, peer, family, context.external.device) !== undefined
    if (wanted === plainPath && !isNear) {
      const text = `${remote} is not on a subnet of ${context.external.device}, and the pool is not encapsulated: only routers in between could know the way to its pods`
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

  /** What this node says of itself in Calico's words while it has the ends of these paths. */
  wordsOf(paths: readonly PathId[]): CalicoNode {
    const { words, macOf } = this.node
    const { ipv4, ipv6, asNumber, routeReflectorClusterId } = words
    const ends = paths.map((id): Partial<CalicoNode> => {
      const path = parsePoolPath(id)!
      const ip = tunnelAddressOf(path, words)
      if (!ip) return {}
      if (path.type === 'ipip') return { ipv4IpipTunnelAddr: ip }
      const mac = macOf(path)!
      return ip.family === 4
        ? { ipv4VxlanTunnelAddr: ip, vxlanTunnelMac: mac }
        : { ipv6VxlanTunnelAddr: ip, vxlanTunnelMacV6: mac }
    })
    return Object.assign(
      {
        ...(ipv4 && { ipv4 }),
        ...(ipv6 && { ipv6 }),
        ...(asNumber !== undefined && { asNumber }),
        ...(routeReflectorClusterId !== undefined && { routeReflectorClusterId }),
      },
      ...ends,
    ) as CalicoNode
  }

  /** The packet rules while packets may come in by these paths. */
  planRules(paths: readonly PathId[], otherNetworks: readonly Cidr[], fullyRandom: boolean): Fragment {
    const { context, words, settings } = this.node
    const tunnels = paths.flatMap((id): PoolTunnel[] => {
      const path = parsePoolPath(id)!
      const device = deviceOfPoolPath(path)
      if (path.type === 'plain' || device === undefined) return []
      const ip = tunnelAddressOf(path, words)
      return [{ type: path.type, device, ...('port' in path && { port: path.port }), addresses: ip ? [ip] : [] }]
    })
    const own = [words.ipv4?.ip, words.ipv6?.ip, ...context.external.addresses.map(({ ip }) => ip)]
    return planPoolRules({
      pools: this.#pools,
      otherNetworks,
      nodeAddresses: own.filter((ip): ip is Ip => ip !== undefined && !ip.isLinkLocal),
      tunnels,
      settings,
      fullyRandom,
    })
  }

  #familyOf(pool: string): Family {
    if (pool === noPool[4]) return 4
    if (pool === noPool[6]) return 6
    return this.#pools.find(({ name }) => name === pool)?.cidr.family ?? 6
  }

  #whyNot(id: PathId): string {
    const { settings } = this.node
    const path = parsePoolPath(id)!
    const isOff =
      (path.type === 'ipip' && settings.ipipEnabled === false) ||
      (path.type === 'vxlan' && settings.vxlanEnabled === false)
    if (isOff) return `FelixConfiguration: ${path.type}Enabled is false`
    const family = path.type === 'vxlan' ? path.family : 4
    return `this node has no IPv${family} address to wrap packets with`
  }
}
