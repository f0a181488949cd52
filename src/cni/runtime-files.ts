/**
 * Keeps on the node what a container runtime looks for: the plugin, the link to its agent, the configuration list. What is
 * removed, altered or replaced by another hand is written again at once, as the directories are watched, and anew by a
 * look from time to time where no watch tells. A hand that goes on altering is answered at those looks only, and named in
 * the log.
 *
 * Other files of the directories are other people's. One that the runtime takes before weft's is told, never touched.
 *
 * Sources: inotify(7); containerd and CRI-O take the first file of the directory by name, of `.conf`, `.conflist`, `.json`.
 */
import { type FSWatcher, readdirSync, watch } from 'node:fs'
import { join } from 'node:path'
import { conflistName, hasConflist, hasShim, installShim, type ShimStamp, writeConflist } from './install.ts'
import type { Log } from './network.ts'

const settleMilliseconds = 50
const lookMilliseconds = 30_000
const retryMilliseconds = 1000
/** So many times in one period between looks a file is written again at once. */
const patience = 5

export interface RuntimeFileOptions {
  /** Empty: no plugin is kept. */
  readonly binDir: string
  /** Empty: no configuration list is kept. */
  readonly confDir: string
  readonly runDir: string
  readonly log: Log
  /** Called when the first file of the directory by name becomes another's: its name. */
  readonly onOvertaken?: (fileName: string) => void
}

/** One directory of the two, and what is kept there. */
interface Place {
  readonly directory: string
  /** Makes it right; true when it was not. Throws the file system's errors. */
  readonly mend: () => boolean
  watcher?: FSWatcher | undefined
  timer?: NodeJS.Timeout | undefined
  mended: number
  problem?: string | undefined
}

export class RuntimeFiles {
  readonly #options: RuntimeFileOptions
  readonly #places: Place[] = []
  readonly #looks: NodeJS.Timeout
  #shim: ShimStamp | undefined
  #first: string | undefined
  #closed = false

  constructor(options: RuntimeFileOptions) {
    this.#options = options
    this.#looks = setInterval(() => {
      for (const place of this.#places) {
        place.mended = 0
        this.#look(place)
      }
    }, lookMilliseconds)
    this.#looks.unref()
  }

  /** Puts the plugin in place and keeps it there. Throws the file system's errors of the first time. */
  keepPlugin(shimPath: string): void {
    const { binDir, runDir } = this.#options
    this.#shim = installShim(binDir, runDir, shimPath)
    this.#keep(binDir, () => {
      if (this.#shim && hasShim(binDir, runDir, this.#shim)) return false
      this.#shim = installShim(binDir, runDir, shimPath)
      return true
    })
  }

  /** Writes the configuration list, from when on the runtime calls the network ready, and keeps it. Throws as the other. */
  keepConflist(): void {
    const { confDir } = this.#options
    writeConflist(confDir)
    this.#keep(confDir, () => {
      const missing = !hasConflist(confDir)
      if (missing) writeConflist(confDir)
      this.#lookAhead()
      return missing
    })
    this.#lookAhead()
  }

  /** Why the files are not as they should be; undefined when they are, or were at the last look. */
  get problem(): string | undefined {
    return this.#places.find(({ problem }) => problem !== undefined)?.problem
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#looks)
    for (const { watcher, timer } of this.#places) {
      watcher?.close()
      clearTimeout(timer)
    }
  }

  #keep(directory: string, mend: () => boolean): void {
    const place = { directory, mend, mended: 0 }
    this.#places.push(place)
    this.#watch(place)
  }

  #look(place: Place): void {
    const { log } = this.#options
    const { directory } = place
    clearTimeout(place.timer)
    place.timer = undefined
    try {
      if (place.mend()) {
        place.mended++
        const again = place.mended > patience ? '; another hand goes on changing them' : ''
        log.warn({ directory }, `Files for the container runtime were changed or missing, and are put back${again}`)
        // The directory itself may be another one by now.
        this.#watch(place)
        this.#soon(place, settleMilliseconds)
      }
      place.problem = undefined
    } catch (err) {
      const problem = `${directory}: ${(err as Error).message}`
      if (place.problem !== problem) log.error({ err, directory }, 'Files for the container runtime cannot be put back')
      place.problem = problem
      this.#soon(place, retryMilliseconds)
    }
  }

  #soon(place: Place, milliseconds: number): void {
    if (this.#closed || place.mended > patience) return
    place.timer ??= setTimeout(() => this.#look(place), milliseconds)
  }

  /** Watches the directory that stands by this name now. Without a watch (inotify's limits), the looks remain. */
  #watch(place: Place): void {
    const { directory } = place
    place.watcher?.close()
    place.watcher = undefined
    if (this.#closed) return
    try {
      const watcher = watch(directory, { persistent: false }, () => this.#soon(place, settleMilliseconds))
      watcher.on('error', () => watcher.close())
      place.watcher = watcher
    } catch (err) {
      this.#options.log.warn({ err, directory }, 'A directory of the container runtime cannot be watched')
    }
  }

  /** Tells of a file that the runtime takes before ours, once for each. */
  #lookAhead(): void {
    const { confDir, log, onOvertaken } = this.#options
    const first = readdirSync(confDir)
      .filter((name) => /\.(conf|conflist|json)$/.test(name) && name < conflistName)
      .sort()[0]
    if (first === this.#first) return
    this.#first = first
    if (first === undefined) return
    log.warn({ file: join(confDir, first) }, `The container runtime takes ${first} before ${conflistName}`)
    onOvertaken?.(first)
  }
}
