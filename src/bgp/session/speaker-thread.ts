/**
 * The owner's side of the speaker's thread: starts it, gives it configurations, hears its events.
 */
import type { Worker } from 'node:worker_threads'
import type { BgpEvent, LocalRoute, SpeakerConfig, SpeakerStatus } from '../../model/bgp.ts'
import { ConfigError } from '../../model/errors.ts'
import type { ErrorWords, FromSpeaker, LogEntry, SpeakerThreadStart, ToSpeaker } from './messages.ts'
import { openWorker } from './worker-program.ts'

export interface SpeakerThreadOptions extends SpeakerThreadStart {
  readonly onEvent: (event: BgpEvent) => void
  readonly onLog: (entry: LogEntry) => void
  /** The thread ended although nobody stopped it. */
  readonly onCrash: (reason: Error) => void
}

const errorOf = ({ message, config }: ErrorWords): Error =>
  config ? new ConfigError(config.object, config.key, config.problem) : new Error(message)

type Reply = Extract<FromSpeaker, { readonly id: number }>
type Request = ToSpeaker extends infer T ? (T extends unknown ? Omit<T, 'id'> : never) : never

export class SpeakerThread {
  readonly #worker: Worker
  readonly #waiting = new Map<number, { resolve: (reply: Reply) => void; reject: (error: Error) => void }>()
  #id = 0

  private constructor(worker: Worker) {
    this.#worker = worker
  }

  /** Resolves when the speaker listens. Rejects with ConfigError, or when it cannot listen. */
  static async start({ onEvent, onLog, onCrash, ...data }: SpeakerThreadOptions): Promise<SpeakerThread> {
    const { workerUrl, WORKER_MARK } = await import('./worker.ts')
    const worker = openWorker(workerUrl, { workerData: { ...data, mark: WORKER_MARK }, name: 'bgp' })
    const thread = new SpeakerThread(worker)
    await new Promise<void>((resolve, reject) => {
      let started = false
      const end = (error: Error): void => {
        for (const { reject: refuse } of thread.#waiting.values()) refuse(error)
        thread.#waiting.clear()
        if (!started) reject(error)
        else if (!thread.#stopped) onCrash(error)
      }
      worker.on('error', end)
      worker.on('exit', () => end(new Error('the BGP speaker ended')))
      worker.on('message', (message: FromSpeaker) => {
        switch (message.type) {
          case 'started':
            started = true
            return resolve()
          case 'failed':
            return reject(errorOf(message.error))
          case 'event':
            return onEvent(message.event)
          case 'log':
            return onLog(message.entry)
          default:
            thread.#waiting.get(message.id)?.resolve(message)
            thread.#waiting.delete(message.id)
        }
      })
    })
    return thread
  }

  #stopped = false

  /** Rejects with ConfigError, and nothing has changed then. */
  async configure(config: SpeakerConfig, routes?: readonly LocalRoute[]): Promise<void> {
    const reply = await this.#ask({ type: 'configure', config, routes })
    if (reply.type === 'done' && reply.error) throw errorOf(reply.error)
  }

  async status(): Promise<SpeakerStatus> {
    const reply = await this.#ask({ type: 'status' })
    if (reply.type !== 'status') throw new Error('the BGP speaker gave another answer than its status')
    return reply.status
  }

  /** With `keepRoutes` peers that know graceful restart keep our routes until we are back. */
  async stop(keepRoutes: boolean): Promise<void> {
    this.#stopped = true
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    await this.#ask({ type: 'stop', keepRoutes })
    await exited
  }

  #ask(request: Request): Promise<Reply> {
    const id = ++this.#id
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#worker.postMessage({ ...request, id } as ToSpeaker)
    })
  }
}
