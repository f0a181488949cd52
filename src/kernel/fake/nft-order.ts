/**
 * The order in which one transaction's nft ops happen, whatever order they come in: what others refer to comes first and
 * goes last, as the Linux driver sends them. Two ops on one object keep their order.
 */
import { keyOf } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'

const steps: readonly string[] = [
  'add nft-table',
  'add nft-counter',
  'add nft-set',
  'add nft-chain',
  'delete nft-element',
  'add nft-element',
  'delete nft-counter',
  'delete nft-set',
  'delete nft-chain',
  'delete nft-table',
]

/** Indexes of the ops in the order of doing them. */
export function orderTransaction(ops: readonly KernelOp[]): number[] {
  const step = ops.map(({ verb, object }) => steps.indexOf(`${verb === 'delete' ? 'delete' : 'add'} ${object.kind}`))
  const round: number[] = []
  let seen = new Set<string>()
  let rounds = 0
  for (const { object } of ops) {
    const key = keyOf(object)
    if (seen.has(key)) {
      rounds++
      seen = new Set()
    }
    seen.add(key)
    round.push(rounds)
  }
  return ops.map((_, i) => i).sort((a, b) => round[a]! - round[b]! || step[a]! - step[b]! || a - b)
}
