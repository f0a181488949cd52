/**
 * A block becomes an owner's, and nobody's again, in steps that each name what they replace. Whoever stops between two of them
 * leaves something that anybody can read and finish:
 *
 *   claim     affinity pending ──► block with the owner (decides) ──► affinity confirmed
 *   release   affinity pendingDeletion ──► block gone, or nobody's while addresses are in use (decides) ──► affinity gone
 *
 * The block says who has it; an affinity that is not confirmed counts for nothing.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam_block_reader_writer.go (getPendingAffinity, claimAffineBlock, releaseBlockAffinity).
 */
import type { AffinityState, BlockAffinity, BlockOwner, Held, IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { BlockDraft, type Cooldown, isEmpty, type NewBlock, newBlock, sameOwner } from '../block.ts'
import type { StoreCounts } from './block-lane.ts'
import { ConflictError, CorruptObjectError, type IpamStore } from './ipam-store.ts'

export interface ClaimContext {
  readonly store: IpamStore
  readonly counts: StoreCounts
}

const MAX_ATTEMPTS = 100

/** Repeats what lost against somebody else. Rejects with the last ConflictError. */
async function repeat<T>(counts: StoreCounts, attempt: () => Promise<T>): Promise<T> {
  for (let n = 1; ; n++)
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof ConflictError) || n >= MAX_ATTEMPTS) throw error
      counts.conflicts++
    }
}

export type Claimed = { readonly held: Held<IpamBlock> } | { readonly taken: Held<IpamBlock> }

/**
 * Claims a block that does not exist yet, or finds that it is the owner's already. `taken`: somebody else has it, and the
 * affinity is taken back. Rejects with StoreAwayError, and with CorruptObjectError for a block that nobody can read; what was begun is then found by its affinity.
 */
export async function claimBlock(context: ClaimContext, fresh: NewBlock): Promise<Claimed> {
  const { store, counts } = context
  const { owner, cidr } = fresh
  return repeat(counts, async () => {
    const affinity = await wantBlock(context, owner, cidr)
    const held = await createOrRead(context, fresh).catch(async (error: unknown) => {
      if (error instanceof CorruptObjectError) await store.affinities.remove(affinity)
      throw error
    })
    if (!sameOwner(held.value.owner, owner)) {
      counts.writes++
      await store.affinities.remove(affinity)
      return { taken: held }
    }
    await setState(context, affinity, 'confirmed')
    return { held }
  })
}

/** The first step: an affinity that is not confirmed is pending from now on. */
async function wantBlock({ store, counts }: ClaimContext, owner: BlockOwner, cidr: Cidr): Promise<Held<BlockAffinity>> {
  try {
    counts.writes++
    return await store.affinities.create({ owner, cidr, state: 'pending', deleted: false })
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
    counts.reads++
    const held = await store.affinities.read({ owner, cidr })
    if (!held) throw error
    return held.value.state === 'pendingDeletion' ? setState({ store, counts }, held, 'pending') : held
  }
}

async function createOrRead({ store, counts }: ClaimContext, fresh: NewBlock): Promise<Held<IpamBlock>> {
  try {
    counts.writes++
    return await store.blocks.create(newBlock(fresh))
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
    counts.reads++
    const held = await store.blocks.read(fresh.cidr)
    if (!held) throw error
    return held
  }
}

async function setState(
  { store, counts }: ClaimContext,
  held: Held<BlockAffinity>,
  state: AffinityState,
): Promise<Held<BlockAffinity>> {
  if (held.value.state === state) return held
  counts.writes++
  return store.affinities.replace(held, { ...held.value, state })
}

export interface ReleaseConditions {
  readonly owner: BlockOwner
  readonly cidr: Cidr
  /** Only when no address is in use or cools down. */
  readonly mustBeEmpty: boolean
  /** Only when the block is still the one that was looked at. */
  readonly sequenceNumber?: bigint
  readonly cooldown: Cooldown
}

/** What became of the block; `kept`: a condition did not hold. */
export type Released = 'removed' | 'disowned' | 'kept' | 'not-owned'

/**
 * Takes a block from its owner: an empty one goes, one with addresses in use stays as nobody's. Without an affinity, or with
 * one that a former release left half done, it does what is left. Rejects with StoreAwayError.
 */
export async function releaseBlock(context: ClaimContext, conditions: ReleaseConditions): Promise<Released> {
  const { store, counts } = context
  const { owner, cidr, mustBeEmpty, sequenceNumber, cooldown } = conditions
  return repeat(counts, async () => {
    counts.reads += 2
    const [held, affinity] = await Promise.all([store.blocks.read(cidr), store.affinities.read({ owner, cidr })])
    const forget = async () => {
      if (!affinity) return
      counts.writes++
      await store.affinities.remove(affinity)
    }
    if (!held || !sameOwner(held.value.owner, owner)) {
      await forget()
      return 'not-owned'
    }
    const draft = new BlockDraft(held.value)
    draft.settle(cooldown)
    draft.setOwner(undefined, '')
    const value = draft.finish()
    const moved = sequenceNumber !== undefined && sequenceNumber !== held.value.sequenceNumber
    if (moved || (mustBeEmpty && !isEmpty(value))) return 'kept'
    const leaving = affinity && (await setState(context, affinity, 'pendingDeletion'))
    counts.writes++
    if (isEmpty(value)) await store.blocks.remove(held)
    else await store.blocks.replace(held, value)
    if (leaving) {
      counts.writes++
      await store.affinities.remove(leaving)
    }
    return isEmpty(value) ? 'removed' : 'disowned'
  })
}

/**
 * Finishes or undoes what somebody left: a claim whose block is there is confirmed, one whose block is not there or is
 * another's is taken back; a release goes on when the block is empty, and is taken back when it is in use.
 */
export async function settleAffinity(
  context: ClaimContext,
  key: { owner: BlockOwner; cidr: Cidr },
  cooldown: Cooldown,
) {
  const { store, counts } = context
  await repeat(counts, async () => {
    counts.reads += 2
    const [held, affinity] = await Promise.all([store.blocks.read(key.cidr), store.affinities.read(key)])
    const owned = held !== undefined && sameOwner(held.value.owner, key.owner)
    if (!affinity) {
      if (owned) await setState(context, await wantBlock(context, key.owner, key.cidr), 'confirmed')
    } else if (!owned) {
      counts.writes++
      await store.affinities.remove(affinity)
    } else if (affinity.value.state === 'pendingDeletion' && isEmpty(held.value))
      await releaseBlock(context, { ...key, mustBeEmpty: true, cooldown })
    else await setState(context, affinity, 'confirmed')
  })
}
