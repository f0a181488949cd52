/**
 * Everything that is not a resource: version, health, discovery, OpenAPI.
 * Sources: Kubernetes documentation, "Kubernetes API health endpoints", "The Kubernetes API".
 */
import { arch, platform } from 'node:os'
import type { Authorizer } from '../access/authorizer.ts'
import { forbiddenPath } from '../api-error.ts'
import type { Catalog } from '../catalog.ts'
import type { TokenUser } from '../interfaces.ts'
import { kubernetesVersion, OpenApi } from '../schema/openapi.ts'
import { encodeOpenApiV2 } from '../schema/openapi-proto.ts'
import { aggregatedDiscovery, apiGroup, apiGroupList, apiResourceList, apiVersions, servedGroups } from './discovery.ts'
import { negotiate } from './negotiate.ts'
import { type Exchange, sendObject, sendText } from './respond.ts'

const healthPaths = new Set(['/healthz', '/livez', '/readyz'])
const protoType = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'

const version = {
  ...kubernetesVersion,
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: '',
  compiler: 'node',
  platform: `${platform()}/${arch() === 'x64' ? 'amd64' : arch()}`,
}

export class DiscoveryHandler {
  readonly #catalog: Catalog
  readonly #authorizer: Authorizer
  readonly #openApi: OpenApi
  #proto: { revision: number; bytes: Buffer } | undefined

  constructor(catalog: Catalog, authorizer: Authorizer) {
    this.#catalog = catalog
    this.#authorizer = authorizer
    this.#openApi = new OpenApi(catalog)
  }

  /** What anybody may ask. Returns false when the path is something else. */
  async handlePublic(exchange: Exchange, { pathname, searchParams }: URL): Promise<boolean> {
    if (pathname === '/version' || pathname === '/version/') {
      await sendObject(exchange, 200, version)
      return true
    }
    const [, root] = pathname.split('/')
    if (!healthPaths.has(`/${root}`)) return false
    const text = searchParams.has('verbose') ? `[+]ping ok\n[+]store ok\n${root} check passed\n` : 'ok'
    await sendText(exchange, 200, 'text/plain; charset=utf-8', text)
    return true
  }

  /** What users may ask whom RBAC lets: by default all that are authenticated. Throws 403. Returns false when the path is something else. */
  async handle(exchange: Exchange, url: URL, user: TokenUser): Promise<boolean> {
    const parts = url.pathname.split('/').filter((part) => part !== '')
    const [root, second, third] = parts
    const resource = parts.length > (root === 'api' ? 2 : 3) && (root === 'api' || root === 'apis')
    if (!resource) this.#require(user, (exchange.request.method ?? '').toLowerCase(), url.pathname)
    if (root === 'openapi') return this.#handleOpenApi(exchange, parts)
    if (root === undefined) {
      const paths = [
        '/api',
        '/api/v1',
        '/apis',
        '/healthz',
        '/livez',
        '/openapi/v2',
        '/openapi/v3',
        '/readyz',
        '/version',
      ]
      await sendObject(exchange, 200, { paths })
      return true
    }
    if ((root === 'api' || root === 'apis') && parts.length === 1) {
      const wanted = negotiate(exchange.request.headers.accept)
      if (wanted.as === 'APIGroupDiscoveryList') {
        const type = `application/json;g=apidiscovery.k8s.io;v=${wanted.version};as=APIGroupDiscoveryList`
        const body = aggregatedDiscovery(this.#catalog, root === 'api', wanted.version)
        await sendText(exchange, 200, type, JSON.stringify(body))
      } else if (root === 'api') await sendObject(exchange, 200, apiVersions(exchange.request.headers.host ?? ''))
      else await sendObject(exchange, 200, apiGroupList(this.#catalog))
      return true
    }
    if (root === 'api' && parts.length === 2)
      return this.#sendIfAny(exchange, apiResourceList(this.#catalog, '', second!))
    if (root === 'apis' && parts.length === 2) {
      const versions = servedGroups(this.#catalog).get(second!)
      const group = versions && { kind: 'APIGroup', apiVersion: 'v1', ...apiGroup(second!, versions) }
      return this.#sendIfAny(exchange, group)
    }
    if (root === 'apis' && parts.length === 3)
      return this.#sendIfAny(exchange, apiResourceList(this.#catalog, second!, third!))
    return false
  }

  #require(user: TokenUser, method: string, path: string): void {
    const verb = method === 'head' ? 'get' : method
    if (!this.#authorizer.decide(user, { verb, path }).allowed) throw forbiddenPath(path, user.user, verb)
  }

  async #sendIfAny(exchange: Exchange, object: unknown): Promise<boolean> {
    if (object === undefined) return false
    await sendObject(exchange, 200, object)
    return true
  }

  async #handleOpenApi(exchange: Exchange, parts: readonly string[]): Promise<boolean> {
    const [, form, root, second, third] = parts
    if (form === 'v2' && parts.length === 2) {
      const accept = String(exchange.request.headers.accept ?? '')
      if (accept.includes('protobuf')) {
        if (this.#proto?.revision !== this.#catalog.revision)
          this.#proto = { revision: this.#catalog.revision, bytes: encodeOpenApiV2(this.#openApi.v2()) }
        await sendText(exchange, 200, protoType, this.#proto.bytes)
      } else await sendText(exchange, 200, 'application/json', JSON.stringify(this.#openApi.v2()))
      return true
    }
    if (form !== 'v3') return false
    if (parts.length === 2) {
      await sendObject(exchange, 200, this.#openApi.v3Index())
      return true
    }
    const document = root === 'api' ? this.#openApi.v3('', second ?? '') : this.#openApi.v3(second ?? '', third ?? '')
    if (!document) return false
    exchange.response.setHeader('ETag', `"${document.hash}"`)
    if (exchange.request.headers['if-none-match'] === `"${document.hash}"`) {
      exchange.response.writeHead(304)
      exchange.response.end()
      return true
    }
    await sendText(exchange, 200, 'application/json', document.json)
    return true
  }
}
