/**
 * A pod's sandbox: its network namespace and what the CNI plugin attached to it.
 *
 *   none ─► creating ─► ready ─────────► down
 *              │ ADD fails: DEL, then the caller comes again after a while
 *
 * The record on disk says what is about to be made before it is, and what is gone after it is.
 */
import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { createNetns, deleteNetns } from '../../kernel/linux/netns.ts'
import { netnsPath as netnsPathOf } from '../layout.ts'
import { attachmentOf } from './attachment.ts'
import { CNI_TRY_AGAIN, CniError, type CniRuntime } from './cni.ts'
import { loopbackUp, netnsExists } from './netns.ts'
import type { Pod } from './pod-spec.ts'
import type { PodRecord } from './record.ts'

export interface SandboxContext {
  readonly lab: string
  readonly nodeNetns: string
  readonly hostIps: readonly string[]
  readonly cni: CniRuntime
  readonly log: Logger
  /** Lets few ADDs run at once. */
  limit<T>(task: () => Promise<T>): Promise<T>
}

/** Why there is no sandbox yet, and when to try again. `again`: the plugin itself asked for patience. */
export interface SandboxFailure {
  readonly message: string
  readonly again: boolean
  readonly failures: number
  readonly waitMs: number
}

const RETRY_LAST_MS = 5_000

export class Sandbox {
  readonly #context: SandboxContext
  readonly #record: PodRecord
  readonly #save: () => void
  #failures = 0

  constructor(context: SandboxContext, record: PodRecord, save: () => void) {
    this.#context = context
    this.#record = record
    this.#save = save
  }

  /** True for a pod that has, or had, something to be taken away. */
  get isMade(): boolean {
    return this.#record.sandbox !== 'down' && this.#record.sandbox !== 'none'
  }

  /** Makes it unless it stands. Resolves with what went wrong; undefined when the pod has its network. */
  async ensure(pod: Pod): Promise<SandboxFailure | undefined> {
    const record = this.#record
    if (record.sandbox === 'ready' && netnsExists(record.netnsPath!)) return undefined
    if (record.sandbox !== 'none') await this.remove('none')
    if (record.hostNetwork) {
      record.netnsPath = this.#context.nodeNetns
      record.ips = [...this.#context.hostIps]
      record.sandbox = 'ready'
      this.#save()
      return undefined
    }
    record.attempt++
    const containerId = createHash('sha256')
      .update(`${this.#context.lab}/${record.uid}/${record.attempt}`)
      .digest('hex')
    record.netnsPath = netnsPathOf(this.#context.lab, `pod-${containerId.slice(0, 12)}`)
    record.attachment = attachmentOf(pod, record, containerId, record.netnsPath)
    record.sandbox = 'creating'
    this.#save()
    try {
      const { attachment } = record
      const result = await this.#context.limit(async () => {
        createNetns(attachment.netnsPath)
        loopbackUp(attachment.netnsPath)
        return this.#context.cni.add(attachment)
      })
      record.ips = (result.ips ?? []).map(({ address }) => address.replace(/\/\d+$/, ''))
      record.sandbox = 'ready'
      this.#failures = 0
      this.#save()
      return undefined
    } catch (error) {
      return this.#undo(error)
    }
  }

  async #undo(error: unknown): Promise<SandboxFailure> {
    const { log } = this.#context
    const message = error instanceof Error ? error.message : String(error)
    const again = error instanceof CniError && error.code === CNI_TRY_AGAIN
    const waitMs = Math.min((again ? 100 : 500) * 2 ** this.#failures++, RETRY_LAST_MS)
    log.warn({ pod: this.#record.name, again, wait: waitMs }, message)
    try {
      await this.remove('none')
    } catch (cleanup) {
      log.warn({ pod: this.#record.name, err: cleanup }, 'cannot undo a failed attachment yet')
    }
    return { message, again, failures: this.#failures, waitMs }
  }

  /** Ends the attachment and the namespace. Throws when the plugin cannot; the caller comes again. */
  async remove(next: 'none' | 'down'): Promise<void> {
    const record = this.#record
    if (!record.hostNetwork && record.attachment) {
      await this.#context.cni.del(record.attachment)
      deleteNetns(record.attachment.netnsPath)
    }
    record.sandbox = next
    delete record.attachment
    if (next === 'none') record.ips = []
    this.#save()
  }

  /** How long to wait after a removal that failed, longer each time. */
  nextRemovalMs(): number {
    return Math.min(200 * 2 ** this.#failures++, RETRY_LAST_MS)
  }
}
