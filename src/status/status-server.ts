/**
 * The HTTP face of a long-running program: liveness, readiness, metrics, its state and its log level. On a socket that
 * root alone may open; on TCP only what may be seen by anybody.
 *
 *   GET /healthz, /livez   200 while the event loop turns        ?verbose, ?exclude=NAME, and /readyz/NAME for one check:
 *   GET /readyz            200 when it can do its work, else 503       as Kubernetes' components have them
 *   GET /metrics           Prometheus text
 *   GET /addresses         what pods here hold, where there is such a thing: a line for each sandbox
 *   GET /state             JSON (socket only)
 *   GET, PUT /loglevel     `debug`, `info`, … (socket only)
 *   GET, PUT /debug/flags/v  the same as a number (socket only)
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { answerChecks, type Check } from './checks.ts'
import { isLogLevel, levelOfVerbosity, logLevels, verbosityOf } from './log-level.ts'

export interface StatusOptions {
  /** Left out: there is none, and what is asked by it alone cannot be asked. */
  readonly socketPath?: string
  /** No TCP when the port is 0. */
  readonly tcp: { readonly ip: string; readonly port: number }
  live(): readonly Check[]
  /** What stands in the way of doing its work, check by check. */
  ready(): readonly Check[]
  /** What is to be said of a program that is ready; undefined when everything is as it should be. */
  remark(): string | undefined
  metrics(): Promise<string>
  /** Lines of addresses, a line for each sandbox. */
  addresses?(): string
  state(): object
  readonly logLevel: { get(): string; set(level: string): void }
}

interface Answer {
  readonly status: number
  readonly body: string
  readonly type?: string
}

const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
/** Enough for every prober and scraper; whoever opens more without asking anything waits. */
const MAX_CONNECTIONS = 64
const TIMEOUT_MS = 5000

export class StatusServer {
  readonly #options: StatusOptions
  readonly #servers: Server[] = []
  #metrics: Promise<string> | undefined

  constructor(options: StatusOptions) {
    this.#options = options
  }

  /** Rejects when an address cannot be listened on. */
  async listen(): Promise<void> {
    const { socketPath, tcp } = this.#options
    if (socketPath !== undefined) {
      rmSync(socketPath, { force: true })
      await this.#listen(true, { path: socketPath })
      chmodSync(socketPath, 0o600)
    }
    if (tcp.port > 0) await this.#listen(false, { host: tcp.ip, port: tcp.port })
  }

  close(): void {
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
    if (this.#options.socketPath !== undefined) rmSync(this.#options.socketPath, { force: true })
  }

  #listen(trusted: boolean, address: { path: string } | { host: string; port: number }): Promise<void> {
    const server = createServer({ connectionsCheckingInterval: TIMEOUT_MS }, (request, response) => {
      this.#serve(trusted, request, response).catch(() => response.destroy())
    })
    server.requestTimeout = TIMEOUT_MS
    server.headersTimeout = TIMEOUT_MS
    server.maxConnections = MAX_CONNECTIONS
    this.#servers.push(server)
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(address, resolve)
    })
  }

  async #serve(trusted: boolean, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://status')
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const path = pathname.replace(/\/$/, '')
    const {
      status,
      body,
      type = 'text/plain; charset=utf-8',
    } = (method === 'GET' ? await this.#read(path, searchParams, trusted) : undefined) ??
    (method === 'PUT' && trusted ? await this.#change(path, request) : undefined) ??
    noSuchPath
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
    response.end(body)
  }

  async #read(path: string, query: URLSearchParams, trusted: boolean): Promise<Answer | undefined> {
    const { live, ready, remark, state, logLevel } = this.#options
    const [, first = '', only, more] = path.split('/')
    if (more === undefined && (first === 'healthz' || first === 'livez'))
      return this.#check(first, live.call(this.#options), query, only)
    if (more === undefined && first === 'readyz')
      return this.#check(first, ready.call(this.#options), query, only, remark.call(this.#options))
    if (path === '/metrics') return { status: 200, body: await this.#readMetrics(), type: METRICS_TYPE }
    if (path === '/addresses' && this.#options.addresses) return { status: 200, body: this.#options.addresses() }
    if (!trusted) return undefined
    if (path === '/state')
      return { status: 200, body: `${JSON.stringify(state.call(this.#options))}\n`, type: 'application/json' }
    if (path === '/loglevel') return { status: 200, body: `${logLevel.get()}\n` }
    if (path === '/debug/flags/v') return { status: 200, body: `${verbosityOf(logLevel.get())}\n` }
    return undefined
  }

  #check(path: string, checks: readonly Check[], query: URLSearchParams, only?: string, remark?: string) {
    const answer = answerChecks(path, checks, query, { only, remark })
    return answer && { status: answer.ok ? 200 : 503, body: answer.text }
  }

  async #change(path: string, request: IncomingMessage): Promise<Answer | undefined> {
    if (path !== '/loglevel' && path !== '/debug/flags/v') return undefined
    const { logLevel } = this.#options
    const text = (await readShort(request)).trim()
    if (path === '/loglevel') {
      if (!isLogLevel(text)) return { status: 400, body: `the levels are ${logLevels.join(', ')}\n` }
      logLevel.set(text)
      return { status: 200, body: `${text}\n` }
    }
    if (!/^\d{1,3}$/.test(text)) return { status: 400, body: 'a verbosity is a number from 0 to 999\n' }
    logLevel.set(levelOfVerbosity(Number(text)))
    return { status: 200, body: `verbosity ${text}: the log level is ${logLevel.get()}\n` }
  }

  /** Whoever asks while the metrics are being read gets the same answer: scrapers cost one reading. */
  #readMetrics(): Promise<string> {
    this.#metrics ??= this.#options.metrics().finally(() => {
      this.#metrics = undefined
    })
    return this.#metrics
  }
}

const noSuchPath: Answer = { status: 404, body: 'there are /healthz, /livez, /readyz and /metrics\n' }

async function readShort(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request) {
    text += chunk
    if (text.length > 64) return ''
  }
  return text
}
