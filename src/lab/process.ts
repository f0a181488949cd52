/**
 * Processes of a lab, told apart from all others by `WEFT_LAB=<lab>` in their environment and, once known, by
 * their start time beside their id: an id alone may have gone to a stranger meanwhile.
 *
 * Sources: proc_pid_stat(5) field 22 (starttime), proc_pid_environ(5).
 */

import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { closeOnExec } from '../kernel/linux/syscalls.ts'

/** Name of the environment variable that marks every process of a lab. */
export const LAB_VARIABLE = 'WEFT_LAB'

/** Exit code of a daemon that found another one at work for its lab. */
export const ANOTHER_DAEMON = 75

/** A process of one life: a later process of the same id differs in `startTicks`. */
export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks after boot. */
  readonly startTicks: number
}

/** Fields of /proc/<pid>/stat after the command, or undefined when there is no such process. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/**
 * Keeps every descriptor of this process but the standard ones from programs that it starts from now on: libraries open
 * files without saying so, and whoever started this process may have left some open.
 */
export function keepDescriptors(): void {
  for (const fd of numbered('/proc/self/fd')) if (fd > 2) closeOnExec(fd)
}

/** The identity of a running process; undefined when it is gone or a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const fields = statFields(pid)
  if (!fields || fields[0] === 'Z' || fields[0] === 'X') return undefined
  return { pid, startTicks: Number(fields[19]) }
}

export function isAlive(process: ProcessIdentity): boolean {
  return identify(process.pid)?.startTicks === process.startTicks
}

/** Sends a signal to the process if it is still the same one. `group` sends it to the process group that it leads. */
export function signalProcess(target: ProcessIdentity, signal: NodeJS.Signals, group = false): boolean {
  if (!isAlive(target)) return false
  try {
    process.kill(group ? -target.pid : target.pid, signal)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
    if (group) return signalProcess(target, signal)
    throw error
  }
}

/** Parent ids from this process up to init, this one included. */
function ownAncestors(): Set<number> {
  const out = new Set<number>()
  for (let pid = process.pid; pid > 0 && !out.has(pid); ) {
    out.add(pid)
    pid = Number(statFields(pid)?.[1] ?? 0)
  }
  return out
}

const numbered = (folder: string): number[] => readdirSync(folder).map(Number).filter(Number.isInteger)

/** Every process whose environment names the lab, this process and its ancestors left out. */
export function findLabProcesses(lab: string): ProcessIdentity[] {
  const own = ownAncestors()
  const wanted = Buffer.from(`${LAB_VARIABLE}=${lab}\0`)
  const out: ProcessIdentity[] = []
  for (const pid of numbered('/proc')) {
    if (own.has(pid)) continue
    try {
      const environ = readFileSync(`/proc/${pid}/environ`)
      const at = environ.indexOf(wanted)
      if (at < 0 || (at > 0 && environ[at - 1] !== 0)) continue
    } catch {
      continue
    }
    const identity = identify(pid)
    if (identity) out.push(identity)
  }
  return out
}

/** Those of the lab's processes that stand in one of the network namespaces; paths that are no namespace are left out. */
export function findProcessesIn(lab: string, netnsPaths: readonly string[]): ProcessIdentity[] {
  const wanted = new Set<number>()
  for (const path of netnsPaths) {
    const found = statSync(path, { throwIfNoEntry: false })
    if (found) wanted.add(found.ino)
  }
  return findLabProcesses(lab).filter(({ pid }) => {
    try {
      return wanted.has(statSync(`/proc/${pid}/ns/net`).ino)
    } catch {
      return false
    }
  })
}

/** Resolves when the condition holds, looking again at growing intervals; false when the time is over. */
export async function waitUntil(condition: () => boolean, timeoutMs: number, firstMs = 1): Promise<boolean> {
  const end = performance.now() + timeoutMs
  for (let wait = firstMs; ; wait = Math.min(wait * 1.5 + 1, 100)) {
    if (condition()) return true
    if (performance.now() >= end) return false
    await new Promise((resolve) => setTimeout(resolve, wait))
  }
}

/** Ends the processes: a request first, force after `graceMs`. Resolves when all are gone; throws when one cannot be ended. */
export async function endProcesses(processes: readonly ProcessIdentity[], graceMs: number): Promise<void> {
  const left = () => processes.filter(isAlive)
  if (graceMs > 0) {
    for (const each of left()) signalProcess(each, 'SIGTERM')
    for (const each of left()) signalProcess(each, 'SIGCONT')
    if (await waitUntil(() => left().length === 0, graceMs)) return
  }
  for (const each of left()) signalProcess(each, 'SIGKILL')
  if (!(await waitUntil(() => left().length === 0, 10_000)))
    throw new Error(`Processes ${left().map((each) => each.pid)} do not end`)
}

/** The last `maxBytes` of a file as text, from a line's start; empty when there is no file. */
export function readTail(path: string, maxBytes: number): string {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return ''
  }
  try {
    const size = fstatSync(fd).size
    const from = Math.max(0, size - maxBytes)
    const bytes = Buffer.alloc(size - from)
    const text = bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, from))
    return from === 0 ? text : text.slice(text.indexOf('\n') + 1)
  } finally {
    closeSync(fd)
  }
}
