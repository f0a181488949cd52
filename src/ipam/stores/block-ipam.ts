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
import type {
  AffinityState,
  BlockAffinity,
  BlockOwner,
  Held,
  IpamBlock,
  IpamSettings,
  IpPool,
  IpReservation,
} from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { AddressSet } from '../address-set.ts'
import { addressAt, type BlockDraft, type Cooldown, ordinalOf, plainHandle, sameOwner } from '../block.ts'
import { choosePools, type Labels } from '../pool-choice.ts'
import { BlockClaims } from './block-claims.ts'
import { BlockGoneError, type BlockLane, type StoreCounts } from './block-lane.ts'
import { Chores } from './chores.ts'
import { HandleKeeper } from './handle-keeper.ts'
import { CorruptObjectError, type IpamStore } from './ipam-store.ts'
import { KnownBlocks } from './known-blocks.ts'
import { type AddressRequest, type AssignedAddress, NoAddressError, type PoolAddresses } from './pool-addresses.ts'

export interface BlockIpamLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface BlockIpamOptions {
  readonly store: IpamStore
  readonly node: { readonly name: string; labels(): Labels }
  readonly log: BlockIpamLog
  /** Checked pools, in the order in which they are tried. */
  pools(): readonly IpPool[]
  reservations(): readonly IpReservation[]
  settings(): IpamSettings
  selects(selector: string, labels: Labels): boolean
  /** Unix time in milliseconds. Nothing but cooldowns and the age of empty blocks depends on it. */
  now(): number
  /** True for an address that is in use here whatever its block says: it is not given. */
  heldElsewhere?(ip: Ip): boolean
  /** `all`: an IPAMHandle for every address, for nodes that go back to Calico's plugin. Default: where they are needed. */
  readonly handles?: 'needed' | 'all'
  /** Resolves after so many milliseconds, or when the signal is aborted. */
  wait?(milliseconds: number, signal: AbortSignal): Promise<void>
}

/** Rounds of one request; each lost round means that others got what was left. */
const MAX_ROUNDS = 10_000

type Wanted = AddressRequest['wanted'][number]

