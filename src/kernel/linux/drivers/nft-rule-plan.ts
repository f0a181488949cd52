/**
 * Which rules of a chain may stay when the chain is set: those that are wanted too, in their order. A rule is known by
 * the digest of its text, which its writer left in the kernel, so that rules that stay keep their counters.
 */
import { createHash } from 'node:crypto'
import type { NftBase, NftRule } from '../../../model/nft.ts'
import { formatNftRule } from '../../../model/nft-format.ts'

/** A rule that the kernel has.  */
export interface InstalledRule {
  readonly handle: bigint
  /** Digest that its writer left, in hexadecimal. */
  readonly digest?: string
  readonly rule: NftRule
}

/** What the kernel has of a chain that is to be changed. */
export interface InstalledChain {
  readonly base?: NftBase
  readonly rules: readonly InstalledRule[]
}

const DIGEST_BYTES = 8

/** The digest of a rule's text, as kept in the kernel: eight bytes in hexadecimal. */
export const ruleDigest = (text: string): string =>
  createHash('sha256').update(text).digest().subarray(0, DIGEST_BYTES).toString('hex')

/** What two rules of a chain are compared by. */
const installedIdentity = (installed: InstalledRule): string =>
  installed.digest ?? ruleDigest(formatNftRule(installed.rule))

/** Whether two chains hang on the same hook: the kernel cannot move one. */
export const sameBase = (a: NftBase | undefined, b: NftBase | undefined): boolean =>
  a?.type === b?.type && a?.hook === b?.hook && a?.priority === b?.priority && a?.device === b?.device

/** The longest run of installed rules that are also wanted in that order: wanted index → installed rule. */
export function longestCommon(
  have: readonly InstalledRule[],
  want: readonly string[],
): ReadonlyMap<number, InstalledRule> {
  const kept = new Map<number, InstalledRule>()
  const ids = have.map(installedIdentity)
  let head = 0
  while (head < ids.length && head < want.length && ids[head] === want[head]) {
    kept.set(head, have[head]!)
    head++
  }
  let haveEnd = ids.length
  let wantEnd = want.length
  while (haveEnd > head && wantEnd > head && ids[haveEnd - 1] === want[wantEnd - 1])
    kept.set(--wantEnd, have[--haveEnd]!)
  // What is left is small: the classic table of lengths, from the end.
  const rows = haveEnd - head
  const columns = wantEnd - head
  const lengths = Array.from({ length: rows + 1 }, () => new Int32Array(columns + 1))
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      lengths[i]![j] =
        ids[head + i] === want[head + j]
          ? lengths[i + 1]![j + 1]! + 1
          : Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!)
  for (let i = 0, j = 0; i < rows && j < columns; )
    if (ids[head + i] === want[head + j]) kept.set(head + j++, have[head + i++]!)
    else if (lengths[i + 1]![j]! >= lengths[i]![j + 1]!) i++
    else j++
  return kept
}
