/**
 * The order in which a change is safe: what is new comes before what is old goes; a thing comes after what it stands on
 * and goes before it. Rules of the firewall come first of all and go last, so that nothing is ever reachable unguarded.
 */
import type { KernelObject, ObjectKind } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import type { NftChain } from '../model/nft.ts'

const kindsInOrder: readonly ObjectKind[] = [
  'nft-table',
  'nft-counter',
  'nft-set',
  'nft-chain',
  'nft-element',
  'link',
  'sysctl',
  'offload',
  'address',
  'tunnel',
  'tunnel-peer',
  'qdisc',
  'filter',
  'fdb',
  'neighbour',
  'route',
  'rule',
]
const rankOf = new Map(kindsInOrder.map((kind, rank) => [kind, rank]))

/** What one desired change comes to: one op, or a delete and the add that replaces it. */
export type Change = readonly KernelOp[]

/** Flattens changes: all that add or alter first, in rising order, then pure deletes in falling order. */
export function inOrder(changes: readonly Change[]): KernelOp[] {
  const coming: Change[][] = kindsInOrder.map(() => [])
  const going: Change[][] = kindsInOrder.map(() => [])
  for (const change of changes) {
    const last = change[change.length - 1]!
    ;(last.verb === 'delete' ? going : coming)[rankOf.get(last.object.kind)!]!.push(change)
  }
  const out: KernelOp[] = []
  const put = (rank: number, group: Change[][], reversed: boolean) => {
    const sorted = byDependency(kindsInOrder[rank]!, group[rank]!)
    if (reversed) sorted.reverse()
    // What is made anew is cleared away first as a whole: two devices may hold one port between them.
    for (const change of sorted) for (const op of change.slice(0, -1)) out.push(op)
    for (const change of sorted) out.push(change[change.length - 1]!)
  }
  for (let rank = 0; rank < kindsInOrder.length; rank++) put(rank, coming, false)
  for (let rank = kindsInOrder.length - 1; rank >= 0; rank--) put(rank, going, true)
  return out
}

/** Links after the links they lie on, chains after the chains they jump to; everything else as it came. */
function byDependency(kind: ObjectKind, changes: Change[]): Change[] {
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
