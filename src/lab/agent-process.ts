/**
 * The weft agent of one node: a process of its own inside the node's network namespace, started and kept up as a DaemonSet
 * would, with a growing pause after each crash. It outlives the lab's daemon; a later daemon takes it over by id and
 * start time.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { inNetns } from '../kernel/linux/netns.ts'
import { netnsPath, nodePaths, projectRoot } from './layout.ts'
import { endProcesses, identify, isAlive, LAB_VARIABLE, type ProcessIdentity, signalProcess } from './process.ts'

interface AgentState {
  /** Not to be started again until asked. */
  down: boolean
  process?: ProcessIdentity
  restarts: number
}

/** Those of the `weft` script. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--enable-source-maps', '--max-semi-space-size=2']

const FIRST_PAUSE_MS = 100
const LAST_PAUSE_MS = 10_000
/** A run longer than this clears the pause. */
const STEADY_MS = 10_000
const ADOPTED_POLL_MS = 200

export class AgentProcess {
  readonly #lab: string
  readonly #node: string
  readonly #log: Logger
  readonly #paths: ReturnType<typeof nodePaths>
  readonly #state: AgentState
  #pauseMs = 0
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(lab: string, node: string, log: Logger) {
    this.#lab = lab
    this.#node = node
    this.#log = log.child({ node })
    this.#paths = nodePaths(lab, node)
    for (const folder of [this.#paths.run, this.#paths.cniBin, this.#paths.cniConf, this.#paths.log])
      mkdirSync(folder, { recursive: true })
    this.#state = existsSync(this.#paths.agentState)
      ? (JSON.parse(readFileSync(this.#paths.agentState, 'utf8')) as AgentState)
      : { down: false, restarts: 0 }
  }

  get status(): { readonly pid?: number; readonly down: boolean; readonly restarts: number } {
    const { process, down, restarts } = this.#state
    return { ...(process && isAlive(process) ? { pid: process.pid } : {}), down, restarts }
  }

  /** Takes over a running agent or starts one, unless it was told to stay down. */
  start(): void {
    const { process } = this.#state
    if (process && isAlive(process)) this.#watchAdopted(process)
    else if (!this.#state.down) this.#spawn()
  }

  /** Sends a signal. With `keepDown` it is not started again afterwards. Resolves when the process is gone. */
  async kill(signal: 'SIGTERM' | 'SIGKILL', keepDown: boolean): Promise<void> {
    this.#state.down = keepDown
    this.#save()
    const { process } = this.#state
    if (!process || !isAlive(process)) return
    signalProcess(process, signal)
    if (signal === 'SIGTERM') await endProcesses([process], 5000)
    else await endProcesses([process], 0)
  }

  /** Stops or continues it with SIGSTOP and SIGCONT: an agent that hangs. */
  freeze(frozen: boolean): boolean {
    const { process } = this.#state
    return process !== undefined && signalProcess(process, frozen ? 'SIGSTOP' : 'SIGCONT')
  }

  /** Ends a `kill --keep-down`. */
  raise(): void {
    this.#state.down = false
    this.#pauseMs = 0
    this.#save()
    clearTimeout(this.#timer)
    const { process } = this.#state
    if (!process || !isAlive(process)) this.#spawn()
  }

  /** Stops looking after it; the agent goes on. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #save(): void {
    writeFileSync(`${this.#paths.agentState}.new`, JSON.stringify(this.#state))
    renameSync(`${this.#paths.agentState}.new`, this.#paths.agentState)
  }

  #spawn(): void {
    if (this.#closed) return
    const root = projectRoot()
    const program = join(root, 'dist', 'weft.js')
    const log = openSync(this.#paths.agentLog, 'a')
    let child: ChildProcess
    const startedAt = performance.now()
    try {
      child = inNetns(netnsPath(this.#lab, this.#node), () =>
        spawn(process.execPath, [...NODE_FLAGS, program, 'agent', ...this.#arguments()], {
          cwd: '/',
          detached: true,
          stdio: ['ignore', log, log],
          env: { PATH: process.env.PATH ?? '', HOME: '/root', [LAB_VARIABLE]: this.#lab, ...inherited() },
        }),
      )
    } finally {
      closeSync(log)
    }
    child.unref()
    child.once('error', (error) => this.#log.error({ err: error }, 'agent cannot be started'))
    child.once('exit', (code, signal) => this.#ended(startedAt, signal ?? code))
    const identity = child.pid === undefined ? undefined : identify(child.pid)
    if (identity) this.#state.process = identity
    else delete this.#state.process
    this.#save()
  }

  #arguments(): string[] {
    return [
      '--kubeconfig',
      this.#paths.kubeconfig,
      '--node-name',
      this.#node,
      '--run-dir',
      this.#paths.run,
      '--cni-bin-dir',
      this.#paths.cniBin,
      '--cni-conf-dir',
      this.#paths.cniConf,
    ]
  }

  #watchAdopted(process: ProcessIdentity): void {
    const startedAt = performance.now()
    const timer = setInterval(() => {
      if (this.#closed) return clearInterval(timer)
      if (isAlive(process)) return
      clearInterval(timer)
      this.#ended(startedAt, 'unknown')
    }, ADOPTED_POLL_MS)
  }

  #ended(startedAt: number, how: string | number | null): void {
    if (this.#closed || this.#state.down) return
    if (performance.now() - startedAt > STEADY_MS) this.#pauseMs = 0
    const pause = this.#pauseMs
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, FIRST_PAUSE_MS), LAST_PAUSE_MS)
    this.#state.restarts++
    this.#log.warn({ how, pauseMs: pause }, 'agent ended; it is started again')
    this.#timer = setTimeout(() => this.#spawn(), pause)
  }
}

/** Variables that the user may set for all agents of a lab: `WEFT_…` of the program, save the lab's own mark. */
function inherited(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([key]) => /^(WEFT_|NODE_OPTIONS$)/.test(key) && key !== LAB_VARIABLE),
  )
}
