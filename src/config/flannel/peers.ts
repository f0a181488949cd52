/**
 * Which peers to believe. A node object can be written wrong, by hand or by a broken or hostile node, and a subnet
 * claimed by two would send one's packets to the other. Every claim of a peer (its subnets, its addresses, its tunnel
 * MACs) is checked against the network, against this node, and against every other peer; whoever fails is refused as a
 * whole, with the reason, and nobody else is touched by it.
 *
 * Of two peers with one claim the older keeps it (by the store's creation time, then by name): so the outcome is the same
 * on every node and after every restart, and a newcomer cannot take what runs. The verdict on a peer depends on sound
 * claims of others, not on verdicts on others, so a change is judged by looking at those who share a claim only.
 */
import type { NodeContext, NodeInfo, PeerProblem } from '../../model/cluster.ts'
import { decodeVxlanEndpoint } from '../../model/vxlan-endpoint.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Family, Ip } from '../../net/ip.ts'
import type { NetworkConfig } from '../config.ts'

/** A peer's standing after a change: believed, or refused for a reason. */
export type PeerVerdict =
  | { readonly node: NodeInfo; readonly problem?: undefined }
  | { readonly node: NodeInfo; readonly problem: PeerProblem }

/** Subnets of one node; more means that something is wrong with it. */
const MAX_SUBNETS = 8

interface Peer {
  readonly node: NodeInfo
  /** Everything it claims, as index words; empty when it is unsound by itself. */
  readonly claims: readonly string[]
  readonly unsound: PeerProblem | undefined
  verdict: PeerVerdict
}

export class PeerTable {
  readonly #peers = new Map<string, Peer>()
  readonly #claimants = new Map<string, Set<string>>()
  /** Prefix lengths of subnets in use, with how many there are of each, by family. */
  readonly #lengths: Readonly<Record<Family, Map<number, number>>> = { 4: new Map(), 6: new Map() }
  readonly #config: NetworkConfig
  readonly #self: NodeContext

  constructor(config: NetworkConfig, self: NodeContext) {
    this.#config = config
    this.#self = self
  }

  /** Puts a peer in, or in place of its earlier self. Returns every verdict that is new or differs, the peer's own first. */
  set(node: NodeInfo): PeerVerdict[] {
    const before = this.#take(node.name)
    const unsound = this.#judgeAlone(node)
    const claims = unsound ? [] : claimsOf(node)
    const peer: Peer = { node, claims, unsound, verdict: { node } }
    this.#peers.set(node.name, peer)
    for (const claim of claims) this.#claim(claim, node.name)
    const affected = new Set([node.name, ...this.#sharers(before), ...this.#sharers(peer)])
    return this.#rejudge(affected, node.name)
  }

  /** Takes a peer out. Returns the verdicts on others that change by it. */
  delete(name: string): PeerVerdict[] {
    const before = this.#take(name)
    return this.#rejudge(this.#sharers(before))
  }

  get(name: string): PeerVerdict | undefined {
    return this.#peers.get(name)?.verdict
  }

  /** Everyone's standing. */
  *verdicts(): IterableIterator<PeerVerdict> {
    for (const peer of this.#peers.values()) yield peer.verdict
  }

  #take(name: string): Peer | undefined {
    const peer = this.#peers.get(name)
    if (!peer) return undefined
    this.#peers.delete(name)
    for (const claim of peer.claims) {
      const claimants = this.#claimants.get(claim)
      if (!claimants?.delete(name) || claimants.size > 0) continue
      this.#claimants.delete(claim)
      this.#countLength(claim, -1)
    }
    return peer
  }

  #claim(claim: string, name: string): void {
    const claimants = this.#claimants.get(claim)
    if (claimants) {
      claimants.add(name)
      return
    }
    this.#claimants.set(claim, new Set([name]))
    this.#countLength(claim, 1)
  }

  #countLength(claim: string, by: number): void {
    if (!claim.startsWith('subnet ')) return
    const cidr = Cidr.parse(claim.slice(7))
    const lengths = this.#lengths[cidr.family]
    const count = (lengths.get(cidr.length) ?? 0) + by
    if (count > 0) lengths.set(cidr.length, count)
    else lengths.delete(cidr.length)
  }

  /** Names of all peers that claim something in common with this one. */
  #sharers(peer: Peer | undefined): Set<string> {
    const out = new Set<string>()
    for (const claim of peer?.claims ?? []) for (const [name] of this.#rivals(claim)) out.add(name)
    out.delete(peer?.node.name ?? '')
    return out
  }

