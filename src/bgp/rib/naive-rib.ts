/**
 * A RIB as slow and obvious as can be, for tests to compare with: maps of objects, everything computed anew whenever somebody
 * asks. What it says of best paths and of what each peer must have been told is written from the documents once more, and shares
 * nothing with the RIB but the vocabulary.
 *
 * Sources: RFC 4271 section 9.1, RFC 4456 sections 8 and 9, RFC 5065, RFC 1997, RFC 7911.
 */
import type { Cidr } from '../../net/cidr.ts'
import type { AsPathSegment, Attributes } from '../../wire/bgp/attributes.ts'
import type { RibOptions, RibPeer } from './peer.ts'
import { isRefusal, type PolicySource, type RoutePolicy } from './policy.ts'

export interface NaivePath {
  readonly cidr: Cidr
  /** Undefined: originated here. */
  readonly from: RibPeer | undefined
  readonly pathId: number
  readonly received: Attributes
  stale: boolean
}

export class NaiveRib {
  readonly paths = new Map<string, NaivePath>()
  readonly peers = new Map<string, RibPeer>()
  readonly attached = new Set<string>()
  readonly #options: RibOptions
  readonly #metric: (nextHop: string) => number

  constructor(options: RibOptions, metric: (nextHop: string) => number) {
    this.#options = options
    this.#metric = metric
  }

  announce(from: string | undefined, cidr: Cidr, pathId: number, received: Attributes): void {
    const peer = from === undefined ? undefined : this.peers.get(from)!
    this.paths.set(`${from} ${cidr} ${pathId}`, { cidr, from: peer, pathId, received, stale: false })
  }

  withdraw(from: string | undefined, cidr: Cidr, pathId: number): void {
    this.paths.delete(`${from} ${cidr} ${pathId}`)
  }

  of(from: string): [string, NaivePath][] {
    return [...this.paths].filter(([, path]) => path.from?.name === from)
  }

  /** The best first; with what import made of each. */
  ranked(prefix: string): { path: NaivePath; attributes: Attributes }[] {
    let left = [...this.paths.values()].flatMap((path) => {
      if (path.cidr.toString() !== prefix) return []
      const attributes = this.#imported(path)
      return attributes && this.#distance(attributes) >= 0 ? [{ path, attributes }] : []
    })
    const ranked: typeof left = []
    while (left.length > 0) {
      const best = this.#best(left)
      ranked.push(best)
      left = left.filter((each) => each !== best)
    }
    return ranked
  }

  /** What a peer has been told once everything has settled: by prefix, the attributes of each path. */
  toldTo(name: string): Map<string, Attributes[]> {
    const to = this.peers.get(name)!
    const config = to.families[0]!
    const told = new Map<string, Attributes[]>()
    for (const prefix of new Set([...this.paths.values()].map(({ cidr }) => cidr.toString()))) {
      const ranked = this.ranked(prefix)
      const sent: Attributes[] = []
      let offered = 0
      for (const { path, attributes } of config.addPathSend > 0 ? ranked : ranked.slice(0, 1)) {
        const exported = this.#exported(path, attributes, to)
        if (!exported || offered === Math.max(1, config.addPathSend)) continue
        offered++
        if (path.from?.name !== name) sent.push(exported)
      }
      if (sent.length > 0) told.set(prefix, sent)
    }
    return told
  }

