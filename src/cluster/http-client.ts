/**
 * The few HTTP requests that an agent makes of a Kubernetes API server, or of etcd's gateway: JSON in and out, and a watch
 * as lines. On Node's own http client with kept connections: no packages, no objects of kinds that nobody reads.
 *
 * A peer that vanished without a word is noticed by TCP keepalive: after 15 s of silence the kernel asks every second and
 * gives up after ten unanswered probes.
 *
 * Sources: Kubernetes API Concepts ("Efficient detection of changes", "Status"), RFC 9110 section 10.2.3 (Retry-After).
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { text as readText } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { formatJson, parseJson } from '../bytes/json.ts'
import { TokenBucket } from './token-bucket.ts'

/** Client certificate and bearer token, as far as there are any. PEM text. */
export interface Credentials {
  readonly certificate?: string
  readonly key?: string
  /** Value of the Authorization header. */
  readonly authorization?: string
}

export interface Endpoint {
  /** Base address without a trailing slash. */
  readonly server: string
  /** PEM; the system's authorities when left out. */
  readonly ca?: string
  readonly insecure: boolean
  /** Name to check the certificate against instead of the host of `server`. */
  readonly serverName?: string
  /** Asked before every request; cheap when nothing changed. */
  credentials(): Promise<Credentials>
}

/** Connections of one identity to one server. */
interface Pool {
  readonly key: string
  readonly agent: HttpAgent | HttpsAgent
}

const REQUEST_TIMEOUT_MS = 30_000
const KEEPALIVE_MS = 15_000
/** A list page or a watch line larger than this is refused. */
const MAX_BODY_BYTES = 64 << 20

/** The server answered, and not with success. */
export class HttpError extends Error {
  override readonly name = 'HttpError'
  /** HTTP status, or the code of a Status object in a watch. */
  readonly status: number
  /** `Expired`, `Conflict`, `NotFound`, … */
  readonly reason: string
  readonly retryAfterSeconds: number | undefined

  constructor(what: string, status: number, reason: string, message: string, retryAfterSeconds?: number) {
    super(`${what}: ${message || reason || 'no reason given'} (${status})`)
    this.status = status
    this.reason = reason
    this.retryAfterSeconds = retryAfterSeconds
  }
}

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
  /** Path with its query. */
  readonly path: string
  readonly body?: unknown
  /** Of the body; `application/json` when left out. */
  readonly contentType?: string
  readonly signal?: AbortSignal
}

/** So many requests at once, then so many a second; who comes too soon waits in line. */
export interface RequestLimit {
  readonly perSecond: number
  readonly burst: number
}

/** Told of every request: status undefined when no answer came. `seconds` is the time to the answer's head. */
export type RequestObserver = (method: string, host: string, status: number | undefined, seconds: number) => void

export class HttpClient {
  readonly #endpoint: () => Endpoint
  readonly #observe: RequestObserver
  readonly #userAgent: string
  readonly #bucket: TokenBucket | undefined
  #pool: Pool | undefined
  /** The one before, for the requests that were under way when it was replaced. */
  #formerPool: Pool | undefined

  /**
   * A function is asked before every request: an endpoint whose address, authority or credentials change. `userAgent` is who
   * asks, for the server's own logs and limits. Without `limit` nothing waits.
   */
  constructor(
    endpoint: Endpoint | (() => Endpoint),
    observe: RequestObserver = () => {},
    userAgent = 'weft-agent',
    limit?: RequestLimit,
  ) {
    this.#endpoint = typeof endpoint === 'function' ? endpoint : () => endpoint
    this.#observe = observe
    this.#userAgent = userAgent
    this.#bucket = limit && new TokenBucket(limit.perSecond, limit.burst, performance.now())
  }

  /** For messages. */
  get server(): string {
    return this.#endpoint().server
  }

