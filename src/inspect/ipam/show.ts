/**
 * `weft ipam show`: how full pools and blocks are, who has an address, what is borrowed, and the settings. Pure: what was read in,
 * lines out, in the shapes that operators know from calicoctl.
 *
 * Sources: Calico calicoctl/commands/ipam/show.go (columns, words, numbers with five digits).
 */
import type { AuditInput } from '../../ipam/audit.ts'
import { type Allocation, allocationsOf, ordinalOf } from '../../ipam/block.ts'
import { isSpare } from '../../ipam/spares.ts'
import type { IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Ip } from '../../net/ip.ts'
import { formatTable } from '../table.ts'

export type ShowInput = Pick<AuditInput, 'pools' | 'reservations' | 'settings' | 'blocks'>

interface Usage {
  readonly total: number
  readonly inUse: number
  readonly reserved: number
  readonly free: number
}

/** Pools in the order of their addresses, each with its blocks when asked for; then blocks of no pool. */
export function showUtilization({ pools, reservations, blocks }: ShowInput, withBlocks: boolean): string[] {
  const reserved = withoutCovered(reservations.flatMap(({ cidrs }) => cidrs))
  const sorted = [...blocks].map(({ value }) => value).sort((a, b) => a.cidr.compare(b.cidr))
  const left = new Set(sorted)
  const rows: string[][] = []
  for (const { cidr } of [...pools].sort((a, b) => a.cidr.compare(b.cidr))) {
    const own = sorted.filter((block) => cidr.covers(block.cidr))
    for (const block of own) left.delete(block)
    rows.push(rowOf('IP Pool', cidr, usageOf(cidr, own, reserved)))
    if (withBlocks) rows.push(...own.map((block) => rowOf('Block', block.cidr, usageOf(block.cidr, [block], reserved))))
  }
  if (withBlocks)
    for (const block of left) rows.push(rowOf('Block', block.cidr, usageOf(block.cidr, [block], reserved)))
  const head = ['GROUPING', 'CIDR', 'IPS TOTAL', 'IPS IN USE', 'IPS RESERVED', 'IPS FREE']
  return formatTable(head, rows, { right: [2, 3, 4, 5] })
}

function usageOf(cidr: Cidr, blocks: readonly IpamBlock[], reserved: readonly Cidr[]): Usage {
  const within = reserved.filter((each) => each.overlaps(cidr))
  const total = Number(cidr.size)
  const given = blocks.flatMap((block) => [...allocationsOf(block)])
  const reservedCount = within.reduce((sum, each) => sum + Number(each.covers(cidr) ? cidr.size : each.size), 0)
  const unreserved = given.filter(({ ip }) => !within.some((each) => each.contains(ip))).length
  return { total, inUse: given.length, reserved: reservedCount, free: total - reservedCount - unreserved }
}

const withoutCovered = (cidrs: readonly Cidr[]): Cidr[] =>
  cidrs.filter(
    (cidr, at) =>
      !cidrs.some((other, place) => place !== at && other.covers(cidr) && !(other.equals(cidr) && place > at)),
  )

function rowOf(kind: string, cidr: Cidr, { total, inUse, reserved, free }: Usage): string[] {
  const share = (count: number) => `${formatCount(count)} (${((100 * count) / total).toFixed(0)}%)`
  return [kind, `${cidr}`, formatCount(total), share(inUse), share(reserved), share(free)]
}

/** Five digits, as C's `%.5g` writes them: 65536, 1.3107e+05. */
export function formatCount(count: number): string {
  const [digits, exponent] = count.toPrecision(5).split('e') as [string, string?]
  const short = digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits
  return exponent === undefined ? short : `${short}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`
}

/** Addresses in use on another node than their block's. */
export function showBorrowed({ blocks }: Pick<ShowInput, 'blocks'>): string[] {
  const rows: string[][] = []
  let unknown = 0
  for (const { value } of [...blocks].sort((a, b) => a.value.cidr.compare(b.value.cidr)))
    for (const { ip, attribute } of allocationsOf(value)) {
      const { node, namespace = '', pod, type = '' } = attribute?.secondary ?? {}
      const owner = value.owner?.name ?? ''
      if (node === undefined) unknown++
      else if (node !== owner)
        rows.push([
          `${ip}`,
          node,
          `${value.cidr}`,
          owner,
          pod === undefined ? type : 'pod',
          pod === undefined ? '' : `${namespace}/${pod}`,
        ])
    }
  const lines = formatTable(['IP', 'BORROWING-NODE', 'BLOCK', 'BLOCK OWNER', 'TYPE', 'ALLOCATED-TO'], rows)
  if (unknown === 0) return lines
  return [
    ...lines,
    '',
    `Note: ${unknown} addresses do not say which node has them; whether they are borrowed is not known.`,
  ]
}

/** Who has an address. */
export function showIp({ blocks }: Pick<ShowInput, 'blocks'>, ip: Ip): string[] {
  const block = blocks.find(({ value }) => value.cidr.contains(ip))?.value
  const ordinal = block && ordinalOf(block.cidr, ip)
  const allocation: Allocation | undefined = block && [...allocationsOf(block)].find((each) => each.ordinal === ordinal)
  if (!block || !allocation) return [`${ip} is not assigned`]
  const { attribute, handleId } = allocation
  const attributes = Object.entries(attribute?.secondary ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  const state = isSpare(attribute)
    ? `is kept ready for pods of ${attribute?.secondary.node}`
    : attribute?.releasedAt === undefined
      ? 'is in use'
      : `was released at ${attribute.releasedAt} and cools down`
  return [
    `IP ${ip} ${state}`,
    `Handle ID: ${handleId ?? '<none>'}`,
    ...(attributes.length > 0 ? ['Active Owner Attributes:'] : ['No Active Owner attributes defined']),
    ...attributes.map(([key, value]) => `  ${key}: ${value}`),
    `Block: ${block.cidr}${block.owner ? ` of ${block.owner.name}` : ''}`,
  ]
}

export function showConfiguration({ settings }: Pick<ShowInput, 'settings'>): string[] {
  const { strictAffinity, autoAllocateBlocks, maxBlocksPerHost, ipCooldownSeconds } = settings
  const rows = Object.entries({
    StrictAffinity: strictAffinity,
    AutoAllocateBlocks: autoAllocateBlocks,
    MaxBlocksPerHost: maxBlocksPerHost,
    IPCooldownSeconds: ipCooldownSeconds,
  }).map(([property, value]) => [property, `${value}`])
  return formatTable(['PROPERTY', 'VALUE'], rows)
}
