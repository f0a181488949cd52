/**
 * The journal on disk: one LMDB environment with the objects, the log of changes and a few counters. A batch is
 * one transaction. It survives a killed process as soon as `append` resolves; the flush to the disk itself
 * follows within milliseconds, so a power cut may lose the last moments but never tears the file.
 *
 *   objects  resource/namespace/name → JSON
 *   log      version → JSON of the record
 *   counters `version`, `compacted` → number
 */

import { type Database, open, type RootDatabase } from 'lmdb'
import { formatJson, parseJson } from '../../bytes/json.ts'
import type { Journal, JournalRecord, JournalState } from './journal.ts'
import type { StoreObject } from './store.ts'

export class LmdbJournal implements Journal {
  readonly #root: RootDatabase
  readonly #objects: Database<string, string>
  readonly #log: Database<string, number>
  readonly #counters: Database<number, string>
  #trimmed = 0

  /** `folder` is made when missing. Two processes must not open the same one: see the lab's own lock. */
  constructor(folder: string) {
    this.#root = open({ path: folder, maxDbs: 4, eventTurnBatching: false })
    this.#objects = this.#root.openDB('objects', { encoding: 'string' })
    this.#log = this.#root.openDB('log', { encoding: 'string', keyEncoding: 'uint32' })
    this.#counters = this.#root.openDB('counters', { encoding: 'json' })
  }

  load(): JournalState {
    const objects: { resource: string; namespace: string; name: string; object: StoreObject }[] = []
    for (const { key, value } of this.#objects.getRange()) {
      const [resource, namespace, name] = key.split('/') as [string, string, string]
      objects.push({ resource, namespace, name, object: parseJson(value) as StoreObject })
    }
    const log: JournalRecord[] = []
    for (const { value } of this.#log.getRange()) log.push(parseJson(value) as JournalRecord)
    this.#trimmed = this.#counters.get('compacted') ?? 0
    const version = Math.max(this.#counters.get('version') ?? 0, log.at(-1)?.resourceVersion ?? 0)
    return { objects, log, version, compactedVersion: this.#trimmed }
  }

  async append(records: readonly JournalRecord[], reserve: number | undefined): Promise<void> {
    await this.#root.transaction(() => {
      for (const record of records) {
        const { type, resourceVersion, resource, namespace, name, object } = record
        const key = `${resource}/${namespace}/${name}`
        const json = formatJson(object)
        if (type === 'DELETED') this.#objects.remove(key)
        else this.#objects.put(key, json)
        // The object's text is made once: it goes into the record as it is.
        const head = JSON.stringify({ type, resourceVersion, resource, namespace, name } satisfies Omit<
          JournalRecord,
          'object'
        >)
        this.#log.put(resourceVersion, `${head.slice(0, -1)},"object":${json}}`)
      }
      if (reserve !== undefined) this.#counters.put('version', reserve)
    })
  }

  trim(version: number): void {
    if (version <= this.#trimmed) return
    this.#trimmed = version
    void this.#root.transaction(() => {
      for (const key of this.#log.getKeys({ end: version + 1 })) this.#log.remove(key)
      this.#counters.put('compacted', version)
    })
  }

  async close(version: number): Promise<void> {
    await this.#counters.put('version', version)
    await this.#root.flushed
    await this.#root.close()
  }
}
