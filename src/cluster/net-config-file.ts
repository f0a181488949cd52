/**
 * The network configuration from a file, read again whenever its directory says that something changed there: that
 * sees an editor's rename, and the symbolic link that Kubernetes turns when a mounted ConfigMap changes.
 */
import { type FSWatcher, readFileSync, watch } from 'node:fs'
import { dirname } from 'node:path'

const MAX_TEXT_BYTES = 1 << 20
/** An editor writes in several steps: they are read as one. */
const SETTLE_MS = 50
/** Also read now and then: a directory that was replaced whole tells its watcher nothing. */
const REREAD_MS = 30_000

export class NetConfigFile {
  readonly path: string
  readonly #listener: (text: string | undefined) => void
  #watcher: FSWatcher | undefined
  #settle: NodeJS.Timeout | undefined
  #reread: NodeJS.Timeout | undefined
  #last: string | undefined | null = null

  /** The listener gets the text at once (from `start`) and whenever it differs; undefined when there is no readable file. */
  constructor(path: string, listener: (text: string | undefined) => void) {
    this.path = path
    this.#listener = listener
  }

  start(): void {
    this.#read()
    this.#reread = setInterval(() => this.#read(), REREAD_MS)
    this.#reread.unref()
  }

  close(): void {
    this.#watcher?.close()
    clearTimeout(this.#settle)
    clearInterval(this.#reread)
  }

  #read(): void {
    this.#settle = undefined
    this.#watchFolder()
    let text: string | undefined
    try {
      text = readFileSync(this.path, 'utf8').slice(0, MAX_TEXT_BYTES)
    } catch {
      text = undefined
    }
    if (text === this.#last) return
    this.#last = text
    this.#listener(text)
  }

  #watchFolder(): void {
    if (this.#watcher) return
    try {
      this.#watcher = watch(dirname(this.path), { persistent: false }, () => {
        this.#settle ??= setTimeout(() => this.#read(), SETTLE_MS)
      })
      this.#watcher.on('error', () => {
        this.#watcher?.close()
        this.#watcher = undefined
      })
    } catch {
      this.#watcher = undefined
    }
  }
}
