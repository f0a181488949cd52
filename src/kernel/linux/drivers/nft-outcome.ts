/**
 * From what the kernel refused of an nft transaction to a result per operation: which were at fault, by the message and the
 * offset in it that the kernel names; the others were not done because of them.
 *
 * Sources: net/netfilter/nfnetlink.c (nfnetlink_rcv_batch).
 */
import type { KernelOp } from '../../../model/kernel-state.ts'
import { formatNftOp, type NftObject } from '../../../model/nft-format.ts'
import { kernelError } from '../../errno.ts'
import type { OpResult } from '../../kernel.ts'
import type { Failures } from '../netlink-socket.ts'

const ECANCELED = 125

export type NftOp = KernelOp & { readonly object: NftObject }

/** The operation in a few words for errors. */
const describeNftOp = (op: NftOp): string => formatNftOp(op).split('\n')[0]!

/** Which op a message, or a part of it, stands for. */
export interface Sent {
  readonly sequence: number
  /** Start of each op's part within the message, ascending. */
  readonly parts: readonly { readonly offset: number; readonly op: number }[]
}

/** Why an op could not even be encoded. */
export interface Refused {
  readonly errno: number
  readonly problem: string
}

/** One result per op: the transaction happened, or these ops were at fault and the others were not done. */
export function concludeTransaction(
  ops: readonly NftOp[],
  sent: readonly Sent[],
  refused: ReadonlyMap<number, Refused>,
  failures: Failures,
): readonly OpResult[] {
  const faults = new Map<number, OpResult>()
  const fault = (index: number, errno: number, extack: string | undefined, offset?: number) => {
    if (!faults.has(index)) faults.set(index, kernelError(describeNftOp(ops[index]!), errno, { extack, offset }))
  }
  for (const [index, { errno, problem }] of refused) fault(index, errno, problem)
  for (const { sequence, parts } of sent) {
    const failure = failures.get(sequence)
    if (!failure) continue
    const at = failure.offset ?? 0
    const part = parts.findLast(({ offset }) => offset <= at) ?? parts[0]!
    fault(part.op, failure.errno, failure.message, failure.offset)
  }
  if (faults.size === 0 && failures.size > 0) {
    // The transaction as a whole: no memory, no permission, a chain that may not be used from its hook.
    const [failure] = failures.values()
    return ops.map((op) => kernelError(describeNftOp(op), failure!.errno, { extack: failure!.message }))
  }
  if (faults.size === 0) return ops.map(() => undefined)
  const culprit = describeNftOp(ops[Math.min(...faults.keys())]!)
  return ops.map(
    (op, i) =>
      faults.get(i) ??
      kernelError(describeNftOp(op), ECANCELED, { extack: `"${culprit}" failed in the same transaction` }),
  )
}
