/**
 * The end of a container's run, and the pause before the next one.
 * Sources: Kubernetes documentation, "Pod Lifecycle", "Container restart policy".
 */
import type { ExitReport } from './container.ts'
import type { ContainerRecord } from './record.ts'

const BACK_OFF_FIRST_MS = 10_000
const BACK_OFF_LAST_MS = 300_000
/** A run longer than this clears the back-off. */
const BACK_OFF_RESET_MS = 600_000

/** Now as RFC 3339, whole seconds. */
export const nowText = (): string => `${new Date().toISOString().slice(0, 19)}Z`

/** Writes the end of a run into its record, and how long the next start waits. */
export function markEnded(record: ContainerRecord, report: ExitReport): void {
  const ran = record.startedAt ? Date.now() - Date.parse(record.startedAt) : 0
  if (ran > BACK_OFF_RESET_MS) delete record.backOffMs
  record.ended = {
    ...report,
    containerId: record.containerId ?? '',
    startedAt: record.startedAt ?? nowText(),
    finishedAt: nowText(),
  }
  // The first restart is at once; from the second on the wait doubles.
  if (record.restartCount === 0 && report.reason !== 'StartError') {
    record.notBeforeMs = 0
    return
  }
  record.backOffMs = Math.min(
    record.backOffMs === undefined ? BACK_OFF_FIRST_MS : record.backOffMs * 2,
    BACK_OFF_LAST_MS,
  )
  record.notBeforeMs = Date.now() + record.backOffMs
}

/**
 * Milliseconds until the next run may start, 0 or less for now. The record outlives this process, so it has a time of the
 * wall clock; where that was set back meanwhile, the wait begins anew and is never longer than it was to be.
 */
export function waitBeforeStart(record: ContainerRecord, now = Date.now()): number {
  const longest = record.backOffMs ?? 0
  if ((record.notBeforeMs ?? 0) > now + longest) record.notBeforeMs = now + longest
  return (record.notBeforeMs ?? 0) - now
}
