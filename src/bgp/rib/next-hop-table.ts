/**
 * Next hops as small numbers, with how far away each is. The answer of the kernel's routes is kept here, so that the decision
 * reads a number; when the routes change, every next hop is asked for again, and only prefixes that depend on one with another
 * answer are decided again. Id 0 is ourselves: always reachable, at no distance.
 *
 * Sources: RFC 4271 section 9.1.2 (resolvability), 9.1.2.2 e (interior cost), RFC 4007 (link-local addresses belong to a link).
 */
import type { Ip } from '../../net/ip.ts'
import type { NextHopResolver } from './peer.ts'

export const UNREACHABLE = -1

export class NextHopTable {
  /** By id: metric, or UNREACHABLE. */
  readonly metrics: number[] = [0]
  readonly #addresses: (Ip | undefined)[] = [undefined]
  readonly #devices: (string | undefined)[] = [undefined]
  readonly #ids = new Map<string, number>()
  readonly #free: number[] = []
  readonly #resolve: NextHopResolver

  constructor(resolve: NextHopResolver) {
    this.#resolve = resolve
  }

  get size(): number {
    return this.#ids.size
  }

  /** The id of an address; a link-local one is meant on the device. */
  intern(address: Ip, device: string | undefined): number {
    const key = device === undefined ? address.toString() : `${address}%${device}`
    const known = this.#ids.get(key)
    if (known !== undefined) return known
    const id = this.#free.pop() ?? this.metrics.length
    this.#ids.set(key, id)
    this.#addresses[id] = address
    this.#devices[id] = device
    this.metrics[id] = this.#resolve(address, device)
    return id
  }

  /** Forgets those that are not in use; their ids are given again. */
  sweep(used: ReadonlySet<number>): void {
    for (const [key, id] of this.#ids) {
      if (used.has(id)) continue
      this.#ids.delete(key)
      this.#addresses[id] = undefined
      this.#free.push(id)
    }
  }

  address(id: number): Ip | undefined {
    return this.#addresses[id]
  }

  device(id: number): string | undefined {
    return this.#devices[id]
  }

  /** Asks for all again; the ids whose answer is another now. */
  resolveAll(): Set<number> {
    const changed = new Set<number>()
    for (const [, id] of this.#ids) {
      const metric = this.#resolve(this.#addresses[id]!, this.#devices[id])
      if (metric === this.metrics[id]) continue
      this.metrics[id] = metric
      changed.add(id)
    }
    return changed
  }

  /** By address, then by device: the order of equal paths. */
  compare(a: number, b: number): number {
    if (a === b || a === 0 || b === 0) return a - b
    const byAddress = this.#addresses[a]!.compare(this.#addresses[b]!)
    if (byAddress !== 0) return byAddress
    return (this.#devices[a] ?? '') < (this.#devices[b] ?? '') ? -1 : 1
  }
}
