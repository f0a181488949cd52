/**
 * Which of the encapsulations that pools may ask for this kernel has, found out by trying.
 */
import { probeLinkKinds } from '../kernel/probe.ts'

/** Those that this kernel cannot make, each with a sentence that says so. */
export async function missingEncapsulations(): Promise<ReadonlyMap<'ipip' | 'vxlan' | 'geneve', string>> {
  const kinds = ['ipip', 'vxlan', 'geneve'] as const
  const found = await probeLinkKinds(kinds)
  return new Map(
    kinds
      .filter((kind) => !found.has(kind))
      .map((kind) => [kind, `this kernel cannot make ${kind} devices (module ${kind})`]),
  )
}
