/**
 * Compares what the address pools' objects say with one another and with who uses which address. It finds; what is done about a
 * finding is its reader's affair: `weft ipam check` prints them, the collector frees some of them after a second look.
 *
 *   pools ── blocks ── allocations ── handles          each against its neighbours,
 *              │            │                          and allocations against what is in use
 *          affinities     inUse
 *
 * Sources: Calico calicoctl/commands/ipam/check.go (what it looks for), design/ipam/ipam-gc.md.
 */
import type {
  BlockAffinity,
  Held,
  IpamBlock,
  IpamHandle,
  IpamSettings,
  IpPool,
  IpReservation,
} from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import { AddressSet } from './address-set.ts'
import { type Allocation, allocationsOf, findDamage, formatOwner, isInUse, plainHandle, sameOwner } from './block.ts'
import { BlockIndex } from './block-index.ts'
import { areSpare } from './spares.ts'

/** Somebody who has an address: a pod, a node's tunnel, a service. */
export interface AddressUse {
  readonly ip: Ip
  /** For people: `Workload(namespace/name)`, `Node(name)`. */
  readonly holder: string
  /** The node that the holder is on, if it is known. */
  readonly node?: string
}

export interface AuditInput {
  readonly pools: readonly IpPool[]
  readonly reservations: readonly IpReservation[]
  readonly settings: IpamSettings
  readonly blocks: readonly Held<IpamBlock>[]
  readonly affinities: readonly Held<BlockAffinity>[]
  readonly handles: readonly Held<IpamHandle>[]
  /** Names of the nodes that exist. */
  readonly nodes: ReadonlySet<string>
  readonly inUse: readonly AddressUse[]
  /** What the store says of objects that cannot be read. */
  readonly unreadable?: readonly { readonly message: string }[]
  /** Unix time in milliseconds. */
  readonly now: number
}

/** One address of one block as findings name it. */
export interface FoundAddress {
  readonly ip: Ip
  readonly block: Cidr
  readonly handleId?: string
  /** Of this life of the address; a release that names it frees no later one. */
  readonly sequenceNumber?: bigint
  /** The node that its attributes name. */
  readonly node?: string
  readonly attributes: Readonly<Record<string, string>>
}

/** What was found; `message` says it to people, the other fields to programs. */
export type Finding = { readonly message: string } & (
  | { readonly kind: 'leaked-address'; readonly address: FoundAddress }
  | { readonly kind: 'spare-address'; readonly address: FoundAddress }
  | { readonly kind: 'reserved-address'; readonly address: FoundAddress }
  | { readonly kind: 'duplicate-use'; readonly ip: Ip; readonly holders: readonly string[] }
  | { readonly kind: 'duplicate-allocation'; readonly ip: Ip; readonly blocks: readonly Cidr[] }
  | { readonly kind: 'not-allocated'; readonly ip: Ip; readonly holders: readonly string[] }
  | { readonly kind: 'not-in-pool'; readonly ip: Ip; readonly holders: readonly string[] }
  | { readonly kind: 'handle-without-addresses'; readonly handle: Held<IpamHandle> }
  | { readonly kind: 'handle-count'; readonly handle: Held<IpamHandle>; readonly block: Cidr }
  | { readonly kind: 'handle-missing'; readonly handleId: string }
  | { readonly kind: 'unreadable-object' }
  | { readonly kind: 'damaged-block'; readonly block: Cidr; readonly damage: readonly string[] }
  | { readonly kind: 'future-release'; readonly address: FoundAddress }
  | { readonly kind: 'block-outside-pools'; readonly block: Cidr }
  | { readonly kind: 'block-size'; readonly block: Cidr; readonly pool: string }
  | { readonly kind: 'overlapping-blocks'; readonly blocks: readonly [Cidr, Cidr] }
  | { readonly kind: 'overlapping-pools'; readonly pools: readonly [string, string] }
  | { readonly kind: 'block-without-affinity'; readonly block: Cidr; readonly node: string }
  | { readonly kind: 'affinity-without-block'; readonly affinity: Held<BlockAffinity> }
  | { readonly kind: 'affinity-mismatch'; readonly affinity: Held<BlockAffinity> }
  | { readonly kind: 'affinity-unfinished'; readonly affinity: Held<BlockAffinity> }
  | { readonly kind: 'node-gone'; readonly node: string; readonly blocks: readonly Cidr[] }
)

export type FindingKind = Finding['kind']

/** Kinds that are as they are meant to be, or that mend themselves: told on request, and not counted as problems. */
export const notes: ReadonlySet<FindingKind> = new Set([
  'handle-missing',
  'spare-address',
  'reserved-address',
  'block-size',
])

