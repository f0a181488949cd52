/**
 * What an applier is told when it is made, and what it tells of its passes.
 */
import type { KernelError } from '../model/errors.ts'
import type { KernelKey, ObjectKind } from '../model/kernel-object.ts'
import type { KernelOp } from '../model/kernel-state.ts'
import type { Ownership } from './ownership.ts'
import type { Clock } from './schedule.ts'

export interface ApplyFailure {
  readonly key: KernelKey
  readonly error: KernelError
  /** Who wants it; empty for an unwanted object that could not be deleted. */
  readonly sources: readonly string[]
  readonly retryInMs: number
}

/** What one pass did. */
export interface ApplyReport {
  readonly ops: readonly KernelOp[]
  readonly failures: readonly ApplyFailure[]
  readonly durationMs: number
}

export interface ApplierOptions {
  readonly ownership?: Ownership
  /** Kinds to read and watch, in groups that are read together; the kinds of what hangs on links after links. */
  readonly kinds?: readonly (readonly ObjectKind[])[]
  readonly clock?: Clock
  /** How often everything is read again, come what may. */
  readonly resyncSeconds?: number
  /** Nothing is executed; every operation is handed here as the line that would do it, and taken as done. */
  readonly dryRun?: (line: string, op: KernelOp) => void
  readonly onReport?: (report: ApplyReport) => void
  /** The kernel was seen to have what is wanted, without an operation that a report tells of: `inPlace` may have changed. */
  readonly onFound?: () => void
  /** A reading failed; it is tried again. */
  readonly onReadError?: (error: unknown) => void
}

export interface ApplierCounts {
  readonly opsDone: number
  readonly opsFailed: number
  /** Times that another hand's change to a wanted or owned object was noticed. */
  readonly driftSeen: number
  readonly readings: number
}
