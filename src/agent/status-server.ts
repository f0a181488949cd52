/**
 * The agent's HTTP face: liveness, readiness, metrics, state for people and the lab, and the log level. Always on the
 * socket `<run-dir>/agent.sock`, which root alone may open; on TCP only what may be seen by anybody.
 *
 *   GET /healthz   200 while the event loop turns          GET /readyz   200 when pods can be served, else 503 and why
 *   GET /metrics   Prometheus text                         GET /state    JSON (socket only)
 *   PUT /loglevel  body `debug`, `info`, … (socket only)
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'

export interface StatusOptions {
  readonly socketPath: string
  /** No TCP when the port is 0. */
  readonly tcp: { readonly ip: string; readonly port: number }
  /** What stands in the way of serving pods; empty when nothing does. */
  notReady(): readonly string[]
  /** What is to be said of a node that can serve pods; undefined when everything is as it should be. */
  remark(): string | undefined
  metrics(): Promise<string>
  state(): object
  /** False when there is no such level. */
  setLogLevel(level: string): boolean
}

export class StatusServer {
  readonly #options: StatusOptions
  readonly #servers: Server[] = []

  constructor(options: StatusOptions) {
    this.#options = options
  }

  /** Rejects when an address cannot be listened on. */
  async listen(): Promise<void> {
    const { socketPath, tcp } = this.#options
    rmSync(socketPath, { force: true })
    await this.#listen(true, { path: socketPath })
    chmodSync(socketPath, 0o600)
    if (tcp.port > 0) await this.#listen(false, { host: tcp.ip, port: tcp.port })
  }

  close(): void {
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
    rmSync(this.#options.socketPath, { force: true })
  }

  #listen(trusted: boolean, address: { path: string } | { host: string; port: number }): Promise<void> {
    const server = createServer((request, response) => {
      this.#answer(trusted, request, response).catch(() => response.destroy())
    })
    server.requestTimeout = 5000
    this.#servers.push(server)
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(address, resolve)
    })
  }

  async #answer(trusted: boolean, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const send = (status: number, body: string, type = 'text/plain; charset=utf-8') => {
      response.writeHead(status, { 'content-type': type })
      response.end(body)
    }
    const what = `${request.method} ${request.url?.split('?')[0]}`
    if (what === 'GET /healthz') send(200, 'ok\n')
    else if (what === 'GET /readyz') {
      const reasons = this.#options.notReady()
      if (reasons.length) send(503, `${reasons.join('\n')}\n`)
      else send(200, `${this.#options.remark() ?? 'ok'}\n`)
    } else if (what === 'GET /metrics') send(200, await this.#options.metrics(), 'text/plain; version=0.0.4')
    else if (trusted && what === 'GET /state')
      send(200, `${JSON.stringify(this.#options.state())}\n`, 'application/json')
    else if (trusted && what === 'PUT /loglevel') {
      const level = (await readShort(request)).trim()
      const known = this.#options.setLogLevel(level)
      send(known ? 200 : 400, known ? `${level}\n` : 'trace, debug, info, warn or error\n')
    } else send(404, 'there are /healthz, /readyz and /metrics\n')
  }
}

async function readShort(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request) {
    text += chunk
    if (text.length > 64) return ''
  }
  return text
}
