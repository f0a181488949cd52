/**
 * The RIBs of one family: what peers sent, what was chosen of it, and the groups that are told. Calls change paths and note which
 * prefixes are to be decided; the deciding and telling is done in slices by `work`.
 *
 *   announce ─► paths (Adj-RIB-In) ─► dirty prefixes ─► decide ─► best, changed prefixes ─► update groups (Adj-RIBs-Out)
 *                                          ▲                          └─► chosen routes for the kernel
 *              walks: sweep, judge again, long-lived, next hops ┘
 *
 * A lost session costs nothing at once: the peer's epoch moves on, by which all its paths are stale, and a walk takes away in slices
 * what has not been announced again.
 *
 * Sources: RFC 4271 sections 3.2 and 9, RFC 4724 section 4.2 (stale routes), RFC 9494 section 4.2.
 */
import type { BgpFamily, LocalRoute } from '../../model/bgp.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { NlriRun } from '../../wire/bgp/nlri.ts'
import type { AttributeStore } from './attribute-store.ts'
import { Decision } from './decision.ts'
import type { ExportRules } from './export-rules.ts'
import type { ImportRules } from './import-rules.ts'
import type { NextHopTable } from './next-hop-table.ts'
import { LONG_LIVED_STALE, PathTable } from './path-table.ts'
import type { RibOptions } from './peer.ts'
import type { PeerTable } from './peer-table.ts'
import { PrefixTable } from './prefix-table.ts'
import { SeveralPathsTable, SinglePathTable, type Told } from './told-table.ts'
import { grown, IntList } from './typed-array.ts'
import { UpdateGroup } from './update-group.ts'

/** What is kept of a peer in this family. */
export interface PeerRoutes {
  readonly peer: number
  rules: ImportRules | undefined
  /** Where its list of paths begins. */
  first: number
  /** Paths of another epoch are stale. */
  epoch: number
  received: number
  accepted: number
  stale: number
  best: number
}

type Visit = (path: number) => void

/** A visit of every path of a peer, or of all paths, in slices. */
interface Walk {
  /** Undefined: every path by its number. */
  readonly routes: PeerRoutes | undefined
  cursor: number
  readonly visit: Visit
  readonly done?: (() => void) | undefined
}

/** A local route's place: how policies see it, and what it is for. */
interface LocalPath {
  readonly route: LocalRoute
  readonly source: number
}

export class RouteTable {
  readonly family: BgpFamily
  readonly prefixes: PrefixTable
  readonly paths = new PathTable()
  readonly decision: Decision
  readonly groups = new Map<string, UpdateGroup>()
  /** By peer: the group that it is told with. */
  readonly groupOfPeer: (UpdateGroup | undefined)[] = []
  readonly locals = new Map<number, LocalPath>()
  /** By prefix: the best path, or 0. */
  best = new Int32Array(64)
  /** By prefix: the best path's attribute set when it was chosen. */
  bestSet = new Int32Array(64)
  /** By prefix: number of the set of paths used at once; 0: the best alone. */
  #multipath = new Int32Array(0)
  readonly #multipathIds = new Map<string, number>()
  /** Prefixes whose choice changed since somebody asked. */
  readonly changed = new IntList()
  #changedBits = new Uint8Array(64)
  readonly #dirty = new IntList()
  #dirtyBits = new Uint8Array(64)
  readonly #routes: (PeerRoutes | undefined)[] = []
  readonly #walks: Walk[] = []
  readonly #attributes: AttributeStore
  readonly #several = new IntList()
  readonly #noteChanged: boolean
  /** Prefixes without a path since the last look for such. */
  #emptied = 0

  constructor(
    family: BgpFamily,
    options: RibOptions,
    attributes: AttributeStore,
    nextHops: NextHopTable,
    peers: PeerTable,
    noteChanged: boolean,
  ) {
    this.family = family
    this.prefixes = new PrefixTable(family === 'ipv4' ? 4 : 6)
    this.#attributes = attributes
    this.#noteChanged = noteChanged
    this.decision = new Decision(options, this.paths, attributes, nextHops, peers)
    this.routesOf(0)
  }

