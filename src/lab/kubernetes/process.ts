/**
 * One program of a cluster, kept up as an init system would: started again with a growing pause when it ends. Its id and start
 * time are on disk, so that whoever comes next takes over what runs.
 */
import type { ChildProcess } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import {
  endProcesses,
  identify,
  isAlive,
  type ProcessIdentity,
  readTail,
  signalProcess,
  waitUntil,
} from '../process.ts'

export interface ProgramPlan {
  readonly name: string
  readonly log: string
  /** Keeps the id of the running process. */
  readonly state: string
  /** Starts it, detached, with its output in the descriptor. */
  readonly spawn: (output: number) => ChildProcess
  /** True when the started process stays outside and its only child is the program. */
  readonly wrapped: boolean
}

const FIRST_PAUSE_MS = 100
const LAST_PAUSE_MS = 5_000
const STEADY_MS = 10_000
const ADOPTED_POLL_MS = 200
const CHILD_TIMEOUT_MS = 10_000

/** The first child of a process. */
function childOf(pid: number): ProcessIdentity | undefined {
  try {
    const [first] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ')
    return first ? identify(Number(first)) : undefined
  } catch {
    return undefined
  }
}

export class Program {
  readonly plan: ProgramPlan
  restarts = 0
  #process: ProcessIdentity | undefined
  /** Whose end is already waited for. */
  #watched: ProcessIdentity | undefined
  /** Counts what was started, taken over and stopped: the end of what came before the last of these is nobody's concern. */
  #turn = 0
  #pauseMs = 0
  #timer: NodeJS.Timeout | undefined
  #wanted = false

  constructor(plan: ProgramPlan) {
    this.plan = plan
    for (const path of [plan.log, plan.state]) mkdirSync(dirname(path), { recursive: true })
    if (existsSync(plan.state)) this.#process = JSON.parse(readFileSync(plan.state, 'utf8')) as ProcessIdentity
  }

  /** Undefined while it does not run. */
  get pid(): number | undefined {
    return this.#process && isAlive(this.#process) ? this.#process.pid : undefined
  }

  /** The end of what it wrote. */
  logTail(maxBytes = 4000): string {
    return readTail(this.plan.log, maxBytes)
  }

  /** Takes over the running process or starts one, and keeps it up from now on. */
  async start(): Promise<void> {
    this.#wanted = true
    this.#pauseMs = 0
    clearTimeout(this.#timer)
    const known = this.#process
    if (!known || !isAlive(known)) await this.#spawn()
    else if (this.#watched !== known) this.#adopt(known)
  }

  /** Ends it and keeps it down. SIGKILL at once, any other signal with ten seconds to follow it. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.close()
    this.#turn++
    if (this.#process) await endProcesses([this.#process], signal === 'SIGKILL' ? 0 : 10_000)
    rmSync(this.plan.state, { force: true })
    this.#process = undefined
  }

  async restart(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.stop(signal)
    await this.start()
  }

  /** A signal to the running process; what keeps it up sees only an end. */
  signal(signal: NodeJS.Signals): boolean {
    return this.#process !== undefined && signalProcess(this.#process, signal)
  }

  /** Looks after it no longer; it goes on. */
  close(): void {
    this.#wanted = false
    clearTimeout(this.#timer)
  }

  async #spawn(): Promise<void> {
    const output = openSync(this.plan.log, 'a')
    const startedAt = performance.now()
    const turn = ++this.#turn
    let child: ChildProcess
    try {
      child = this.plan.spawn(output)
    } finally {
      closeSync(output)
    }
    child.unref()
    let ended = false
    const end = () => {
      if (ended) return
      ended = true
      this.#ended(startedAt, turn)
    }
    child.once('error', end).once('exit', end)
    let found: ProcessIdentity | undefined
    const pid = child.pid
    if (pid !== undefined) {
      const look = () => {
        found = this.plan.wrapped ? childOf(pid) : identify(pid)
        return found !== undefined || ended
      }
      await waitUntil(look, CHILD_TIMEOUT_MS)
    }
    if (!found) return
    if (turn !== this.#turn) {
      // Stopped while it came up.
      await endProcesses([found], 0)
      return
    }
    this.#process = found
    this.#watched = found
    writeFileSync(`${this.plan.state}.new`, JSON.stringify(found))
    renameSync(`${this.plan.state}.new`, this.plan.state)
  }

  #adopt(process: ProcessIdentity): void {
    this.#watched = process
    const startedAt = performance.now()
    const turn = ++this.#turn
    const timer = setInterval(() => {
      if (isAlive(process)) return
      clearInterval(timer)
      this.#ended(startedAt, turn)
    }, ADOPTED_POLL_MS)
    timer.unref()
  }

  #ended(startedAt: number, turn: number): void {
    if (!this.#wanted || turn !== this.#turn) return
    if (performance.now() - startedAt > STEADY_MS) this.#pauseMs = 0
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, FIRST_PAUSE_MS), LAST_PAUSE_MS)
    this.restarts++
    this.#timer = setTimeout(() => void this.#spawn(), this.#pauseMs)
    this.#timer.unref()
  }
}
