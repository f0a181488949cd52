/**
 * Attributes of a table's entry. In TABLE_DUMP_V2 MP_REACH_NLRI has nothing but the next hop and its length: family and prefix
 * stand in the record. Some writers put the whole attribute there all the same; both are read.
 *
 * Sources: RFC 6396 section 4.3.4.
 */
import { AttributeFlag, AttributeType } from '../bgp/constants.ts'
import { afiOf, type RouteFamily, safiOf } from '../bgp/family.ts'

/** Flags, type, one octet of length. */
const HEAD_BYTES = 3
/** Family and, behind the next hop, the reserved octet. */
const FAMILY_BYTES = 3

/** A block as wire/bgp has it (MP_REACH_NLRI, if any, in front and without prefixes), for an entry. */
export function ribAttributesOf(block: Uint8Array): Uint8Array {
  if (block[1] !== AttributeType.MP_REACH_NLRI) return block.slice()
  const end = HEAD_BYTES + block[2]!
  const nextHop = block.subarray(HEAD_BYTES + FAMILY_BYTES, end - 1)
  const out = new Uint8Array(HEAD_BYTES + nextHop.length + block.length - end)
  out.set([block[0]!, block[1]!, nextHop.length])
  out.set(nextHop, HEAD_BYTES)
  out.set(block.subarray(end), HEAD_BYTES + nextHop.length)
  return out
}

/**
 * An entry's attributes as a block for wire/bgp's `decodeAttributes`, whose context is one of four-octet AS numbers. A list that
 * ends within an attribute ends before it.
 */
export function blockOfRibAttributes(attributes: Uint8Array, family: RouteFamily): Uint8Array {
  const reach: number[] = []
  const rest: Uint8Array[] = []
  let at = 0
  while (attributes.length - at >= HEAD_BYTES) {
    const long = (attributes[at]! & AttributeFlag.EXTENDED_LENGTH) !== 0
    const start = at + (long ? 4 : 3)
    const end = start + (long ? (attributes[at + 2]! << 8) | (attributes[at + 3] ?? 0) : attributes[at + 2]!)
    if (start > attributes.length || end > attributes.length) break
    const value = attributes.subarray(start, end)
    if (attributes[at + 1] !== AttributeType.MP_REACH_NLRI) rest.push(attributes.subarray(at, end))
    else if (reach.length === 0) {
      const nextHop = nextHopOf(value)
      const family3 = [afiOf(family) >> 8, afiOf(family) & 255, safiOf(family)]
      reach.push(AttributeFlag.OPTIONAL, AttributeType.MP_REACH_NLRI, nextHop.length + 5)
      reach.push(...family3, nextHop.length, ...nextHop, 0)
    }
    at = end
  }
  // NEXT_HOP is not for routes that have MP_REACH_NLRI.
  const kept = reach.length > 0 ? rest.filter((attribute) => attribute[1] !== AttributeType.NEXT_HOP) : rest
  const block = new Uint8Array(kept.reduce((sum, { length }) => sum + length, reach.length))
  block.set(reach)
  let end = reach.length
  for (const attribute of kept) {
    block.set(attribute, end)
    end += attribute.length
  }
  return block
}

/** The short form begins with a length that is the rest's; the long one with an address family. */
function nextHopOf(value: Uint8Array): Uint8Array {
  if (value[0] === value.length - 1) return value.subarray(1)
  const size = value[FAMILY_BYTES] ?? 0
  return value.subarray(FAMILY_BYTES + 1, FAMILY_BYTES + 1 + Math.min(size, 32))
}