  routesOf(peer: number): PeerRoutes {
    let routes = this.#routes[peer]
    if (!routes) {
      routes = { peer, rules: undefined, first: 0, epoch: 0, received: 0, accepted: 0, stale: 0, best: 0 }
      this.#routes[peer] = routes
    }
    return routes
  }

  forgetPeer(peer: number): void {
    this.#routes[peer] = undefined
  }

  // ---- what comes in -------------------------------------------------------------------------------------------------

  announce(peer: number, run: NlriRun, set: number): void {
    const routes = this.routesOf(peer)
    const rules = routes.rules
    if (!rules) return
    const { words, count } = run
    const stride = this.prefixes.wordsEach + 2
    const classOf = rules.classOf
    let prefixClass = 0
    let imported = rules.judge(set, 0, false)
    for (let i = 0, at = 0; i < count; i++, at += stride) {
      const length = words[at + 1]!
      const prefix = this.prefixes.intern(words, at + 2, length)
      this.#hold(prefix)
      if (classOf) {
        const each = this.#classOf(classOf, words, at + 2, length)
        if (each !== prefixClass) {
          prefixClass = each
          imported = rules.judge(set, each, false)
        }
      }
      this.#set(routes, prefix, words[at]!, set, imported)
    }
  }

  withdraw(peer: number, run: NlriRun): void {
    const routes = this.routesOf(peer)
    const { words, count } = run
    const stride = this.prefixes.wordsEach + 2
    for (let i = 0, at = 0; i < count; i++, at += stride) {
      const prefix = this.prefixes.find(words, at + 2, words[at + 1]!)
      if (prefix === 0) continue
      const path = this.paths.find(prefix, peer, words[at]!)
      if (path !== 0) this.#remove(routes, path)
    }
  }

  setLocal(cidr: Cidr, set: number, local: LocalPath): void {
    const prefix = this.prefixes.idOf(cidr, true)
    this.#hold(prefix)
    const former = this.locals.get(prefix)
    this.locals.set(prefix, local)
    // Another kind is another route for policies, even with the same attributes.
    if (former && former.source !== local.source) {
      for (const group of this.groups.values()) group.markDirty(prefix)
    }
    this.#set(this.routesOf(0), prefix, 0, set, set)
  }

  removeLocal(cidr: Cidr): void {
    const prefix = this.prefixes.idOf(cidr)
    const path = prefix === 0 ? 0 : this.paths.find(prefix, 0, 0)
    if (path === 0) return
    this.locals.delete(prefix)
    this.#remove(this.routesOf(0), path)
  }

  // ---- walks ---------------------------------------------------------------------------------------------------------

  /** Everything of the peer is stale until announced again. */
  markStale(peer: number): void {
    const routes = this.routesOf(peer)
    // What is stale already must not become fresh by the epoch's coming round.
    if (routes.stale > 0) this.sweep(peer)
    routes.epoch = (routes.epoch + 1) & 0xff
    routes.stale = routes.received
  }