  #distance({ nextHop }: Attributes): number {
    return nextHop ? this.#metric(nextHop.address.toString()) : 0
  }

  #imported({ cidr, from, received }: NaivePath): Attributes | undefined {
    if (!from) return received
    // The peer as it is configured now.
    const peer = this.peers.get(from.name)!
    const asns = (received.asPath ?? []).flatMap((segment) => segment.asns)
    if (asns.filter((asn) => asn === this.#options.asn).length > peer.allowedLocalAsns) return undefined
    if (peer.kind === 'external' && asns[0] !== peer.remoteAsn) return undefined
    if (peer.kind === 'internal' && received.originatorId === this.#options.routerId) return undefined
    if (peer.kind === 'internal' && received.clusterList?.includes(this.#options.clusterId)) return undefined
    const { localPreference: _, ...external } = received
    const given = peer.kind === 'external' ? external : received
    return apply(peer.families[0]!.importPolicy, given, cidr, {
      fromPeer: peer.name,
      localKind: undefined,
      device: undefined,
    })
  }

  #best(candidates: { path: NaivePath; attributes: Attributes }[]): { path: NaivePath; attributes: Attributes } {
    let left = candidates
    const keep = (rank: (path: NaivePath, attributes: Attributes) => number) => {
      const least = Math.min(...left.map(({ path, attributes }) => rank(path, attributes)))
      left = left.filter(({ path, attributes }) => rank(path, attributes) === least)
    }
    const length = ({ asPath = [] }: Attributes) =>
      asPath.reduce((sum, { kind, asns }) => sum + (kind === 'set' ? 1 : kind === 'sequence' ? asns.length : 0), 0)
    const neighbor = ({ asPath = [] }: Attributes) => (asPath[0]?.kind === 'sequence' ? asPath[0].asns[0]! : 0)
    keep((_, { localPreference = 100 }) => -localPreference)
    keep(({ from }) => (from ? 1 : 0))
    keep((_, attributes) => length(attributes))
    keep((_, { origin = 2 }) => origin)
    const { alwaysCompareMed } = this.#options
    left = left.filter(
      (a) =>
        !left.some(
          (b) =>
            (alwaysCompareMed || neighbor(a.attributes) === neighbor(b.attributes)) &&
            (b.attributes.med ?? 0) < (a.attributes.med ?? 0),
        ),
    )
    keep(({ from }) => (from?.kind === 'external' ? 0 : 1))
    keep((_, attributes) => this.#distance(attributes))
    keep(({ from }, { originatorId }) => originatorId ?? from?.routerId ?? 0)
    keep((_, { clusterList = [] }) => clusterList.length)
    keep(({ from }) => (from ? from.address.w3 : 0))
    keep(({ pathId }) => pathId)
    return left[0]!
  }

  #exported({ cidr, from }: NaivePath, attributes: Attributes, to: RibPeer): Attributes | undefined {
    const { communities = [] } = attributes
    const reflects = from?.kind === 'internal' && to.kind === 'internal'
    if (reflects && !this.peers.get(from.name)!.reflectorClient && !to.reflectorClient) return undefined
    if (communities.includes(0xffffff02) || (to.kind === 'external' && communities.includes(0xffffff01)))
      return undefined
    const { med, ...withoutMed } = attributes
    const shown = to.kind === 'external' && from && med !== undefined ? withoutMed : attributes
    const source: PolicySource = from
      ? { fromPeer: from.name, localKind: undefined, device: undefined }
      : { fromPeer: undefined, localKind: 'static', device: undefined }
    const allowed = apply(to.families[0]!.exportPolicy, shown, cidr, source)
    if (!allowed) return undefined
    const ours = { address: to.ownNextHops.ipv4! }
    const mode = to.families[0]!.nextHop
    const keeps = mode === 'keep' || (mode === 'auto' && to.kind === 'internal')
    const nextHop = keeps && allowed.nextHop ? allowed.nextHop : ours
    if (to.kind === 'internal')
      return {
        ...allowed,
        nextHop,
        localPreference: allowed.localPreference ?? 100,
        ...(reflects && {
          originatorId: allowed.originatorId ?? from.routerId,
          clusterList: [this.#options.clusterId, ...(allowed.clusterList ?? [])],
        }),
      }
    const { localPreference: _l, originatorId: _o, clusterList: _c, ...rest } = allowed
    const asPath: readonly AsPathSegment[] = [
      { kind: 'sequence', asns: [to.localAsn, ...(rest.asPath ?? []).flatMap(({ asns }) => asns)] },
    ]
    return { ...rest, nextHop, asPath }
  }
}

function apply(policy: RoutePolicy, attributes: Attributes, cidr: Cidr, source: PolicySource): Attributes | undefined {
  const prefixClass = policy.classOf?.(cidr.length, 0, 0, 0, cidr.base.w3) ?? 0
  const verdict = policy.evaluate(attributes, prefixClass, source)
  return isRefusal(verdict) ? undefined : verdict
}
