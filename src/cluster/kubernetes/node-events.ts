/**
 * Events about nodes, where `kubectl describe node` shows them: in the namespace `default`, limited in number, and without
 * ever holding anybody up. A role without the right to write them is no error.
 *
 * Sources: Kubernetes API reference, core/v1 Event.
 */
import { hostname } from 'node:os'
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
  readonly signal: AbortSignal
}

export class NodeEvents {
  readonly #options: NodeEventsOptions
  readonly #limiter = new ReportLimiter()
  #refused = false

  constructor(options: NodeEventsOptions) {
    this.#options = options
  }

  /** Never rejects, never waits. False when the report was dropped, because the like was said a moment ago. */
  report(report: NodeReport): boolean {
    if (!this.#limiter.admit(report)) return false
    if (!this.#refused) this.#send(report)
    return true
  }

  #send(report: NodeReport): void {
    const { client, log, component, host, signal } = this.#options
    const now = `${new Date().toISOString().slice(0, 19)}Z`
    const involvedObject = {
      kind: 'Node',
      apiVersion: 'v1',
      name: report.node,
      ...(report.uid ? { uid: report.uid } : {}),
    }
    const body = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { generateName: `${report.node.slice(0, 200)}.`, namespace: 'default' },
      involvedObject,
      type: report.severity,
      reason: report.reason,
      message: report.message.slice(0, 1024),
      source: { component, ...(host ? { host } : {}) },
      reportingComponent: component,
      reportingInstance: hostname(),
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    }
    client
      .request({ method: 'POST', path: '/api/v1/namespaces/default/events', body, signal })
      .catch((error: Error) => {
        if (signal.aborted) return
        if (error instanceof HttpError && error.status === 403) {
          this.#refused = true
          log.warn({ err: error.message }, 'may not create Events: reports about nodes stay in this log')
        } else log.debug({ err: error.message, node: report.node }, 'an Event could not be written')
      })
  }
}
