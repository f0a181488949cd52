/**
 * etcd v3 through its JSON gateway (on every client port since 3.0; `/v3` since 3.4): ranges, transactions, leases, watches,
 * tokens. Several endpoints are tried in turn. Keys and values are base64 there, 64-bit numbers are text.
 *
 * Sources: etcd documentation "Why gRPC gateway", api/etcdserverpb/rpc.proto (messages and their meaning).
 */
import { ConfigError } from '../../model/errors.ts'
import { FollowedFiles, type ReadFile } from '../followed-files.ts'
import { HttpClient, HttpError, type RequestObserver } from '../http-client.ts'

export interface EtcdClientOptions {
  readonly endpoints: readonly string[]
  readonly caFile?: string
  readonly certFile?: string
  readonly keyFile?: string
  readonly username?: string
  readonly password?: string
  readonly observe?: RequestObserver
}

export interface KeyValue {
  readonly key: string
  readonly value: string
  /** Revision of the last change, as text. */
  readonly modRevision: string
  /** Id of the lease that the key ends with; `0` for none. */
  readonly lease: string
}

export type KeyEvent =
  | { readonly type: 'put'; readonly pair: KeyValue }
  | { readonly type: 'delete'; readonly key: string }

/** The history that a watch asked for is gone. */
export class CompactedError extends Error {
  override readonly name = 'CompactedError'
}

type Json = Record<string, unknown>

/** Fewer pairs a page keep the largest answer, and with it the process, small. */
const PAGE_SIZE = 500

const encode = (text: string): string => Buffer.from(text, 'utf8').toString('base64')
const decode = (text: unknown): string => Buffer.from(String(text ?? ''), 'base64').toString('utf8')

/** The end of the range of all keys with a prefix: the prefix with its last byte one higher. */
function rangeEnd(prefix: string): string {
  const bytes = Buffer.from(prefix, 'utf8')
  bytes[bytes.length - 1]!++
  return bytes.toString('base64')
}

export class EtcdClient {
  readonly #options: EtcdClientOptions
  readonly #clients: readonly HttpClient[]
  #current = 0
  #token: string | undefined

