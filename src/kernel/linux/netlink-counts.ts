/**
 * What went amiss on this process's netlink sockets, of every namespace and protocol together: numbers for whoever watches
 * the process, never a reason to act.
 */

export interface NetlinkCounts {
  /** Dumps that began again because the kernel said that they were interrupted. */
  readonly dumpRetries: number
  /** Times that the kernel dropped messages because a socket's buffer was full. */
  readonly overruns: number
  /** Requests that the kernel refused, by errno. */
  readonly refusals: ReadonlyMap<number, number>
}

const counts = { dumpRetries: 0, overruns: 0, refusals: new Map<number, number>() }

export const netlinkCounts: NetlinkCounts = counts

export function countDumpRetry(): void {
  counts.dumpRetries++
}

export function countOverrun(): void {
  counts.overruns++
}

/** `errno` is positive. */
export function countRefusal(errno: number): void {
  counts.refusals.set(errno, (counts.refusals.get(errno) ?? 0) + 1)
}
