/**
 * The order in which a change is safe: what is new comes before what is old goes; a thing comes after what it stands on
 * and goes before it. Rules of the firewall come first of all and go last, so that nothing is ever reachable unguarded.
 *
 * Many IPv4 routes at once are spread over the address space: the kernel keeps them in a trie whose nodes double when they
 * are half full. Filled from one end, as sorted prefixes fill it, the nodes at the edge are built anew again and again; with
 * the bits of the prefix reversed, every node fills evenly and 100,000 routes take a third less of the kernel's time.
 *
 * Sources: net/ipv4/fib_trie.c (should_inflate, resize).
 */
import type { KernelObject, ObjectKind } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import type { NftChain } from '../model/nft.ts'
import type { Route } from '../model/route.ts'

const kindsInOrder: readonly ObjectKind[] = [
  'nft-table',
  'nft-counter',
  'nft-set',
  'nft-chain',
  'nft-element',
  'fou',
  'link',
  'sysctl',
  'offload',
  'address',
  'tunnel',
  'tunnel-peer',
  'qdisc',
  'class',
  'filter',
  'bridge-vlan',
  'fdb',
  'neighbour',
  'route',
  'rule',
]
/** From how many routes on their order pays. */
const SPREAD_FROM = 512
const rankOf = new Map(kindsInOrder.map((kind, rank) => [kind, rank]))

/** What one desired change comes to: one op, or a delete and the add that replaces it. */
export type Change = readonly KernelOp[]

/** Flattens changes: all that add or alter first, in rising order, then pure deletes in falling order. */
export function inOrder(changes: readonly Change[]): KernelOp[] {
  const coming: Change[][] = kindsInOrder.map(() => [])
  const going: Change[][] = kindsInOrder.map(() => [])
  for (const change of changes) {
    const last = change[change.length - 1]!
    ;(isGoing(last) ? going : coming)[rankOf.get(last.object.kind)!]!.push(change)
  }
  const out: KernelOp[] = []
  const put = (rank: number, group: Change[][], reversed: boolean) => {
    const sorted = byDependency(kindsInOrder[rank]!, group[rank]!)
    if (reversed) sorted.reverse()
    // What is made anew is cleared away first as a whole: two devices may hold one port between them.
    for (const change of sorted) for (let i = 0; i < change.length - 1; i++) out.push(change[i]!)
    for (const change of sorted) out.push(change[change.length - 1]!)
  }
  for (let rank = 0; rank < kindsInOrder.length; rank++) put(rank, coming, false)
  for (let rank = kindsInOrder.length - 1; rank >= 0; rank--) put(rank, going, true)
  return out
}

/** A deletion, or a device that is given back. */
const isGoing = ({ verb, object }: KernelOp): boolean =>
  verb === 'delete' || (object.kind === 'link' && object.alias === '')

/** Links after the links they lie on, chains after the chains they jump to, many routes spread; else as it came. */
function byDependency(kind: ObjectKind, changes: Change[]): Change[] {
  if (kind === 'route' && changes.length >= SPREAD_FROM) return spread(changes)
  if (changes.length < 2 || (kind !== 'link' && kind !== 'nft-chain')) return changes
  const byName = new Map(changes.map((change) => [nameOf(objectOf(change)), change]))
  const placed = new Set<Change>()
  const out: Change[] = []
  const place = (change: Change) => {
    if (placed.has(change)) return
    placed.add(change)
    for (const name of needsOf(objectOf(change))) {
      const needed = byName.get(name)
      if (needed) place(needed)
    }
    out.push(change)
  }
  for (const change of changes) place(change)
  return out
}

/**
 * Routes without a gateway first, as they came: gateways may be reached through them. Then those with one, which the kernel
 * never reaches another's gateway by, IPv4 in the order of their reversed prefixes.
 */
function spread(changes: readonly Change[]): Change[] {
  const first: Change[] = []
  const last: Change[] = []
  const spreadable: Change[] = []
  for (const change of changes) {
    const route = objectOf(change) as Route
    if (!route.hops.some((hop) => hop.via)) first.push(change)
    else if (route.destination.family === 6) last.push(change)
    else spreadable.push(change)
  }
  // One number per route, its place in the low bits, so that the sort needs no comparisons in JavaScript.
  const places = 2 ** 21
  if (spreadable.length > places) return [...first, ...spreadable, ...last]
  const ranks = new Float64Array(spreadable.length)
  for (const [i, change] of spreadable.entries())
    ranks[i] = reversed((objectOf(change) as Route).destination.base.w3) * places + i
  for (const rank of ranks.sort()) first.push(spreadable[rank % places]!)
  for (const change of last) first.push(change)
  return first
}

/** The 32 bits of a number in the other direction. */
function reversed(bits: number): number {
  let x = bits
  x = ((x >>> 1) & 0x55555555) | ((x & 0x55555555) << 1)
  x = ((x >>> 2) & 0x33333333) | ((x & 0x33333333) << 2)
  x = ((x >>> 4) & 0x0f0f0f0f) | ((x & 0x0f0f0f0f) << 4)
  x = ((x >>> 8) & 0x00ff00ff) | ((x & 0x00ff00ff) << 8)
  return ((x >>> 16) | (x << 16)) >>> 0
}

const objectOf = (change: Change): KernelObject => change[change.length - 1]!.object

const nameOf = (object: KernelObject): string =>
  object.kind === 'nft-chain'
    ? `${object.family} ${object.table} ${object.name}`
    : object.kind === 'link'
      ? object.name
      : ''

function needsOf(object: KernelObject): string[] {
  if (object.kind === 'nft-chain') return targetsOf(object)
  if (object.kind !== 'link') return []
  const settings = object.type === 'foreign' ? undefined : object.settings
  const lower = settings && 'lower' in settings ? settings.lower : undefined
  return [lower, object.master].filter((name): name is string => typeof name === 'string')
}

const targetsOf = (chain: NftChain): string[] =>
  chain.rules.flatMap((rule) =>
    rule.statements.flatMap((statement) => {
      const target = 'jump' in statement ? statement.jump : 'goto' in statement ? statement.goto : undefined
      return target === undefined ? [] : [`${chain.family} ${chain.table} ${target}`]
    }),
  )