export class BlockIpam implements PoolAddresses {
  /** What the store was asked since the start. */
  readonly counts: StoreCounts = { reads: 0, writes: 0, conflicts: 0 }
  readonly #options: BlockIpamOptions
  readonly #owner: BlockOwner
  readonly #known: KnownBlocks
  readonly #claims: BlockClaims
  readonly #handles: HandleKeeper
  readonly #chores: Chores
  /** States of this node's affinities, by block. */
  readonly #affinities = new Map<string, AffinityState>()
  /** Handles whose addresses are to be given back, but for these: they had them before the call that failed. */
  readonly #owed = new Map<string, ReadonlySet<string>>()
  /** Handle → blocks that an address was asked of and that did not answer. */
  readonly #doubtful = new Map<string, Set<Cidr>>()
  /** Handle → the last call for it: calls for one handle are done one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>()
  #listed: Promise<void> | undefined
  #isListed = false
  #reserved: { readonly from: readonly IpReservation[]; readonly set: AddressSet } | undefined

  constructor(options: BlockIpamOptions) {
    this.#options = options
    const { store, node } = options
    this.#owner = { type: 'host', name: node.name }
    const { counts } = this
    this.#known = new KnownBlocks(this.#owner, { store, counts, cooldown: () => this.#cooldown() })
    this.#claims = new BlockClaims({
      ...options,
      counts,
      owner: this.#owner,
      known: this.#known,
      cooldown: () => this.#cooldown(),
      reserved: () => this.#reservedSet(),
      onUnfinished: (cidr) => this.#chores.add(`settle ${cidr}`, () => this.#claims.settle(cidr)),
    })
    this.#handles = new HandleKeeper(store, counts)
    this.#chores = new Chores(options.log, options.wait)
  }

  // What a watch tells.

  noteBlock(held: Held<IpamBlock>): void {
    const { cidr, owner } = held.value
    this.#known.note(held)
    // A claim that was given up, and whose block came to be all the same.
    if (this.#isListed && sameOwner(owner, this.#owner) && !this.#affinities.has(`${cidr}`)) this.#settle(cidr)
  }

  noteBlockGone(cidr: Cidr): void {
    this.#known.noteGone(cidr)
  }

  /** A block that nobody can read. One that was read before is asked for when it is wanted. */
  noteUnreadable(cidr: Cidr): void {
    if (!this.#known.lane(cidr).block) this.#known.setAside(cidr)
  }

  noteAffinity({ value: { owner, cidr, state } }: Held<BlockAffinity>): void {
    if (!sameOwner(owner, this.#owner)) return
    this.#affinities.set(`${cidr}`, state)
    if (state !== 'confirmed') this.#settle(cidr)
  }

  noteAffinityGone(owner: BlockOwner, cidr: Cidr): void {
    if (!sameOwner(owner, this.#owner)) return
    this.#affinities.delete(`${cidr}`)
    if (this.#known.own.has(`${cidr}`)) this.#settle(cidr)
  }

  /** All blocks and this node's affinities have been told. Before that, the first request lists them. */
  noteListed(): void {
    this.#listed = Promise.resolve()
    this.#isListed = true
    for (const { cidr } of this.#known.lanes())
      if (this.#known.own.has(`${cidr}`) && !this.#affinities.has(`${cidr}`)) this.#settle(cidr)
  }

  /** Reads all blocks and affinities. Rejects with StoreAwayError. */
  async refresh(): Promise<void> {
    const { store, log } = this.#options
    this.counts.reads += 2
    const [blocks, affinities] = await Promise.all([store.blocks.list(), store.affinities.list()])
    for (const problem of [...blocks.problems, ...affinities.problems])
      log.warn({ err: problem.message }, 'an object of the address pools cannot be read')
    for (const held of affinities.objects) this.noteAffinity(held)
    for (const held of blocks.objects) this.noteBlock(held)
    this.noteListed()
  }

  // PoolAddresses

  assign(request: AddressRequest): Promise<readonly AssignedAddress[]> {
    const handleId = plainHandle(request.handleId)
    return this.#inTurn(handleId, async () => {
      request.signal?.throwIfAborted()
      await this.#whenListed()
      const before = this.#owed.get(handleId) ?? new Set(this.#known.addressesOf(handleId).map(({ ip }) => `${ip}`))
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
      await this.#whenListed()
      await this.#release(handleId)
      this.#owed.delete(handleId)
    })
  }

  /** Resolves when nothing is left to do in the background; while the store is away that may be long. */
  async idle(): Promise<void> {
    await this.#chores.idle()
    await this.#handles.idle()
  }

  /** Ends what goes on in the background. Addresses and blocks stay as they are. */
  close(): void {
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

  async #whenListed(): Promise<void> {
    if (!this.#listed) {
      const listing = this.refresh()
      this.#listed = listing
      listing.catch(() => {
        if (this.#listed === listing) this.#listed = undefined
      })
    }
    await this.#listed
  }

  /** What the handle has already, for each wanted that it fits; found again in the store by a write. */
  async #recall(handleId: string, request: AddressRequest): Promise<(AssignedAddress | undefined)[]> {
    for (const cidr of this.#doubtful.get(handleId) ?? []) await this.#inBlock(this.#known.lane(cidr), () => undefined)
    const left = this.#known.addressesOf(handleId)
    const kept: (AssignedAddress | undefined)[] = []
    for (const wanted of request.wanted) {
      const at = left.findIndex(({ ip }) => this.#fits(ip, request, wanted))
      const found = at < 0 ? undefined : left.splice(at, 1)[0]!
      kept.push(
        found &&
          (await this.#inBlock(found.lane, (draft) => {
            if (!draft.ordinalsOf(handleId).includes(found.ordinal)) return undefined
            draft.touch()
            return this.#assigned(draft, found.ordinal)
          })),
      )
    }
    return kept
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
      const lane = this.#ownLaneWithSpace(pools)
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
      const got = await this.#take(lane, handleId, request, ordinal)
      if (got) return got
      const attribute = lane.block && (await this.#inBlock(lane, (draft) => draft.attributeOf(ordinal)))
      if (attribute?.releasedAt !== undefined) throw no(`it was released at ${attribute.releasedAt} and cools down`)
      if (lane.block) throw no(`it is in use (${attribute?.handleId ?? 'without a handle'})`)
    }
    throw no('its block changed too often')
  }

  #ownLaneWithSpace(pools: readonly IpPool[]): BlockLane | undefined {
    for (const pool of pools)
      for (const lane of this.#known.ownIn(pool)) if (this.#known.hasSpace(lane, this.#refusals(lane.cidr))) return lane
    return undefined
  }

  async #borrow(
    pools: readonly IpPool[],
    handleId: string,
    request: AddressRequest,
  ): Promise<AssignedAddress | undefined> {
    for (const lane of this.#claims.othersIn(pools)) {
      if (!this.#known.hasSpace(lane, this.#refusals(lane.cidr))) continue
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
    const withHandle = this.#options.handles === 'all' || use !== 'Workload' || !this.#isOwn(lane)
    this.#doubt(handleId, lane.cidr)
    // First, so that whoever looks for addresses by their handle finds every one.
    if (withHandle) await this.#handles.add(handleId, lane.cidr, 1)
    else this.#handles.skip(handleId)
    const refuse = this.#refusals(lane.cidr)
    const got = await this.#inBlock(lane, (draft) => {
      const ordinal = asked ?? draft.nextFree(refuse)
      if (ordinal === undefined || !draft.isFree(ordinal)) return undefined
      draft.take(ordinal, handleId, attributes)
      return this.#assigned(draft, ordinal)
    })
    if (!got && withHandle) await this.#handles.add(handleId, lane.cidr, -1)
    return got
  }

  async #release(handleId: string, spared: ReadonlySet<string> = new Set()): Promise<void> {
    const doubtful = this.#doubtful.get(handleId) ?? []
    const cidrs = [
      ...new Map([...this.#known.blocksOf(handleId), ...doubtful].map((cidr) => [`${cidr}`, cidr])).values(),
    ]
    const emptied = await Promise.all(
      cidrs.map((cidr) =>
        this.#inBlock(this.#known.lane(cidr), (draft) => {
          const all = draft.ordinalsOf(handleId)
          const released = all.filter((ordinal) => !spared.has(`${addressAt(cidr, ordinal)}`))
          draft.release(released, this.#cooldown())
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
  async #inBlock<T>(lane: BlockLane, work: (draft: BlockDraft) => T): Promise<T | undefined> {
    try {
      return await lane.run(work)
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

  #assigned(draft: BlockDraft, ordinal: number): AssignedAddress {
    const ip = addressAt(draft.cidr, ordinal)
    const pool = this.#options.pools().find(({ cidr }) => cidr.contains(ip))
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

  /** Somebody left a claim or a release of this block half done. */
  #settle(cidr: Cidr): void {
    if (this.#claims.isClaiming(cidr)) return
    this.#chores.add(`settle ${cidr}`, async () => {
      const text = `${cidr}`
      if (this.#affinities.get(text) !== 'confirmed' || !this.#known.own.has(text)) await this.#claims.settle(cidr)
    })
  }

  #isOwn(lane: BlockLane): boolean {
    return sameOwner(lane.block?.owner, this.#owner)
  }

  #refusals(cidr: Cidr): (ordinal: number) => boolean {
    const { heldElsewhere } = this.#options
    const reserved = this.#reservedSet()
    const mayBeReserved = reserved.overlaps(cidr)
    return (ordinal) => {
      if (!mayBeReserved && !heldElsewhere) return false
      const ip = addressAt(cidr, ordinal)
      return (mayBeReserved && reserved.has(ip)) || (heldElsewhere?.(ip) ?? false)
    }
  }

  #reservedSet(): AddressSet {
    const from = this.#options.reservations()
    if (this.#reserved?.from !== from) this.#reserved = { from, set: AddressSet.of(from.flatMap(({ cidrs }) => cidrs)) }
    return this.#reserved.set
  }

  #cooldown(): Cooldown {
    return { nowMilliseconds: this.#options.now(), seconds: this.#options.settings().ipCooldownSeconds }
  }
}
