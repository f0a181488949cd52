/**
 * Whether a pool gives out addresses, and why not, as the condition Allocatable of its status says it to whoever lists pools.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/ippool.go (type and reasons), kube-controllers/pkg/controllers/ippool.
 */
import type { IpPool } from '../../model/calico.ts'
import { findOverlaps } from './pool.ts'

export interface Allocatable {
  readonly status: 'True' | 'False'
  readonly reason: 'OK' | 'PoolDisabled' | 'Terminating' | 'CIDROverlap'
  readonly message: string
}

/** What holds of each pool, by name. */
export function judgeAllocatable(pools: readonly IpPool[]): ReadonlyMap<string, Allocatable> {
  const over = new Map(findOverlaps(pools).map(({ pool, stands }) => [pool.name, stands]))
  return new Map(pools.map((pool) => [pool.name, judge(pool, over.get(pool.name))]))
}

function judge({ disabled, leaving }: IpPool, stands: IpPool | undefined): Allocatable {
  if (leaving) return { status: 'False', reason: 'Terminating', message: 'The pool is being deleted' }
  if (disabled) return { status: 'False', reason: 'PoolDisabled', message: 'spec.disabled is true' }
  if (!stands) return { status: 'True', reason: 'OK', message: 'Addresses are given out' }
  const message = `Its addresses are also those of the pool ${stands.name} (${stands.cidr}), which came first`
  return { status: 'False', reason: 'CIDROverlap', message }
}
