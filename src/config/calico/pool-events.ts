/**
 * What to tell about pools: Events on an IPPool, and its condition `Allocatable`, each with a reason that programs can
 * match and a sentence for people.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ippool.go (condition and its reasons), Kubernetes API conventions (Events).
 */
import type { IpPool } from '../../model/calico.ts'
import type { ConfigError } from '../../model/errors.ts'
import type { PoolOverlap } from './pool.ts'

export interface PoolEvent {
  readonly type: 'Warning'
  readonly reason: 'InvalidPool' | 'PoolOverlap' | 'UnsupportedMode'
  readonly message: string
}

/** Of a pool that cannot be read. `hasLastGood`: what it said before still holds. */
export const invalidPoolEvent = (problem: ConfigError, hasLastGood: boolean): PoolEvent => ({
  type: 'Warning',
  reason: 'InvalidPool',
  message: `${problem.message}; ${hasLastGood ? 'what the pool said before still holds' : 'the pool is not used'}`,
})

export const overlapEvent = ({ pool, stands }: PoolOverlap): PoolEvent => ({
  type: 'Warning',
  reason: 'PoolOverlap',
  message:
    `IPPool ${pool.name}: spec.cidr: ${pool.cidr} overlaps ${stands.cidr} of the older pool ${stands.name}; ` +
    'it gives out no addresses until one of them is removed or disabled',
})

/** Of a pool whose mode this node's kernel cannot do. `why` fits behind a colon. */
export const unsupportedModeEvent = (
  pool: IpPool,
  node: string,
  mode: 'ipipMode' | 'vxlanMode' | 'geneveMode',
  why: string,
): PoolEvent => ({
  type: 'Warning',
  reason: 'UnsupportedMode',
  message: `IPPool ${pool.name}: ${mode} is ${pool[mode]}, which node ${node} cannot do: ${why}`,
})

export interface AllocatableCondition {
  readonly type: 'Allocatable'
  readonly status: 'True' | 'False'
  readonly reason: 'OK' | 'PoolDisabled' | 'CIDROverlap'
  readonly message: string
}

/** Whether a pool gives out addresses, as its status says it. */
export function allocatableCondition(pool: IpPool, overlaps: readonly PoolOverlap[]): AllocatableCondition {
  const overlap = overlaps.find((each) => each.pool.name === pool.name)
  if (pool.disabled)
    return { type: 'Allocatable', status: 'False', reason: 'PoolDisabled', message: 'spec.disabled is true' }
  if (overlap)
    return { type: 'Allocatable', status: 'False', reason: 'CIDROverlap', message: overlapEvent(overlap).message }
  return { type: 'Allocatable', status: 'True', reason: 'OK', message: 'The pool gives out addresses' }
}
