/**
 * The ends of the paths that one planner no longer needs: two drains, for what the kernel may still send by, and for what may
 * still come in.
 */
import type { PathId } from '../datapath/path.ts'
import { Drain } from './drain.ts'
import type { ReadTraffic } from './traffic.ts'

/** What a planner says of its paths on their way out. */
export interface DrainedPlanner {
  /** Paths that nobody is to be sent to by any more, whose last packets may still wait in a queue. */
  readonly draining: readonly PathId[]
  /** Paths that nobody needs any more but whose devices stay until nothing comes in by them. */
  readonly waning: readonly PathId[]
  devicesOf(paths: readonly PathId[]): readonly string[]
  noteSettled(): void
  noteDry(paths: readonly PathId[]): void
}

export class PathDrains {
  readonly #planner: DrainedPlanner
  readonly #leaving: Drain
  readonly #arriving: Drain

  constructor(planner: DrainedPlanner, readTraffic: ReadTraffic) {
    this.#planner = planner
    this.#leaving = new Drain('sent', readTraffic)
    this.#arriving = new Drain('received', readTraffic)
  }

  /**
   * Notes that a path is not sent by any more, or that nothing comes in by it, once its last packets have had time. Not to be
   * called before all that an earlier agent left in the kernel is swept or wanted: its routes may still send.
   */
  settle(again: () => void): void {
    const planner = this.#planner
    const { draining, waning } = planner
    if (draining.length === 0) planner.noteSettled()
    this.#leaving.wait(draining, planner.devicesOf(draining), (paths) => {
      if (planner.draining.join() === paths.join()) planner.noteSettled()
      again()
    })
    this.#arriving.wait(waning, planner.devicesOf(waning), (paths) => {
      planner.noteDry(paths)
      again()
    })
  }

  close(): void {
    this.#leaving.close()
    this.#arriving.close()
  }
}
