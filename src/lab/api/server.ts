/**
 * The lab's Kubernetes API server: listeners, who is asking, and which part answers. Streams into pods are in
 * streams/, resources in http/resource-handler.ts.
 * Sources: Kubernetes documentation, "The Kubernetes API", "Kubernetes API health endpoints".
 */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ObjectStore } from '../../cluster/embedded/store.ts'
import { Authenticator, impersonate } from './access/authenticator.ts'
import { Authorizer } from './access/authorizer.ts'
import { RoleAggregator } from './access/role-aggregator.ts'
import { ServiceAccountTokens } from './access/service-account-tokens.ts'
import { ApiError, badRequest, noSuchResource, unauthorized } from './api-error.ts'
import { bootstrap } from './bootstrap.ts'
import { Catalog } from './catalog.ts'
import { GarbageCollector } from './garbage-collector.ts'
import { DiscoveryHandler } from './http/discovery-handler.ts'
import type { OpenWatch } from './http/lists.ts'
import { parseResourcePath } from './http/request.ts'
import { ResourceHandler } from './http/resource-handler.ts'
import { type Exchange, sendError } from './http/respond.ts'
import type { ApiServerHandle, ApiServerOptions, KubeObject, LocalClient, TokenUser } from './interfaces.ts'
import { definitionStorage } from './kinds/custom.ts'
import { InProcessClient } from './local-client.ts'
import { NamespaceCleaner } from './namespace-cleaner.ts'
import { Resources } from './resources.ts'
import { ServiceAddresses } from './service-addresses.ts'
import { PodStreams } from './streams/pod-streams.ts'

/** Events are forgotten after this time, as by kube-apiserver's --event-ttl. */
const eventLifeMilliseconds = 3_600_000
const eventSweepMilliseconds = 60_000

export class ApiServer implements ApiServerHandle {
  readonly client: LocalClient
  readonly #options: ApiServerOptions
  readonly #store: ObjectStore
  readonly #handler: ResourceHandler
  readonly #discovery: DiscoveryHandler
  readonly #streams: PodStreams
  readonly #collector: GarbageCollector
  readonly #cleaner: NamespaceCleaner
  readonly #aggregator: RoleAggregator
  readonly #authenticator: Authenticator
  readonly #authorizer: Authorizer
  readonly #watches = new Set<OpenWatch>()
  readonly #servers = new Set<Server>()
  readonly #sockets = new Set<Socket>()
  readonly #sweep: NodeJS.Timeout

  constructor(options: ApiServerOptions) {
    this.#options = options
    this.#store = options.store
    const catalog = new Catalog()
    for (const definition of options.store.list(definitionStorage)) catalog.define(definition as KubeObject)
    const addresses = new ServiceAddresses(
      options.serviceCidrs ?? ['10.96.0.0/16'],
      options.nodePortRange ?? [30_000, 32_767],
      () => options.store.list('services') as KubeObject[],
    )
    const resources = new Resources(options.store, catalog, addresses)
    this.client = new InProcessClient(resources)
    bootstrap(resources, addresses.first)
    const serviceAccountTokens = new ServiceAccountTokens(options.store, options.serviceAccountKey)
    const authenticator = new Authenticator(options.tokens, serviceAccountTokens)
    const authorizer = new Authorizer(options.store)
    this.#authenticator = authenticator
    this.#authorizer = authorizer
    const access = { authenticator, authorizer }
    this.#handler = new ResourceHandler({ resources, access, serviceAccountTokens, watches: this.#watches })
    this.#discovery = new DiscoveryHandler(catalog, authorizer)
    this.#aggregator = new RoleAggregator(resources)
    this.#streams = new PodStreams(resources, this.#handler, options.podRuntime)
    this.#collector = new GarbageCollector(resources, options.log)
    this.#cleaner = new NamespaceCleaner(resources)
    this.#sweep = setInterval(() => this.#forgetEvents(resources), eventSweepMilliseconds).unref()
  }

