/**
 * A steady stream of numbered messages between pods, a thousand a second, whose losses are counted: the measure of
 * "nothing was lost".
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { TestNamespace } from './namespace.ts'

const program = fileURLToPath(new URL('../../dist/native/weft-pod', import.meta.url))

/** How long the last answers may take: on a busy machine they come late, which is not lost. Ends as soon as all are in. */
const LATE_MS = 10_000

export interface PingCounts {
  readonly sent: number
  readonly received: number
  readonly lost: number
  readonly reordered: number
}

/** `weft-pod serve` in a namespace. */
export function startServer(namespace: TestNamespace): ChildProcess {
  return inNetns(namespace.path, () => spawn(program, ['serve'], { stdio: 'ignore' }))
}

export class SteadyPing {
  readonly #child: ChildProcess
  #stdout = ''
  #stderr = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stdout!.on('data', (chunk) => {
      this.#stdout += chunk
    })
  }

  /** Resolves when the first answer is in. */
  static async start(namespace: Pick<TestNamespace, 'path'>, to: string, ...flags: string[]): Promise<SteadyPing> {
    const child = inNetns(namespace.path, () =>
      spawn(program, ['ping1k', '--to', to, '--wait-ms', String(LATE_MS), ...flags], {
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    )
    const ping = new SteadyPing(child)
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`No first answer from ${to}: ${ping.#stderr}`)), 20_000)
      child.stderr!.on('data', (chunk) => {
        ping.#stderr += chunk
        if (ping.#stderr.includes('first reply')) {
          clearTimeout(timer)
          resolve()
        }
      })
      child.once('exit', (code) => reject(new Error(`weft-pod ended (${code}): ${ping.#stderr}`)))
    }).catch((error) => {
      ping.kill()
      throw error
    })
    return ping
  }

  /** Ends the stream and counts. */
  async stop(): Promise<PingCounts> {
    const ended = new Promise((resolve) => this.#child.once('close', resolve))
    this.#child.kill('SIGTERM')
    await ended
    return JSON.parse(this.#stdout) as PingCounts
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}