  /** Peers whose claims collide with a claim, each with the claim of theirs: equal words, and overlapping subnets. */
  *#rivals(claim: string): IterableIterator<[name: string, claim: string]> {
    for (const name of this.#claimants.get(claim) ?? []) yield [name, claim]
    if (!claim.startsWith('subnet ')) return
    const cidr = Cidr.parse(claim.slice(7))
    for (const length of this.#lengths[cidr.family].keys()) {
      if (length < cidr.length) {
        const wider = `subnet ${Cidr.of(cidr.base, length)}`
        for (const name of this.#claimants.get(wider) ?? []) yield [name, wider]
      } else if (length > cidr.length) {
        // Rare: subnets of one cluster have one length. Then all claims are looked through.
        for (const [other, names] of this.#claimants) {
          if (!other.endsWith(`/${length}`) || !other.startsWith('subnet ')) continue
          if (cidr.covers(Cidr.parse(other.slice(7)))) for (const name of names) yield [name, other]
        }
      }
    }
  }

  #rejudge(names: Iterable<string>, always?: string): PeerVerdict[] {
    const out: PeerVerdict[] = []
    for (const name of names) {
      const peer = this.#peers.get(name)
      if (!peer) continue
      const problem = peer.unsound ?? this.#judgeBesideOthers(peer)
      const changed = peer.verdict.problem?.problem !== problem?.problem
      if (changed || name === always) peer.verdict = problem ? { node: peer.node, problem } : { node: peer.node }
      if (name === always) out.unshift(peer.verdict)
      else if (changed) out.push(peer.verdict)
    }
    return out
  }

  #judgeBesideOthers(peer: Peer): PeerProblem | undefined {
    for (const claim of peer.claims)
      for (const [name, theirs] of this.#rivals(claim)) {
        const rival = this.#peers.get(name)!
        if (rival === peer || !isOlder(rival.node, peer.node)) continue
        const [kind, what] = claim.split(' ') as [string, string]
        const same = claim === theirs ? '' : ` (overlaps ${theirs.slice(7)})`
        return { node: peer.node.name, key: keyOfClaim(kind, what), problem: `${what}${same} belongs to node ${name}` }
      }
    return undefined
  }

  /** What is wrong with a peer whoever else there is. */
  #judgeAlone(node: NodeInfo): PeerProblem | undefined {
    const refuse = (key: string, problem: string): PeerProblem => ({ node: node.name, key, problem })
    if (node.podCidrs.length > MAX_SUBNETS) return refuse('spec.podCIDRs', `has more than ${MAX_SUBNETS} subnets`)
    for (const subnet of node.podCidrs) {
      const network = (subnet.family === 4 ? this.#config.v4 : this.#config.v6)?.network
      if (network && !(network.covers(subnet) && subnet.length > network.length))
        return refuse('spec.podCIDRs', `${subnet} is not a part of the network ${network}`)
      const own = this.#self.podCidrs.find((cidr) => cidr.overlaps(subnet))
      if (own)
        return refuse('spec.podCIDRs', `${subnet} overlaps ${own}, which is the subnet of this node ${this.#self.name}`)
    }
    for (const [key, ip] of addressesOf(node)) {
      const problem = this.#addressProblem(ip)
      if (problem) return refuse(key, `${ip} ${problem}`)
    }
    return undefined
  }

  #addressProblem(ip: Ip): string | undefined {
    if (ip.isAny || ip.isLoopback || ip.isMulticast || ip.isLinkLocal) return 'is not an address of a node'
    if ((ip.family === 4 ? this.#config.v4 : this.#config.v6)?.network.contains(ip)) return 'lies in the pod network'
    const own = [
      this.#self.publicIp,
      this.#self.publicIpv6,
      ...this.#self.external.addresses.map((address) => address.ip),
    ]
    if (own.some((mine) => mine?.equals(ip))) return `is an address of this node ${this.#self.name}`
    return undefined
  }
}

function addressesOf(node: NodeInfo): [key: string, ip: Ip][] {
  const out: [string, Ip][] = []
  if (node.lease?.publicIp) out.push(['public-ip', node.lease.publicIp])
  if (node.lease?.publicIpv6) out.push(['public-ipv6', node.lease.publicIpv6])
  return out
}

/** Index words of everything a node claims for itself alone. Without a lease it claims nothing yet. */
function claimsOf(node: NodeInfo): string[] {
  if (!node.lease) return []
  const claims = node.podCidrs.map((subnet) => `subnet ${subnet}`)
  for (const [, ip] of addressesOf(node)) claims.push(`address ${ip}`)
  if (node.lease.backendType === 'vxlan')
    for (const value of [node.lease.backendData, node.lease.backendV6Data]) {
      const endpoint = decodeVxlanEndpoint(value)
      if (typeof endpoint === 'object') claims.push(`mac ${endpoint.mac}`)
    }
  return [...new Set(claims)]
}

const keyOfClaim = (kind: string, what: string): string =>
  kind === 'subnet'
    ? 'spec.podCIDRs'
    : kind === 'mac'
      ? 'backend-data'
      : what.includes(':')
        ? 'public-ipv6'
        : 'public-ip'

/** Creation time first; a node without one counts as youngest. Names decide between equals. */
function isOlder(a: NodeInfo, b: NodeInfo): boolean {
  const [at, bt] = [a.createdAtSeconds ?? Number.POSITIVE_INFINITY, b.createdAtSeconds ?? Number.POSITIVE_INFINITY]
  return at === bt ? a.name < b.name : at < bt
}
