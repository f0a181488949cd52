/**
 * How long a watch is believed that says nothing. A server begins to answer at once, and one that has begun to send bookmarks
 * sends about one a minute; so the silence of several is a connection that only looks alive. Watching anew where it was loses
 * nothing, should it have been alive after all.
 *
 *        asked ──head within 30 s──► open ──bookmark──► followed ──line, line, … each within four minutes──►
 *
 * A stream without bookmarks is believed until the watch's own time is over.
 *
 * Sources: Kubernetes API Concepts, "Watch bookmarks".
 */

export interface WatchPatienceOptions {
  readonly headPatienceMs?: number
  readonly bookmarkPatienceMs?: number
}

const HEAD_MS = 30_000
/** Bookmarks come about once a minute. */
const BOOKMARK_MS = 240_000

export class WatchPatience {
  readonly #end = new AbortController()
  readonly #bookmarkMs: number
  #timer: NodeJS.Timeout | undefined
  #hasHead = false
  #isFollowed = false

  constructor({ headPatienceMs = HEAD_MS, bookmarkPatienceMs = BOOKMARK_MS }: WatchPatienceOptions) {
    this.#bookmarkMs = bookmarkPatienceMs
    this.#wait(headPatienceMs)
  }

  /** Aborts when patience is over. */
  get signal(): AbortSignal {
    return this.#end.signal
  }

  get hasHead(): boolean {
    return this.#hasHead
  }

  onHead(): void {
    this.#hasHead = true
    clearTimeout(this.#timer)
  }

  onLine(type: string | undefined): void {
    if (this.#isFollowed) this.#timer?.refresh()
    else if (type === 'BOOKMARK') {
      this.#isFollowed = true
      this.#wait(this.#bookmarkMs)
    }
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  #wait(milliseconds: number): void {
    this.#timer = setTimeout(() => this.#end.abort(), milliseconds)
  }
}
