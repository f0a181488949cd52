/**
 * Requests about resources: from method, path and query to the operation, and back to an answer.
 */

import type { ResourceAttempt } from '../access/attempt.ts'
import type { WriteGuard } from '../access/authorizer.ts'
import type { ServiceAccountTokens } from '../access/service-account-tokens.ts'
import {
  badRequest,
  forbidden,
  methodNotAllowed,
  noSuchResource,
  notFound,
  type Status,
  unsupportedMedia,
} from '../api-error.ts'
import { bindPod, evictPod } from '../bindings.ts'
import type { DeleteOptions, KubeObject, TokenUser } from '../interfaces.ts'
import { apiVersionOf, type Kind } from '../kinds/kind.ts'
import { type PatchType, patchObject } from '../patch/patch-object.ts'
import type { Resources } from '../resources.ts'
import { type Access, reviews } from '../reviews.ts'
import { patchOfScale, scaleOf } from '../scale.ts'
import { isObject } from '../schema/schema.ts'
import { subresourcesOf } from './discovery.ts'
import { type OpenWatch, predicateOf, presentObject, sendList, startWatch } from './lists.ts'
import { negotiate } from './negotiate.ts'
import {
  flagOption,
  integerOption,
  mediaType,
  parseBody,
  type ResourcePath,
  readBody,
  writeContext,
} from './request.ts'
import { type Exchange, sendObject } from './respond.ts'

const patchTypes: Readonly<Record<string, PatchType>> = {
  'application/json-patch+json': 'json',
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
  'application/apply-patch+yaml': 'apply',
}

export interface ResourceHandlerOptions {
  readonly resources: Resources
  readonly access: Access
  readonly serviceAccountTokens: ServiceAccountTokens
  readonly watches: Set<OpenWatch>
}

interface Call extends Exchange {
  readonly kind: Kind
  readonly path: ResourcePath
  readonly query: URLSearchParams
  readonly guard: WriteGuard | undefined
}

const verbOf = (method: string, path: ResourcePath, query: URLSearchParams): string => {
  switch (method) {
    case 'GET':
    case 'HEAD':
      if (path.name) return 'get'
      return flagOption(query, 'watch') ? 'watch' : 'list'
    case 'POST':
      return 'create'
    case 'PUT':
      return 'update'
    case 'PATCH':
      return 'patch'
    case 'DELETE':
      return path.name ? 'delete' : 'deletecollection'
    default:
      throw methodNotAllowed()
  }
}

/** The one name that a list or watch is about, when its field selector says so: rules with resourceNames cover it. */
function selectedName(verb: string, query: URLSearchParams | undefined): string | undefined {
  if (verb !== 'list' && verb !== 'watch' && verb !== 'deletecollection') return undefined
  return /(?:^|,)metadata\.name==?([^,!=]+)(?:,|$)/.exec(query?.get('fieldSelector') ?? '')?.[1]
}

/** A Namespace counts as in itself, so that a Role in it can cover it. */
const namespaceOf = ({ group, plural, namespace, name }: ResourcePath): string | undefined =>
  group === '' && plural === 'namespaces' ? name : namespace

export class ResourceHandler {
  readonly #resources: Resources
  readonly #access: Access
  readonly #serviceAccountTokens: ServiceAccountTokens
  readonly #watches: Set<OpenWatch>

  constructor({ resources, access, serviceAccountTokens, watches }: ResourceHandlerOptions) {
    this.#resources = resources
    this.#access = access
    this.#serviceAccountTokens = serviceAccountTokens
    this.#watches = watches
  }

  /** The kind of a path; throws 404. Checks the user's right to do `verb` with it, throws 403. */
  admit(user: TokenUser, verb: string, path: ResourcePath, query?: URLSearchParams): Kind {
    const { group, version, plural, namespace, subresource } = path
    const kind = this.#resources.catalog.find(group, version, plural)
    if (!kind || (namespace !== undefined && !kind.namespaced)) throw noSuchResource()
    const name = path.name ?? selectedName(verb, query)
    this.#require(user, { verb, group, plural, subresource, namespace: namespaceOf(path), name })
    return kind
  }

