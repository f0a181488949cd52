/**
 * The other nodes as the data path of pools may believe them: their addresses and tunnel ends, checked, each claimed by one
 * node alone. What is wrong with a node costs that node: the part of it that is wrong is left out and told.
 *
 * A node that speaks Calico's words and not weft's is a real Calico node. It takes in and sends by what the modes of the
 * pools say, and gives its VXLAN end a MAC that follows from its name unless it says one.
 *
 * Sources: Calico felix/calc/vxlan_resolver.go (MAC from SHA-1 of the name), node/pkg/lifecycle/startup (one address, one node).
 */
import { createHash } from 'node:crypto'
import type { PathId } from '../datapath/path.ts'
import { type PoolPath, poolPaths } from '../datapath/pools/pool-path.ts'
import type { PoolPeer, TunnelEnd } from '../datapath/pools/pool-routes.ts'
import { type PeerView, viewStatus } from '../datapath/transition.ts'
import type { CalicoNode, IpPool } from '../model/calico.ts'
import type { NodeInfo, PeerProblem } from '../model/cluster.ts'
import type { Family, Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'

/** The MAC that Calico's nodes expect at the end of a node that says none, and of GENEVE's, which nobody says. */
export function tunnelMacOf(name: string, words: CalicoNode | undefined, path: PoolPath): Mac | undefined {
  if (path.type === 'geneve') return hashedMac(`${name}-geneve`)
  if (path.type !== 'vxlan') return undefined
  const said = path.family === 4 ? words?.vxlanTunnelMac : words?.vxlanTunnelMacV6
  return said ?? hashedMac(path.family === 4 ? name : `${name}-v6`)
}

const hashedMac = (text: string): Mac =>
  new Mac(Uint8Array.of(0x66, ...createHash('sha1').update(text).digest().subarray(0, 5)))

/** What the checks of peers rest on. */
export interface PeerGround {
  readonly name: string
  /** This node's own words and addresses: nobody else may have them. */
  readonly words: CalicoNode
  readonly addresses: readonly Ip[]
  readonly pools: readonly IpPool[]
  /** What real Calico nodes take in and send by. */
  readonly foreignPaths: readonly PathId[]
}

/** A peer, as far as it is believed. */
export class CheckedPeer implements PoolPeer {
  readonly info: NodeInfo
  readonly view: PeerView
  readonly problems: readonly PeerProblem[]
  readonly ipv4?: Ip
  readonly ipv6?: Ip
  readonly #ends: Readonly<Partial<Record<Family, TunnelEnd>>>

  constructor(
    info: NodeInfo,
    view: PeerView,
    addresses: Readonly<Partial<Record<Family, Ip>>>,
    ends: Readonly<Partial<Record<Family, TunnelEnd>>>,
    problems: readonly PeerProblem[],
  ) {
    this.info = info
    this.view = view
    this.problems = problems
    if (addresses[4]) this.ipv4 = addresses[4]
    if (addresses[6]) this.ipv6 = addresses[6]
    this.#ends = ends
  }

  get name(): string {
    return this.info.name
  }

  endOf(path: PoolPath, family: Family): TunnelEnd | undefined {
    if (path.type === 'vxlan') return this.#ends[family]
    const mac = tunnelMacOf(this.name, undefined, path)
    return mac && { mac }
  }

  /** All that its next hops are made of, as text. */
  get reach(): string {
    return [this.ipv4, this.ipv6, this.#ends[4]?.ip, this.#ends[4]?.mac, this.#ends[6]?.mac].join()
  }

  /** Every address that its tunnel packets may come from. */
  get sources(): readonly Ip[] {
    const { addresses, lease } = this.info
    const said = [this.ipv4, this.ipv6, lease?.publicIp, lease?.publicIpv6, ...addresses]
    return said.filter((ip) => ip !== undefined && !isNoNodes(ip)) as Ip[]
  }
}

/** True for what no node can be reached at. */
const isNoNodes = (ip: Ip): boolean => ip.isAny || ip.isLoopback || ip.isMulticast || ip.isLinkLocal

/** Of a node that speaks neither weft's words nor Calico's. */
const silent: PeerView = { accepts: [], sends: [] }

const words = {
  4: { address: 'IPv4Address', tunnel: 'IPv4VXLANTunnelAddr', mac: 'VXLANTunnelMACAddr' },
  6: { address: 'IPv6Address', tunnel: 'IPv6VXLANTunnelAddr', mac: 'VXLANTunnelMACAddrV6' },
} as const

const keyOf = (word: string): string => `projectcalico.org/${word}`

/** What two nodes cannot both have. */
interface Claim {
  readonly id: string
  readonly text: string
}

const addressClaim = (ip: Ip): Claim => ({ id: `address ${ip}`, text: `address ${ip}` })
const tunnelClaim = (ip: Ip): Claim => ({ id: `tunnel ${ip}`, text: `tunnel address ${ip}` })
const macClaim = (mac: Mac, family: Family): Claim => ({ id: `mac${family} ${mac}`, text: `MAC ${mac}` })

export class PoolPeers {
  readonly #known = new Map<string, NodeInfo>()
  readonly #claims = new Map<string, Set<string>>()
  readonly #checked = new Map<string, CheckedPeer>()
  readonly #views = new Map<string, { readonly view: PeerView; holders: number }>()
  readonly #viewOf = new Map<string, string>()
  #ground: PeerGround | undefined
  #foreign: PeerView = { accepts: [], sends: [], isForeign: true }
  #own: ReadonlySet<string> = new Set()

  get size(): number {
    return this.#known.size
  }

  /** What the nodes say, each different view once. */
  *views(): Iterable<PeerView> {
    for (const { view } of this.#views.values()) yield view
  }

  names(): IterableIterator<string> {
    return this.#known.keys()
  }

  has(name: string): boolean {
    return this.#known.has(name)
  }

  /** Undefined for a node that is not known, and for all before the ground is. */
  get(name: string): CheckedPeer | undefined {
    const checked = this.#checked.get(name)
    const info = this.#known.get(name)
    if (checked || !info || !this.#ground) return checked
    const fresh = this.#check(info, this.#ground)
    this.#checked.set(name, fresh)
    return fresh
  }

  /** Everything is to be checked anew. */
  setGround(ground: PeerGround): void {
    this.#ground = ground
    this.#foreign = { accepts: ground.foreignPaths, sends: ground.foreignPaths, isForeign: true }
    this.#own = new Set([
      ...ground.addresses.map((ip) => addressClaim(ip).id),
      ...claimsOf(ground.name, ground.words).map(({ id }) => id),
    ])
    this.#checked.clear()
    for (const info of this.#known.values()) this.#look(info)
  }

  /** Returns the names of the nodes that have to be looked at again. */
  set(info: NodeInfo): ReadonlySet<string> {
    const touched = this.#release(info.name)
    this.#known.set(info.name, info)
    this.#look(info)
    for (const { id } of claimsOf(info.name, info.calico)) {
      const holders = this.#claims.get(id) ?? new Set()
      this.#claims.set(id, holders.add(info.name))
      for (const holder of holders) touched.add(holder)
    }
    return this.#forget(touched.add(info.name))
  }

  delete(name: string): ReadonlySet<string> {
    const touched = this.#release(name)
    this.#known.delete(name)
    this.#lookAway(name)
    return this.#forget(touched.add(name))
  }

  #forget(names: ReadonlySet<string>): ReadonlySet<string> {
    for (const name of names) this.#checked.delete(name)
    return names
  }

  #release(name: string): Set<string> {
    const touched = new Set<string>()
    for (const { id } of claimsOf(name, this.#known.get(name)?.calico)) {
      const holders = this.#claims.get(id)
      holders?.delete(name)
      if (holders?.size === 0) this.#claims.delete(id)
      for (const holder of holders ?? []) touched.add(holder)
    }
    return touched
  }

  #check(info: NodeInfo, ground: PeerGround): CheckedPeer {
    const problems: PeerProblem[] = []
    const addresses: Partial<Record<Family, Ip>> = {}
    const ends: Partial<Record<Family, TunnelEnd>> = {}
    const { name, calico } = info
    for (const family of [4, 6] as const) {
      const ip = (family === 4 ? calico?.ipv4 : calico?.ipv6)?.ip
      const wrong = ip && this.#wrongWithAddress(name, ip, ground)
      if (wrong) problems.push({ node: name, key: keyOf(words[family].address), problem: wrong })
      else if (ip) addresses[family] = ip
      const tunnel = family === 4 ? calico?.ipv4VxlanTunnelAddr : calico?.ipv6VxlanTunnelAddr
      if (!tunnel) continue
      const mac = tunnelMacOf(name, calico, { type: 'vxlan', family, vni: 0, port: 0, detour: false })!
      const twice = this.#rivalOf(name, tunnelClaim(tunnel))
      const sameMac = this.#rivalOf(name, macClaim(mac, family))
      if (twice) problems.push({ node: name, key: keyOf(words[family].tunnel), problem: twice })
      else if (sameMac || mac.isZero || mac.isMulticast) {
        const problem = sameMac ?? `${mac} is not a unicast Ethernet address`
        problems.push({ node: name, key: keyOf(words[family].mac), problem })
      } else if (isNoNodes(tunnel)) {
        problems.push({ node: name, key: keyOf(words[family].tunnel), problem: `${tunnel} is no address of a tunnel` })
      } else ends[family] = { mac, ip: tunnel }
    }
    return new CheckedPeer(info, this.#views.get(this.#viewOf.get(name)!)!.view, addresses, ends, problems)
  }

  #wrongWithAddress(name: string, ip: Ip, { pools }: PeerGround): string | undefined {
    if (isNoNodes(ip)) return `${ip} is no address of a node`
    const pool = pools.find(({ cidr }) => cidr.contains(ip))
    if (pool) return `${ip} is inside IPPool ${pool.name}: tunnels to it would lead into themselves`
    return this.#rivalOf(name, addressClaim(ip))
  }

  /** Why the node may not have it: this node has it, or one that is older. */
  #rivalOf(name: string, { id, text }: Claim): string | undefined {
    if (this.#own.has(id)) return `${text} is this node's own`
    const holders = [...(this.#claims.get(id) ?? [])].sort((a, b) => this.#rank(a) - this.#rank(b) || (a < b ? -1 : 1))
    return holders.length < 2 || holders[0] === name ? undefined : `${text} is node ${holders[0]}'s`
  }

  #rank(name: string): number {
    return this.#known.get(name)?.createdAtSeconds ?? Number.MAX_SAFE_INTEGER
  }

  /** Notes what a node says of its paths; most say the same. */
  #look({ name, weft, calico }: NodeInfo): void {
    this.#lookAway(name)
    const view = weft ? viewStatus(weft, poolPaths) : calico ? this.#foreign : silent
    const key = `${view.isForeign ?? false} ${view.accepts.join()} ${view.sends.join()}`
    const shared = this.#views.get(key) ?? { view, holders: 0 }
    shared.holders++
    this.#views.set(key, shared)
    this.#viewOf.set(name, key)
  }

  #lookAway(name: string): void {
    const key = this.#viewOf.get(name)
    const shared = key === undefined ? undefined : this.#views.get(key)
    this.#viewOf.delete(name)
    if (shared && --shared.holders === 0) this.#views.delete(key!)
  }
}

function claimsOf(name: string, calico: CalicoNode | undefined): Claim[] {
  const out: Claim[] = []
  for (const family of [4, 6] as const) {
    const ip = (family === 4 ? calico?.ipv4 : calico?.ipv6)?.ip
    if (ip) out.push(addressClaim(ip))
    const tunnel = family === 4 ? calico?.ipv4VxlanTunnelAddr : calico?.ipv6VxlanTunnelAddr
    if (!tunnel) continue
    const mac = tunnelMacOf(name, calico, { type: 'vxlan', family, vni: 0, port: 0, detour: false })!
    out.push(tunnelClaim(tunnel), macClaim(mac, family))
  }
  return out
}
