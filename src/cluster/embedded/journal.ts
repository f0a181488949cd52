/**
 * What makes the object store survive: a place that takes batches of changes and gives everything back. Two of
 * them exist: `LmdbJournal` on disk and `MemoryJournal` for tests; both pass the same suite.
 */
import type { StoreObject } from './store.ts'

/** One change, as kept in the log. */
export interface JournalRecord {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly resourceVersion: number
  readonly resource: string
  readonly namespace: string
  readonly name: string
  /** For DELETED: the last state. */
  readonly object: StoreObject
}

export interface JournalState {
  readonly objects: Iterable<{ resource: string; namespace: string; name: string; object: StoreObject }>
  /** Changes still kept, oldest first. */
  readonly log: Iterable<JournalRecord>
  /** No version up to this one may be given out again. */
  readonly version: number
  /** Changes up to this version were dropped from the log. */
  readonly compactedVersion: number
}

export interface Journal {
  /** Called once, before anything else. */
  load(): JournalState
  /**
   * Adds a batch, whole or not at all. Resolves when a killed process would find it again.
   * `reserve`: versions up to this one may be given out before the next reservation.
   */
  append(records: readonly JournalRecord[], reserve: number | undefined): Promise<void>
  /** Drops log records up to a version. */
  trim(version: number): void
  /** `version`: the last one given out; unused reserved ones are handed back. */
  close(version: number): Promise<void>
}

/** A conditional write met another version. */
export class VersionConflictError extends Error {
  override readonly name = 'VersionConflictError'

  constructor(what: string, expected: number, found: number) {
    super(`${what} is at version ${found || 'none'}, not ${expected || 'none'}`)
  }
}

/** A watch asked for changes that are no longer kept. */
export class ExpiredError extends Error {
  override readonly name = 'ExpiredError'
  readonly oldest: number

  constructor(requested: number, oldest: number) {
    super(`too old resource version: ${requested} (${oldest})`)
    this.oldest = oldest
  }
}
