/**
 * Labs from outside: starting the daemon of one, finding and ending everything of one. `down` needs no daemon: namespaces
 * are found by name, processes by their environment, directories by path.
 */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmdirSync, rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { askControl, NotRunning } from './control.ts'
import type { LabStatus } from './daemon-commands.ts'
import { removeCgroups } from './kubernetes/machine.ts'
import { type LabSpec, labPaths, labRoots, projectRoot } from './layout.ts'
import { ANOTHER_DAEMON, endProcesses, findLabProcesses, LAB_VARIABLE, readTail } from './process.ts'
import { checkRoom } from './room.ts'
import { writeSpec } from './spec.ts'
import { deleteNamespaces, listNetns } from './underlay.ts'

type Progress = (line: string) => void

/** How long another daemon may take to its socket. */
const ANOTHER_TIMEOUT_MS = 30_000

/** Logs and records of a small lab, and the first growth of its store. */
const LEAST_ROOM_BYTES = 8 << 20

/** True when a daemon answers for the lab. */
export async function isRunning(lab: string): Promise<boolean> {
  try {
    await askControl(labPaths(lab).control, { command: 'status' })
    return true
  } catch (error) {
    if (error instanceof NotRunning) return false
    throw error
  }
}

/** Starts the daemon detached and resolves when all nodes are ready. Rejects with the end of its log when it dies. */
export async function startLab(spec: LabSpec, progress: Progress): Promise<LabStatus> {
  if (process.getuid?.() !== 0) throw new Error('a lab needs root: it makes network namespaces. Try: sudo weft lab up')
  const paths = labPaths(spec.name)
  mkdirSync(paths.run, { recursive: true, mode: 0o755 })
  mkdirSync(paths.store, { recursive: true, mode: 0o700 })
  for (const folder of [paths.run, paths.store]) checkRoom(folder, LEAST_ROOM_BYTES)
  writeSpec(spec)
  const log = openSync(paths.daemonLog, 'a')
  const child = spawn(
    process.execPath,
    [...process.execArgv, resolve(process.argv[1]!), 'lab', 'daemon', '--name', spec.name],
    {
      cwd: projectRoot(),
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, [LAB_VARIABLE]: spec.name },
    },
  )
  closeSync(log)
  child.unref()
  const started = performance.now()
  for (;;) {
    try {
      return await askControl<LabStatus>(paths.control, { command: 'wait-ready' }, progress)
    } catch (error) {
      const ended = child.exitCode !== null || child.signalCode !== null
      // Another `weft lab up` was first: its daemon is the lab's, and will answer.
      const other = child.exitCode === ANOTHER_DAEMON && performance.now() - started < ANOTHER_TIMEOUT_MS
      if (ended && !other)
        throw new Error(`the lab ended; the end of ${paths.daemonLog}:\n${readTail(paths.daemonLog, 4000)}`, {
          cause: error,
        })
      if (!(error instanceof NotRunning)) throw error
      // The daemon is on its way to its socket.
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

/** What `down` found and removed. */
export interface Removal {
  readonly processes: number
  readonly namespaces: number
}

/** Ends everything of a lab; nothing there is fine. */
export async function removeLab(lab: string): Promise<Removal> {
  const paths = labPaths(lab)
  let processes = 0
  // Twice and more: the daemon may have started something while it was being ended.
  for (let found = findLabProcesses(lab); found.length > 0; found = findLabProcesses(lab)) {
    processes += found.length
    await endProcesses(found, 0)
  }
  const namespaces = listNetns(lab).length
  deleteNamespaces(lab)
  await removeCgroups(lab)
  for (const folder of [paths.run, paths.store]) rmSync(folder, { recursive: true, force: true })
  for (const folder of [labRoots.run, dirname(labRoots.run), labRoots.store, dirname(labRoots.store)])
    removeEmpty(folder)
  return { processes, namespaces }
}

/** Removes a folder that nothing is in; anything else is left. */
function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // Not there, or another lab's files are in it.
  }
}
