/**
 * One run of one container: a real process group of the machine inside the pod's namespaces, its output in a file.
 * It is detached: the lab's daemon may die and a later one adopts it by id and start time. Of an adopted process
 * the exit code cannot be had any more; it is reported as Kubernetes reports such a loss: 137, ContainerStatusUnknown.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { identify, isAlive, type ProcessIdentity, signalProcess, waitUntil } from '../process.ts'
import { closeInput, openInput } from './input.ts'
import type { ContainerSpec } from './pod-spec.ts'

export interface ExitReport {
  readonly exitCode: number
  readonly signal?: number
  readonly reason: 'Completed' | 'Error' | 'StartError' | 'ContainerStatusUnknown'
  readonly message?: string
}

export interface StartOptions {
  readonly argv: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly logPath: string
  readonly container: ContainerSpec
}

const SIGNALS: Readonly<Record<string, number>> = {
  SIGTERM: 15,
  SIGKILL: 9,
  SIGINT: 2,
  SIGHUP: 1,
  SIGSEGV: 11,
  SIGABRT: 6,
}

/** Conventional exit code of a program that could not be started at all. */
export const START_FAILED_CODE = 128

/** How often adopted processes are looked at. */
const ADOPTED_POLL_MS = 200

export class ContainerProcess {
  readonly identity: ProcessIdentity
  readonly exited: Promise<ExitReport>

  private constructor(identity: ProcessIdentity, exited: Promise<ExitReport>) {
    this.identity = identity
    this.exited = exited
  }

  /** Starts the program. Throws with the reason when it cannot be executed. */
  static async start(options: StartOptions): Promise<ContainerProcess> {
    mkdirSync(dirname(options.logPath), { recursive: true })
    const log = openSync(options.logPath, 'a')
    const input = openInput(options.container, options.logPath)
    let child: ChildProcess
    try {
      child = spawn(options.argv[0]!, options.argv.slice(1), {
        env: options.env,
        cwd: '/',
        detached: true,
        stdio: [input.stdin, log, log, ...(input.sizes === undefined ? [] : [input.sizes])],
      })
    } finally {
      closeSync(log)
      input.close()
    }
    const exited = new Promise<ExitReport>((resolve) => {
      child.once('exit', (code, signal) => {
        closeInput(options.logPath)
        resolve(reportOf(code, signal))
      })
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (error) => reject(startError(options, error)))
    })
    // A process that is gone already has no start time; its exit is on the way.
    const identity = identify(child.pid!) ?? { pid: child.pid!, startTicks: -1 }
    return new ContainerProcess(identity, exited)
  }

  /** Takes over a process that an earlier daemon started; undefined when it is gone. */
  static adopt(identity: ProcessIdentity): ContainerProcess | undefined {
    if (!isAlive(identity)) return undefined
    const exited = new Promise<ExitReport>((resolve) => {
      const timer = setInterval(() => {
        if (isAlive(identity)) return
        clearInterval(timer)
        resolve({
          exitCode: 137,
          reason: 'ContainerStatusUnknown',
          message: 'The container ended while no one waited for it',
        })
      }, ADOPTED_POLL_MS)
    })
    return new ContainerProcess(identity, exited)
  }

  /** Asks the process group to end, and makes it after `graceMs`. Resolves when it is gone. */
  async terminate(graceMs: number): Promise<void> {
    const gone = () => !isAlive(this.identity)
    if (graceMs > 0) {
      signalProcess(this.identity, 'SIGTERM', true)
      if (await waitUntil(gone, graceMs)) return
    }
    signalProcess(this.identity, 'SIGKILL', true)
    await waitUntil(gone, 10_000)
  }
}

function reportOf(code: number | null, signal: NodeJS.Signals | null): ExitReport {
  if (signal) {
    const number = SIGNALS[signal] ?? 0
    return { exitCode: 128 + number, signal: number, reason: 'Error' }
  }
  return { exitCode: code ?? 0, reason: code === 0 ? 'Completed' : 'Error' }
}

function startError(options: StartOptions, error: Error): Error {
  const code = (error as NodeJS.ErrnoException).code
  const why = code === 'ENOENT' ? 'no such file on this machine' : code === 'EACCES' ? 'not executable' : error.message
  return new Error(`exec: ${JSON.stringify(options.argv[0])}: ${why}`, { cause: error })
}
