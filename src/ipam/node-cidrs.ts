/**
 * Which block of the pod network each node has, and which the next node gets. Pure: what is known of the cluster goes in, a
 * choice comes out; that nobody else chooses the same is the caller's part (src/controller/ledger.ts).
 *
 *   occupied:  podCIDRs of nodes │ promises not yet written to their node │ addresses of nodes inside the pod network
 *              what a node that is gone had, for a while │ ranges that the administrator keeps
 *
 * A node gets one block of each family, or none. Times are monotonic milliseconds.
 */
import { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import type { BlockPool } from './block-pool.ts'

/** What counts of a node. */
export interface CidrHolder {
  readonly name: string
  readonly uid: string
  readonly podCidrs: readonly Cidr[]
  /** Addresses of the node itself: a block that holds one is nobody's pod network. */
  readonly addresses: readonly Ip[]
}

export interface NodeCidrsOptions {
  /** One of each family; the first is the primary one. */
  readonly pools: readonly BlockPool[]
  /** How long the blocks of a node that is gone are kept back. */
  readonly holdMilliseconds: number
  /** Ranges that are never given, such as that of services. */
  readonly kept?: readonly Cidr[]
}

/** A block that was chosen for a node and may not be on its object yet. */
export interface Promised {
  readonly uid: string
  readonly cidrs: readonly Cidr[]
}

export class NodeCidrs {
  readonly pools: readonly BlockPool[]
  readonly #holdMs: number
  readonly #nodes = new Map<string, CidrHolder>()
  readonly #promises = new Map<string, Promised>()
  /** Owner → when its blocks are free again. */
  readonly #released = new Map<string, number>()
  #releases = 0

  constructor({ pools, holdMilliseconds, kept = [] }: NodeCidrsOptions) {
    this.pools = pools
    this.#holdMs = holdMilliseconds
    this.#occupy('kept', kept)
  }

  get nodes(): ReadonlyMap<string, CidrHolder> {
    return this.#nodes
  }

  get promises(): ReadonlyMap<string, Promised> {
    return this.#promises
  }

  /** A node as it is now. Another life under the same name releases what the former had. */
  setNode(node: CidrHolder, now: number): void {
    const before = this.#nodes.get(node.name)
    if (before && before.uid !== node.uid) this.#release(before.podCidrs, now)
    this.#nodes.set(node.name, node)
    this.#occupy(`node/${node.name}`, node.podCidrs)
    this.#occupy(`address/${node.name}`, node.addresses.map(Cidr.host))
  }

  removeNode(name: string, now: number): void {
    const node = this.#nodes.get(name)
    if (!node) return
    this.#nodes.delete(name)
    this.#vacate(`node/${name}`)
    this.#vacate(`address/${name}`)
    this.#release(node.podCidrs, now)
  }

  /** Blocks that a node is to have, chosen here or by a predecessor. */
  promise(name: string, promised: Promised): void {
    this.#promises.set(name, promised)
    this.#occupy(`promise/${name}`, promised.cidrs)
    for (const pool of this.pools)
      for (const cidr of promised.cidrs) if (cidr.family === pool.family) pool.rotateAfter(cidr)
  }

  /** The promise is kept, or void: nobody will write it any more. */
  settle(name: string): void {
    this.#promises.delete(name)
    this.#vacate(`promise/${name}`)
  }

  /** Promises to nodes that have blocks by now, that are gone, or that are another life under the name. */
  settled(): string[] {
    return [...this.#promises].flatMap(([name, { uid }]) => {
      const node = this.#nodes.get(name)
      return !node || node.uid !== uid || node.podCidrs.length > 0 ? [name] : []
    })
  }

  /** One free block of each family, promised to the node; or the pool that has none left, and nothing is promised. */
  choose(name: string, uid: string): { readonly cidrs: readonly Cidr[] } | { readonly full: BlockPool } {
    const cidrs: Cidr[] = []
    for (const pool of this.pools) {
      const block = pool.next()
      if (!block) return { full: pool }
      cidrs.push(block)
    }
    this.promise(name, { uid, cidrs })
    return { cidrs }
  }

  /** Frees what was kept back long enough. Gives the time of the next release, if one is due. */
  expire(now: number): number | undefined {
    let next: number | undefined
    for (const [owner, at] of this.#released) {
      if (at <= now) {
        this.#released.delete(owner)
        this.#vacate(owner)
      } else if (next === undefined || at < next) next = at
    }
    return next
  }

  /** Other nodes that have a part of what this node has. */
  rivalsOf(name: string): string[] {
    const rivals = this.pools.flatMap((pool) => pool.rivalsOf(`node/${name}`))
    return [...new Set(rivals.filter((owner) => owner.startsWith('node/')).map((owner) => owner.slice(5)))]
  }

  #release(cidrs: readonly Cidr[], now: number): void {
    if (cidrs.length === 0 || this.#holdMs === 0) return
    const owner = `released/${this.#releases++}`
    this.#released.set(owner, now + this.#holdMs)
    this.#occupy(owner, cidrs)
  }

  #occupy(owner: string, prefixes: readonly Cidr[]): void {
    for (const pool of this.pools)
      pool.occupy(
        owner,
        prefixes.filter(({ family }) => family === pool.family),
      )
  }

  #vacate(owner: string): void {
    for (const pool of this.pools) pool.vacate(owner)
  }
}
