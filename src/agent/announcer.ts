/**
 * Writes this node's words to the store when they differ from what stands there, one write at a time. A write waits for the
 * store without holding anything else up; what changes meanwhile is written after it.
 */
import type { Announcement, ClusterSource } from '../cluster/cluster.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { LoopLog } from './network-loop.ts'
import { saysAlready } from './own-words.ts'

export interface AnnouncerOptions {
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
}