  async listen({ host, port }: { host: string; port: number }): Promise<{ port: number }> {
    const server = this.#createServer()
    await listening(server, () => server.listen({ host, port }))
    return { port: (server.address() as AddressInfo).port }
  }

  async listenOn(fd: number): Promise<void> {
    const server = this.#createServer()
    await listening(server, () => server.listen({ fd }))
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep)
    this.#collector.close()
    this.#cleaner.close()
    this.#aggregator.close()
    const closed = [...this.#servers].map((server) => new Promise((done) => server.close(done)))
    for (const watch of [...this.#watches]) watch.end()
    for (const server of this.#servers) server.closeIdleConnections()
    await this.#store.committed()
    // What is still open is a stream into a pod, or a client that does not read.
    const impatient = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, 500)
    await Promise.all(closed)
    clearTimeout(impatient)
  }

  #createServer(): Server {
    const { tls } = this.#options
    const listener = (request: IncomingMessage, response: ServerResponse) => void this.#answer(request, response)
    const limits = { keepAliveTimeout: 120_000, maxHeaderSize: 64 * 1024, requestTimeout: 60_000 }
    const server = tls
      ? createHttpsServer({ ...limits, cert: tls.cert, key: tls.key, ca: tls.ca, minVersion: 'TLSv1.2' }, listener)
      : createHttpServer(limits, listener)
    server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head))
    server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => this.#sockets.delete(socket))
    })
    this.#servers.add(server)
    return server
  }

  /** Throws 401. */
  #authenticate(request: IncomingMessage): TokenUser {
    const user = this.#authenticator.user(request.headers.authorization)
    if (!user) throw unauthorized()
    return impersonate(user, request.headers, this.#authorizer)
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange: Exchange = { request, response, warnings: [] }
    try {
      const url = parseUrl(request)
      if (await this.#discovery.handlePublic(exchange, url)) return
      const user = this.#authenticate(request)
      if (await this.#discovery.handle(exchange, url, user)) return
      const path = parseResourcePath(url.pathname)
      if (!path) throw noSuchResource()
      if (path.subresource === 'log') return await this.#streams.sendLog(exchange, user, path, url.searchParams)
      await this.#handler.handle(exchange, user, path, url.searchParams)
    } catch (error) {
      if (response.destroyed) return
      const known = await sendError(exchange, error)
      if (known.code >= 500 && known.code !== 504)
        this.#options.log?.error({ err: error, method: request.method, url: request.url }, 'request failed')
    } finally {
      if (!request.readableEnded) request.resume()
    }
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => socket.destroy())
    try {
      const user = this.#authenticate(request)
      const url = parseUrl(request)
      const path = parseResourcePath(url.pathname)
      if (!path) throw noSuchResource()
      await this.#streams.upgrade(request, socket, head, user, path, url.searchParams)
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError(500, 'InternalError', String(error))
      if (known.code >= 500) this.#options.log?.error({ err: error, url: request.url }, 'upgrade failed')
      const body = JSON.stringify(known.toStatus())
      socket.end(
        `HTTP/1.1 ${known.code} ${known.reason}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      )
    }
  }

  #forgetEvents(resources: Resources): void {
    const now = Date.now()
    for (const event of resources.store.list('events') as KubeObject[]) {
      const seen =
        event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp
      if (now - Date.parse(seen) > eventLifeMilliseconds)
        resources.store.remove('events', event.metadata.namespace ?? '', event.metadata.name!)
    }
  }
}

function parseUrl(request: IncomingMessage): URL {
  try {
    return new URL(request.url ?? '/', 'http://api')
  } catch (error) {
    throw badRequest('the URL of the request cannot be read', error)
  }
}

const listening = (server: Server, start: () => void): Promise<void> =>
  new Promise((done, fail) => {
    server.once('error', fail)
    server.once('listening', () => {
      server.off('error', fail)
      done()
    })
    start()
  })
