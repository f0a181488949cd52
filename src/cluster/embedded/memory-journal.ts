/** A journal that forgets with the process, unless the same instance is opened again. */
import type { Journal, JournalRecord, JournalState } from './journal.ts'
import type { StoreObject } from './store.ts'

interface Row {
  resource: string
  namespace: string
  name: string
  object: StoreObject
}

export class MemoryJournal implements Journal {
  readonly #objects = new Map<string, Row>()
  #log: JournalRecord[] = []
  #version = 0
  #compactedVersion = 0

  load(): JournalState {
    return {
      objects: [...this.#objects.values()],
      log: [...this.#log],
      version: this.#version,
      compactedVersion: this.#compactedVersion,
    }
  }

  append(records: readonly JournalRecord[], reserve: number | undefined): Promise<void> {
    for (const record of records) {
      const { resource, namespace, name, object } = record
      const key = `${resource}/${namespace}/${name}`
      if (record.type === 'DELETED') this.#objects.delete(key)
      else this.#objects.set(key, { resource, namespace, name, object })
      this.#log.push({ ...record })
    }
    if (reserve !== undefined) this.#version = reserve
    return Promise.resolve()
  }

  trim(version: number): void {
    this.#log = this.#log.filter((record) => record.resourceVersion > version)
    this.#compactedVersion = version
  }

  close(version: number): Promise<void> {
    this.#version = version
    return Promise.resolve()
  }
}
