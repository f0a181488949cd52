/**
 * Writes this node's words to the store when they differ from what stands there, one write at a time. A write waits for the
 * store without holding anything else up; what changes meanwhile is written after it.
 *
 * Words that somebody else goes on replacing are another agent's, on a machine that was given the same node name: that is told,
 * and the two do not answer each other as fast as they can.
 */
import type { Announcement, ClusterSource } from '../cluster/cluster.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { LoopLog } from './network-loop.ts'
import { saysAlready } from './own-words.ts'

/** Times that the same words may be written in a row without a wait. */
const FREE_REPEATS = 3
const FIRST_WAIT_MS = 1000
const LONGEST_WAIT_MS = 30_000
/** Words that stood for so long are not in dispute. */
const UNDISPUTED_MS = 120_000

export interface AnnouncerOptions {
  readonly nodeName: string
  readonly source: ClusterSource
  readonly log: LoopLog
  /** A write begins. */
  onWrite(announcement: Announcement): void
  /** The store took it: it is time to ask whether there is more to say. */
  onWritten(): void
}

export class Announcer {
  readonly #options: AnnouncerOptions
  #text = ''
  #own: NodeInfo | undefined
  /** The store has spoken of this node since the last write. */
  #heard = false
  #writing = false
  /** How often the same words were written again, and when last, by the monotonic clock. */
  #repeats = 0
  #repeatedAt = 0
  #dueAt = 0
  #waiting: NodeJS.Timeout | undefined

  constructor(options: AnnouncerOptions) {
    this.#options = options
  }

  get isWriting(): boolean {
    return this.#writing
  }

  /** The store says this of this node. */
  hear(own: NodeInfo): void {
    this.#own = own
    this.#heard = true
  }

  /** Says it unless it stands there or is on its way. */
  say(announcement: Announcement | undefined): void {
    if (!announcement || this.#writing) return
    const { source, log, onWrite, onWritten } = this.#options
    const { lease, calico, weft } = announcement
    const text = JSON.stringify(announcement)
    if (text === this.#text && (!this.#heard || saysAlready(this.#own, announcement))) return
    if (text !== this.#text) this.#forgetDispute()
    else if (this.#mustWait()) return
    if (text !== this.#text) log.info(JSON.parse(JSON.stringify({ ...lease, ...calico, ...weft })), 'announcing')
    this.#text = text
    this.#heard = false
    this.#writing = true
    onWrite(announcement)
    source.announce(announcement).then(
      () => {
        this.#writing = false
        onWritten()
      },
      (error: Error) => {
        this.#writing = false
        this.#text = ''
        log.error({ err: error.message }, 'this node cannot be announced')
      },
    )
  }

  close(): void {
    this.#forgetDispute()
  }

  #forgetDispute(): void {
    clearTimeout(this.#waiting)
    this.#waiting = undefined
    this.#repeats = 0
  }

  /** True when it is wiser to wait before the same words are written once more; asks again when it is time. */
  #mustWait(): boolean {
    if (this.#waiting) return true
    const { nodeName, log, source, onWritten } = this.#options
    const now = performance.now()
    const isDue = this.#repeats > FREE_REPEATS && now >= this.#dueAt
    this.#repeats = now - this.#repeatedAt < UNDISPUTED_MS ? this.#repeats + 1 : 1
    this.#repeatedAt = now
    if (this.#repeats <= FREE_REPEATS || isDue) return false
    const message = `Node ${nodeName}: somebody else writes what this agent says of it: is there another agent of that name?`
    if (this.#repeats === FREE_REPEATS + 1) {
      log.error({}, message)
      source.report({ node: nodeName, severity: 'Warning', reason: 'NodeNameTaken', message })
    }
    const waitMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.#repeats - FREE_REPEATS - 1))
    this.#dueAt = now + waitMs
    this.#waiting = setTimeout(() => {
      this.#waiting = undefined
      onWritten()
    }, waitMs)
    this.#waiting.unref()
    return true
  }
}
