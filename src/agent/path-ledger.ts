/**
 * What a planner must remember between two decisions of datapath/transition.ts, whatever its dialect: this node's words that
 * somebody may hold it to, the paths that stand, and those that are on their way out.
 *
 *   in use ──► lingering: nobody is to be sent to by it, a queue may still do so ──► waning: nothing may come in by it ──► gone
 */
import type { PathId, PathWords } from '../datapath/path.ts'
import { pathsOf, type SendMode, type TransitionPlan } from '../datapath/transition.ts'
import type { WeftNodeStatus } from '../model/cluster.ts'

export class PathLedger {
  readonly #words: PathWords
  #announced: WeftNodeStatus | undefined
  readonly #pending: WeftNodeStatus[] = []
  /** How many of `#pending` an earlier agent of this node wrote. */
  #restored = 0
  #restarted = true
  #paths: readonly PathId[] = []
  readonly #placed = new Set<PathId>()
  readonly #lingering = new Set<PathId>()
  readonly #dry = new Set<PathId>()
  #waning: readonly PathId[] = []

  constructor(words: PathWords) {
    this.#words = words
  }

  /** This node's own words as they stand in the store. */
  get announced(): WeftNodeStatus | undefined {
    return this.#announced
  }

  /** True when this node's words name paths of this dialect, or may come to. */
  get hasSaid(): boolean {
    const { isKnown } = this.#words
    const statuses = this.#announced ? [this.#announced, ...this.#pending] : this.#pending
    return statuses.some(({ accepts, sends }) => accepts.some(isKnown) || sends.some(isKnown))
  }

  /** Words that were written and have not come back. */
  get pending(): readonly WeftNodeStatus[] {
    return this.#pending
  }

  /** Paths whose fragments were handed out. */
  get paths(): readonly PathId[] {
    return this.#paths
  }

  /** Those of `paths` that have been in place whole. */
  get placed(): ReadonlySet<PathId> {
    return this.#placed
  }

  /** Paths that nobody needs any more but whose devices stay until nothing comes in by them. */
  get waning(): readonly PathId[] {
    return this.#waning
  }

  /** True while the kernel may send by paths that nobody is to be sent to by. */
  get isLingering(): boolean {
    return this.#lingering.size > 0
  }

  /** The store says this of this node; what was written before it has come back. */
  setAnnounced(status: WeftNodeStatus | undefined): void {
    if (this.#restarted && status) this.#linger(status.sends)
    this.#restarted = false
    this.#announced = status
    const text = JSON.stringify(status)
    const at = this.#pending.findLastIndex((written) => JSON.stringify(written) === text)
    this.#pending.splice(0, at + 1)
    this.#restored = Math.max(0, this.#restored - at - 1)
  }

  /** An earlier agent was writing these when it ended: until the store speaks, any of them may stand. */
  restorePending(statuses: readonly WeftNodeStatus[]): void {
    this.#pending.unshift(...statuses)
    this.#restored += statuses.length
    for (const { sends } of statuses) this.#linger(sends)
  }

  /** The store has spoken: what it does not have of an earlier agent's words was never heard by anybody. */
  forgetRestored(): void {
    this.#pending.splice(0, this.#restored)
    this.#restored = 0
  }

  /** A status is about to be written. */
  addPending(status: WeftNodeStatus): void {
    this.#pending.push(status)
  }

  /** Somebody who was sent to in this mode is not to be any more. */
  noteLeft(mode: SendMode): void {
    this.#linger(pathsOf(mode))
  }

  /** Nothing is sent by what lingered. */
  noteSettled(): void {
    this.#lingering.clear()
  }

  /** Nothing comes in by these any more. */
  noteDry(paths: readonly PathId[]): void {
    for (const path of paths) if (this.#waning.includes(path)) this.#dry.add(path)
  }

  /** What the kernel sends by or may send by, given the modes in use. */
  sendingBeside(modes: Iterable<SendMode>): Set<PathId> {
    const sending = new Set(this.#lingering)
    for (const mode of modes) for (const path of pathsOf(mode)) sending.add(path)
    return sending
  }

  /** Paths that nobody is to be sent to by any more, whose last packets may still wait in a queue. */
  drainingBeside(modes: Iterable<SendMode>): readonly PathId[] {
    const used = new Set<PathId>()
    for (const mode of modes) for (const path of pathsOf(mode)) used.add(path)
    return [...this.#lingering].filter((path) => !used.has(path))
  }

  /** The path that was handed out has come into place; it stays so: what is lost by another hand is mended. */
  notePlaced(path: PathId): void {
    this.#placed.add(path)
  }

  /** These are handed out from now on; what is not among them is gone. */
  setPaths(paths: readonly PathId[]): void {
    for (const path of this.#paths) if (!paths.includes(path)) this.#placed.delete(path)
    this.#paths = paths
  }

  /** What nobody needs any more stays until it is dry, unless what is needed cannot stand beside it. */
  keepWaning(plan: TransitionPlan, devicesOf: (paths: readonly PathId[]) => readonly string[]): TransitionPlan {
    const { exclude } = this.#words
    const needed = new Set(devicesOf(plan.paths))
    this.#waning = this.#paths.filter(
      (path) =>
        !plan.paths.includes(path) &&
        !this.#dry.has(path) &&
        !plan.paths.some((other) => exclude(other, path)) &&
        !devicesOf([path]).some((device) => needed.has(device)),
    )
    for (const path of this.#dry) if (plan.paths.includes(path) || !this.#paths.includes(path)) this.#dry.delete(path)
    return this.#waning.length === 0 ? plan : { ...plan, paths: [...plan.paths, ...this.#waning], settled: false }
  }

  /** A status speaks of all dialects' paths. */
  #linger(paths: readonly PathId[]): void {
    for (const path of paths) if (this.#words.isKnown(path)) this.#lingering.add(path)
  }
}

export const isSameMode = (a: SendMode, b: SendMode | undefined): boolean => a.path === b?.path && a.direct === b.direct
