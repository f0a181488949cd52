/**
 * The address pools as this node goes by them: the last good version of each, without those that an older one overlaps. What is
 * wrong with a pool costs that pool alone, and is told until it is right.
 */
import { findOverlaps } from '../config/calico/pool.ts'
import { invalidPoolEvent, overlapEvent } from '../config/calico/pool-events.ts'
import { parseSelector } from '../config/calico/selector.ts'
import type { IpPool } from '../model/calico.ts'
import type { ConfigError } from '../model/errors.ts'
import type { Cidr } from '../net/cidr.ts'

/** What is to be told about one pool. */
export interface PoolRemark {
  readonly pool: string
  /** CamelCase, of an Event. */
  readonly reason: string
  readonly message: string
}

type Labels = Readonly<Record<string, string>>

export class CalicoPools {
  readonly #good = new Map<string, IpPool>()
  readonly #problems = new Map<string, ConfigError>()
  /** Networks that are not pools', whose addresses others give out. */
  #others: readonly Cidr[] = []
  #standing: readonly IpPool[] = []
  #remarks: readonly PoolRemark[] = []

  /** `pool` is left out when the object cannot be read. Returns whether the pools that count changed. */
  set(name: string, pool: IpPool | undefined, problem: ConfigError | undefined): boolean {
    if (problem) this.#problems.set(name, problem)
    else this.#problems.delete(name)
    if (pool) this.#good.set(name, pool)
    return this.#judge()
  }

  delete(name: string): boolean {
    this.#good.delete(name)
    this.#problems.delete(name)
    return this.#judge()
  }

  /** Networks of pods that are no pools: a pool that overlaps one would give addresses that pods have. */
  setOthers(networks: readonly Cidr[]): boolean {
    if (networks.join() === this.#others.join()) return false
    this.#others = networks
    return this.#judge()
  }

  /** Pools by name, disabled ones among them: addresses that are held live on. Always a new list after a change. */
  get standing(): readonly IpPool[] {
    return this.#standing
  }

  get remarks(): readonly PoolRemark[] {
    return this.#remarks
  }

  /** How many pools do not stand. */
  get refused(): number {
    return new Set([...this.#good.keys(), ...this.#problems.keys()]).size - this.#standing.length
  }

  /** True when there is an object, readable or not. */
  get areAny(): boolean {
    return this.#good.size + this.#problems.size > 0
  }

  /** True when new pods of a node with these labels get addresses out of pools. */
  selectNode(labels: Labels): boolean {
    return this.#standing.some(
      ({ disabled, allowedUses, assignmentMode, nodeSelector }) =>
        !disabled &&
        assignmentMode === 'Automatic' &&
        allowedUses.includes('Workload') &&
        selects(nodeSelector, labels),
    )
  }

  #judge(): boolean {
    const good = [...this.#good.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    const foreign = good.flatMap((pool) => {
      const network = this.#others.find((other) => other.overlaps(pool.cidr))
      return network ? [{ pool, network }] : []
    })
    const foreignPools = new Set(foreign.map(({ pool }) => pool))
    const overlaps = findOverlaps(good.filter((pool) => !foreignPools.has(pool)))
    const refused = new Set([...foreignPools, ...overlaps.map(({ pool }) => pool)])
    this.#remarks = [
      ...[...this.#problems].map(([name, problem]) => ({
        pool: name,
        ...invalidPoolEvent(problem, this.#good.has(name)),
      })),
      ...overlaps.map((overlap) => ({ pool: overlap.pool.name, ...overlapEvent(overlap) })),
      ...foreign.map(({ pool, network }) => ({
        pool: pool.name,
        reason: 'PoolOverlap',
        message: `IPPool ${pool.name}: spec.cidr: ${pool.cidr} overlaps ${network} of net-conf.json; the pool is not used`,
      })),
    ]
    const standing = good.filter((pool) => !refused.has(pool))
    if (JSON.stringify(standing) === JSON.stringify(this.#standing)) return false
    this.#standing = standing
    return true
  }
}

/** Whether a selector of a checked pool selects these labels. */
export const selects = (selector: string, labels: Labels): boolean => parseSelector(selector)(labels)