  /** Sends and reads one JSON answer; whole numbers that a double cannot hold are bigints, both ways. Rejects with HttpError, or the socket's error. */
  async request(request: HttpRequest): Promise<unknown> {
    const what = `${request.method} ${request.path.split('?')[0]}`
    await this.#turn(request.signal)
    const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
    const { response, answer } = await this.#exchange(request, timeout).catch((cause: Error) => {
      if (!timeout.aborted || request.signal?.aborted) throw cause
      throw new Error(`${what}: no answer within ${REQUEST_TIMEOUT_MS / 1000} s`, { cause })
    })
    const ok = response.statusCode! >= 200 && response.statusCode! < 300
    const parsed = tryParseJson(answer)
    if (!ok) throw statusError(what, response, parsed, answer)
    if (parsed === undefined) throw new HttpError(what, 502, 'NotJson', 'the answer is not JSON')
    return parsed
  }

  /**
   * Calls back for each line of a streamed answer until it ends. Rejects as `request` does, and when the signal aborts.
   * Resolves when the server ends the stream in order. `onOpen` is called when the server has agreed to stream.
   */
  async stream(request: HttpRequest, onLine: (line: string) => void, onOpen: () => void = () => {}): Promise<void> {
    await this.#turn(request.signal)
    const response = await this.#send(request)
    const what = `${request.method} ${request.path.split('?')[0]}`
    if (response.statusCode !== 200) {
      const answer = await readBounded(response)
      throw statusError(what, response, tryParseJson(answer), answer)
    }
    onOpen()
    response.setEncoding('utf8')
    let rest = ''
    for await (const chunk of response as AsyncIterable<string>) {
      let from = 0
      for (let end = chunk.indexOf('\n'); end >= 0; end = chunk.indexOf('\n', from)) {
        const line = rest + chunk.slice(from, end)
        rest = ''
        from = end + 1
        if (line) onLine(line)
      }
      rest += chunk.slice(from)
      if (rest.length > MAX_BODY_BYTES) throw new HttpError(what, 502, 'TooLarge', 'a line exceeds 64 MiB')
    }
  }

  /** Ends every connection; requests under way reject. Later requests open new ones. */
  close(): void {
    for (const pool of [this.#formerPool, this.#pool]) pool?.agent.destroy()
    this.#formerPool = undefined
    this.#pool = undefined
  }

  /** Waits until the limit lets one more go; rejects when the signal aborts. */
  async #turn(signal: AbortSignal | undefined): Promise<void> {
    const milliseconds = this.#bucket?.reserve(performance.now()) ?? 0
    if (milliseconds > 0) await wait(milliseconds, undefined, signal ? { signal } : {})
  }

  async #exchange(request: HttpRequest, timeout: AbortSignal): Promise<{ response: IncomingMessage; answer: string }> {
    const response = await this.#send(request, timeout)
    return { response, answer: await readBounded(response) }
  }

  async #send(request: HttpRequest, timeout?: AbortSignal): Promise<IncomingMessage> {
    const endpoint = this.#endpoint()
    const credentials = await endpoint.credentials()
    const base = new URL(endpoint.server)
    const url = new URL(base.pathname.replace(/\/$/, '') + request.path, base)
    const body = request.body === undefined ? undefined : formatJson(request.body)
    const signals = [request.signal, timeout].filter((signal) => signal !== undefined)
    const open = url.protocol === 'https:' ? httpsRequest : httpRequest
    const startedAt = performance.now()
    const seen = (status: number | undefined) =>
      this.#observe(request.method, url.host, status, (performance.now() - startedAt) / 1000)
    return new Promise((resolve, reject) => {
      let answered = false
      const outgoing = open(
        url,
        {
          method: request.method,
          agent: this.#agentFor(endpoint, credentials),
          ...(signals.length ? { signal: AbortSignal.any(signals) } : {}),
          headers: {
            accept: 'application/json',
            'user-agent': this.#userAgent,
            ...(credentials.authorization ? { authorization: credentials.authorization } : {}),
            ...(body === undefined
              ? {}
              : {
                  'content-type': request.contentType ?? 'application/json',
                  'content-length': String(Buffer.byteLength(body)),
                }),
          },
        },
        (response) => {
          answered = true
          seen(response.statusCode)
          resolve(response)
        },
      )
      outgoing.on('socket', (socket) => socket.setKeepAlive(true, KEEPALIVE_MS))
      outgoing.on('error', (error) => {
        if (!answered && !request.signal?.aborted) seen(undefined)
        reject(error)
      })
      outgoing.end(body)
    })
  }

  /**
   * The pool of the server, its authority and the client certificate: when one of them changes, requests under way end on the
   * connections that they have, and later ones open new ones.
   */
  #agentFor({ server, ca, insecure, serverName }: Endpoint, { certificate, key }: Credentials): HttpAgent | HttpsAgent {
    const identity = JSON.stringify([server, ca, insecure, serverName, certificate, key])
    if (this.#pool?.key === identity) return this.#pool.agent
    this.#formerPool?.agent.destroy()
    this.#formerPool = this.#pool
    if (this.#formerPool) endWhenIdle(this.#formerPool.agent)
    const pool = { keepAlive: true, keepAliveMsecs: KEEPALIVE_MS, maxFreeSockets: 2, timeout: 0 }
    const agent = server.startsWith('https:')
      ? new HttpsAgent({
          ...pool,
          ...(ca === undefined ? {} : { ca }),
          ...(certificate === undefined ? {} : { cert: certificate }),
          ...(key === undefined ? {} : { key }),
          ...(serverName === undefined ? {} : { servername: serverName }),
          rejectUnauthorized: !insecure,
        })
      : new HttpAgent(pool)
    this.#pool = { key: identity, agent }
    return agent
  }
}

/** Closes the connections that nobody uses, and the others as soon as their request is answered. */
function endWhenIdle(agent: HttpAgent | HttpsAgent): void {
  agent.maxFreeSockets = 0
  for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
}

async function readBounded(response: IncomingMessage): Promise<string> {
  if (Number(response.headers['content-length'] ?? 0) > MAX_BODY_BYTES) {
    response.destroy()
    throw new Error('the answer exceeds 64 MiB')
  }
  let size = 0
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > MAX_BODY_BYTES) response.destroy(new Error('the answer exceeds 64 MiB'))
  })
  return readText(response)
}

function tryParseJson(text: string): unknown {
  try {
    return parseJson(text)
  } catch {
    return undefined
  }
}

function statusError(what: string, response: IncomingMessage, parsed: unknown, answer: string): HttpError {
  const status = (parsed ?? {}) as { reason?: unknown; message?: unknown }
  const message = typeof status.message === 'string' ? status.message : answer.slice(0, 200).trim()
  const retryAfter = Number(response.headers['retry-after'])
  return new HttpError(
    what,
    response.statusCode ?? 0,
    typeof status.reason === 'string' ? status.reason : '',
    message,
    Number.isFinite(retryAfter) && retryAfter >= 0 ? retryAfter : undefined,
  )
}
