/**
 * What a process knows of all blocks, from a watch and from its own writes: a lane for each, which of them are this node's, and in
 * which of them a handle has addresses. It may be old; whoever writes finds out.
 */
import type { BlockOwner, Held, IpamBlock, IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { allocationsOf, hasSpace, isInUse, plainHandle, sameOwner } from '../block.ts'
import { BlockIndex } from '../block-index.ts'
import { FreePlaces } from '../free-places.ts'
import { BlockLane, type LaneOptions } from './block-lane.ts'

export class KnownBlocks {
  /** By what they cover. */
  readonly index = new BlockIndex()
  /** CIDRs of the owner's blocks. */
  readonly own = new Set<string>()
  readonly #owner: BlockOwner
  readonly #options: LaneOptions
  readonly #lanes = new Map<string, BlockLane>()
  readonly #blocksOf = new Map<string, Set<string>>()
  readonly #handlesIn = new Map<string, ReadonlySet<string>>()
  #highest = 0n

  constructor(owner: BlockOwner, options: Omit<LaneOptions, 'onChange'>) {
    this.#owner = owner
    this.#options = { ...options, onChange: (cidr, block) => this.#change(cidr, block) }
  }

  /** The greatest sequence number that any block had. */
  get highestSequenceNumber(): bigint {
    return this.#highest
  }

  /** Of a block that is nobody's concern here only the free places are kept, and no revision: it is read before it is written. */
  note(held: Held<IpamBlock>): void {
    const { value } = held
    const lane = this.lane(value.cidr)
    if (sameOwner(value.owner, this.#owner) || this.#handlesOf(value).length > 0) lane.note(held)
    else lane.note({ value: new FreePlaces(value), revision: '' }, true)
  }

  noteGone(cidr: Cidr): void {
    const lane = this.#lanes.get(`${cidr}`)
    if (!lane) return
    lane.distrust()
    if (lane.isBusy) return
    this.#lanes.delete(`${cidr}`)
    this.#change(cidr, undefined)
  }

  /** A block that nobody can read: nothing is given there, and its place is taken all the same. */
  setAside(cidr: Cidr): void {
    this.lane(cidr).forget()
    this.index.add(cidr)
  }

  /** The lane of a block, known or not. */
  lane(cidr: Cidr): BlockLane {
    const found = this.#lanes.get(`${cidr}`)
    if (found) return found
    const lane = new BlockLane(cidr, this.#options)
    this.#lanes.set(`${cidr}`, lane)
    return lane
  }

  /** Lanes of blocks that exist. */
  *lanes(): Generator<BlockLane> {
    for (const lane of this.#lanes.values()) if (lane.block) yield lane
  }

  /** Lanes of the owner's blocks within a pool. */
  *ownIn(pool: IpPool): Generator<BlockLane> {
    for (const text of this.own) {
      const lane = this.#lanes.get(text)
      if (lane?.block && pool.cidr.covers(lane.cidr)) yield lane
    }
  }

  /** The lane of a block that has the address. */
  laneOf(ip: Ip): BlockLane | undefined {
    const [cidr] = this.index.overlapping(Cidr.host(ip))
    return cidr && this.#lanes.get(`${cidr}`)
  }

  /** CIDRs of blocks in which the handle has addresses. */
  blocksOf(handleId: string): Cidr[] {
    return [...(this.#blocksOf.get(plainHandle(handleId)) ?? [])].map((text) => this.#lanes.get(text)!.cidr)
  }

  /** Addresses in use under a handle, with the lanes of their blocks. */
  addressesOf(handleId: string): { readonly lane: BlockLane; readonly ordinal: number; readonly ip: Ip }[] {
    const wanted = plainHandle(handleId)
    return this.blocksOf(wanted).flatMap((cidr) => {
      const lane = this.lane(cidr)
      const all = lane.block ? [...allocationsOf(lane.block)] : []
      return all
        .filter((each) => each.handleId === wanted && isInUse(each))
        .map(({ ordinal, ip }) => ({ lane, ordinal, ip }))
    })
  }

  /** True when the block has an address left beyond those that its next write gives. */
  hasSpace({ block, taking }: BlockLane, refuse: (ordinal: number) => boolean): boolean {
    return block !== undefined && hasSpace(block, this.#options.cooldown(), taking, refuse)
  }

  #change(cidr: Cidr, block: IpamBlock | undefined): void {
    const text = `${cidr}`
    for (const handle of this.#handlesIn.get(text) ?? []) {
      const blocks = this.#blocksOf.get(handle)
      blocks?.delete(text)
      if (blocks?.size === 0) this.#blocksOf.delete(handle)
    }
    this.#handlesIn.delete(text)
    this.own.delete(text)
    if (!block) return this.index.remove(cidr)
    this.index.add(cidr)
    if (block.sequenceNumber > this.#highest) this.#highest = block.sequenceNumber
    if (sameOwner(block.owner, this.#owner)) this.own.add(text)
    const handles = new Set(this.#handlesOf(block))
    if (handles.size > 0) this.#handlesIn.set(text, handles)
    for (const handle of handles) {
      const blocks = this.#blocksOf.get(handle) ?? new Set()
      this.#blocksOf.set(handle, blocks.add(text))
    }
  }

  /** Handles of this node that have addresses in the block; in an own block everybody's. */
  #handlesOf({ owner, attributes }: IpamBlock): string[] {
    const isOwn = sameOwner(owner, this.#owner)
    return attributes.flatMap(({ handleId, secondary, releasedAt }) =>
      handleId !== undefined && releasedAt === undefined && (isOwn || secondary.node === this.#owner.name)
        ? [plainHandle(handleId)]
        : [],
    )
  }
}
