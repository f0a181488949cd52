/**
 * What a node hears of blocks and of its own affinities, from a watch or by listing them: it goes to what is known, and what
 * somebody left half done for this node is finished.
 */
import type { AffinityState, BlockAffinity, BlockOwner, Held, IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { sameOwner } from '../block.ts'
import type { BlockClaims } from './block-claims.ts'
import type { BlockIpamLog } from './block-ipam.ts'
import type { StoreCounts } from './block-lane.ts'
import type { Chores } from './chores.ts'
import type { IpamStore } from './ipam-store.ts'
import type { KnownBlocks } from './known-blocks.ts'
import type { SpareAddresses } from './spare-addresses.ts'

export interface BlockNewsOptions {
  readonly store: IpamStore
  readonly log: BlockIpamLog
  readonly counts: StoreCounts
  readonly owner: BlockOwner
  readonly known: KnownBlocks
  readonly claims: BlockClaims
  readonly spares: SpareAddresses
  readonly chores: Chores
}

export class BlockNews {
  readonly #options: BlockNewsOptions
  /** States of this node's affinities, by block. */
  readonly #affinities = new Map<string, AffinityState>()
  #listed: Promise<void> | undefined
  #isListed = false

  constructor(options: BlockNewsOptions) {
    this.#options = options
  }

  noteBlock(held: Held<IpamBlock>): void {
    const { known, owner, spares } = this.#options
    const { cidr } = held.value
    known.note(held)
    spares.noteReadable(cidr, true)
    spares.reviewIfDue(known.lane(cidr))
    // A claim that was given up, and whose block came to be all the same.
    const isOwn = sameOwner(held.value.owner, owner)
    if (this.#isListed && isOwn && !this.#affinities.has(`${cidr}`)) this.#settle(cidr)
  }

  noteBlockGone(cidr: Cidr): void {
    this.#options.known.noteGone(cidr)
    this.#options.spares.noteReadable(cidr, true)
  }

  /** A block that nobody can read. One that was read before is asked for when it is wanted. */
  noteUnreadable(cidr: Cidr): void {
    const { known, spares } = this.#options
    spares.noteReadable(cidr, false)
    if (!known.lane(cidr).block) known.setAside(cidr)
  }

  noteAffinity({ value: { owner, cidr, state } }: Held<BlockAffinity>): void {
    if (!sameOwner(owner, this.#options.owner)) return
    this.#affinities.set(`${cidr}`, state)
    if (state !== 'confirmed') this.#settle(cidr)
  }

  noteAffinityGone(owner: BlockOwner, cidr: Cidr): void {
    if (!sameOwner(owner, this.#options.owner)) return
    this.#affinities.delete(`${cidr}`)
    if (this.#options.known.own.has(`${cidr}`)) this.#settle(cidr)
  }

  /** All blocks and this node's affinities have been told. Before that, the first request lists them. */
  noteListed(): void {
    const { known } = this.#options
    this.#listed = Promise.resolve()
    this.#isListed = true
    for (const { cidr } of known.lanes())
      if (known.own.has(`${cidr}`) && !this.#affinities.has(`${cidr}`)) this.#settle(cidr)
  }

  /** Reads all blocks and affinities. Rejects with StoreAwayError. */
  async refresh(): Promise<void> {
    const { store, log, counts } = this.#options
    counts.reads += 2
    const [blocks, affinities] = await Promise.all([store.blocks.list(), store.affinities.list()])
    for (const problem of [...blocks.problems, ...affinities.problems])
      log.warn({ err: problem.message }, 'an object of the address pools cannot be read')
    for (const held of affinities.objects) this.noteAffinity(held)
    for (const held of blocks.objects) this.noteBlock(held)
    this.noteListed()
  }

  /** Resolves when everything has been told or listed. Rejects with StoreAwayError. */
  async whenListed(): Promise<void> {
    if (!this.#listed) {
      const listing = this.refresh()
      this.#listed = listing
      listing.catch(() => {
        if (this.#listed === listing) this.#listed = undefined
      })
    }
    await this.#listed
  }

  /** Somebody left a claim or a release of this block half done. */
  #settle(cidr: Cidr): void {
    const { known, claims, chores } = this.#options
    if (claims.isClaiming(cidr)) return
    chores.add(`settle ${cidr}`, async () => {
      const text = `${cidr}`
      if (this.#affinities.get(text) !== 'confirmed' || !known.own.has(text)) await claims.settle(cidr)
    })
  }
}
