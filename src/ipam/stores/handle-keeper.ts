/**
 * Objects of kind IPAMHandle: for a handle, how many addresses it has in which blocks. weft finds handles in the blocks; others
 * look for the objects. So they are kept where addresses are few, live long, or lie in a block of another node, and an address
 * of an own block costs one write and not three. An object that Calico wrote is removed with the last address of its handle.
 * Why, and what does without: docs/decisions/0020-addresses-in-blocks.md.
 *
 * Sources: Calico libcalico-go lib/ipam/ipam.go (incrementHandle, decrementHandle, ReleaseByHandle).
 */
import type { IpamHandle } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { StoreCounts } from './block-lane.ts'
import { ConflictError, type IpamStore } from './ipam-store.ts'

const MAX_ATTEMPTS = 100

export class HandleKeeper {
  readonly #store: IpamStore
  readonly #counts: StoreCounts
  /** Handles that have an object, or certainly none. Of others it is not known. */
  readonly #hasObject = new Map<string, boolean>()
  readonly #going = new Set<Promise<void>>()

  constructor(store: IpamStore, counts: StoreCounts) {
    this.#store = store
    this.#counts = counts
  }

  /** The handle gets addresses and no object. */
  skip(handleId: string): void {
    if (!this.#hasObject.has(handleId)) this.#hasObject.set(handleId, false)
  }

  /** Adds to (or, below zero, takes from) what the handle has in a block. Rejects with StoreAwayError. */
  async add(handleId: string, cidr: Cidr, count: number): Promise<void> {
    this.#hasObject.set(handleId, true)
    await this.#change(handleId, (blocks) => {
      const next = (blocks[`${cidr}`] ?? 0) + count
      const { [`${cidr}`]: _, ...others } = blocks
      return next > 0 ? { ...others, [`${cidr}`]: next } : others
    })
  }

  /** The handle has no address in these blocks any more. Goes on in the background; what fails is found by the collector. */
  drop(handleId: string, cidrs: readonly Cidr[]): void {
    const hasObject = this.#hasObject.get(handleId)
    this.#hasObject.delete(handleId)
    if (hasObject === false || cidrs.length === 0) return
    const gone = new Set(cidrs.map(String))
    const going = this.#change(handleId, (blocks) =>
      Object.fromEntries(Object.entries(blocks).filter(([cidr]) => !gone.has(cidr))),
    ).catch(() => {})
    this.#going.add(going)
    void going.then(() => this.#going.delete(going))
  }

  /** Resolves when nothing goes on in the background. */
  async idle(): Promise<void> {
    while (this.#going.size > 0) await Promise.all(this.#going)
  }

  async #change(handleId: string, next: (blocks: IpamHandle['blocks']) => IpamHandle['blocks']): Promise<void> {
    const { handles } = this.#store
    for (let attempt = 1; ; attempt++) {
      this.#counts.reads++
      const held = await handles.read(handleId)
      const before = held?.value.blocks ?? {}
      const blocks = next(before)
      const isEmpty = Object.keys(blocks).length === 0
      if (isEmpty && !held) return
      try {
        this.#counts.writes++
        if (!held) await handles.create({ handleId, blocks, deleted: false })
        else if (isEmpty) await handles.remove(held)
        else await handles.replace(held, { ...held.value, blocks })
        return
      } catch (error) {
        if (!(error instanceof ConflictError) || attempt >= MAX_ATTEMPTS) throw error
        this.#counts.conflicts++
      }
    }
  }
}
