/**
 * Addresses out of pools for one node: in blocks that the node has, in blocks that it claims, and, when nothing else is left and
 * nobody forbids it, in blocks of others.
 *
 *   assign ─► same handle before? ─► own block with space ─► claim a block ─► an empty block of another ─► borrow ─► NoAddressError
 *                                      one write, no read      two phases       older than a minute        not if strictAffinity
 *
 * Blocks are told by a watch (`noteBlock`, …); what is known may be old, and every write says what it replaces. A request that
 * fails because the store did not answer may have been granted there: what it got is given back as soon as the store
 * can be asked again.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam.go (autoAssign, AssignIP, ReleaseByHandle), design/ipam.
 */
import type { BlockAttribute, BlockOwner, IpPool } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { addressAt, type BlockDraft, ordinalOf, plainHandle, sameOwner } from '../block.ts'
import { choosePools, type Labels } from '../pool-choice.ts'
import { isSpare, isWanted, wantedAttributes } from '../spares.ts'
import { AddressRules, type AddressRulesOptions } from './address-rules.ts'
import { BlockClaims } from './block-claims.ts'
import { BlockGoneError, type BlockLane, type StoreCounts } from './block-lane.ts'
import { BlockNews } from './block-news.ts'
import { Chores } from './chores.ts'
import { HandleKeeper } from './handle-keeper.ts'
import { CorruptObjectError, type IpamStore, StoreAwayError } from './ipam-store.ts'
import { KnownBlocks } from './known-blocks.ts'
import {
  type AddressRequest,
  type AssignedAddress,
  type JournalAddress,
  NoAddressError,
  type PoolAddresses,
} from './pool-addresses.ts'
import { SpareAddresses } from './spare-addresses.ts'

export interface BlockIpamLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface BlockIpamOptions extends AddressRulesOptions {
  readonly store: IpamStore
  readonly node: { readonly name: string; labels(): Labels }
  readonly log: BlockIpamLog
  /** Checked pools, in the order in which they are tried. */
  pools(): readonly IpPool[]
  selects(selector: string, labels: Labels): boolean
  /** `all`: an IPAMHandle for every address, for nodes that go back to Calico's plugin. Default: where they are needed. */
  readonly handles?: 'needed' | 'all'
  /** How many addresses of each pool are kept ready for pods; none when left out. */
  readonly spareAddresses?: number
  /** Milliseconds since any moment, never going back; of this process when left out. */
  uptime?(): number
  /** Resolves after so many milliseconds, or when the signal is aborted. */
  wait?(milliseconds: number, signal: AbortSignal): Promise<void>
}

/** Rounds of one request; each lost round means that others got what was left. */
const MAX_ROUNDS = 10_000

type Wanted = AddressRequest['wanted'][number]

