/**
 * What routes need of a block: who has it, and which of its addresses are in use elsewhere.
 *
 * Sources: Calico libcalico-go lib/backend/model/block.go (NonAffineAllocations: the attribute `node` of an address).
 */
import { addressAt, allocationsOf, isInUse } from '../ipam/block.ts'
import type { BlockRoutes, IpamBlock } from '../model/calico.ts'

/** Of a block that cannot be read further: all its addresses are reached where it is. */
export const headRoutesOf = ({ cidr, owner }: Pick<IpamBlock, 'cidr' | 'owner'>): BlockRoutes => ({
  cidr,
  ...(owner?.type === 'host' ? { node: owner.name } : {}),
  borrowed: [],
})

/** Addresses whose holder's node is not known are reached where the block is. */
export function blockRoutesOf(block: IpamBlock): BlockRoutes {
  const node = block.owner?.type === 'host' ? block.owner.name : undefined
  const borrowed: { ip: ReturnType<typeof addressAt>; node: string }[] = []
  for (const allocation of allocationsOf(block)) {
    const holder = allocation.attribute?.secondary.node
    if (holder === undefined || holder === node || !isInUse(allocation)) continue
    borrowed.push({ ip: addressAt(block.cidr, allocation.ordinal), node: holder })
  }
  return { cidr: block.cidr, ...(node === undefined ? {} : { node }), borrowed }
}
