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
  record.notBeforeMs =
    record.restartCount === 0 && report.reason !== 'StartError'
      ? 0
      : Date.now() + (record.backOffMs ?? BACK_OFF_FIRST_MS)
  if (record.notBeforeMs > 0)
    record.backOffMs = Math.min((record.backOffMs ?? BACK_OFF_FIRST_MS / 2) * 2, BACK_OFF_LAST_MS)
}
