/**
 * What is used of the address pools. Names, labels and meanings are those of Calico's kube-controllers.
 *
 * Sources: Calico kube-controllers/pkg/controllers/node/ipam.go, design/ipam/ipam-gc.md.
 */
import { Counter, Gauge, type Registry } from 'prom-client'
import { AddressSet } from '../ipam/address-set.ts'
import type { AuditInput, FoundAddress } from '../ipam/audit.ts'
import { allocationsOf, isInUse } from '../ipam/block.ts'

export class IpamMetrics {
  readonly #perPoolAndNode: Readonly<Record<'inUse' | 'borrowed' | 'blocks' | 'candidates', Gauge>>
  readonly #perNode: Readonly<Record<'allocations' | 'blocks', Gauge>>
  readonly #perPool: Readonly<Record<'size' | 'reserved', Gauge>>
  readonly #reclaimed: Counter

  constructor(registry: Registry) {
    const gauge = (name: string, help: string, labelNames: string[]) =>
      new Gauge({ name, help, labelNames, registers: [registry] })
    const both = ['ippool', 'node']
    this.#perPoolAndNode = {
      inUse: gauge('ipam_allocations_in_use', 'Addresses in use, by their pool and the node that uses them', both),
      borrowed: gauge('ipam_allocations_borrowed', "Addresses in use out of another node's block", both),
      blocks: gauge('ipam_blocks', 'Blocks, by their pool and the node that has them', both),
      candidates: gauge('ipam_allocations_gc_candidates', 'Addresses that nobody seems to use', both),
    }
    this.#perNode = {
      allocations: gauge('ipam_allocations_per_node', 'Addresses in use by a node', ['node']),
      blocks: gauge('ipam_blocks_per_node', 'Blocks that a node has', ['node']),
    }
    this.#perPool = {
      size: gauge('ipam_ippool_size', 'Addresses of a pool', ['ippool']),
      reserved: gauge('ipam_ippool_reserved', 'Addresses of a pool that are reserved', ['ippool']),
    }
    this.#reclaimed = new Counter({
      name: 'ipam_allocations_gc_reclamations',
      help: 'Addresses that were freed because nobody used them',
      labelNames: both,
      registers: [registry],
    })
  }

  /** Everything is counted anew: what is not there any more has no number. */
  set({ pools, reservations, blocks }: AuditInput, leaks: readonly { readonly address: FoundAddress }[]): void {
    this.reset()
    const reserved = AddressSet.of(reservations.flatMap(({ cidrs }) => cidrs))
    for (const { name, cidr } of pools) {
      this.#perPool.size.set({ ippool: name }, Number(cidr.size))
      this.#perPool.reserved.set({ ippool: name }, Number(reserved.countIn(cidr)))
    }
    const poolOf = ({ block }: Pick<FoundAddress, 'block'>) =>
      pools.find(({ cidr }) => cidr.covers(block))?.name ?? 'no_ippool'
    for (const { value } of blocks) {
      const ippool = poolOf({ block: value.cidr })
      const owner = value.owner?.name ?? 'no_affinity'
      this.#perPoolAndNode.blocks.inc({ ippool, node: owner })
      this.#perNode.blocks.inc({ node: owner })
      for (const each of allocationsOf(value)) {
        if (!isInUse(each)) continue
        const node = each.attribute?.secondary.node ?? 'unknown_node'
        this.#perPoolAndNode.inUse.inc({ ippool, node })
        this.#perNode.allocations.inc({ node })
        if (node !== owner) this.#perPoolAndNode.borrowed.inc({ ippool, node })
      }
    }
    for (const { address } of leaks)
      this.#perPoolAndNode.candidates.inc({ ippool: poolOf(address), node: address.node ?? 'unknown_node' })
  }

  countReclaimed(ippool: string, node: string): void {
    this.#reclaimed.inc({ ippool, node })
  }

  /** What was known is another's to tell now. */
  reset(): void {
    for (const gauges of [this.#perPoolAndNode, this.#perNode, this.#perPool])
      for (const gauge of Object.values(gauges)) gauge.reset()
  }
}