  /** Takes away what is stale. */
  sweep(peer: number, done?: () => void): void {
    const routes = this.routesOf(peer)
    const isStale = this.#staleNow(routes)
    this.#walk(
      routes,
      (path) => {
        if (isStale(path)) this.#remove(routes, path)
      },
      done,
    )
  }

  /** What is stale stays, least preferred, unless it says that it must not. */
  keepLongLived(peer: number): void {
    const routes = this.routesOf(peer)
    const isStale = this.#staleNow(routes)
    this.#walk(routes, (path) => {
      if (!isStale(path)) return
      this.paths.flags[path] = LONG_LIVED_STALE
      this.#judgeAgain(routes, path)
    })
  }

  /** The peer's import rules are others now. */
  judgeAgain(peer: number): void {
    const routes = this.routesOf(peer)
    this.#walk(routes, (path) => this.#judgeAgain(routes, path))
  }

  /** Decides again what depends on one of these next hops. */
  nextHopsChanged(changed: ReadonlySet<number>): void {
    this.#walks.push({
      routes: undefined,
      cursor: 1,
      visit: (path) => {
        const prefix = this.paths.prefix[path]!
        const set = this.paths.imported[path]!
        if (prefix !== 0 && set > 0 && changed.has(this.#attributes.nextHop[set]!)) this.#markDirty(prefix)
      },
    })
  }

  /** Whether a path was stale already when this was called; epochs count round. */
  #staleNow(routes: PeerRoutes): (path: number) => boolean {
    const { epoch } = routes
    return (path) => ((routes.epoch - this.paths.epoch[path]!) & 0xff) > ((routes.epoch - epoch) & 0xff)
  }

  #walk(routes: PeerRoutes, visit: Visit, done?: () => void): void {
    this.#walks.push({ routes, cursor: routes.first, visit, done })
  }

  #judgeAgain(routes: PeerRoutes, path: number): void {
    const { paths } = this
    const rules = routes.rules
    if (!rules) return
    const prefix = paths.prefix[path]!
    const { classOf } = rules
    const prefixClass = classOf
      ? this.#classOf(classOf, this.prefixes.words, prefix * this.prefixes.wordsEach, this.prefixes.lengths[prefix]!)
      : 0
    const longLived = (paths.flags[path]! & LONG_LIVED_STALE) !== 0
    this.#setImported(routes, path, rules.judge(paths.received[path]!, prefixClass, longLived))
  }

  // ---- work ----------------------------------------------------------------------------------------------------------

  get walking(): boolean {
    return this.#walks.length > 0
  }

  /** True: paths of the peer are still being walked. */
  walks(peer: number): boolean {
    return this.#walks.some(({ routes }) => routes?.peer === peer)
  }

  /** True: there is something to decide or to flush. */
  get hasWork(): boolean {
    if (this.#dirty.length > 0) return true
    for (const group of this.groups.values()) if (group.dirtyCount > 0) return true
    return false
  }

  /** Walks; returns what is left of the budget. */
  walk(budget: number): number {
    let left = budget
    while (left > 0 && this.#walks.length > 0) {
      const walk = this.#walks[0]!
      left = walk.routes ? this.#walkPeer(walk, left) : this.#walkAll(walk, left)
      if (walk.routes ? walk.cursor === 0 : walk.cursor >= this.paths.end) {
        this.#walks.shift()
        walk.done?.()
      }
    }
    return left
  }

  /** Decides dirty prefixes; returns what is left of the budget. */
  decide(budget: number): number {
    const dirty = this.#dirty
    let left = budget
    while (left > 0 && dirty.length > 0) {
      const prefix = dirty.items[--dirty.length]!
      this.#dirtyBits[prefix] = 0
      this.#decide(prefix)
      left--
    }
    if (dirty.length === 0) dirty.clear()
    return left
  }

  get undecided(): number {
    return this.#dirty.length
  }

  /** What of a prefix a group is to be told now. */
  offer(prefix: number, { rules, addPathSend }: UpdateGroup, out: Told): void {
    const { classOf } = rules
    const prefixClass = classOf
      ? this.#classOf(classOf, this.prefixes.words, prefix * this.prefixes.wordsEach, this.prefixes.lengths[prefix]!)
      : 0
    if (addPathSend === 0) {
      const path = this.best[prefix]!
      if (path !== 0) this.#offerPath(prefix, path, rules, prefixClass, 0, out)
      return
    }
    const several = this.#several
    this.decision.chooseSeveral(prefix, Number.MAX_SAFE_INTEGER, several)
    for (let i = 0; i < several.length && out.count < addPathSend; i++)
      this.#offerPath(prefix, several.items[i]!, rules, prefixClass, several.items[i]!, out)
  }

  #offerPath(prefix: number, path: number, rules: ExportRules, prefixClass: number, pathId: number, out: Told): void {
    const peer = this.paths.peer[path]!
    const source = peer === 0 ? this.locals.get(prefix)!.source : peer
    const set = rules.judge(this.paths.imported[path]!, prefixClass, source)
    if (set !== 0) out.add(pathId, set, peer)
  }

  /** The group of a key, made now if there is none; it will be told everything. */
  group(key: string, rules: () => ExportRules, addPathSend: number): UpdateGroup {
    let group = this.groups.get(key)
    if (!group) {
      const told = addPathSend > 0 ? new SeveralPathsTable() : new SinglePathTable()
      group = new UpdateGroup(key, this.family, rules(), this.prefixes, told, addPathSend)
      this.groups.set(key, group)
      for (let prefix = 1; prefix < this.prefixes.end; prefix++) if (this.best[prefix] !== 0) group.markDirty(prefix)
    }
    return group
  }

  /** Paths of a prefix that are used at once, the best first; empty: none. */
  chosenPaths(prefix: number): readonly number[] {
    const best = this.decision.choose(prefix)
    return best === 0 ? [] : Array.from(this.decision.equal.items.subarray(0, this.decision.equal.length))
  }

  /** Marks every attribute set that is in use. */
  markSets(marks: Uint8Array): void {
    const { prefix, received, imported, end } = this.paths
    for (let path = 1; path < end; path++) {
      if (prefix[path] === 0) continue
      marks[received[path]!] = 1
      if (imported[path]! > 0) marks[imported[path]!] = 1
    }
    for (let id = 1; id < this.prefixes.end; id++) marks[this.bestSet[id]!] = 1
    for (const group of this.groups.values()) group.told.markSets(marks)
  }

  /** Gives back numbers of prefixes that nobody has any more; only when nothing is under way. */
  releasePrefixes(): void {
    if (this.#emptied < 4096 + this.prefixes.size / 4 || this.walking || this.hasWork) return
    for (const group of this.groups.values()) for (const member of group.members.values()) if (!member.inStep) return
    this.#emptied = 0
    const { heads } = this.paths
    for (let prefix = 1; prefix < this.prefixes.end; prefix++) {
      if (heads[prefix] !== 0 || this.#changedBits[prefix] === 1 || !this.prefixes.isLive(prefix)) continue
      let told = false
      for (const group of this.groups.values()) told ||= group.told.has(prefix)
      if (!told) this.prefixes.release(prefix)
    }
    if (this.#multipathIds.size > 65536) {
      this.#multipathIds.clear()
      this.#multipath.fill(-1)
    }
  }

  /** Hands out at most `count` prefixes whose choice changed. */
  takeChanged(count: number): Int32Array {
    const taken = this.changed.items.slice(Math.max(0, this.changed.length - count), this.changed.length)
    this.changed.length -= taken.length
    for (const prefix of taken) this.#changedBits[prefix] = 0
    if (this.changed.length === 0) this.changed.clear()
    return taken
  }

  // ---- inside --------------------------------------------------------------------------------------------------------

  #classOf(classOf: NonNullable<ImportRules['classOf']>, words: Int32Array, at: number, length: number): number {
    return this.prefixes.wordsEach === 1
      ? classOf(length, 0, 0, 0, words[at]!)
      : classOf(length, words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!)
  }

  /** Room for a prefix in every column. */
  #hold(prefix: number): void {
    if (prefix < this.best.length) return
    this.paths.holdPrefixes(prefix + 1)
    this.best = grown(this.best, prefix + 1)
    this.bestSet = grown(this.bestSet, prefix + 1)
    this.#dirtyBits = grown(this.#dirtyBits, prefix + 1)
    this.#changedBits = grown(this.#changedBits, prefix + 1)
  }

  #set(routes: PeerRoutes, prefix: number, pathId: number, received: number, imported: number): void {
    const { paths } = this
    let path = paths.heads[prefix] === 0 ? 0 : paths.find(prefix, routes.peer, pathId)
    if (path === 0) {
      path = paths.add(prefix, routes.peer, pathId, routes.first)
      routes.first = path
      routes.received++
      paths.epoch[path] = routes.epoch
      paths.received[path] = received
      paths.imported[path] = imported
      if (imported > 0) {
        routes.accepted++
        this.#markDirty(prefix)
      }
      return
    }
    if (paths.epoch[path] !== routes.epoch) {
      paths.epoch[path] = routes.epoch
      routes.stale--
    }
    paths.flags[path] = 0
    paths.received[path] = received
    this.#setImported(routes, path, imported)
  }

  #setImported(routes: PeerRoutes, path: number, imported: number): void {
    const former = this.paths.imported[path]!
    if (former === imported) return
    this.paths.imported[path] = imported
    if (former > 0) routes.accepted--
    if (imported > 0) routes.accepted++
    if (former > 0 || imported > 0) this.#markDirty(this.paths.prefix[path]!)
  }

  #remove(routes: PeerRoutes, path: number): void {
    const { paths } = this
    const prefix = paths.prefix[path]!
    routes.received--
    if (paths.imported[path]! > 0) {
      routes.accepted--
      this.#markDirty(prefix)
    }
    if (paths.epoch[path] !== routes.epoch) routes.stale--
    const after = paths.nextOfPeer[path]!
    for (const walk of this.#walks) if (walk.routes === routes && walk.cursor === path) walk.cursor = after
    if (routes.first === path) routes.first = after
    if (this.best[prefix] === path) {
      // The number may soon be another path's.
      this.best[prefix] = 0
      routes.best--
    }
    paths.remove(path)
    if (paths.heads[prefix] === 0) this.#emptied++
  }

  #markDirty(prefix: number): void {
    if (this.#dirtyBits[prefix] === 1) return
    this.#dirtyBits[prefix] = 1
    this.#dirty.push(prefix)
  }

  #walkPeer(walk: Walk, budget: number): number {
    let left = budget
    while (left > 0 && walk.cursor !== 0) {
      const path = walk.cursor
      walk.cursor = this.paths.nextOfPeer[path]!
      walk.visit(path)
      left--
    }
    return left
  }

  #walkAll(walk: Walk, budget: number): number {
    const to = Math.min(this.paths.end, walk.cursor + budget)
    const left = budget - (to - walk.cursor)
    for (; walk.cursor < to; walk.cursor++) walk.visit(walk.cursor)
    return left
  }

  #decide(prefix: number): void {
    const best = this.decision.choose(prefix)
    const set = best === 0 ? 0 : this.paths.imported[best]!
    const multipath = best !== 0 && this.decision.equal.length > 1 ? this.#multipathOf() : 0
    const former = this.best[prefix]!
    const several = this.#multipath[prefix] ?? 0
    const same = best === former && set === this.bestSet[prefix]
    if (former !== best) {
      if (former !== 0) this.routesOf(this.paths.peer[former]!).best--
      if (best !== 0) this.routesOf(this.paths.peer[best]!).best++
    }
    this.best[prefix] = best
    this.bestSet[prefix] = set
    if (multipath !== several) {
      this.#multipath = grown(this.#multipath, prefix + 1)
      this.#multipath[prefix] = multipath
    }
    if (!same || multipath !== several) this.#noteChange(prefix)
    for (const group of this.groups.values()) if (!same || group.addPathSend > 0) group.markDirty(prefix)
  }

  #noteChange(prefix: number): void {
    if (!this.#noteChanged || this.#changedBits[prefix] === 1) return
    this.#changedBits[prefix] = 1
    this.changed.push(prefix)
  }

  #multipathOf(): number {
    const { equal } = this.decision
    const { peer, imported } = this.paths
    let key = ''
    for (let i = 0; i < equal.length; i++) {
      const path = equal.items[i]!
      key += `${peer[path]}:${this.#attributes.nextHop[imported[path]!]} `
    }
    let id = this.#multipathIds.get(key)
    if (id === undefined) {
      id = this.#multipathIds.size + 1
      this.#multipathIds.set(key, id)
    }
    return id
  }
}