  async handle(exchange: Exchange, user: TokenUser, path: ResourcePath, query: URLSearchParams): Promise<void> {
    const verb = verbOf(exchange.request.method ?? '', path, query)
    const review = reviews.find((r) => r.group === path.group && r.version === path.version && r.plural === path.plural)
    if (review) return this.#review(exchange, user, review, verb, path)
    const kind = this.admit(user, verb, path, query)
    const call: Call = { ...exchange, kind, path, query, guard: this.#access.authorizer.guard(user) }
    if (kind.namespaced && path.name && path.namespace === undefined) throw noSuchResource()
    if (path.subresource) return this.#subresource(call, verb, path.subresource)
    if (!kind.verbs.includes(verb as Kind['verbs'][number])) throw methodNotAllowed()
    switch (verb) {
      case 'list':
        return sendList(exchange, this.#resources, kind, path.namespace, query)
      case 'watch': {
        const watch = await startWatch(exchange, this.#resources, kind, path.namespace, query, (ended) =>
          this.#watches.delete(ended),
        )
        if (!exchange.response.closed) this.#watches.add(watch)
        return
      }
      case 'get': {
        const object = this.#resources.get(kind, path.namespace, path.name!)
        return this.#answer(call, 200, object)
      }
      case 'create':
        return this.#create(call)
      case 'update':
      case 'patch':
        return this.#write(call, verb, undefined)
      case 'delete':
        return this.#delete(call)
      default:
        return this.#deleteCollection(call)
    }
  }

  async #body(exchange: Exchange): Promise<unknown> {
    return parseBody(await readBody(exchange.request), mediaType(exchange.request))
  }

  async #answer(call: Call, code: number, object: KubeObject): Promise<void> {
    const wanted = negotiate(call.request.headers.accept)
    await this.#resources.store.committed()
    await sendObject(call, code, presentObject(call.kind, object, wanted, call.query))
  }

