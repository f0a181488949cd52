/**
 * How one node comes to more blocks. One claim is under way at a time: who needs a block meanwhile waits for it, so that a burst
 * of pods on a new node claims one block and not a hundred.
 */
import type { BlockOwner, IpamSettings, IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import type { AddressSet } from '../address-set.ts'
import { BlockDraft, type Cooldown, isEmpty, sameOwner } from '../block.ts'
import { hashName, openBlocks, type SearchSteps } from '../block-index.ts'
import type { Labels } from '../pool-choice.ts'
import { claimBlock, releaseBlock, settleAffinity } from './block-claim.ts'
import type { BlockIpamLog } from './block-ipam.ts'
import type { BlockLane, StoreCounts } from './block-lane.ts'
import { CorruptObjectError, type IpamStore } from './ipam-store.ts'
import type { KnownBlocks } from './known-blocks.ts'

export interface BlockClaimsOptions {
  readonly store: IpamStore
  readonly counts: StoreCounts
  readonly owner: BlockOwner
  readonly known: KnownBlocks
  readonly node: { labels(): Labels }
  readonly log: BlockIpamLog
  pools(): readonly IpPool[]
  settings(): IpamSettings
  selects(selector: string, labels: Labels): boolean
  now(): number
  cooldown(): Cooldown
  reserved(): AddressSet
  /** A claim stopped between its phases. */
  onUnfinished(cidr: Cidr): void
}

/** How many blocks a node may have when the settings do not say. */
export const DEFAULT_MAX_BLOCKS = 20
/** An empty block is taken from its owner only when that has had it for so long: two nodes must not take it from one another. */
const EMPTY_BLOCK_AGE_MS = 60_000

/** Why there is no further block, and whether an address of another's block may be taken instead. */
export interface NoClaim {
  readonly reason: string
  readonly mayBorrow: boolean
}

export class BlockClaims {
  /** How many places for blocks searches looked at, since the start. */
  readonly searched: SearchSteps = { steps: 0 }
  readonly #options: BlockClaimsOptions
  readonly #claiming = new Set<string>()
  #current: Promise<unknown> | undefined

  constructor(options: BlockClaimsOptions) {
    this.#options = options
  }

  /** True while this process is between the phases of a claim of the block. */
  isClaiming(cidr: Cidr): boolean {
    return this.#claiming.has(`${cidr}`)
  }

  /** Claims a block in one of the pools, in their order; `claimed` as well when somebody else's call did meanwhile. */
  async claimOneOf(pools: readonly IpPool[]): Promise<'claimed' | NoClaim> {
    if (this.#current) {
      await this.#current.catch(() => {})
      return 'claimed'
    }
    return this.#alone(() => this.#claimOneOf(pools))
  }

  /** Claims the block of a pool in which the address lies. Undefined when there is one now, or why not. */
  async claimFor(ip: Ip, pool: IpPool): Promise<string | undefined> {
    if (this.#current) {
      await this.#current.catch(() => {})
      return undefined
    }
    return this.#alone(async () => {
      const cidr = Cidr.of(ip, pool.blockSize)
      const [inTheWay] = this.#options.known.index.overlapping(cidr)
      if (inTheWay) return `its block ${cidr} would overlap ${inTheWay}`
      await this.#claim(cidr)
      return undefined
    })
  }

  /** Finishes or undoes what was begun for a block of this node. */
  async settle(cidr: Cidr): Promise<void> {
    const { owner, cooldown, known } = this.#options
    await settleAffinity(this.#options, { owner, cidr }, cooldown())
    known.lane(cidr).distrust()
  }

  /** Blocks of others, each node beginning at another place. */
  othersIn(pools: readonly IpPool[]): BlockLane[] {
    const { known, owner } = this.#options
    return pools.flatMap(({ cidr }) => {
      const lanes = [...known.lanes()].filter((lane) => cidr.covers(lane.cidr) && !sameOwner(lane.block!.owner, owner))
      lanes.sort((a, b) => a.cidr.compare(b.cidr))
      const start = lanes.length === 0 ? 0 : hashName(owner.name) % lanes.length
      return [...lanes.slice(start), ...lanes.slice(0, start)]
    })
  }

  async #alone<T>(call: () => Promise<T>): Promise<T> {
    const current = call()
    this.#current = current
    try {
      return await current
    } finally {
      this.#current = undefined
    }
  }

  async #claimOneOf(pools: readonly IpPool[]): Promise<'claimed' | NoClaim> {
    const { autoAllocateBlocks, maxBlocksPerHost, strictAffinity } = this.#options.settings()
    const { known, owner, reserved } = this.#options
    await this.#releaseUnselected()
    const owned = pools.reduce((sum, pool) => sum + [...known.ownIn(pool)].length, 0)
    const limit = maxBlocksPerHost || DEFAULT_MAX_BLOCKS
    if (!autoAllocateBlocks) return { reason: 'autoAllocateBlocks is off', mayBorrow: !strictAffinity }
    if (owned >= limit)
      return { reason: `${owner.name} has ${owned} blocks, and may have ${limit} (maxBlocksPerHost)`, mayBorrow: false }
    do
      for (const pool of pools)
        for (const cidr of openBlocks(pool, reserved(), known.index, owner.name, this.searched))
          if (await this.#claim(cidr)) return 'claimed'
    while (await this.#reclaim(pools))
    return {
      reason: strictAffinity
        ? 'every block is taken, and strictAffinity forbids to borrow'
        : 'every block is taken, and none has an address left',
      mayBorrow: !strictAffinity,
    }
  }

  async #claim(cidr: Cidr): Promise<boolean> {
    const { owner, known, now, log } = this.#options
    this.#claiming.add(`${cidr}`)
    try {
      const nanoseconds = BigInt(Math.floor(now())) * 1_000_000n
      const after = known.highestSequenceNumber + 1n
      const claimed = await claimBlock(this.#options, {
        cidr,
        owner,
        at: `${new Date(now()).toISOString().slice(0, 19)}Z`,
        sequenceNumber: nanoseconds > after ? nanoseconds : after,
      })
      if ('taken' in claimed) {
        known.note(claimed.taken)
        return false
      }
      known.note(claimed.held)
      log.info({ block: `${cidr}` }, 'block claimed')
      return true
    } catch (error) {
      if (error instanceof CorruptObjectError) {
        known.setAside(cidr)
        log.warn({ block: `${cidr}`, err: error.message }, 'a block cannot be read')
        return false
      }
      this.#options.onUnfinished(cidr)
      throw error
    } finally {
      this.#claiming.delete(`${cidr}`)
    }
  }

  /** Takes an empty block from a node that has had it for a while. False when there is none. */
  async #reclaim(pools: readonly IpPool[]): Promise<boolean> {
    const { known, now, cooldown, reserved, log } = this.#options
    for (const lane of this.othersIn(pools)) {
      const { owner, ownedSince, sequenceNumber, cidr } = lane.block!
      const age = now() - Date.parse(ownedSince ?? '1970-01-01')
      if (owner?.type !== 'host' || age < EMPTY_BLOCK_AGE_MS || reserved().covers(cidr)) continue
      const draft = new BlockDraft(lane.block!)
      draft.settle(cooldown())
      if (!isEmpty(draft.finish())) continue
      const released = await releaseBlock(this.#options, {
        owner,
        cidr,
        mustBeEmpty: true,
        sequenceNumber,
        cooldown: cooldown(),
      })
      known.lane(cidr).distrust()
      if (released !== 'removed') continue
      known.noteGone(cidr)
      log.info({ block: `${cidr}`, from: owner.name }, 'an empty block of another node is taken')
      return true
    }
    return false
  }

  /** Own blocks that are empty, in pools that select this node no more, are given back. */
  async #releaseUnselected(): Promise<void> {
    const { known, owner, node, selects, pools, cooldown } = this.#options
    for (const pool of pools()) {
      if (selects(pool.nodeSelector, node.labels())) continue
      for (const { cidr, block } of [...known.ownIn(pool)]) {
        if (!block || !isEmpty(block)) continue
        const released = await releaseBlock(this.#options, { owner, cidr, mustBeEmpty: true, cooldown: cooldown() })
        if (released !== 'kept') known.noteGone(cidr)
      }
    }
  }
}
