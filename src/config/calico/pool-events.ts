/**
 * What to tell about pools: Events on an IPPool, each with a reason that programs can match and a sentence for people.
 *
 * Sources: Kubernetes API conventions (Events).
 */
import type { ConfigError } from '../../model/errors.ts'
import type { PoolOverlap } from './pool.ts'

export interface PoolEvent {
  readonly type: 'Warning'
  readonly reason: 'InvalidPool' | 'PoolOverlap'
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
    `IPPool ${pool.name}: spec.cidr: ${pool.cidr} overlaps ${stands.cidr} of the pool ${stands.name}, which came first; ` +
    'it gives out no addresses until one of them is removed or disabled',
})
