/**
 * What can be done about a finding of the audit: the one step that puts right what it names, and only while it is still what
 * was found. Which findings are to be mended is for the caller to say; an address is freed here on its word.
 */
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import type { Finding, FoundAddress } from '../audit.ts'
import { allocationsOf, BlockDraft, type Cooldown, isEmpty, isInUse, ordinalOf, plainHandle } from '../block.ts'
import { type ClaimContext, releaseBlock, settleAffinity } from './block-claim.ts'
import { ConflictError } from './ipam-store.ts'

const MAX_ATTEMPTS = 100

/**
 * Frees addresses of one block in one write, those only that have the handle and the sequence number that were found. Gives
 * those that were freed. Rejects with StoreAwayError.
 */
export async function freeAddresses(
  { store, counts }: ClaimContext,
  block: Cidr,
  addresses: readonly FoundAddress[],
  cooldown: Cooldown,
): Promise<Ip[]> {
  for (let attempt = 1; ; attempt++) {
    counts.reads++
    const held = await store.blocks.read(block)
    if (!held) return []
    const draft = new BlockDraft(held.value)
    draft.settle(cooldown)
    const freed = addresses.filter(({ ip, handleId, sequenceNumber }) => {
      const ordinal = ordinalOf(block, ip)
      if (ordinal === undefined || draft.numberOf(ordinal) !== sequenceNumber) return false
      const attribute = draft.attributeOf(ordinal)
      const has = attribute?.handleId === undefined ? undefined : plainHandle(attribute.handleId)
      return !draft.isFree(ordinal) && attribute?.releasedAt === undefined && has === handleId
    })
    if (freed.length === 0) return []
    draft.release(
      freed.map(({ ip }) => ordinalOf(block, ip)!),
      cooldown,
    )
    const value = draft.finish()
    try {
      counts.writes++
      if (isEmpty(value) && !value.owner) await store.blocks.remove(held)
      else await store.blocks.replace(held, value)
      return freed.map(({ ip }) => ip)
    } catch (error) {
      if (!(error instanceof ConflictError) || attempt >= MAX_ATTEMPTS) throw error
      counts.conflicts++
    }
  }
}

/** Frees what has cooled down in a block that nobody writes to. True when there was something. Rejects with StoreAwayError, ConflictError. */
export async function freeCooled({ store, counts }: ClaimContext, block: Cidr, cooldown: Cooldown): Promise<boolean> {
  counts.reads++
  const held = await store.blocks.read(block)
  if (!held) return false
  const draft = new BlockDraft(held.value)
  draft.settle(cooldown)
  if (draft.changes === 0) return false
  const value = draft.finish()
  counts.writes++
  if (isEmpty(value) && !value.owner) await store.blocks.remove(held)
  else await store.blocks.replace(held, value)
  return true
}

/** Does what a finding asks for; false for a kind that nobody can mend from here. Rejects with StoreAwayError, ConflictError. */
export async function mend(context: ClaimContext, finding: Finding, cooldown: Cooldown): Promise<boolean> {
  const { store, counts } = context
  switch (finding.kind) {
    case 'leaked-address':
      return (await freeAddresses(context, finding.address.block, [finding.address], cooldown)).length > 0
    case 'future-release':
      return freeCooled(context, finding.address.block, cooldown)
    case 'handle-without-addresses':
      counts.writes++
      await store.handles.remove(finding.handle)
      return true
    case 'handle-count': {
      const { handleId } = finding.handle.value
      counts.reads++
      const held = await store.blocks.read(finding.block)
      const has = [...(held ? allocationsOf(held.value) : [])].filter(
        (each) => isInUse(each) && each.handleId === plainHandle(handleId),
      ).length
      const { [`${finding.block}`]: _, ...others } = finding.handle.value.blocks
      counts.writes++
      await store.handles.replace(finding.handle, {
        ...finding.handle.value,
        blocks: has > 0 ? { ...others, [`${finding.block}`]: has } : others,
      })
      return true
    }
    case 'block-without-affinity':
      await settleAffinity(context, { owner: { type: 'host', name: finding.node }, cidr: finding.block }, cooldown)
      return true
    case 'affinity-without-block':
    case 'affinity-mismatch':
    case 'affinity-unfinished':
      await settleAffinity(context, finding.affinity.value, cooldown)
      return true
    case 'node-gone':
      for (const cidr of finding.blocks)
        await releaseBlock(context, {
          owner: { type: 'host', name: finding.node },
          cidr,
          mustBeEmpty: true,
          cooldown,
        })
      return true
    default:
      return false
  }
}
