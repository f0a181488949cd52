/**
 * The RIB in words, for people: what a peer sent, what was chosen, what was sent on, and why. Objects are made one at a time, as
 * they are asked for.
 *
 * Sources: RFC 4271 section 3.2 (the three RIBs).
 */
import type { ChosenRoute, RibNextHop, RibRoute } from '../../model/bgp.ts'
import { formatExtendedCommunity, formatLargeCommunity, formatStandardCommunity } from '../../model/bgp-community.ts'
import type { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'
import type { AttributeStore } from './attribute-store.ts'
import type { RefusalTable } from './import-rules.ts'
import type { Candidate } from './interface.ts'
import type { NextHopTable } from './next-hop-table.ts'
import type { PeerTable } from './peer-table.ts'
import type { RouteTable } from './route-table.ts'
import type { UpdateGroup } from './update-group.ts'

const origins = ['igp', 'egp', 'incomplete'] as const

export class RouteQuery {
  readonly #attributes: AttributeStore
  readonly #nextHops: NextHopTable
  readonly #peers: PeerTable
  readonly #refusals: RefusalTable

  constructor(attributes: AttributeStore, nextHops: NextHopTable, peers: PeerTable, refusals: RefusalTable) {
    this.#attributes = attributes
    this.#nextHops = nextHops
    this.#peers = peers
    this.#refusals = refusals
  }

  /** Prefixes with a chosen path, and all paths. */
  size(table: RouteTable): { prefixes: number; paths: number } {
    let prefixes = 0
    for (let prefix = 1; prefix < table.prefixes.end; prefix++) if (table.best[prefix] !== 0) prefixes++
    return { prefixes, paths: table.paths.size }
  }

  /** The chosen paths of prefixes, for the kernel. */
  chosen(table: RouteTable, prefixes: Int32Array): ChosenRoute[] {
    return Array.from(prefixes, (prefix) => {
      const paths = table.chosenPaths(prefix)
      const sets = paths.map((path) => table.paths.imported[path]!)
      const first = sets[0] === undefined ? undefined : this.#attributes.get(sets[0])
      return {
        prefix: table.prefixes.cidr(prefix).toString(),
        nextHops: sets.flatMap((set) => this.#nextHopOf(set)),
        fromPeers: paths.flatMap((path) => this.#peers.get(table.paths.peer[path]!)?.name ?? []),
        communities: first ? communityTexts(first) : [],
        ...(first?.localPreference !== undefined && { localPreference: first.localPreference }),
        stale: paths.some((path) => isStale(table, path)),
      }
    })
  }

  /** As received, before import. */
  *adjIn(table: RouteTable, peer: number): Generator<RibRoute> {
    const { paths } = table
    for (let path = table.routesOf(peer).first; path !== 0; path = paths.nextOfPeer[path]!)
      yield this.#route(table, path, paths.received[path]!, table.chosenPaths(paths.prefix[path]!))
  }

  /** As sent. */
  *adjOut(table: RouteTable, group: UpdateGroup | undefined, peer: number): Generator<RibRoute> {
    const told: { prefix: number; pathId: number; set: number }[] = []
    group?.eachToldTo(peer, (prefix, pathId, set) => told.push({ prefix, pathId, set }))
    for (const { prefix, pathId, set } of told) {
      const attributes = this.#attributes.get(set)
      yield {
        prefix: table.prefixes.cidr(prefix).toString(),
        ...(pathId !== 0 && { pathId }),
        ...this.#words(attributes),
        nextHops: attributes.nextHop ? [{ address: attributes.nextHop.address.toString() }] : [],
        best: true,
        multipath: false,
        stale: false,
      }
    }
  }

  /** Candidates of every prefix, as import left them. */
  *local(table: RouteTable): Generator<RibRoute> {
    const { paths } = table
    for (let prefix = 1; prefix < table.prefixes.end; prefix++) {
      if (!table.prefixes.isLive(prefix)) continue
      const chosen = table.chosenPaths(prefix)
      for (const path of this.#ordered(table, prefix, chosen))
        if (paths.imported[path]! > 0) yield this.#route(table, path, paths.imported[path]!, chosen)
    }
  }

  why(table: RouteTable, cidr: Cidr): Candidate[] {
    const prefix = table.prefixes.idOf(cidr)
    if (prefix === 0) return []
    const lost = table.decision.explain(prefix)
    const chosen = table.chosenPaths(prefix)
    return this.#ordered(table, prefix, chosen).map((path) => {
      const imported = table.paths.imported[path]!
      return {
        route: this.#route(table, path, imported > 0 ? imported : table.paths.received[path]!, chosen),
        lostAt: lost.get(path),
      }
    })
  }

  /** Paths of a prefix, the chosen ones first. */
  #ordered(table: RouteTable, prefix: number, chosen: readonly number[]): number[] {
    const rest: number[] = []
    for (let path = table.paths.heads[prefix] ?? 0; path !== 0; path = table.paths.next[path]!)
      if (!chosen.includes(path)) rest.push(path)
    return [...chosen, ...rest]
  }

  #route(table: RouteTable, path: number, set: number, chosen: readonly number[]): RibRoute {
    const { paths } = table
    const prefix = paths.prefix[path]!
    const peer = this.#peers.get(paths.peer[path]!)
    const pathId = paths.pathId[path]! >>> 0
    const local = peer ? undefined : table.locals.get(prefix)
    const rejected = this.#rejected(table, path)
    return {
      prefix: table.prefixes.cidr(prefix).toString(),
      ...(peer && { fromPeer: peer.name }),
      ...(local && { localKind: local.route.kind }),
      ...(pathId !== 0 && { pathId }),
      ...this.#words(this.#attributes.get(set)),
      nextHops: this.#nextHopOf(set),
      best: chosen[0] === path,
      multipath: chosen.length > 1 && chosen.includes(path),
      stale: isStale(table, path),
      ...(rejected !== undefined && { rejected }),
    }
  }

  #rejected(table: RouteTable, path: number): string | undefined {
    const imported = table.paths.imported[path]!
    if (imported <= 0) return this.#refusals.text(-imported)
    return table.decision.isCandidate(path) ? undefined : 'next hop unreachable'
  }

  #nextHopOf(set: number): RibNextHop[] {
    const id = this.#attributes.nextHop[set]!
    const address = this.#nextHops.address(id)
    if (!address) return []
    const device = this.#nextHops.device(id)
    return [{ address: address.toString(), ...(device !== undefined && { device }) }]
  }

  #words(attributes: Attributes): Omit<RibRoute, 'prefix' | 'nextHops' | 'best' | 'multipath' | 'stale'> {
    const { med, localPreference, originatorId, clusterList } = attributes
    return {
      origin: origins[attributes.origin ?? 2] ?? 'incomplete',
      asPath: attributes.asPath ?? [],
      communities: communityTexts(attributes),
      ...(med !== undefined && { med }),
      ...(localPreference !== undefined && { localPreference }),
      ...(originatorId !== undefined && { originatorId: Ip.v4(originatorId).toString() }),
      ...(clusterList && { clusterList: clusterList.map((id) => Ip.v4(id).toString()) }),
    }
  }
}

const isStale = (table: RouteTable, path: number): boolean =>
  table.paths.epoch[path] !== table.routesOf(table.paths.peer[path]!).epoch

const communityTexts = (attributes: Attributes): string[] => [
  ...(attributes.communities ?? []).map(formatStandardCommunity),
  ...(attributes.extendedCommunities ?? []).map(formatExtendedCommunity),
  ...(attributes.largeCommunities ?? []).map(([a, b, c]) => formatLargeCommunity(a, b, c)),
]