export class BlockIpam implements PoolAddresses {
  /** What the store was asked since the start. */
  readonly counts: StoreCounts = { reads: 0, writes: 0, conflicts: 0 }
  /** Told what happens to blocks and affinities. */
  readonly news: BlockNews
  readonly #options: BlockIpamOptions
  readonly #owner: BlockOwner
  readonly #known: KnownBlocks
  readonly #claims: BlockClaims
  readonly #handles: HandleKeeper
  readonly #chores: Chores
  readonly #rules: AddressRules
  readonly #spares: SpareAddresses
  /** Handles whose addresses are to be given back, but for these: they had them before the call that failed. */
  readonly #owed = new Map<string, ReadonlySet<string>>()
  /** Handle → blocks that an address was asked of and that did not answer. */
  readonly #doubtful = new Map<string, Set<Cidr>>()
  /** Handle → the last call for it: calls for one handle are done one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(options: BlockIpamOptions) {
    this.#options = options
    const { store, node, log } = options
    const { counts } = this
    const owner: BlockOwner = { type: 'host', name: node.name }
    this.#owner = owner
    this.#rules = new AddressRules(options)
    this.#spares = new SpareAddresses({
      ...options,
      node: node.name,
      isOwn: (draft) => sameOwner(draft.owner, owner),
      wantedIn: (cidr) => this.#sparesWantedIn(cidr),
      refusals: (cidr) => this.#rules.refusals(cidr),
      cooldown: () => this.#rules.cooldown(),
      uptime: options.uptime ?? (() => performance.now()),
    })
    this.#known = new KnownBlocks(owner, {
      store,
      counts,
      cooldown: () => this.#rules.cooldown(),
      accompany: (draft) => this.#spares.accompany(draft),
    })
    this.#chores = new Chores(log, options.wait)
    this.#claims = new BlockClaims({
      ...options,
      counts,
      owner,
      known: this.#known,
      cooldown: () => this.#rules.cooldown(),
      reserved: () => this.#rules.reserved(),
      onUnfinished: (cidr) => this.#chores.add(`settle ${cidr}`, () => this.#claims.settle(cidr)),
    })
    this.#handles = new HandleKeeper(store, counts)
    this.news = new BlockNews({
      store,
      log,
      counts,
      owner,
      known: this.#known,
      claims: this.#claims,
      spares: this.#spares,
      chores: this.#chores,
    })
  }

  assign(request: AddressRequest): Promise<readonly AssignedAddress[]> {
    const handleId = plainHandle(request.handleId)
    return this.#inTurn(handleId, async () => {
      request.signal?.throwIfAborted()
      await this.news.whenListed()
      const before = this.#owed.get(handleId) ?? new Set(this.#addressesOf(handleId).map(({ ip }) => `${ip}`))
      this.#owed.delete(handleId)
      const kept = await this.#recall(handleId, request)
      const outcomes = await Promise.allSettled(
        request.wanted.map(async (wanted, at) => kept[at] ?? (await this.#assignOne(handleId, request, wanted))),
      )
      const got = outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
      if (got.length === outcomes.length && !request.signal?.aborted) {
        this.#doubtful.delete(handleId)
        return got
      }
      this.#owe(handleId, before)
      request.signal?.throwIfAborted()
      throw (outcomes.find((each) => each.status === 'rejected') as PromiseRejectedResult).reason
    })
  }

  release(handle: string): Promise<void> {
    const handleId = plainHandle(handle)
    return this.#inTurn(handleId, async () => {
      await this.news.whenListed()
      await this.#release(handleId)
      this.#owed.delete(handleId)
    })
  }

  resume(journal: string, held: readonly JournalAddress[]): void {
    const { name } = this.#options.node
    this.#spares.resume(
      journal,
      held.map((each) => ({ ...each, attributes: { node: name, ...each.attributes } })),
    )
    this.reviewSpares()
  }

  expectPods(areExpected: boolean): void {
    this.#spares.keep(areExpected)
    this.reviewSpares()
  }

  /** What spare addresses depend on has changed: pools, reservations, the node's labels. */
  reviewSpares(): void {
    for (const lane of this.#known.lanes()) this.#spares.reviewIfDue(lane)
  }

  /** Before a close: gives addresses back that were kept ready, and tells blocks of those that pods have. Rejects with StoreAwayError. */
  async retire(): Promise<void> {
    await this.#spares.retire(this.#known.lanes())
  }

  /** Resolves when nothing is left to do in the background; while the store is away that may be long. */
  async idle(): Promise<void> {
    await this.#spares.idle()
    await this.#chores.idle()
    await this.#handles.idle()
  }

  /** Ends what goes on in the background. Addresses and blocks stay as they are. */
  close(): void {
    this.#spares.close()
    this.#chores.close()
  }

  #inTurn<T>(handleId: string, call: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(handleId) ?? Promise.resolve()).then(call, call)
    this.#turns.set(handleId, turn)
    const done = () => {
      if (this.#turns.get(handleId) === turn) this.#turns.delete(handleId)
    }
    turn.then(done, done)
    return turn
  }

  /** What the handle has already, for each wanted that it fits; found again in the store by a write. */
  async #recall(handleId: string, request: AddressRequest): Promise<(AssignedAddress | undefined)[]> {
    for (const cidr of this.#doubtful.get(handleId) ?? []) await this.#inBlock(this.#known.lane(cidr), () => undefined)
    const left = this.#addressesOf(handleId)
    const kept: (AssignedAddress | undefined)[] = []
    for (const wanted of request.wanted) {
      const at = left.findIndex(({ ip }) => this.#fits(ip, request, wanted))
      const found = at < 0 ? undefined : left.splice(at, 1)[0]!
      kept.push(
        found &&
          (await this.#inBlock(found.lane, (draft) => {
            if (this.#spares.ordinalsOf(draft, handleId).includes(found.ordinal))
              draft.pass(found.ordinal, handleId, request.attributes)
            else if (!draft.ordinalsOf(handleId).includes(found.ordinal)) return undefined
            draft.touch()
            return this.#assigned(draft, found.ordinal)
          })),
      )
    }
    return kept
  }

  /** Addresses that a handle has by its blocks, and those lent to it of which no block knows yet. */
  #addressesOf(handleId: string): { readonly lane: BlockLane; readonly ordinal: number; readonly ip: Ip }[] {
    const known = this.#known.addressesOf(handleId)
    const lent = this.#spares.lentTo(handleId).filter((ip) => !known.some((each) => each.ip.equals(ip)))
    return [
      ...known,
      ...lent.flatMap((ip) => {
        const lane = this.#known.laneOf(ip)
        return lane ? [{ lane, ordinal: ordinalOf(lane.cidr, ip)!, ip }] : []
      }),
    ]
  }

