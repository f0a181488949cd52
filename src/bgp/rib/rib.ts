/**
 * The RIB of a speaker: peers, attribute sets and next hops that both families share, and a route table for each family. What
 * it answers to is in ./interface.ts.
 *
 * Sources: RFC 4271 section 9, RFC 4760 (families side by side), RFC 4724 section 4.1 (selection deferral).
 */
import { type BgpFamily, bgpFamilyOf, type LocalRoute, type PrefixText, type RibRoute } from '../../model/bgp.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Attributes } from '../../wire/bgp/attributes.ts'
import { IPV4_UNICAST, IPV6_UNICAST } from '../../wire/bgp/family.ts'
import type { NlriRun } from '../../wire/bgp/nlri.ts'
import { encodeEndOfRib } from '../../wire/bgp/update-packing.ts'
import { AttributeStore } from './attribute-store.ts'
import { ExportRules, keyOfExport, LocalSources, routeFamilyOf } from './export-rules.ts'
import { ImportRules, RefusalTable } from './import-rules.ts'
import type { Candidate, Rib } from './interface.ts'
import { attributesOfLocal } from './local-attributes.ts'
import { NextHopTable } from './next-hop-table.ts'
import type { NextHopResolver, PeerLoss, PeerRouteCounts, RibOptions, RibPeer, RibPeerFamily, RibSink } from './peer.ts'
import { PeerTable } from './peer-table.ts'
import { RouteQuery } from './route-query.ts'
import { RouteTable } from './route-table.ts'
import type { Told } from './told-table.ts'
import type { GroupOutlet, UpdateGroup } from './update-group.ts'
import { Member } from './update-member.ts'

const families: readonly BgpFamily[] = ['ipv4', 'ipv6']

/** Chosen routes that are told at a time. */
const CHOSEN_AT_ONCE = 4096
/** New attribute sets after which unused ones are looked for, at the least. */
const SETS_BEFORE_SWEEP = 4096

export const createRib = (options: RibOptions, resolve: NextHopResolver, sink: RibSink): Rib =>
  new SpeakerRib(options, resolve, sink)

class SpeakerRib implements Rib {
  readonly #options: RibOptions
  readonly #sink: RibSink
  readonly #peers: PeerTable
  readonly #nextHops: NextHopTable
  readonly #attributes: AttributeStore
  readonly #refusals = new RefusalTable()
  readonly #localSources = new LocalSources()
  readonly #tables: Readonly<Record<BgpFamily, RouteTable>>
  readonly #query: RouteQuery
  readonly #importRules = new Map<string, { rules: ImportRules; users: number }>()
  readonly #attached = new Set<number>()
  #held = false
  #setsAfterSweep = 0

