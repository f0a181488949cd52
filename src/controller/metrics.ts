/**
 * What the controller counts. Names are those of Kubernetes' components where the meaning is theirs.
 *
 * Sources: Kubernetes metrics reference (node_ipam_controller_…, leader_election_master_status).
 */
import { Counter, Gauge, Registry } from 'prom-client'
import type { BlockPool } from '../ipam/block-pool.ts'
import { IpamMetrics } from './ipam-metrics.ts'

export class ControllerMetrics {
  readonly registry = new Registry()
  /** Of the address pools. */
  readonly ipam = new IpamMetrics(this.registry)
  readonly #rivals = new Set<string>()
  readonly #allocations = new Counter({
    name: 'node_ipam_controller_cidrset_cidrs_allocations_total',
    help: 'Pod CIDRs given to nodes',
    labelNames: ['clusterCIDR'],
    registers: [this.registry],
  })
  readonly #releases = new Counter({
    name: 'node_ipam_controller_cidrset_cidrs_releases_total',
    help: 'Pod CIDRs of nodes that are gone',
    labelNames: ['clusterCIDR'],
    registers: [this.registry],
  })
  readonly #usage = new Gauge({
    name: 'node_ipam_controller_cidrset_usage_cidrs',
    help: 'Part of the pod CIDRs that is occupied, from 0 to 1',
    labelNames: ['clusterCIDR'],
    registers: [this.registry],
  })
  readonly #blocks = new Gauge({
    name: 'weft_pod_cidr_blocks',
    help: 'How many pod CIDRs there are in all',
    labelNames: ['clusterCIDR'],
    registers: [this.registry],
  })
  readonly #waiting = new Gauge({
    name: 'weft_nodes_without_pod_cidr',
    help: 'Nodes that wait for a pod CIDR',
    registers: [this.registry],
  })
  readonly #conflicts = new Gauge({
    name: 'weft_pod_cidr_conflicts',
    help: 'Nodes whose pod CIDR overlaps that of an earlier one',
    registers: [this.registry],
  })
  readonly #leader = new Gauge({
    name: 'leader_election_master_status',
    help: '1 while this replica leads',
    labelNames: ['name'],
    registers: [this.registry],
  })
  readonly #agentless = new Gauge({
    name: 'weft_nodes_without_agent',
    help: 'Nodes that weft has spoken for and that have no agent that is ready',
    registers: [this.registry],
  })
  readonly #leaked = new Gauge({
    name: 'weft_leaked_addresses',
    help: 'Addresses that nodes hold and that no pod has',
    registers: [this.registry],
  })
  readonly #leakChecks = new Counter({
    name: 'weft_leak_checks_total',
    help: 'Comparisons of the addresses that a node holds with those of its pods',
    labelNames: ['result'],
    registers: [this.registry],
  })

  allocated(pool: BlockPool): void {
    this.#allocations.inc({ clusterCIDR: String(pool.network) })
  }

  released(pool: BlockPool): void {
    this.#releases.inc({ clusterCIDR: String(pool.network) })
  }

  setPools(pools: readonly BlockPool[], waiting: number): void {
    for (const pool of pools) {
      const labels = { clusterCIDR: String(pool.network) }
      this.#blocks.set(labels, Number(pool.total))
      this.#usage.set(labels, pool.total === 0n ? 1 : Number(pool.occupied) / Number(pool.total))
    }
    this.#waiting.set(waiting)
  }

  setRivals(node: string, has: boolean): void {
    if (has) this.#rivals.add(node)
    else this.#rivals.delete(node)
    this.#conflicts.set(this.#rivals.size)
  }

  setAgentless(count: number): void {
    this.#agentless.set(count)
  }

  setLeaked(addresses: number): void {
    this.#leaked.set(addresses)
  }

  countLeakCheck(result: 'done' | 'failed'): void {
    this.#leakChecks.inc({ result })
  }

  setLeader(name: string, leads: boolean): void {
    this.#leader.set({ name }, leads ? 1 : 0)
    if (leads) return
    // What a replica knew while it led is another's to tell now.
    this.#rivals.clear()
    this.ipam.reset()
    for (const gauge of [this.#usage, this.#blocks]) gauge.reset()
    for (const gauge of [this.#waiting, this.#conflicts, this.#agentless, this.#leaked]) gauge.set(0)
  }
}
