/**
 * Addresses for attachments: one allocator for each pool and range set, filled from the journal. The node's pod CIDRs
 * are the pool `node`; a configuration with ranges of its own is a pool by its network's name.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { RangeFullError, RangeSetAllocator, type RangeUsage } from '../ipam/allocator.ts'
import { type RangeSet, rangeOf } from '../ipam/range.ts'
import type { Ip } from '../net/ip.ts'
import { CniCode, CniError } from './error.ts'
import type { HeldAddress, Journal } from './journal.ts'
import type { NodeNetwork } from './network.ts'

export const nodePool = 'node'

/** An address given, with the gateway of its range. */
export interface GivenAddress extends HeldAddress {
  readonly gateway: Ip
}

interface Pool {
  /** What the allocators were made from: a changed configuration makes new ones. */
  readonly shape: string
  readonly allocators: readonly RangeSetAllocator[]
}

export class Pools {
  readonly #journal: Journal
  readonly #hostLocalDir: string | undefined
  readonly #pools = new Map<string, Pool>()

  constructor(journal: Journal, hostLocalDir: string | undefined) {
    this.#journal = journal
    this.#hostLocalDir = hostLocalDir
  }

  /** The node's pool, anew: its blocks may have changed. */
  setNode(network: NodeNetwork): void {
    this.#pools.delete(nodePool)
    this.#pool(nodePool, nodeRangeSets(network), network.reserved ?? [])
  }

  #pool(name: string, sets: readonly RangeSet[], reserved: readonly Ip[] = []): Pool {
    const shape = JSON.stringify([sets, reserved])
    const known = this.#pools.get(name)
    if (known?.shape === shape) return known
    const allocators = sets.map((set, index) => {
      const allocator = new RangeSetAllocator(set)
      const last = this.#journal.rotation.get(`${name}/${index}`)
      if (last) allocator.rotateAfter(last)
      for (const ip of reserved) allocator.take(ip)
      return allocator
    })
    for (const { attachment } of this.#journal.entries.values())
      if (attachment.pool === name) for (const { ip } of attachment.ips) for (const each of allocators) each.take(ip)
    const pool = { shape, allocators }
    this.#pools.set(name, pool)
    return pool
  }

  /**
   * One address from each set of the pool; those asked for first. Nothing is taken when it throws (CniError 100).
   * The caller gives them back with `release` unless an attachment in the journal holds them.
   */
  give(name: string, sets: readonly RangeSet[] | undefined, wanted: readonly Ip[]): GivenAddress[] {
    const pool = sets ? this.#pool(name, sets) : this.#pools.get(name)!
    const given: GivenAddress[] = []
    const left = [...wanted]
    const nowhere = wanted.filter((ip) => !pool.allocators.some((allocator) => allocator.rangeOf(ip)))
    if (nowhere.length) throw new CniError(CniCode.noAddress, `${nowhere.join(', ')}: not in the ranges of ${name}`)
    try {
      for (const [index, allocator] of pool.allocators.entries()) {
        const asked = left.findIndex((ip) => allocator.rangeOf(ip))
        if (asked >= 0) given.push(this.#giveAsked(allocator, left.splice(asked, 1)[0]!))
        else given.push(this.#giveNext(allocator, index))
      }
      if (left.length) throw new CniError(CniCode.noAddress, `${left.join(', ')}: more than one address of a range set`)
      return given
    } catch (error) {
      this.release(name, given)
      throw error
    }
  }

  #giveAsked(allocator: RangeSetAllocator, ip: Ip): GivenAddress {
    const { subnet, gateway } = allocator.rangeOf(ip)!
    if (gateway.equals(ip)) throw new CniError(CniCode.noAddress, `${ip} is the gateway of ${subnet}`)
    if (allocator.isTaken(ip) || this.#heldElsewhere(ip)) throw new CniError(CniCode.noAddress, `${ip} is in use`)
    allocator.take(ip)
    return { ip, prefixLength: subnet.length, gateway }
  }

  #giveNext(allocator: RangeSetAllocator, set: number): GivenAddress {
    try {
      const { ip, range } = allocator.allocate((candidate) => this.#heldElsewhere(candidate))
      return { ip, prefixLength: range.subnet.length, gateway: range.gateway, set }
    } catch (cause) {
      if (!(cause instanceof RangeFullError)) throw cause
      throw new CniError(CniCode.noAddress, cause.message, '', { cause })
    }
  }

  /** How full every range is, the node's own first. */
  usage(): RangeUsage[] {
    const own = this.#pools.get(nodePool)
    const others = [...this.#pools.values()].filter((pool) => pool !== own)
    return [...(own ? [own] : []), ...others].flatMap(({ allocators }) => allocators.flatMap((each) => each.usage()))
  }

  release(name: string, addresses: readonly HeldAddress[]): void {
    for (const { ip } of addresses) for (const each of this.#pools.get(name)?.allocators ?? []) each.release(ip)
  }

  /** True while the reference host-local's directory has a file by this address, of any network. */
  #heldElsewhere(ip: Ip): boolean {
    if (this.#hostLocalDir === undefined) return false
    try {
      return readdirSync(this.#hostLocalDir).some((network) => existsSync(join(this.#hostLocalDir!, network, `${ip}`)))
    } catch {
      return false
    }
  }
}

const nodeRangeSets = (network: NodeNetwork): RangeSet[] => network.podCidrs.map((cidr) => [rangeOf('podCIDR', cidr)])