  constructor(options: RibOptions, resolve: NextHopResolver, sink: RibSink) {
    this.#options = options
    this.#sink = sink
    this.#peers = new PeerTable(options.routerId)
    this.#nextHops = new NextHopTable(resolve)
    this.#attributes = new AttributeStore(this.#nextHops)
    const table = (family: BgpFamily) =>
      new RouteTable(family, options, this.#attributes, this.#nextHops, this.#peers, sink.chosen !== undefined)
    this.#tables = { ipv4: table('ipv4'), ipv6: table('ipv6') }
    this.#query = new RouteQuery(this.#attributes, this.#nextHops, this.#peers, this.#refusals)
  }

  // ---- peers ---------------------------------------------------------------------------------------------------------

  attach(peer: RibPeer): void {
    const id = this.#peers.set(peer)
    this.#attached.add(id)
    for (const family of families) {
      const config = peer.families.find((each) => each.family === family)
      const table = this.#tables[family]
      this.#leaveGroup(table, id)
      // A session without the family cannot renew its routes.
      if (!config) {
        this.#drop(table, id)
        continue
      }
      this.#setRules(table, id, peer, config)
      this.#join(table, id, peer, config, 'message')
    }
  }

  reconfigure(peer: RibPeer): void {
    const id = this.#idOf(peer.name)
    this.#peers.set(peer)
    for (const config of peer.families) {
      const table = this.#tables[config.family]
      if (this.#setRules(table, id, peer, config)) table.judgeAgain(id)
      const key = keyOfExport(peer, config)
      const group = this.#groupOf(table, id)
      if (group?.key === key) continue
      this.#moveGroup(table, id, peer, config)
    }
  }

  lose(name: string, loss: PeerLoss, kept: readonly BgpFamily[] = families): void {
    const id = this.#idOf(name)
    this.#attached.delete(id)
    for (const family of families) {
      const table = this.#tables[family]
      this.#leaveGroup(table, id)
      if (loss === 'keep stale' && kept.includes(family)) table.markStale(id)
      else this.#drop(table, id)
    }
  }

  has(name: string): boolean {
    return this.#peers.idOf(name) !== 0
  }

  // ---- routes --------------------------------------------------------------------------------------------------------

  announce(name: string, run: NlriRun, attributes: Attributes): void {
    this.#tableOf(run)?.announce(this.#idOf(name), run, this.#attributes.intern(attributes))
  }

  withdraw(name: string, run: NlriRun): void {
    this.#tableOf(run)?.withdraw(this.#idOf(name), run)
  }

  sweepStale(name: string, family: BgpFamily): void {
    const id = this.#idOf(name)
    this.#tables[family].sweep(id, () => this.#forgetLost(id))
  }

  markStale(name: string, family: BgpFamily): void {
    this.#tables[family].markStale(this.#idOf(name))
  }

  keepLongLived(name: string, family: BgpFamily): void {
    this.#tables[family].keepLongLived(this.#idOf(name))
  }

  refresh(name: string, family: BgpFamily): void {
    const id = this.#idOf(name)
    const group = this.#groupOf(this.#tables[family], id)
    if (!group) return
    group.tellAll(id)
    const member = group.members.get(id)!
    if (member.endOfRib === 'no') member.endOfRib = 'notice'
  }

  resume(name: string): void {
    const id = this.#peers.idOf(name)
    for (const family of families) {
      const member = this.#groupOf(this.#tables[family], id)?.members.get(id)
      if (member) member.blocked = false
    }
  }

  setLocal(route: LocalRoute): void {
    const cidr = Cidr.parse(route.prefix)
    const source = this.#localSources.intern({ fromPeer: undefined, localKind: route.kind, device: route.device })
    const set = this.#attributes.intern(attributesOfLocal(route))
    this.#tables[bgpFamilyOf(cidr.family)].setLocal(cidr, set, { route, source })
  }

  removeLocal(prefix: PrefixText): void {
    const cidr = Cidr.parse(prefix)
    this.#tables[bgpFamilyOf(cidr.family)].removeLocal(cidr)
  }

  nextHopsChanged(): void {
    const changed = this.#nextHops.resolveAll()
    if (changed.size > 0) for (const family of families) this.#tables[family].nextHopsChanged(changed)
  }

  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
  }

  // ---- work ----------------------------------------------------------------------------------------------------------

  work(budget: number): boolean {
    let left = budget
    for (const family of families) left = this.#tables[family].walk(left)
    if (!this.#held) {
      for (const family of families) left = this.#tables[family].decide(left)
      for (const family of families) left = this.#tell(family, left)
    }
    this.#sweepSets()
    for (const family of families) this.#tables[family].releasePrefixes()
    return left <= 0 || this.#pending
  }

  get #pending(): boolean {
    for (const family of families) {
      const table = this.#tables[family]
      if (table.walking || (!this.#held && (table.hasWork || table.changed.length > 0))) return true
      if (this.#held) continue
      for (const group of table.groups.values())
        for (const member of group.members.values()) if (!member.inStep && !member.blocked) return true
    }
    return false
  }

  /** Groups are told once everything is decided: what changes again at once is not told, and messages are full. */
  #tell(family: BgpFamily, budget: number): number {
    const table = this.#tables[family]
    if (table.undecided > 0) return budget
    const offer = (prefix: number, group: UpdateGroup, out: Told) => table.offer(prefix, group, out)
    const outlet = this.#outlet(family)
    let left = budget
    for (const group of table.groups.values()) {
      if (left > 0 && group.dirtyCount > 0) left -= group.flush(offer, outlet, left)
      if (left > 0 && group.dirtyCount === 0) left -= group.catchUp(outlet)
    }
    if (this.#sink.wantsChosen?.() === false) table.takeChanged(table.changed.length)
    while (left > 0 && this.#sink.chosen && table.changed.length > 0) {
      const prefixes = table.takeChanged(CHOSEN_AT_ONCE)
      this.#sink.chosen(family, this.#query.chosen(table, prefixes))
      left -= prefixes.length
    }
    return left
  }

  #outlet(family: BgpFamily): GroupOutlet {
    return {
      send: (peer, bytes, messages) => this.#sink.send(this.#peers.get(peer)!.name, bytes, messages),
      endOfRib: (peer, withMessage) => {
        const { name } = this.#peers.get(peer)!
        if (withMessage) this.#sink.send(name, encodeEndOfRib(routeFamilyOf[family]), 1)
        this.#sink.endOfRibSent?.(name, family)
      },
    }
  }

  /** Forgets attribute sets that nobody uses, when many have come since the last time. */
  #sweepSets(): void {
    if (this.#attributes.added < Math.max(SETS_BEFORE_SWEEP, this.#setsAfterSweep)) return
    const marks = new Uint8Array(this.#attributes.end)
    for (const family of families) this.#tables[family].markSets(marks)
    this.#attributes.sweep(marks)
    this.#setsAfterSweep = this.#attributes.size
    for (const { rules } of this.#importRules.values()) rules.forget()
    for (const family of families) for (const group of this.#tables[family].groups.values()) group.rules.forget()
  }

  // ---- eyes ----------------------------------------------------------------------------------------------------------

  counts(name: string, family: BgpFamily): PeerRouteCounts {
    const id = this.#idOf(name)
    const table = this.#tables[family]
    const { received, accepted, stale, best } = table.routesOf(id)
    return { received, accepted, stale, best, sent: this.#groupOf(table, id)?.told.countFor(id) ?? 0 }
  }

  get size(): Rib['size'] {
    const of = (family: BgpFamily) => this.#query.size(this.#tables[family])
    return { ipv4: of('ipv4'), ipv6: of('ipv6') }
  }

  get attributeSets(): number {
    return this.#attributes.size
  }

  adjIn(name: string, family: BgpFamily): Generator<RibRoute> {
    return this.#query.adjIn(this.#tables[family], this.#idOf(name))
  }

  adjOut(name: string, family: BgpFamily): Generator<RibRoute> {
    const id = this.#idOf(name)
    const table = this.#tables[family]
    return this.#query.adjOut(table, this.#groupOf(table, id), id)
  }

  local(family: BgpFamily): Generator<RibRoute> {
    return this.#query.local(this.#tables[family])
  }

  why(prefix: PrefixText): readonly Candidate[] {
    const cidr = Cidr.parse(prefix)
    return this.#query.why(this.#tables[bgpFamilyOf(cidr.family)], cidr)
  }

  // ---- inside --------------------------------------------------------------------------------------------------------

  #idOf(name: string): number {
    const id = this.#peers.idOf(name)
    if (id === 0) throw new RangeError(`no BGP peer ${name}`)
    return id
  }

  #tableOf({ family }: NlriRun): RouteTable | undefined {
    return family === IPV4_UNICAST ? this.#tables.ipv4 : family === IPV6_UNICAST ? this.#tables.ipv6 : undefined
  }

  /** Takes away all that the peer sent, in slices. */
  #drop(table: RouteTable, id: number): void {
    table.markStale(id)
    table.sweep(id, () => this.#forgetLost(id))
  }

  /** A peer that is not attached and of which nothing is kept gives its number back. */
  #forgetLost(id: number): void {
    const peer = this.#peers.get(id)
    if (!peer || this.#attached.has(id)) return
    if (families.some((family) => this.#tables[family].routesOf(id).received > 0 || this.#tables[family].walks(id)))
      return
    for (const family of families) {
      const table = this.#tables[family]
      this.#releaseRules(table.routesOf(id).rules)
      table.forgetPeer(id)
    }
    this.#peers.remove(id)
  }

  /** True: the rules are others than before. */
  #setRules(table: RouteTable, id: number, peer: RibPeer, config: RibPeerFamily): boolean {
    const made = new ImportRules(this.#options, peer, config, this.#attributes, this.#refusals)
    const routes = table.routesOf(id)
    const former = routes.rules
    if (former?.key === made.key) return false
    const shared = this.#importRules.get(made.key) ?? { rules: made, users: 0 }
    shared.users++
    this.#importRules.set(made.key, shared)
    routes.rules = shared.rules
    this.#releaseRules(former)
    return former !== undefined
  }

  #releaseRules(rules: ImportRules | undefined): void {
    const shared = rules && this.#importRules.get(rules.key)
    if (shared && --shared.users === 0) this.#importRules.delete(rules.key)
  }

  #groupOf(table: RouteTable, id: number): UpdateGroup | undefined {
    return table.groupOfPeer[id]
  }

  #join(table: RouteTable, id: number, peer: RibPeer, config: RibPeerFamily, endOfRib: 'message' | 'no'): UpdateGroup {
    const group = table.group(
      keyOfExport(peer, config),
      () => new ExportRules(this.#options, peer, config, this.#attributes, this.#peers, this.#localSources),
      config.addPathSend,
    )
    const member = new Member(config.addPathSend > 0)
    member.endOfRib = endOfRib
    group.members.set(id, member)
    table.groupOfPeer[id] = group
    group.tellAll(id)
    return group
  }

  #leaveGroup(table: RouteTable, id: number): void {
    const group = this.#groupOf(table, id)
    group?.members.delete(id)
    table.groupOfPeer[id] = undefined
    if (group?.members.size === 0) table.groups.delete(group.key)
  }

  /** What it was told in the one group and not in the other goes; the rest is told anew. */
  #moveGroup(table: RouteTable, id: number, peer: RibPeer, config: RibPeerFamily): void {
    const former = this.#groupOf(table, id)
    const old = former?.members.get(id)
    this.#leaveGroup(table, id)
    const group = this.#join(table, id, peer, config, 'no')
    const member = group.members.get(id)!
    if (!former || !old) return
    member.endOfRib = old.endOfRib
    member.blocked = old.blocked
    former.eachToldTo(id, (prefix, pathId) => {
      member.miss(prefix)
      member.missWithdrawal(prefix, pathId)
    })
    old.handOver(member)
  }
}
