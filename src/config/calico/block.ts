/**
 * IPAM blocks, as crd.projectcalico.org/v1 has them (a `spec`) and as Calico's etcd v3 has them (the value of
 * `/calico/ipam/v2/assignment/ipv4/block/172.26.40.128-26`): two names of keys differ, the rest is the same.
 *
 *   allocations [0, null, 1, …]   by ordinal the index of an attribute, null when free
 *   unallocated [1, 3, …]         free ordinals, longest free first
 *   attributes  [{handle_id, secondary, …}, …]
 *
 * A block that contradicts itself where an address could be given twice is refused whole: nobody writes what nobody
 * understands. The order of free ordinals contradicts nothing: allocations say what is free, `unallocated` in which order.
 *
 * Numbers that count writes are beyond what a double holds: read with src/bytes/json.ts.
 *
 * Sources: Calico libcalico-go/lib/backend/model/block.go (etcd), lib/apis/internalapi/ipam_block.go and
 * lib/backend/k8s/resources/ipam_block.go (CRD).
 */
import type { BlockAttribute, BlockOwner, IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { Fields, isObject, type PlainObject, shown } from './fields.ts'

export type StoreShape = 'kubernetes' | 'etcd'

/** A block has at most as many addresses: /20 and /116. */
const MAX_ADDRESS_BITS = 12
const MAX_ATTRIBUTES = 2 ** (MAX_ADDRESS_BITS + 1)
const MAX_SECONDARY = 64
const ATTRIBUTE_KEYS = ['handle_id', 'secondary', 'releasedAt']

const BLOCK_KEYS = [
  'cidr',
  'affinity',
  'affinityClaimTime',
  'affinity_claim_time',
  'hostAffinity',
  'allocations',
  'unallocated',
  'attributes',
  'sequenceNumber',
  'sequenceNumberForAllocation',
  'deleted',
  'strictAffinity',
]

const claimTimeKey = { kubernetes: 'affinityClaimTime', etcd: 'affinity_claim_time' } as const

/** `host:NODE` or `virtual:USE`; undefined for other text. */
export function parseOwner(text: string): BlockOwner | undefined {
  const [, type, name] = /^(host|virtual):([^/]{1,253})$/.exec(text) ?? []
  return type && name ? { type: type as BlockOwner['type'], name } : undefined
}

export const formatOwner = ({ type, name }: BlockOwner): string => `${type}:${name}`

/**
 * Decodes a spec (Kubernetes) or a value (etcd). `object` names it for messages: `IPAMBlock 172-26-40-128-26`.
 * Throws ConfigError naming object and key.
 */
export function decodeBlock(value: unknown, object: string): IpamBlock {
  const fields = new Fields(value, object)
  const { cidr, owner } = readBlockHead(fields)
  const size = Number(cidr.size)
  const attributes = (fields.list('attributes', MAX_ATTRIBUTES) ?? []).map((item, index) =>
    readAttribute(new Fields(item, object, `${fields.path}attributes[${index}].`)),
  )
  const allocations = readAllocations(fields, size, attributes.length)
  const ownedSince = fields.text('affinityClaimTime', 64) ?? fields.text('affinity_claim_time', 64)
  const further = othersOf(value, BLOCK_KEYS)
  return {
    cidr,
    ...(owner && { owner }),
    ...(ownedSince !== undefined && { ownedSince }),
    allocations,
    unallocated: readUnallocated(fields, allocations),
    attributes,
    sequenceNumber: wholeNumber(fields, 'sequenceNumber', fields.get('sequenceNumber') ?? 0),
    sequenceNumberForAllocation: readSequenceNumbers(fields, allocations),
    deleted: fields.flag('deleted') ?? false,
    strictAffinity: fields.flag('strictAffinity') ?? false,
    ...(further && { further }),
  }
}

/** Which addresses a block has and who holds it: what routes need, also of a block that `decodeBlock` refuses. */
export function decodeBlockHead(value: unknown, object: string): { readonly cidr: Cidr; readonly owner?: BlockOwner } {
  return readBlockHead(new Fields(value, object))
}

function readBlockHead(fields: Fields): { readonly cidr: Cidr; readonly owner?: BlockOwner } {
  const cidr = fields.cidr('cidr')
  if (!cidr) throw fields.error('cidr', 'is missing')
  if ((cidr.family === 4 ? 32 : 128) - cidr.length > MAX_ADDRESS_BITS)
    throw fields.error('cidr', `${cidr} is larger than a block can be`)
  const affinity = fields.text('affinity', 300)
  const former = fields.text('hostAffinity', 253)
  const text = affinity ?? (former === undefined ? undefined : `host:${former}`)
  if (text === undefined) return { cidr }
  const owner = parseOwner(text)
  if (!owner) throw fields.error('affinity', `must be host:NODE or virtual:USE, not ${shown(text)}`)
  return { cidr, owner }
}

function readAllocations(fields: Fields, size: number, attributes: number): readonly (number | null)[] {
  const list = fields.list('allocations', 2 ** MAX_ADDRESS_BITS)
  if (list?.length !== size)
    throw fields.error('allocations', `has ${list?.length ?? 'no'} entries for ${size} addresses`)
  return list.map((item, ordinal) => {
    if (item === null) return null
    if (typeof item !== 'number' || !Number.isInteger(item) || item < 0 || item >= attributes)
      throw fields.error(`allocations[${ordinal}]`, `is ${shown(item)}, but there are ${attributes} attributes`)
    return item
  })
}

/** What is said, without what is in use or said twice; then what is free and was forgotten. */
function readUnallocated(fields: Fields, allocations: readonly (number | null)[]): readonly number[] {
  const free = new Set<number>()
  for (const [index, item] of (fields.list('unallocated', 2 * allocations.length) ?? []).entries()) {
    if (typeof item !== 'number' || !Number.isInteger(item) || item < 0 || item >= allocations.length)
      throw fields.error(`unallocated[${index}]`, `is ${shown(item)}: the block has ${allocations.length} addresses`)
    if (allocations[item] === null) free.add(item)
  }
  for (const [ordinal, index] of allocations.entries()) if (index === null) free.add(ordinal)
  return [...free]
}

function readAttribute(fields: Fields): BlockAttribute {
  const handleId = fields.text('handle_id')
  const releasedAt = fields.text('releasedAt', 64)
  const further = othersOf(Object.fromEntries(fields.keys().map((key) => [key, fields.get(key)])), ATTRIBUTE_KEYS)
  return {
    ...(handleId !== undefined && { handleId }),
    secondary: readTexts(fields, 'secondary'),
    ...(releasedAt !== undefined && { releasedAt }),
    ...(further && { further }),
  }
}

function readTexts(fields: Fields, key: string): Readonly<Record<string, string>> {
  const value = fields.get(key)
  if (value === undefined) return {}
  if (!isObject(value)) throw fields.error(key, `must be an object, not ${shown(value)}`)
  const entries = Object.entries(value)
  if (entries.length > MAX_SECONDARY) throw fields.error(key, `has more than ${MAX_SECONDARY} keys`)
  for (const [name, text] of entries)
    if (typeof text !== 'string') throw fields.error(`${key}.${name}`, `must be text, not ${shown(text)}`)
  return value as Readonly<Record<string, string>>
}

function readSequenceNumbers(
  fields: Fields,
  allocations: readonly (number | null)[],
): Readonly<Record<string, bigint>> {
  const value = fields.get('sequenceNumberForAllocation') ?? {}
  const key = 'sequenceNumberForAllocation'
  if (!isObject(value)) throw fields.error(key, `must be an object, not ${shown(value)}`)
  const entries = Object.entries(value)
  if (entries.length > allocations.length) throw fields.error(key, `has more entries than the block has addresses`)
  return Object.fromEntries(
    entries.map(([ordinal, number]) => {
      if (!/^(0|[1-9]\d{0,3})$/.test(ordinal) || Number(ordinal) >= allocations.length)
        throw fields.error(key, `${shown(ordinal)} is no ordinal of a block of ${allocations.length} addresses`)
      return [ordinal, wholeNumber(fields, `${key}.${ordinal}`, number)]
    }),
  )
}

/** What Go has as uint64. */
function wholeNumber(fields: Fields, key: string, value: unknown): bigint {
  const number = typeof value === 'number' && Number.isInteger(value) ? BigInt(value) : value
  if (typeof number !== 'bigint' || number < 0n || number >= 2n ** 64n)
    throw fields.error(key, `must be a whole number from 0 to 2^64-1, not ${shown(value)}`)
  return number
}

function othersOf(value: unknown, known: readonly string[]): PlainObject | undefined {
  const others = Object.entries(value as PlainObject).filter(
    ([key, each]) => !known.includes(key) && each !== undefined,
  )
  return others.length > 0 ? Object.fromEntries(others) : undefined
}

/** The spec (Kubernetes) or the value (etcd) of a block, for src/bytes/json.ts to write. */
export function encodeBlock(block: IpamBlock, shape: StoreShape): Record<string, unknown> {
  const { cidr, owner, ownedSince, attributes, further, ...same } = block
  // In Go the CRD leaves out an owner that is missing; etcd's value has null.
  const affinity = owner ? formatOwner(owner) : shape === 'etcd' ? null : undefined
  return {
    ...further,
    cidr: `${cidr}`,
    ...(affinity !== undefined && { affinity }),
    ...(ownedSince !== undefined && { [claimTimeKey[shape]]: ownedSince }),
    ...same,
    attributes: attributes.map(({ handleId, secondary, releasedAt, further: others }) => ({
      ...others,
      ...(handleId !== undefined && { handle_id: handleId }),
      ...(Object.keys(secondary).length > 0 && { secondary }),
      ...(releasedAt !== undefined && { releasedAt }),
    })),
  }
}
