/**
 * All writes of this process to one block, one after the other. What is asked while a write is under way waits and is done
 * in the next one, so that a burst of a hundred pods costs two writes and not a hundred.
 *
 *   run(work) ─► queue ─► [read, if what is known may be old] ─► every waiting work on one draft ─► one conditional write ─► answers
 *                           ▲                                                                        │ conflict
 *                           └────────────────────────────────────────────────────────────────────────┘
 *
 * A write that got no answer may have been done, or be done later. After one the block is read before anything else, and when
 * it is still what the lost write was conditional on, the next write changes it, so that the lost one is refused for good.
 */
import type { Held, IpamBlock } from '../../model/calico.ts'
import type { Cidr } from '../../net/cidr.ts'
import { BlockDraft, type Cooldown, isEmpty } from '../block.ts'
import { ConflictError, type IpamStore, StoreAwayError } from './ipam-store.ts'

/** The block is gone from the store: what was to be done with it is to be done elsewhere, or is done. */
export class BlockGoneError extends Error {
  override readonly name = 'BlockGoneError'
}

/** Counted for metrics and benches. */
export interface StoreCounts {
  reads: number
  writes: number
  conflicts: number
}

export interface LaneOptions {
  readonly store: IpamStore
  readonly counts: StoreCounts
  cooldown(): Cooldown
  /** What is known of the block changed. */
  onChange(cidr: Cidr, block: IpamBlock | undefined): void
  /** Further changes for the draft that is about to be written; what it returns is called when they are in the store. */
  accompany?(draft: BlockDraft): (() => void) | undefined
}

interface Waiting {
  readonly takes: number
  readonly work: (draft: BlockDraft) => unknown
  readonly resolve: (outcome: unknown) => void
  readonly reject: (error: unknown) => void
}

/** Whoever loses so often gives up and says so; every loss means that somebody else has won. */
const MAX_CONFLICTS = 100

export class BlockLane {
  readonly cidr: Cidr
  readonly #options: LaneOptions
  #held: Held<IpamBlock> | undefined
  /** Parts of the block are left out: it is read before it is written. */
  #isPartial = false
  #waiting: Waiting[] = []
  #running = false
  /** What is known may be old: read before the next write. */
  #stale = false
  /** The revision that a write without an answer was conditional on. */
  #doubted: string | undefined
  /** News that came while a write was under way. */
  #news: { readonly held: Held<IpamBlock>; readonly isPartial: boolean } | undefined

  constructor(cidr: Cidr, options: LaneOptions) {
    this.cidr = cidr
    this.#options = options
  }

  /** The block as it is known; undefined when there is none. */
  get block(): IpamBlock | undefined {
    return this.#held?.value
  }

  /** How many free addresses the works that wait may take. */
  get taking(): number {
    return this.#waiting.reduce((sum, { takes }) => sum + takes, 0)
  }

  get isBusy(): boolean {
    return this.#running || this.#waiting.length > 0
  }

  /**
   * The block as somebody saw it. What is older than what is known, by its sequence number, is no news. `isPartial`: without
   * its attributes.
   */
  note(held: Held<IpamBlock>, isPartial = false): void {
    const { sequenceNumber } = held.value
    if (this.#running) {
      if (!this.#news || this.#news.held.value.sequenceNumber <= sequenceNumber) this.#news = { held, isPartial }
    } else if (!this.#held || this.#held.value.sequenceNumber <= sequenceNumber) this.#set(held, isPartial)
  }

  /** What is known may be wrong: the store is asked before anything is written. */
  distrust(): void {
    this.#stale = true
  }

  /** Nobody can read the block: it is as if there were none, and the store is asked before anything is written. */
  forget(): void {
    this.#stale = true
    this.#set(undefined)
  }

  /**
   * Does a work on the block as it is, and resolves with its outcome when the block with its changes is written. A work may be
   * done several times, each time on a fresh draft; it must not keep anything. Rejects with BlockGoneError, StoreAwayError,
   * and whatever the work throws. `takes`: how many free addresses it may take.
   */
  run<T>(work: (draft: BlockDraft) => T, takes = 0): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ takes, work, resolve: resolve as (outcome: unknown) => void, reject })
      if (this.#running) return
      this.#running = true
      // Whoever asks in the same turn is part of the first write.
      queueMicrotask(() => void this.#drain())
    })
  }

  async #drain(): Promise<void> {
    let conflicts = 0
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = []
      try {
        await this.#write(batch)
        conflicts = 0
      } catch (cause) {
        this.#stale = true
        const lost = cause instanceof ConflictError
        if (lost) this.#options.counts.conflicts++
        if (lost && ++conflicts < MAX_CONFLICTS) {
          this.#waiting = [...batch, ...this.#waiting]
          continue
        }
        const error = lost
          ? new StoreAwayError(`Block ${this.cidr} changed under each of ${conflicts} writes`, { cause })
          : cause
        for (const { reject } of batch) reject(error)
      }
    }
    this.#running = false
    const news = this.#news
    this.#news = undefined
    if (news) this.note(news.held, news.isPartial)
  }

  async #write(batch: readonly Waiting[]): Promise<void> {
    const { store, counts, cooldown } = this.#options
    if (this.#stale || this.#isPartial || !this.#held) await this.#read()
    const held = this.#held
    if (!held) throw new BlockGoneError(`Block ${this.cidr} does not exist`)
    const draft = new BlockDraft(held.value)
    draft.settle(cooldown())
    const settled = draft.changes
    const outcomes = batch.map(({ work }) => attempt(() => work(draft)))
    const accompanied = this.#options.accompany?.(draft)
    if (this.#doubted === held.revision) draft.touch()
    if (draft.changes > settled) {
      const value = draft.finish()
      counts.writes++
      try {
        if (isEmpty(value) && !value.owner) {
          await store.blocks.remove(held)
          this.#set(undefined)
        } else this.#set(await store.blocks.replace(held, value))
      } catch (error) {
        if (!(error instanceof ConflictError)) this.#doubted = held.revision
        throw error
      }
    }
    this.#doubted = undefined
    accompanied?.()
    batch.forEach(({ resolve, reject }, i) => {
      const outcome = outcomes[i]!
      if ('error' in outcome) reject(outcome.error)
      else resolve(outcome.value)
    })
  }

  async #read(): Promise<void> {
    const { store, counts } = this.#options
    counts.reads++
    this.#set(await store.blocks.read(this.cidr))
    this.#stale = false
  }

  #set(held: Held<IpamBlock> | undefined, isPartial = false): void {
    this.#held = held
    this.#isPartial = isPartial
    this.#options.onChange(this.cidr, held?.value)
  }
}

function attempt(work: () => unknown): { readonly value: unknown } | { readonly error: unknown } {
  try {
    return { value: work() }
  } catch (error) {
    return { error }
  }
}