  /** Throws ConfigError for certificates that cannot be read. */
  constructor(options: EtcdClientOptions) {
    this.#options = options
    const files = new FollowedFiles((read) => readIdentity(options, read))
    this.#clients = options.endpoints.map((server) => {
      const endpoint = () => {
        const { ca, ...client } = files.value
        return {
          server: server.replace(/\/+$/, ''),
          ...(ca === undefined ? {} : { ca }),
          insecure: false,
          credentials: async () => ({
            ...client,
            ...(this.#token === undefined ? {} : { authorization: this.#token }),
          }),
        }
      }
      return new HttpClient(endpoint, options.observe)
    })
  }

  /** All pairs under a prefix (or one key, with `exact`), and the revision that this is the state of. */
  async range(prefix: string, options: { readonly exact?: boolean } = {}, signal?: AbortSignal) {
    const body = { key: encode(prefix), ...(options.exact ? {} : { range_end: rangeEnd(prefix) }) }
    const answer = await this.#call('/v3/kv/range', body, signal)
    const pairs = ((answer.kvs as Json[] | undefined) ?? []).map(pairOf)
    return { pairs, revision: BigInt(String((answer.header as Json).revision)) }
  }

  /** The same in pages, all of one revision, which is the result. */
  async pages(
    prefix: string,
    onPage: (pairs: readonly KeyValue[]) => void,
    signal?: AbortSignal,
    pageSize = PAGE_SIZE,
  ): Promise<bigint> {
    let revision: string | undefined
    for (let from = encode(prefix); ; ) {
      const body = {
        key: from,
        range_end: rangeEnd(prefix),
        limit: String(pageSize),
        ...(revision === undefined ? {} : { revision }),
      }
      const answer = await this.#call('/v3/kv/range', body, signal)
      revision ??= String((answer.header as Json).revision)
      const kvs = (answer.kvs as Json[] | undefined) ?? []
      onPage(kvs.map(pairOf))
      const last = kvs.at(-1)?.key
      if (answer.more !== true || last === undefined) return BigInt(revision)
      // The first key that can follow: the last one and a zero byte.
      from = Buffer.concat([Buffer.from(String(last), 'base64'), Buffer.of(0)]).toString('base64')
    }
  }

  /** Writes when the key's last change is `modRevision` (`0`: it does not exist). False when it is another. */
  async putIf(key: string, modRevision: string, value: string, lease: string, signal?: AbortSignal): Promise<boolean> {
    const request_put = { key: encode(key), value: encode(value), ...(lease === '0' ? {} : { lease }) }
    return (await this.#changeIf(key, modRevision, { request_put }, signal)) !== undefined
  }

  /** The same without a lease; the revision of the write. */
  replaceIf(key: string, modRevision: string, value: string, signal?: AbortSignal): Promise<string | undefined> {
    return this.#changeIf(key, modRevision, { request_put: { key: encode(key), value: encode(value) } }, signal)
  }

  /** Removes the key when its last change is `modRevision`. False when it is another. */
  async deleteIf(key: string, modRevision: string, signal?: AbortSignal): Promise<boolean> {
    const request_delete_range = { key: encode(key) }
    return (await this.#changeIf(key, modRevision, { request_delete_range }, signal)) !== undefined
  }

  async #changeIf(key: string, modRevision: string, change: Json, signal?: AbortSignal): Promise<string | undefined> {
    const compare = [{ key: encode(key), target: 'MOD', result: 'EQUAL', mod_revision: modRevision }]
    const answer = await this.#call('/v3/kv/txn', { compare, success: [change] }, signal)
    return answer.succeeded === true ? String((answer.header as Json).revision) : undefined
  }

  async delete(key: string, signal?: AbortSignal): Promise<void> {
    await this.#call('/v3/kv/deleterange', { key: encode(key) }, signal)
  }

  /** A new lease's id. */
  async grant(ttlSeconds: number, signal?: AbortSignal): Promise<string> {
    return String((await this.#call('/v3/lease/grant', { TTL: String(ttlSeconds) }, signal)).ID)
  }

  /** Seconds left after renewal; 0 when the lease has ended. */
  async keepAlive(lease: string, signal?: AbortSignal): Promise<number> {
    const answer = await this.#call('/v3/lease/keepalive', { ID: lease }, signal)
    return Number((answer.result as Json | undefined)?.TTL ?? 0)
  }

  /** Seconds left; -1 when the lease has ended. */
  async timeToLive(lease: string, signal?: AbortSignal): Promise<number> {
    return Number((await this.#call('/v3/lease/timetolive', { ID: lease }, signal)).TTL ?? -1)
  }

  /**
   * Calls back for every change under a prefix from a revision on, in order, with the revision it belongs to. Ends when the
   * stream does; rejects with CompactedError, an HttpError or the socket's error.
   */
  async watch(
    prefix: string,
    from: bigint,
    onEvents: (events: readonly KeyEvent[], revision: bigint) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const request = {
      create_request: { key: encode(prefix), range_end: rangeEnd(prefix), start_revision: String(from) },
    }
    await this.#withLogin((client) =>
      client.stream({ method: 'POST', path: '/v3/watch', body: request, signal }, (line) => {
        const message = JSON.parse(line) as Json
        if (message.error) throw new HttpError('watch', 500, '', String((message.error as Json).message ?? ''))
        const result = message.result as Json
        if (result.compact_revision !== undefined && result.compact_revision !== '0')
          throw new CompactedError(`history before revision ${result.compact_revision} is gone`)
        if (result.canceled) throw new HttpError('watch', 500, '', String(result.cancel_reason ?? 'canceled'))
        const events = ((result.events as Json[] | undefined) ?? []).map(eventOf)
        onEvents(events, BigInt(String((result.header as Json).revision)))
      }),
    )
  }

  close(): void {
    for (const client of this.#clients) client.close()
  }

  async #call(path: string, body: object, signal?: AbortSignal): Promise<Json> {
    const answer = await this.#withLogin((client) =>
      client.request({ method: 'POST', path, body, ...(signal ? { signal } : {}) }),
    )
    return answer as Json
  }

  /** With a token when there is a user, renewed once when it has run out; another endpoint next time when one fails. */
  async #withLogin<T>(call: (client: HttpClient) => Promise<T>): Promise<T> {
    const client = this.#clients[this.#current % this.#clients.length]!
    try {
      if (this.#options.username !== undefined && this.#token === undefined) await this.#login(client)
      try {
        return await call(client)
      } catch (error) {
        const stale = error instanceof HttpError && (error.status === 401 || /invalid auth token/.test(error.message))
        if (!stale || this.#options.username === undefined) throw error
        this.#token = undefined
        await this.#login(client)
        return await call(client)
      }
    } catch (error) {
      if (!(error instanceof HttpError) || error.status >= 500) this.#current++
      throw error
    }
  }

  async #login(client: HttpClient): Promise<void> {
    const { username: name, password = '' } = this.#options
    const answer = (await client.request({
      method: 'POST',
      path: '/v3/auth/authenticate',
      body: { name, password },
    })) as Json
    this.#token = String(answer.token)
  }
}

const pairOf = (kv: Json): KeyValue => ({
  key: decode(kv.key),
  value: decode(kv.value),
  modRevision: String(kv.mod_revision ?? '0'),
  lease: String(kv.lease ?? '0'),
})

function eventOf(event: Json): KeyEvent {
  const kv = event.kv as Json
  return event.type === 'DELETE' ? { type: 'delete', key: decode(kv.key) } : { type: 'put', pair: pairOf(kv) }
}

/** Authority, certificate and key, as far as they are named. Certificates are renewed while we run. */
function readIdentity({ caFile, certFile, keyFile }: EtcdClientOptions, read: ReadFile) {
  const pem = <K extends string>(key: K, flag: string, path: string | undefined): { [key in K]?: string } => {
    if (path === undefined) return {}
    try {
      return { [key]: read(path) } as { [key in K]?: string }
    } catch (cause) {
      throw new ConfigError(flag, path, (cause as Error).message, { cause })
    }
  }
  return {
    ...pem('ca', '--etcd-cafile', caFile),
    ...pem('certificate', '--etcd-certfile', certFile),
    ...pem('key', '--etcd-keyfile', keyFile),
  }
}