/** In the order of the kinds above, and within a kind by address. */
export function audit(input: AuditInput): Finding[] {
  const blocks = [...input.blocks].sort((a, b) => a.value.cidr.compare(b.value.cidr)).map(({ value }) => value)
  const allocations = blocks.flatMap((block) => [...allocationsOf(block)].map((each) => found(block, each)))
  return [
    ...(input.unreadable ?? []).map(({ message }): Finding => ({ kind: 'unreadable-object', message })),
    ...auditUse(input, allocations),
    ...auditHandles(input, allocations),
    ...auditBlocks(input, blocks, allocations),
    ...auditOwners(input, blocks),
  ]
}

interface Located extends FoundAddress {
  readonly inUse: boolean
  readonly releasedAt: string | undefined
}

function found({ cidr }: IpamBlock, allocation: Allocation): Located {
  const { ip, attribute, handleId, sequenceNumber } = allocation
  const node = attribute?.secondary.node
  return {
    ip,
    block: cidr,
    ...(handleId === undefined ? {} : { handleId }),
    ...(sequenceNumber === undefined ? {} : { sequenceNumber }),
    ...(node === undefined ? {} : { node }),
    attributes: attribute?.secondary ?? {},
    inUse: isInUse(allocation),
    releasedAt: attribute?.releasedAt,
  }
}

function auditUse({ pools, reservations, nodes, inUse }: AuditInput, allocations: readonly Located[]): Finding[] {
  const uses = groupBy(inUse, ({ ip }) => `${ip}`)
  const given = groupBy(
    allocations.filter((each) => each.inUse),
    ({ ip }) => `${ip}`,
  )
  const reserved = AddressSet.of(reservations.flatMap(({ cidrs }) => cidrs))
  const poolSet = AddressSet.of(pools.map(({ cidr }) => cidr))
  const leaked: Finding[] = []
  const spare: Finding[] = []
  const reservedOnes: Finding[] = []
  const twice: Finding[] = []
  for (const [text, each] of given) {
    const [address] = each as [Located]
    if (!uses.has(text) && areSpare(address.attributes) && nodes.has(address.node ?? ''))
      spare.push({
        kind: 'spare-address',
        address,
        message: `${text} is kept ready for pods of ${address.node}`,
      })
    else if (!uses.has(text) && !isReservedByWindows(address))
      leaked.push({
        kind: 'leaked-address',
        address,
        message: `${text} is allocated (${describe(address)}) and nobody uses it`,
      })
    if (reserved.has(address.ip))
      reservedOnes.push({
        kind: 'reserved-address',
        address,
        message: `${text} is reserved, and allocated since before (${describe(address)})`,
      })
    if (each.length > 1) {
      const both = each.map(({ block }) => block)
      twice.push({
        kind: 'duplicate-allocation',
        ip: address.ip,
        blocks: both,
        message: `${text} is allocated in ${both.join(' and in ')}`,
      })
    }
  }
  const shared: Finding[] = []
  const missing: Finding[] = []
  const outside: Finding[] = []
  for (const [text, each] of uses) {
    const { ip } = each[0]!
    const holders = [...new Set(each.map(({ holder }) => holder))]
    if (holders.length > 1)
      shared.push({ kind: 'duplicate-use', ip, holders, message: `${text} is used by ${holders.join(' and by ')}` })
    if (given.has(text)) continue
    if (poolSet.has(ip))
      missing.push({
        kind: 'not-allocated',
        ip,
        holders,
        message: `${text} is used by ${holders[0]} and not allocated`,
      })
    else outside.push({ kind: 'not-in-pool', ip, holders, message: `${text} is used by ${holders[0]} and in no pool` })
  }
  return [...leaked, ...spare, ...reservedOnes, ...shared, ...twice, ...missing, ...outside]
}

/** Calico keeps addresses back for Windows under a handle of their own. */
const isReservedByWindows = ({ handleId }: Located): boolean =>
  handleId?.toLowerCase() === 'windows-reserved-ipam-handle'

function auditHandles({ handles }: AuditInput, allocations: readonly Located[]): Finding[] {
  const counted = new Map<string, Map<string, number>>()
  for (const { handleId, block, inUse, attributes } of allocations) {
    if (handleId === undefined || !inUse || areSpare(attributes)) continue
    const blocks = counted.get(handleId) ?? new Map<string, number>()
    counted.set(handleId, blocks.set(`${block}`, (blocks.get(`${block}`) ?? 0) + 1))
  }
  const empty: Finding[] = []
  const wrong: Finding[] = []
  const known = new Set<string>()
  for (const handle of handles) {
    const handleId = plainHandle(handle.value.handleId)
    known.add(handleId)
    const has = counted.get(handleId)
    if (!has) {
      empty.push({
        kind: 'handle-without-addresses',
        handle,
        message: `handle ${handleId} has no address in any block`,
      })
      continue
    }
    for (const text of new Set([...has.keys(), ...Object.keys(handle.value.blocks)])) {
      const [says, is] = [handle.value.blocks[text] ?? 0, has.get(text) ?? 0]
      const block = Cidr.tryParse(text)
      if (says !== is && block)
        wrong.push({
          kind: 'handle-count',
          handle,
          block,
          message: `handle ${handleId} counts ${says} addresses in ${text}, and has ${is}`,
        })
    }
  }
  const missing = [...counted.keys()]
    .filter((handleId) => !known.has(handleId))
    .map(
      (handleId): Finding => ({
        kind: 'handle-missing',
        handleId,
        message: `handle ${handleId} has addresses and no object of its own`,
      }),
    )
  return [...empty, ...wrong, ...missing]
}