  #fits(ip: Ip, request: AddressRequest, { family, pools, ip: asked }: Wanted): boolean {
    if (ip.family !== family || (asked && !asked.equals(ip))) return false
    const choice = this.#choose(request, { family, ...(pools ? { pools } : {}) })
    return asked !== undefined || ('pools' in choice && choice.pools.some(({ cidr }) => cidr.contains(ip)))
  }

  #choose({ use, namespaceLabels }: AddressRequest, { family, pools }: Pick<Wanted, 'family' | 'pools'>) {
    const { node, selects } = this.#options
    return choosePools(this.#options.pools(), {
      family,
      use,
      ...(pools ? { named: pools } : {}),
      nodeLabels: node.labels(),
      ...(namespaceLabels ? { namespaceLabels } : {}),
      selects,
    })
  }

  async #assignOne(handleId: string, request: AddressRequest, wanted: Wanted): Promise<AssignedAddress> {
    if (wanted.ip) return this.#assignGiven(handleId, request, wanted.ip, wanted.pools)
    const choice = this.#choose(request, wanted)
    if ('problem' in choice) throw new NoAddressError(`No address: ${choice.problem}`)
    const { pools } = choice
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const { lane, spare } = this.#ownPlace(pools, request) ?? {}
      if (lane && spare !== undefined) return this.#lend(lane, spare, handleId, request)
      const got = lane && (await this.#take(lane, handleId, request))
      if (got) return got
      if (lane) continue
      const claim = await this.#claims.claimOneOf(pools)
      if (claim === 'claimed') continue
      const borrowed = claim.mayBorrow ? await this.#borrow(pools, handleId, request) : undefined
      if (borrowed) return borrowed
      throw new NoAddressError(
        `No address in ${pools.map(({ name, cidr }) => `${name} (${cidr})`).join(', ')}: ${claim.reason}`,
      )
    }
    throw new NoAddressError(
      `No address in ${pools.map(({ name }) => name).join(', ')}: others took each that was found`,
    )
  }

  /** One address that was asked for, in whatever block it lies; reservations do not keep it from those who name it. */
  async #assignGiven(
    handleId: string,
    request: AddressRequest,
    ip: Ip,
    named: readonly string[] | undefined,
  ): Promise<AssignedAddress> {
    const no = (why: string) => new NoAddressError(`Address ${ip} cannot be given: ${why}`)
    const pool = this.#options
      .pools()
      .find(
        ({ name, cidr, disabled }) =>
          !disabled && cidr.contains(ip) && (!named?.length || named.includes(name) || named.includes(`${cidr}`)),
      )
    if (!pool) throw no(named?.length ? `it is not in ${named.join(', ')}` : 'it is in no enabled pool')
    if (!pool.allowedUses.includes(request.use))
      throw no(`${pool.name} may not be used for ${request.use} (allowedUses)`)
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const lane = this.#known.laneOf(ip)
      if (!lane?.block) {
        const problem = await this.#claims.claimFor(ip, pool)
        if (problem !== undefined) throw no(problem)
        continue
      }
      if (!this.#isOwn(lane) && this.#options.settings().strictAffinity)
        throw no(`its block ${lane.cidr} is another node's, and strictAffinity forbids to borrow`)
      if (this.#options.heldElsewhere?.(ip)) throw no('it is in use on this node')
      const ordinal = ordinalOf(lane.cidr, ip)!
      if (!this.#handlesForAll && this.#spares.has(lane.block, ordinal))
        return this.#lend(lane, ordinal, handleId, request)
      const got = await this.#take(lane, handleId, request, ordinal)
      if (got) return got
      // What is known may be old: nobody is refused for that.
      lane.distrust()
      const holder = await this.#inBlock(lane, (draft) =>
        draft.isFree(ordinal) ? undefined : { attribute: this.#askFor(draft, ordinal) },
      )
      if (!holder) continue
      const { attribute } = holder
      if (isSpare(attribute))
        throw new StoreAwayError(`${ip} is kept ready by ${attribute?.secondary.node}, which was asked to give it back`)
      if (attribute?.releasedAt !== undefined) throw no(`it was released at ${attribute.releasedAt} and cools down`)
      throw no(`it is in use (${attribute?.handleId ?? 'without a handle'})`)
    }
    throw no('its block changed too often')
  }

  /** An own block of the first pool that has an address left, and a spare address of it if there is one. */
  #ownPlace(pools: readonly IpPool[], { use }: AddressRequest): { lane: BlockLane; spare?: number } | undefined {
    for (const pool of pools) {
      if (use === 'Workload' && !this.#handlesForAll)
        for (const lane of this.#known.ownIn(pool))
          for (const spare of this.#spares.in(lane.block!)) return { lane, spare }
      for (const lane of this.#known.ownIn(pool))
        if (this.#known.hasSpace(lane, this.#rules.refusals(lane.cidr))) return { lane }
    }
    return undefined
  }

  /** A spare address becomes a pod's at once; its block is told with the next write. */
  #lend(lane: BlockLane, ordinal: number, handleId: string, { attributes }: AddressRequest): AssignedAddress {
    const ip = addressAt(lane.cidr, ordinal)
    this.#handles.skip(handleId)
    this.#spares.lend(lane, { ip, handleId, attributes })
    return { ip, pool: this.#poolOf(ip)?.name ?? '', block: lane.cidr }
  }

  /** A spare address is lent before any object of its handle could be written. */
  get #handlesForAll(): boolean {
    return this.#options.handles === 'all'
  }

  #sparesWantedIn(cidr: Cidr): number {
    const { node, selects, spareAddresses = 0 } = this.#options
    if (this.#handlesForAll) return 0
    const pool = this.#options.pools().find((each) => each.cidr.covers(cidr))
    if (!pool || pool.disabled || !pool.allowedUses.includes('Workload') || pool.assignmentMode !== 'Automatic')
      return 0
    if (!selects(pool.nodeSelector, node.labels())) return 0
    let elsewhere = 0
    for (const lane of this.#known.ownIn(pool))
      if (!lane.cidr.equals(cidr)) elsewhere += [...this.#spares.in(lane.block!)].length
    return Math.max(0, spareAddresses - elsewhere)
  }

  async #borrow(
    pools: readonly IpPool[],
    handleId: string,
    request: AddressRequest,
  ): Promise<AssignedAddress | undefined> {
    for (const lane of this.#claims.othersIn(pools)) {
      if (!this.#known.hasSpace(lane, this.#rules.refusals(lane.cidr))) continue
      const got = await this.#take(lane, handleId, request)
      if (got) return got
    }
    return undefined
  }

  /** Takes the ordinal, or the next free one. Undefined when there is none, or no such block any more. */
  async #take(
    lane: BlockLane,
    handleId: string,
    { use, attributes }: AddressRequest,
    asked?: number,
  ): Promise<AssignedAddress | undefined> {
    const withHandle = this.#handlesForAll || use !== 'Workload' || !this.#isOwn(lane)
    this.#doubt(handleId, lane.cidr)
    // First, so that whoever looks for addresses by their handle finds every one.
    if (withHandle) await this.#handles.add(handleId, lane.cidr, 1)
    else this.#handles.skip(handleId)
    const refuse = this.#rules.refusals(lane.cidr)
    const got = await this.#inBlock(
      lane,
      (draft) => {
        if (this.#options.settings().strictAffinity && !sameOwner(draft.owner, this.#owner)) return undefined
        const ordinal = asked ?? draft.nextFree(refuse)
        if (ordinal === undefined || !draft.isFree(ordinal)) return undefined
        draft.take(ordinal, handleId, attributes)
        return this.#assigned(draft, ordinal)
      },
      1,
    )
    if (!got && withHandle) await this.#handles.add(handleId, lane.cidr, -1)
    return got
  }

  async #release(handleId: string, spared: ReadonlySet<string> = new Set()): Promise<void> {
    const doubtful = this.#doubtful.get(handleId) ?? []
    const ofLent = this.#spares.leave(handleId, spared).flatMap((ip) => this.#known.laneOf(ip)?.cidr ?? [])
    const cidrs = [
      ...new Map([...this.#known.blocksOf(handleId), ...doubtful, ...ofLent].map((cidr) => [`${cidr}`, cidr])).values(),
    ]
    const emptied = await Promise.all(
      cidrs.map((cidr) =>
        this.#inBlock(this.#known.lane(cidr), (draft) => {
          const all = draft.ordinalsOf(handleId)
          const released = all.filter((ordinal) => !spared.has(`${addressAt(cidr, ordinal)}`))
          draft.release(released, this.#rules.cooldown())
          return released.length === all.length
        }),
      ),
    )
    this.#doubtful.delete(handleId)
    this.#handles.drop(
      handleId,
      cidrs.filter((_, at) => emptied[at] ?? true),
    )
  }

  /** The outcome of a work on a block; undefined when the block is gone, or such that nobody can read it. */
  async #inBlock<T>(lane: BlockLane, work: (draft: BlockDraft) => T, takes = 0): Promise<T | undefined> {
    try {
      return await lane.run(work, takes)
    } catch (error) {
      if (error instanceof BlockGoneError) return undefined
      if (error instanceof CorruptObjectError) {
        this.#options.log.warn({ block: `${lane.cidr}`, err: error.message }, 'a block cannot be read')
        this.#known.setAside(lane.cidr)
        return undefined
      }
      throw error
    }
  }

  #poolOf(ip: Ip): IpPool | undefined {
    return this.#options.pools().find(({ cidr }) => cidr.contains(ip))
  }

  #assigned(draft: BlockDraft, ordinal: number): AssignedAddress {
    const ip = addressAt(draft.cidr, ordinal)
    const pool = this.#poolOf(ip)
    const sequenceNumber = draft.numberOf(ordinal)
    return {
      ip,
      pool: pool?.name ?? '',
      block: draft.cidr,
      ...(sequenceNumber === undefined ? {} : { sequenceNumber }),
    }
  }

  #doubt(handleId: string, cidr: Cidr): void {
    const cidrs = this.#doubtful.get(handleId) ?? new Set()
    this.#doubtful.set(handleId, cidrs.add(cidr))
  }

  /** The handle's call failed: what it got all the same is given back, unless it asks again before. */
  #owe(handleId: string, before: ReadonlySet<string>): void {
    this.#owed.set(handleId, before)
    this.#chores.add(`give back ${handleId}`, () =>
      this.#inTurn(handleId, async () => {
        const spared = this.#owed.get(handleId)
        if (!spared) return
        await this.#release(handleId, spared)
        this.#owed.delete(handleId)
      }),
    )
  }

  /** Who has the ordinal. Another node that keeps it ready for its pods is asked to give it back. */
  #askFor(draft: BlockDraft, ordinal: number): BlockAttribute | undefined {
    const attribute = draft.attributeOf(ordinal)
    if (attribute && isSpare(attribute) && !isWanted(attribute))
      draft.pass(ordinal, attribute.handleId!, wantedAttributes(attribute, this.#owner.name))
    return attribute
  }

  #isOwn(lane: BlockLane): boolean {
    return sameOwner(lane.block?.owner, this.#owner)
  }
}
