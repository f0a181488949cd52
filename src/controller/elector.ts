/**
 * Drives an election (election.ts) against a Lease object: does what its effects say, tells it what came of them, and says
 * when this replica begins and ceases to lead.
 *
 * Sources: coordination.k8s.io/v1 Lease; Kubernetes API Concepts, "Resource versions" (conditional writes).
 */
import type { ClusterLog } from '../cluster/cluster.ts'
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import {
  type ElectionEffect,
  type ElectionEvent,
  type ElectionState,
  type ElectionTiming,
  initialElection,
  type LeaseRecord,
  leadsAt,
  type SeenLease,
  stepElection,
} from './election.ts'
import { isConflict, versionOf } from './objects.ts'

export interface ElectorOptions {
  readonly client: HttpClient
  readonly namespace: string
  readonly name: string
  readonly timing: ElectionTiming
  readonly log: ClusterLog
  onLead(): void
  onFollow(): void
  /** Monotonic milliseconds. */
  readonly now?: () => number
}

export class Elector {
  readonly #options: ElectorOptions
  readonly #path: string
  readonly #now: () => number
  #state: ElectionState = initialElection
  #timer: NodeJS.Timeout | undefined
  #done = () => {}
  readonly #ended: Promise<void>
  #reachedAt: number | undefined
  #failing = false

  constructor(options: ElectorOptions) {
    this.#options = options
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${encodeURIComponent(options.namespace)}/leases`
    this.#now = options.now ?? (() => performance.now())
    this.#ended = new Promise((resolve) => {
      this.#done = resolve
    })
  }

  /** Begins to stand for election; once. */
  start(): void {
    this.#take({ type: 'tick', chance: Math.random() })
  }

  /** True while this replica may write as the leader. */
  get leads(): boolean {
    return leadsAt(this.#state, this.#now())
  }

  /** Who holds the lease, as far as this replica has seen; undefined before the first look. */
  get holder(): string | undefined {
    return this.#state.seen?.record.holder
  }

  /** How often the lease changed hands. */
  get transitions(): number {
    return this.#state.seen?.record.transitions ?? 0
  }

  /** Milliseconds since the Lease was last read or written with success; undefined when it never was. */
  get silence(): number | undefined {
    return this.#reachedAt === undefined ? undefined : this.#now() - this.#reachedAt
  }

  /** Leads no more at once, and gives the lease back if it was ours. Never rejects. */
  async close(): Promise<void> {
    this.#take({ type: 'stop' })
    await this.#ended
  }

  #take(event: ElectionEvent): void {
    const { state, effects } = stepElection(this.#state, event, this.#now(), this.#options.timing)
    this.#state = state
    for (const effect of effects) this.#do(effect)
  }

  #do(effect: ElectionEffect): void {
    const { log, onLead, onFollow, namespace, name, timing } = this.#options
    clearTimeout(this.#timer)
    switch (effect.type) {
      case 'wait':
        this.#timer = setTimeout(() => this.#take({ type: 'tick', chance: Math.random() }), effect.milliseconds)
        return
      case 'lead':
        log.info({ lease: `${namespace}/${name}`, identity: timing.identity }, 'this replica leads')
        return onLead()
      case 'follow':
        log.warn({ lease: `${namespace}/${name}`, reason: effect.reason }, 'this replica leads no more')
        return onFollow()
      case 'done':
        return this.#done()
      case 'read':
        return void this.#ask(() => this.#read())
      case 'write':
        return void this.#ask(() => this.#write(effect.record, effect.version, effect.fresh))
    }
  }

  async #ask(request: () => Promise<ElectionEvent>): Promise<void> {
    let event: ElectionEvent
    try {
      event = await request()
      this.#reachedAt = this.#now()
      this.#failing = false
    } catch (error) {
      const conflict = isConflict(error) || (error instanceof HttpError && error.status === 404)
      if (!conflict && !this.#failing) {
        this.#failing = true
        this.#options.log.warn({ err: (error as Error).message }, 'the lease cannot be reached; trying again')
      }
      event = { type: 'failed', conflict, chance: Math.random() }
    }
    this.#take(event)
  }

  async #read(): Promise<ElectionEvent> {
    const chance = Math.random()
    try {
      const path = `${this.#path}/${encodeURIComponent(this.#options.name)}`
      const object = await this.#options.client.request({ method: 'GET', path, signal: this.#patience() })
      return { type: 'read', lease: readLease(object), chance }
    } catch (error) {
      if (error instanceof HttpError && error.status === 404) return { type: 'read', lease: undefined, chance }
      throw error
    }
  }

  async #write(record: LeaseRecord, version: string | undefined, fresh: boolean): Promise<ElectionEvent> {
    const { client, name, namespace } = this.#options
    const signal = this.#patience()
    const spec = writeSpec(record, fresh)
    const answer = await (version === undefined
      ? client.request({
          method: 'POST',
          path: this.#path,
          body: {
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: { name, namespace, labels: ownLabels },
            spec,
          },
          signal,
        })
      : client.request({
          method: 'PATCH',
          path: `${this.#path}/${encodeURIComponent(name)}`,
          body: { metadata: { resourceVersion: version }, spec },
          contentType: 'application/merge-patch+json',
          signal,
        }))
    return { type: 'written', lease: readLease(answer), chance: Math.random() }
  }

  /** One request may take half of the deadline, so that a second one can still save it. */
  #patience(): AbortSignal {
    return AbortSignal.timeout(Math.max(1000, this.#options.timing.renewDeadline / 2))
  }
}

/** RFC 3339 with microseconds, as a Lease has its times. For people: nothing is decided by it. */
const microTime = (): string => new Date().toISOString().replace('Z', '000Z')

function writeSpec(record: LeaseRecord, fresh: boolean): object {
  const now = microTime()
  return {
    holderIdentity: record.holder,
    leaseDurationSeconds: record.durationSeconds,
    renewTime: now,
    leaseTransitions: record.transitions,
    ...(fresh ? { acquireTime: now } : {}),
  }
}

/** Anybody with the right to may have written it: what is not a number counts as client-go's defaults. */
function readLease(object: unknown): SeenLease {
  const spec = ((object as { spec?: unknown } | null)?.spec ?? {}) as Record<string, unknown>
  const count = (value: unknown, otherwise: number) =>
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 31 ? value : otherwise
  return {
    record: {
      holder: typeof spec.holderIdentity === 'string' ? spec.holderIdentity.slice(0, 512) : '',
      durationSeconds: count(spec.leaseDurationSeconds, 15),
      transitions: count(spec.leaseTransitions, 0),
    },
    version: versionOf(object),
  }
}