function auditBlocks(
  { pools, now }: AuditInput,
  blocks: readonly IpamBlock[],
  allocations: readonly Located[],
): Finding[] {
  const findings: Finding[] = []
  for (const block of blocks) {
    const damage = findDamage(block)
    if (damage.length > 0)
      findings.push({
        kind: 'damaged-block',
        block: block.cidr,
        damage,
        message: `block ${block.cidr} is damaged: ${damage.join('; ')}`,
      })
  }
  for (const address of allocations)
    if (address.releasedAt !== undefined && !(Date.parse(address.releasedAt) <= now + 1000))
      findings.push({
        kind: 'future-release',
        address,
        message: `${address.ip} was released at ${address.releasedAt}, which is not yet: a clock is wrong`,
      })
  const index = new BlockIndex()
  for (const { cidr } of blocks) {
    const pool = pools.find((each) => each.cidr.covers(cidr))
    if (!pool) findings.push({ kind: 'block-outside-pools', block: cidr, message: `block ${cidr} is in no pool` })
    else if (pool.blockSize !== cidr.length)
      findings.push({
        kind: 'block-size',
        block: cidr,
        pool: pool.name,
        message: `block ${cidr} is not a /${pool.blockSize} as pool ${pool.name} makes them now`,
      })
    for (const other of index.overlapping(cidr))
      findings.push({
        kind: 'overlapping-blocks',
        blocks: [other, cidr],
        message: `blocks ${other} and ${cidr} overlap`,
      })
    index.add(cidr)
  }
  pools.forEach((pool, at) => {
    for (const other of pools.slice(0, at))
      if (other.cidr.overlaps(pool.cidr))
        findings.push({
          kind: 'overlapping-pools',
          pools: [other.name, pool.name],
          message: `pools ${other.name} (${other.cidr}) and ${pool.name} (${pool.cidr}) overlap`,
        })
  })
  return findings
}

function auditOwners({ affinities, nodes }: AuditInput, blocks: readonly IpamBlock[]): Finding[] {
  const findings: Finding[] = []
  const byCidr = new Map(blocks.map((block) => [`${block.cidr}`, block]))
  const claimed = new Set(affinities.map(({ value: { owner, cidr } }) => `${formatOwner(owner)} ${cidr}`))
  const gone = new Map<string, Cidr[]>()
  for (const { owner, cidr } of blocks) {
    if (owner?.type !== 'host') continue
    if (!nodes.has(owner.name)) gone.set(owner.name, [...(gone.get(owner.name) ?? []), cidr])
    if (!claimed.has(`${formatOwner(owner)} ${cidr}`))
      findings.push({
        kind: 'block-without-affinity',
        block: cidr,
        node: owner.name,
        message: `block ${cidr} is of ${owner.name}, which has no affinity to it`,
      })
  }
  for (const affinity of affinities) {
    const { owner, cidr, state } = affinity.value
    const block = byCidr.get(`${cidr}`)
    const who = formatOwner(owner)
    if (owner.type === 'host' && !nodes.has(owner.name) && !sameOwner(block?.owner, owner))
      gone.set(owner.name, [...(gone.get(owner.name) ?? []), cidr])
    if (state !== 'confirmed')
      findings.push({
        kind: 'affinity-unfinished',
        affinity,
        message: `the affinity of ${who} to ${cidr} is ${state}`,
      })
    else if (!block)
      findings.push({
        kind: 'affinity-without-block',
        affinity,
        message: `${who} has an affinity to ${cidr}, which is no block`,
      })
    else if (!sameOwner(block.owner, owner))
      findings.push({
        kind: 'affinity-mismatch',
        affinity,
        message: `${who} has an affinity to ${cidr}, which is ${block.owner ? `of ${formatOwner(block.owner)}` : "nobody's"}`,
      })
  }
  for (const [node, cidrs] of gone)
    findings.push({
      kind: 'node-gone',
      node,
      blocks: cidrs,
      message: `node ${node} does not exist and has ${cidrs.join(', ')}`,
    })
  return findings
}

function describe({ handleId, attributes }: FoundAddress): string {
  const { namespace, pod, node } = attributes
  const words = [
    pod === undefined ? undefined : `pod ${namespace ?? ''}/${pod}`,
    node === undefined ? undefined : `node ${node}`,
    handleId === undefined ? 'without a handle' : `handle ${handleId}`,
  ]
  return words.filter((word) => word !== undefined).join(', ')
}

function groupBy<T>(values: readonly T[], keyOf: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const value of values) {
    const group = groups.get(keyOf(value))
    if (group) group.push(value)
    else groups.set(keyOf(value), [value])
  }
  return groups
}
