/**
 * When the kernel told of a route, by the clock of a process that does nothing but listen: `ip -ts monitor route`. The bench's
 * own watch of the kernel rests for ten milliseconds after each message, and its process is busy with other things.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestNamespace } from '../netns/namespace.ts'

/** Of documentation (RFC 5737): it says that the listener listens. */
const PROBE = '192.0.2.0/24'

export class RouteClock {
  readonly #child: ChildProcessByStdio<null, Readable, null>
  readonly #heard = new Map<string, (atMs: number) => void>()

  private constructor({ name }: TestNamespace) {
    const argv = ['-n', name, '-4', '-ts', 'monitor', 'route']
    this.#child = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TZ: 'UTC' } })
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const [, time, destination] = /^\[(\S+)\] (?!Deleted)(\S+) /.exec(line) ?? []
      if (!time || !destination) return
      const [second = '', fraction = '0'] = time.split('.')
      const atMs = Date.parse(`${second}Z`) + Number(`0.${fraction}`) * 1000 - performance.timeOrigin
      this.#heard.get(destination)?.(atMs)
      this.#heard.delete(destination)
    })
  }

  static async open(namespace: TestNamespace): Promise<RouteClock> {
    const clock = new RouteClock(namespace)
    const listening = clock.next(PROBE).then(() => true)
    do namespace.run(`ip route replace ${PROBE} dev lo`)
    while (!(await Promise.race([listening, sleep(20)])))
    namespace.run(`ip route delete ${PROBE} dev lo`)
    return clock
  }

  /** When the route is told of next, on the scale of `performance.now()`. */
  next(destination: string): Promise<number> {
    return new Promise((resolve) => this.#heard.set(destination, resolve))
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.kill()
    await ended
  }
}
