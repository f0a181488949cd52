/**
 * Events about nodes, where `kubectl describe node` shows them: in the namespace `default`, limited in number, and without
 * ever holding anybody up. A role without the right to write them is no error.
 *
 * An Event's name is made of what it says: many nodes that see the same wrong of one peer write one object, the first of them
 * (`source.host`), and the others are told that it exists. They also do not write at the same moment.
 *
 * Sources: Kubernetes API reference, core/v1 Event.
 */
import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import type { ClusterLog, NodeReport } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { ReportLimiter } from '../report-limiter.ts'

export interface NodeEventsOptions {
  readonly client: HttpClient
  readonly log: ClusterLog
  /** Who speaks: `weft`, `weft-controller`. */
  readonly component: string
  /** The node that speaks, when it is one. */
  readonly host?: string
  /** How many nodes there are, each with somebody who may see the same. */
  readonly clusterSize?: () => number
  /** The window in which to write, in milliseconds. */
  readonly spreadMs?: () => number
  readonly signal: AbortSignal
}

export class NodeEvents {
  readonly #options: NodeEventsOptions
  readonly #limiter: ReportLimiter
  #refused = false

  constructor(options: NodeEventsOptions) {
    this.#options = options
    const { host, clusterSize = () => 1 } = options
    this.#limiter = new ReportLimiter({ host, clusterSize })
  }

  /** Never rejects, never waits. False when the report was dropped: the like was said a moment ago, or others say it. */
  report(report: NodeReport): boolean {
    if (!this.#limiter.admit(report)) return false
    if (!this.#refused) void this.#send(report)
    return true
  }

  async #send(report: NodeReport): Promise<void> {
    const { client, log, signal, spreadMs } = this.#options
    try {
      await wait(Math.random() * (spreadMs?.() ?? 0), undefined, { signal, ref: false })
      await client.request({
        method: 'POST',
        path: '/api/v1/namespaces/default/events',
        body: this.#eventOf(report),
        signal,
      })
    } catch (error) {
      if (signal.aborted) return
      const status = error instanceof HttpError ? error.status : undefined
      const err = (error as Error).message
      if (status === 403) {
        if (!this.#refused) log.warn({ err }, 'may not create Events: reports about nodes stay in this log')
        this.#refused = true
      } else if (status !== 409) log.debug({ err, node: report.node }, 'an Event could not be written')
    }
  }

  #eventOf(report: NodeReport): object {
    const { component, host } = this.#options
    const now = `${new Date().toISOString().slice(0, 19)}Z`
    const involvedObject = {
      kind: 'Node',
      apiVersion: 'v1',
      name: report.node,
      ...(report.uid ? { uid: report.uid } : {}),
    }
    const message = report.message.slice(0, 1024)
    const words = createHash('sha256').update(JSON.stringify([component, report.uid, report.reason, message]))
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${report.node.slice(0, 200)}.${words.digest('hex').slice(0, 16)}`, namespace: 'default' },
      involvedObject,
      type: report.severity,
      reason: report.reason,
      message,
      source: { component, ...(host ? { host } : {}) },
      reportingComponent: component,
      reportingInstance: hostname(),
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    }
  }
}
