/**
 * Which pools may serve a request. Who names a pool gets it, whatever it selects; who names none gets those that are given out
 * automatically and whose selectors fit. A disabled pool, or one for another use, serves nobody.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam.go (determinePools, filterPoolsByUse).
 */
import type { IpPool, PoolUse } from '../model/calico.ts'
import type { Family } from '../net/ip.ts'

export type Labels = Readonly<Record<string, string>>

export interface PoolQuestion {
  readonly family: Family
  readonly use: PoolUse
  /** Names or CIDRs; undefined or none: any pool. */
  readonly named?: readonly string[]
  readonly nodeLabels: Labels
  /** None for what belongs to no namespace, a tunnel's address for one. */
  readonly namespaceLabels?: Labels
  selects(selector: string, labels: Labels): boolean
}

/** Pools in the order in which they are tried, or why there is none, as the end of a sentence. */
export function choosePools(
  pools: readonly IpPool[],
  question: PoolQuestion,
): { readonly pools: readonly IpPool[] } | { readonly problem: string } {
  const { family, use, named = [] } = question
  const enabled = pools.filter(({ disabled, cidr }) => !disabled && cidr.family === family)
  const chosen: IpPool[] = []
  for (const name of named) {
    const pool = enabled.find((each) => each.name === name || `${each.cidr}` === name)
    if (pool) chosen.push(pool)
    else return { problem: `pool ${JSON.stringify(name)} does not exist, is disabled or is not of IPv${family}` }
  }
  if (named.length === 0) chosen.push(...enabled.filter((pool) => fits(pool, question)))
  if (chosen.length === 0)
    return {
      problem:
        enabled.length === 0
          ? `there is no enabled IPv${family} pool`
          : `no IPv${family} pool selects this node and namespace`,
    }
  const allowed = chosen.filter(({ allowedUses }) => allowedUses.includes(use))
  if (allowed.length === 0)
    return { problem: `${chosen.map(({ name }) => name).join(', ')} may not be used for ${use} (allowedUses)` }
  return { pools: allowed }
}

/** True when the pool is for this node's pods: what decides about wiring as well. */
export function fits(
  { assignmentMode, nodeSelector, namespaceSelector }: IpPool,
  { nodeLabels, namespaceLabels = {}, selects }: Pick<PoolQuestion, 'nodeLabels' | 'namespaceLabels' | 'selects'>,
): boolean {
  if (assignmentMode !== 'Automatic' || !selects(nodeSelector, nodeLabels)) return false
  return namespaceSelector === undefined || selects(namespaceSelector, namespaceLabels)
}
