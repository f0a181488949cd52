/**
 * `weft controller`: cluster-wide duties, done by one of several replicas.
 *
 *   status server ─► network configuration ─► elector ──lead──► term: ledger, nodes, pod CIDRs, node state
 *                                                └──follow──► the term ends at once
 *
 * Its end changes nothing: what nodes have stays, and the next leader goes on.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import type { ClusterLog } from '../cluster/cluster.ts'
import { HttpClient, type RequestObserver } from '../cluster/http-client.ts'
import { followConnection } from '../cluster/kubernetes/kubeconfig.ts'
import type { Check } from '../status/checks.ts'
import { EventLoopWatch } from '../status/event-loop.ts'
import { openLog, setLogLevel } from '../status/log.ts'
import { listenToLogSignals } from '../status/log-signals.ts'
import { ProcessMetrics } from '../status/process-metrics.ts'
import { StatusServer } from '../status/status-server.ts'
import { Elector } from './elector.ts'
import { ControllerMetrics } from './metrics.ts'
import { FollowedNetwork } from './network.ts'
import type { ControllerOptions } from './options.ts'
import { Term } from './term.ts'

/** The API server has not been heard of for this many retry periods of the election. */
const SILENT_PERIODS = 10

/** Runs until a signal; resolves with the exit code. Throws ConfigError for what the user must change. */
export async function runController(options: ControllerOptions, version: string): Promise<number> {
  const metrics = new ControllerMetrics()
  const counted = new ProcessMetrics(metrics.registry, version)
  const identity = `${hostname()}_${randomUUID()}`
  const log = openLog({
    level: options.logLevel,
    format: options.logFormat,
    base: { identity },
    onMessage: (level) => counted.countMessage(level),
  })
  const controller = new Controller(options, identity, metrics, log, {
    version,
    onRequest: (...seen) => counted.observeRequest(...seen),
  })
  const eventLoop = new EventLoopWatch((seconds) => counted.observeLag(seconds))
  const live = (): Check[] => [{ name: 'event-loop', problem: eventLoop.problem }]
  const status = new StatusServer({
    ...(options.statusSocket === undefined ? {} : { socketPath: options.statusSocket }),
    tcp: options.healthz,
    live,
    ready: () => controller.checks(),
    remark: () => undefined,
    metrics: () => {
      counted.setChecks('healthz', live())
      counted.setChecks('readyz', controller.checks())
      return metrics.registry.metrics()
    },
    state: () => controller.state(),
    logLevel: { get: () => log.level, set: (level) => void setLogLevel(log, level) },
  })
  const stopListening = listenToLogSignals(log)
  try {
    await status.listen()
    controller.start()
    const signal = await new Promise<string>((resolve) => {
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name))
    })
    log.info({ signal }, 'stopping')
    return 0
  } finally {
    await controller.close()
    stopListening()
    status.close()
    eventLoop.close()
  }
}

export class Controller {
  readonly #options: ControllerOptions
  readonly #metrics: ControllerMetrics
  readonly #log: ClusterLog
  readonly #client: HttpClient
  readonly #network: FollowedNetwork
  readonly #elector: Elector | undefined
  #term: Term | undefined
  #ending: Promise<void> = Promise.resolve()
  #closed = false

  /** `identity` is this replica's alone. Throws ConfigError for a kubeconfig that cannot be read. */
  constructor(
    options: ControllerOptions,
    identity: string,
    metrics: ControllerMetrics,
    log: ClusterLog,
    { version = '', onRequest }: { readonly version?: string; readonly onRequest?: RequestObserver } = {},
  ) {
    this.#options = options
    this.#metrics = metrics
    this.#log = log
    const { kubeconfig, kubeApiUrl, network, election } = options
    const connection = followConnection(kubeconfig, kubeApiUrl, log)
    this.#client = new HttpClient(connection, onRequest, `weft-controller/${version}`)
    this.#network = new FollowedNetwork({
      client: this.#client,
      place: network,
      log,
      onChange: () => this.#term?.restart(),
    })
    if (election)
      this.#elector = new Elector({
        client: this.#client,
        namespace: election.namespace,
        name: election.name,
        timing: { ...election.timing, identity },
        log,
        onLead: () => this.#lead(),
        onFollow: () => this.#follow(),
      })
  }

  start(): void {
    if (this.#options.allocate) this.#network.start()
    this.#metrics.setLeader(this.#leaseName, false)
    if (this.#elector) this.#elector.start()
    else this.#lead()
  }

  /** What must be right for this replica to do its work, or to take it over. */
  checks(): Check[] {
    const { allocate, election } = this.#options
    const silence = this.#elector?.silence
    const limit = SILENT_PERIODS * (election?.timing.retryPeriod ?? 0)
    const lease =
      silence === undefined
        ? 'the lease has not been read yet'
        : silence > limit
          ? `the lease cannot be reached since ${Math.round(silence / 1000)} s`
          : undefined
    return [
      ...(this.#elector ? [{ name: 'lease', problem: lease }] : []),
      ...(allocate ? [{ name: 'network', problem: this.#network.pools ? undefined : this.#network.problem }] : []),
      { name: 'nodes', problem: this.#term?.problem },
    ]
  }

  state(): object {
    const { holder, transitions } = this.#elector ?? {}
    return {
      leads: this.#elector?.leads ?? true,
      ...(holder === undefined ? {} : { holder, transitions }),
      checks: this.checks(),
    }
  }

  /** Ends the term first, then gives the lease back: nothing is under way when another may begin. */
  async close(): Promise<void> {
    this.#closed = true
    this.#follow()
    await this.#ending
    await Promise.all([this.#elector?.close(), this.#network.close()])
    this.#client.close()
  }

  get #leaseName(): string {
    return this.#options.election?.name ?? 'weft-controller'
  }

  #lead(): void {
    if (this.#closed) return
    this.#metrics.setLeader(this.#leaseName, true)
    this.#term = new Term({
      client: this.#client,
      settings: this.#options,
      metrics: this.#metrics,
      log: this.#log,
      pools: () => this.#network.pools,
      mayWrite: () => !this.#closed && (this.#elector?.leads ?? true),
    })
  }

  #follow(): void {
    const term = this.#term
    this.#term = undefined
    this.#metrics.setLeader(this.#leaseName, false)
    if (term) this.#ending = term.close()
  }
}