  async #create(call: Call): Promise<void> {
    if (call.path.name) throw methodNotAllowed()
    const body = await this.#body(call)
    const context = writeContext(call.request, call.query, call.warnings, call.guard)
    await this.#answer(call, 201, this.#resources.create(call.kind, call.path.namespace, body, context))
  }

  async #write(call: Call, verb: 'update' | 'patch', subresource: string | undefined): Promise<void> {
    const { kind, path, query, request } = call
    if (!path.name) throw methodNotAllowed()
    const context = writeContext(request, query, call.warnings, call.guard)
    const body = await readBody(request)
    const { namespace, name } = path
    if (verb === 'update') {
      const value = parseBody(body, mediaType(request))
      return this.#answer(call, 200, this.#resources.update(kind, namespace, name, value, context, subresource))
    }
    const media = mediaType(request)
    const type = patchTypes[media]
    if (!type)
      throw unsupportedMedia(
        `the body of the request was in an unknown format - accepted media types include: ${Object.keys(patchTypes).join(', ')}`,
      )
    if (type === 'apply' && !query.get('fieldManager'))
      throw badRequest(
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
      )
    if (type !== 'apply' && query.has('force'))
      throw badRequest(
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
      )
    const existed = this.#resources.store.get(kind.storage, kind.namespaced ? (namespace ?? '') : '', name)
    const patch = parseBody(body, media)
    const patched = this.#resources.patch(kind, namespace, name, type, patch, context, {
      subresource,
      force: flagOption(query, 'force'),
    })
    await this.#answer(call, existed ? 200 : 201, patched)
  }

  async #deleteOptions(call: Call): Promise<DeleteOptions & { dryRun?: string[] }> {
    const body = await this.#body(call)
    const options = isObject(body) ? body : {}
    const seconds = integerOption(call.query, 'gracePeriodSeconds') ?? options.gracePeriodSeconds
    const policy = call.query.get('propagationPolicy') ?? options.propagationPolicy
    if (policy !== undefined && !['Background', 'Foreground', 'Orphan'].includes(String(policy)))
      throw badRequest(`propagationPolicy: Unsupported value: ${JSON.stringify(policy)}`)
    if (seconds !== undefined && seconds !== null && !Number.isSafeInteger(seconds))
      throw badRequest('gracePeriodSeconds must be an integer')
    return {
      ...(typeof seconds === 'number' && { gracePeriodSeconds: seconds }),
      ...(policy !== undefined && { propagationPolicy: policy as 'Background' }),
      ...(options.orphanDependents === true && { propagationPolicy: 'Orphan' as const }),
      ...(isObject(options.preconditions) && { preconditions: options.preconditions }),
      ...(Array.isArray(options.dryRun) && { dryRun: options.dryRun.map(String) }),
    }
  }

  async #delete(call: Call): Promise<void> {
    const { kind, path, query, request } = call
    const options = await this.#deleteOptions(call)
    const context = writeContext(request, query, call.warnings, call.guard)
    const dryRun = context.dryRun || (options.dryRun?.length ?? 0) > 0
    const { object, gone } = this.#resources.delete(kind, path.namespace, path.name!, options, { ...context, dryRun })
    if (!gone || kind.storage === 'pods') return this.#answer(call, 200, object)
    await this.#resources.store.committed()
    const { name, uid } = object.metadata
    const details = { name: name!, ...(kind.group && { group: kind.group }), kind: kind.plural, uid: uid! }
    const status: Omit<Status, 'code'> = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details }
    await sendObject(call, 200, status)
  }

  async #deleteCollection(call: Call): Promise<void> {
    const { kind, path, query, request } = call
    const options = await this.#deleteOptions(call)
    const context = writeContext(request, query, call.warnings, call.guard)
    const predicate = predicateOf(kind, query)
    const deleted: KubeObject[] = []
    for (const object of this.#resources.list(kind, path.namespace)) {
      if (predicate && !predicate(object)) continue
      const { namespace, name } = object.metadata
      deleted.push(this.#resources.delete(kind, namespace, name!, options, context).object)
    }
    await this.#resources.store.committed()
    const metadata = { resourceVersion: String(this.#resources.store.committedVersion) }
    await sendObject(call, 200, { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind), metadata, items: deleted })
  }

  async #subresource(call: Call, verb: string, subresource: string): Promise<void> {
    const { kind, path } = call
    const known = subresourcesOf(kind).find((sub) => sub.name === subresource)
    if (!known || path.rest.length) throw notFound(kind, `${path.name}/${subresource}`)
    if (!(known.verbs as readonly string[]).includes(verb)) throw methodNotAllowed()
    if (subresource === 'token') return this.#token(call)
    if (subresource === 'scale') return this.#scale(call, verb)
    if (subresource === 'binding' || subresource === 'eviction') return this.#podAction(call, subresource)
    if (verb === 'get') return this.#answer(call, 200, this.#resources.get(kind, path.namespace, path.name!))
    if (verb === 'update' || verb === 'patch') return this.#write(call, verb, subresource)
    throw methodNotAllowed()
  }

  async #token(call: Call): Promise<void> {
    const account = this.#resources.get(call.kind, call.path.namespace, call.path.name!)
    const answer = this.#serviceAccountTokens.request(call.kind, account, await this.#body(call))
    await sendObject(call, 201, answer)
  }

  /** Throws 403 with the reason when the user may not. */
  #require(user: TokenUser, attempt: ResourceAttempt): void {
    const { allowed, reason } = this.#access.authorizer.decide(user, attempt)
    if (allowed) return
    const { verb, group, plural, subresource, name, namespace } = attempt
    const about = { plural: subresource ? `${plural}/${subresource}` : plural, group, ...(name && { name }) }
    throw forbidden(about, user.user, verb, reason, namespace)
  }

  async #scale(call: Call, verb: string): Promise<void> {
    const { kind, path, query, request } = call
    const current = this.#resources.get(kind, path.namespace, path.name!)
    if (verb === 'get') return sendObject(call, 200, scaleOf(kind, current))
    const context = writeContext(request, query, call.warnings, call.guard)
    const media = mediaType(request)
    let wanted = await this.#body(call)
    if (verb === 'patch') {
      const type = patchTypes[media]
      if (!type || type === 'apply')
        throw unsupportedMedia('the scale subresource takes json, merge and strategic merge patches')
      // Scale has no lists: a strategic merge of it is a merge.
      const plain = type === 'json' ? 'json' : 'merge'
      wanted = patchObject(this.#resources.catalog.schemas, kind, scaleOf(kind, current), plain, wanted)
    }
    if (!isObject(wanted)) throw badRequest('the body must be a Scale')
    const patch = patchOfScale(kind, wanted as KubeObject)
    const next = this.#resources.patch(kind, path.namespace, path.name!, 'merge', patch, context)
    await this.#resources.store.committed()
    await sendObject(call, 200, scaleOf(kind, next))
  }

  async #podAction(call: Call, action: 'binding' | 'eviction'): Promise<void> {
    const { kind, path, query, request } = call
    const body = await this.#body(call)
    if (!isObject(body)) throw badRequest(`the body must be a ${action === 'binding' ? 'Binding' : 'Eviction'}`)
    const context = writeContext(request, query, call.warnings, call.guard)
    const act = action === 'binding' ? bindPod : evictPod
    act(this.#resources, kind, path.namespace!, path.name!, { metadata: {}, ...body } as KubeObject, context)
    await this.#resources.store.committed()
    await sendObject(call, 201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 })
  }

  async #review(
    exchange: Exchange,
    user: TokenUser,
    review: (typeof reviews)[number],
    verb: string,
    { namespace }: ResourcePath,
  ): Promise<void> {
    if (verb !== 'create') throw methodNotAllowed()
    this.#require(user, { verb, group: review.group, plural: review.plural, namespace })
    const body = await this.#body(exchange)
    const spec = isObject(body) && isObject(body.spec) ? body.spec : {}
    const status = review.answer(spec, user, this.#access, namespace)
    await sendObject(exchange, 201, {
      kind: review.kind,
      apiVersion: `${review.group}/${review.version}`,
      metadata: { creationTimestamp: null },
      ...(Object.keys(spec).length && { spec }),
      status,
    })
  }
}
