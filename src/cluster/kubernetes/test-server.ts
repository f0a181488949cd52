/**
 * A Kubernetes API server of the smallest kind, for tests of the client alone: any collection, list in pages, watch,
 * merge patch, creation, and every misbehaviour that a real one shows: cut streams, 410, 429, silence. Not part of
 * the program; the lab's API server is the one that pods and kubectl see.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json as readJson } from 'node:stream/consumers'

// biome-ignore lint/suspicious/noExplicitAny: the JSON of any kind
export type Any = any

interface Watcher {
  readonly collection: string
  readonly name: string | undefined
  readonly response: ServerResponse
}

export class TestServer {
  readonly requests: string[] = []
  readonly created: Any[] = []
  /** When set, asked before everything else; true means that it has answered (or keeps silent). */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined
  readonly #objects = new Map<string, Map<string, Any>>()
  readonly #history: { version: number; collection: string; type: string; object: Any }[] = []
  readonly #watchers = new Set<Watcher>()
  readonly #server: Server
  #version = 100
  #compacted = 0
  #port = 0

  constructor() {
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error) => {
        response.statusCode = 500
        response.end(String(error))
      })
    })
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  get watching(): number {
    return this.#watchers.size
  }

  async listen(port = this.#port): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve))
    this.#port = (this.#server.address() as AddressInfo).port
  }

  /** Refuses connections from now on and drops those that are. `listen` again to be back at the same port. */
  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    this.#watchers.clear()
    await closed
  }

  put(collection: string, object: Any): void {
    const objects = this.#collection(collection)
    const type = objects.has(object.metadata.name) ? 'MODIFIED' : 'ADDED'
    this.#version++
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(this.#version) } }
    objects.set(object.metadata.name, stored)
    this.#announce(collection, type, stored)
  }

  remove(collection: string, name: string): void {
    const object = this.#collection(collection).get(name)
    if (!object) return
    this.#collection(collection).delete(name)
    this.#version++
    this.#announce(collection, 'DELETED', {
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(this.#version) },
    })
  }

  get(collection: string, name: string): Any {
    return this.#collection(collection).get(name)
  }

  /** Ends every watch in mid-stream. */
  cut(): void {
    for (const { response } of this.#watchers) response.destroy()
    this.#watchers.clear()
  }

  /** Forgets the history: a watch from an older version is answered 410. */
  compact(): void {
    this.#compacted = this.#version
  }

  #collection(path: string): Map<string, Any> {
    let objects = this.#objects.get(path)
    if (!objects) {
      objects = new Map()
      this.#objects.set(path, objects)
    }
    return objects
  }

  #announce(collection: string, type: string, object: Any): void {
    this.#history.push({ version: this.#version, collection, type, object })
    for (const watcher of this.#watchers) this.#send(watcher, collection, type, object)
  }

  #send(watcher: Watcher, collection: string, type: string, object: Any): void {
    const wanted = watcher.collection === collection && (!watcher.name || watcher.name === object.metadata.name)
    if (wanted) watcher.response.write(`${JSON.stringify({ type, object })}\n`)
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, this.url)
    this.requests.push(`${request.method} ${request.url}`)
    if (this.intercept?.(request, response)) return
    if (request.method === 'POST') {
      this.created.push(await readJson(request))
      this.#answer(response, 201, {})
      return
    }
    if (request.method === 'PATCH') return this.#patch(url.pathname, (await readJson(request)) as Any, response)
    const name = url.searchParams.get('fieldSelector')?.replace('metadata.name=', '')
    if (url.searchParams.get('watch')) return this.#watch(url, name, response)
    this.#list(url, name, response)
  }

  #list(url: URL, name: string | undefined, response: ServerResponse): void {
    const all = [...this.#collection(url.pathname).values()].filter((object) => !name || object.metadata.name === name)
    const from = Number(url.searchParams.get('continue') ?? 0)
    const limit = Number(url.searchParams.get('limit') ?? 1000)
    const more = from + limit < all.length
    this.#answer(response, 200, {
      metadata: { resourceVersion: String(this.#version), ...(more ? { continue: String(from + limit) } : {}) },
      items: all.slice(from, from + limit),
    })
  }

  #watch(url: URL, name: string | undefined, response: ServerResponse): void {
    const since = Number(url.searchParams.get('resourceVersion'))
    response.writeHead(200, { 'content-type': 'application/json' })
    if (since < this.#compacted) {
      response.end(
        `${JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' } })}\n`,
      )
      return
    }
    const watcher = { collection: url.pathname, name, response }
    response.flushHeaders()
    for (const past of this.#history)
      if (past.version > since) this.#send(watcher, past.collection, past.type, past.object)
    this.#watchers.add(watcher)
    response.on('close', () => this.#watchers.delete(watcher))
  }

  #patch(path: string, patch: Any, response: ServerResponse): void {
    const [, collection, name] = /^(.*)\/([^/]+)\/status$/.exec(path) ?? []
    const object = collection && name ? this.get(collection, name) : undefined
    if (!object) {
      this.#answer(response, 404, { reason: 'NotFound', message: `${path} not found` })
      return
    }
    const annotations = { ...object.metadata.annotations, ...patch.metadata?.annotations }
    for (const [key, value] of Object.entries(annotations)) if (value === null) delete annotations[key]
    const status = { ...object.status, ...patch.status }
    this.put(collection!, { ...object, metadata: { ...object.metadata, annotations }, status })
    this.#answer(response, 200, this.get(collection!, name!))
  }

  #answer(response: ServerResponse, status: number, body: object): void {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(body))
  }
}

/** A Node object as a cluster would have it. */
export function nodeObject(name: string, podCidr: string, annotations: Record<string, string> = {}): Any {
  return {
    metadata: { name, uid: `uid-${name}`, annotations },
    spec: { podCIDR: podCidr, podCIDRs: [podCidr] },
    status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }], images: [{ names: ['x'.repeat(1000)] }] },
  }
}
