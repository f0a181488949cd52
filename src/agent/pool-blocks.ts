/**
 * The blocks of all pools as routes need them: which nodes each leads to, in which pool it lies, which of them are to be
 * planned anew. A node that a block of a pool leads to has a flow of that pool (pool-flows.ts).
 */
import type { BlockRoutes } from '../model/calico.ts'
import type { Cidr } from '../net/cidr.ts'
import { bitsOf } from '../net/ip.ts'
import type { PoolFlows } from './pool-flows.ts'

export interface PoolBlock {
  readonly routes: BlockRoutes
  readonly text: string
  /** Name of its pool, or `noPool`. */
  pool: string
  /** It has routes among the fragments that were handed out. */
  isRouted: boolean
}

/** In place of the name of a pool, for blocks whose pool is gone. No object has such a name. */
export const noPool = { 4: '/4', 6: '/6' } as const

export class PoolBlocks {
  readonly #self: string
  readonly #flows: PoolFlows
  readonly #onFlow: (node: string) => void
  readonly #blocks = new Map<string, PoolBlock>()
  /** Blocks that a node has, or has borrowed addresses of. */
  readonly #blocksOf = new Map<string, Set<PoolBlock>>()
  /** Blocks that have lent an address. */
  readonly #lentBy = new Map<string, Set<PoolBlock>>()
  readonly #dirty = new Set<PoolBlock>()
  /** How many are this node's. */
  #own = 0
  #removed: Cidr[] = []

  /** `onFlow`: flows of a node came or went, or the blocks that it has did. */
  constructor(self: string, flows: PoolFlows, onFlow: (node: string) => void) {
    this.#self = self
    this.#flows = flows
    this.#onFlow = onFlow
  }

  /** Blocks came, went or are reached differently. */
  get isDirty(): boolean {
    return this.#dirty.size + this.#removed.length > 0
  }

  [Symbol.iterator](): IterableIterator<PoolBlock> {
    return this.#blocks.values()
  }

  get counts(): { readonly own: number; readonly other: number } {
    return { own: this.#own, other: this.#blocks.size - this.#own }
  }

  has(cidr: Cidr): boolean {
    return this.#blocks.has(`${cidr}`)
  }

  /** Other nodes that blocks lead to. */
  nodes(): IterableIterator<string> {
    return this.#blocksOf.keys()
  }

  /** Most news of a block are addresses that come and go inside it, which no route depends on. */
  set(routes: BlockRoutes, pool: string): void {
    const text = `${routes.cidr}`
    const before = this.#blocks.get(text)
    if (before && before.pool === pool && isSameWay(before.routes, routes)) return
    if (before) this.#drop(before)
    if (routes.node === this.#self) this.#own++
    const block: PoolBlock = { routes, text, pool, isRouted: before?.isRouted ?? false }
    this.#blocks.set(text, block)
    this.#dirty.add(block)
    for (const { ip } of routes.borrowed) this.#lentBy.set(`${ip}`, (this.#lentBy.get(`${ip}`) ?? new Set()).add(block))
    this.#join(block)
    this.#touchLender(routes.cidr)
  }

  delete(cidr: Cidr): void {
    const block = this.#blocks.get(`${cidr}`)
    if (!block) return
    this.#drop(block)
    this.#blocks.delete(block.text)
    this.#removed.push(cidr)
    this.#touchLender(cidr)
  }

  /** Blocks may lie in other pools than before, and are all to be planned. */
  regroup(poolOf: (cidr: Cidr) => string): void {
    for (const block of this.#blocks.values()) {
      const pool = poolOf(block.routes.cidr)
      if (pool !== block.pool) {
        this.#leave(block)
        block.pool = pool
        this.#join(block)
      }
      this.#dirty.add(block)
    }
  }

  /** A node's blocks of a pool are reached differently. */
  touchFlow(node: string, pool: string): void {
    for (const block of this.#blocksOf.get(node) ?? []) if (block.pool === pool) this.#dirty.add(block)
  }

  /** What is to be planned since the last call, and what went; one that went and came again is in both. */
  take(): { readonly dirty: readonly PoolBlock[]; readonly removed: readonly Cidr[] } {
    const taken = { dirty: [...this.#dirty], removed: this.#removed }
    this.#dirty.clear()
    this.#removed = []
    return taken
  }

  /** The other nodes that a block's routes lead to. */
  #nodesOf({ routes: { node, borrowed } }: PoolBlock): ReadonlySet<string> {
    const nodes = new Set(borrowed.map((each) => each.node))
    if (node !== undefined) nodes.add(node)
    nodes.delete(this.#self)
    return nodes
  }

  #join(block: PoolBlock): void {
    for (const name of this.#nodesOf(block)) {
      const blocks = this.#blocksOf.get(name) ?? new Set()
      this.#blocksOf.set(name, blocks.add(block))
      if (this.#flows.use(name, block.pool)) this.#onFlow(name)
    }
  }

  #leave(block: PoolBlock): void {
    for (const name of this.#nodesOf(block)) {
      const blocks = this.#blocksOf.get(name)
      if (!blocks?.delete(block)) continue
      if (blocks.size === 0) this.#blocksOf.delete(name)
      this.#flows.unuse(name, block.pool)
      this.#onFlow(name)
    }
  }

  #drop(block: PoolBlock): void {
    this.#leave(block)
    this.#dirty.delete(block)
    if (block.routes.node === this.#self) this.#own--
    for (const { ip } of block.routes.borrowed) {
      const lenders = this.#lentBy.get(`${ip}`)
      if (lenders?.delete(block) && lenders.size === 0) this.#lentBy.delete(`${ip}`)
    }
  }

  /** A block of one address takes the place of a route to it as a borrowed one. */
  #touchLender(cidr: Cidr): void {
    if (cidr.length < bitsOf(cidr.family)) return
    for (const block of this.#lentBy.get(cidr.base.toString()) ?? []) this.#dirty.add(block)
  }
}

/** Of two versions of one block. */
const isSameWay = (a: BlockRoutes, b: BlockRoutes): boolean =>
  a.node === b.node &&
  a.borrowed.length === b.borrowed.length &&
  a.borrowed.every(({ ip, node }, i) => node === b.borrowed[i]!.node && ip.equals(b.borrowed[i]!.ip))
