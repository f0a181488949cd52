/**
 * The way of plans to the applier. Fragments that passed every check and still want one kernel object differently are told
 * apart here: the first stands, the other is refused and told of.
 */
import { DesiredConflict } from '../apply/desired.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { Complaints } from './complaints.ts'
import type { Writer } from './network-loop.ts'
import type { PlanChange } from './planner.ts'

export class FragmentWriter {
  readonly #writer: Writer
  readonly #complaints: Complaints
  readonly #peer: (name: string) => NodeInfo | undefined

  /** `peer` knows the nodes that fragments are about. */
  constructor(writer: Writer, complaints: Complaints, peer: (name: string) => NodeInfo | undefined) {
    this.#writer = writer
    this.#complaints = complaints
    this.#peer = peer
  }

  /** Hands a plan over; false when it is empty. */
  write({ set, removed }: PlanChange): boolean {
    if (set.length + removed.length === 0) return false
    try {
      this.#writer.change(set, removed)
    } catch (error) {
      if (!(error instanceof DesiredConflict)) throw error
      this.#writer.change([], removed)
      for (const fragment of set) this.#writeAlone(fragment)
    }
    return true
  }

  #writeAlone(fragment: Fragment): void {
    try {
      this.#writer.change([fragment], [])
    } catch (error) {
      if (!(error instanceof DesiredConflict)) throw error
      const name = /^node\/([^/]+)/.exec(fragment.source)?.[1]
      if (name === undefined) this.#complaints.ofOwn('ConflictingWishes', `${fragment.source}: ${error.message}`)
      else this.#complaints.ofPeer(this.#peer(name) ?? { name }, `Node ${name}: ${error.message}`)
    }
  }
}
