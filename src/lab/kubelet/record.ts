/**
 * What a node remembers of a pod on disk, so that the next daemon takes over where the last one was killed: written
 * before something is made, and again when it stands. One small file a pod, replaced atomically.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ProcessIdentity } from '../process.ts'
import type { Attachment } from './cni.ts'
import type { ExitReport } from './container.ts'

/** How one run of a container ended. */
export interface EndedRun extends ExitReport {
  readonly containerId: string
  readonly startedAt: string
  readonly finishedAt: string
}

/** One container of a pod over all its runs. */
export interface ContainerRecord {
  restartCount: number
  containerId?: string
  startedAt?: string
  process?: ProcessIdentity
  logPath?: string
  /** The present run's end, when it has ended. */
  ended?: EndedRun
  /** The run before. */
  last?: EndedRun
  lastLogPath?: string
  /** Milliseconds since the epoch before which it is not started again, and how long the next wait will be. */
  notBeforeMs?: number
  backOffMs?: number
}

export interface PodRecord {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** `creating` until the network stands; `down` when it has been taken down again. */
  sandbox: 'none' | 'creating' | 'ready' | 'down'
  attempt: number
  readonly hostNetwork: boolean
  attachment?: Attachment
  netnsPath?: string
  ips: string[]
  startedAt: string
  containers: Record<string, ContainerRecord>
}

export class PodRecords {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
    mkdirSync(folder, { recursive: true })
  }

  /** All records; a file that cannot be read is dropped: what it stood for is found as a leftover. */
  readAll(): PodRecord[] {
    const out: PodRecord[] = []
    for (const file of readdirSync(this.#folder)) {
      if (!file.endsWith('.json')) continue
      try {
        out.push(JSON.parse(readFileSync(join(this.#folder, file), 'utf8')) as PodRecord)
      } catch {
        rmSync(join(this.#folder, file), { force: true })
      }
    }
    return out
  }

  write(record: PodRecord): void {
    const path = this.#path(record.uid)
    writeFileSync(`${path}.new`, JSON.stringify(record))
    renameSync(`${path}.new`, path)
  }

  remove(uid: string): void {
    rmSync(this.#path(uid), { force: true })
  }

  #path(uid: string): string {
    return join(this.#folder, `${uid}.json`)
  }
}
