/**
 * list and watch over HTTP: paging, resource versions, bookmarks, tables.
 * Sources: Kubernetes documentation, "Kubernetes API Concepts" (efficient detection of changes, watch bookmarks,
 * streaming lists, retrieving large results sets in chunks, resource version semantics).
 */
import { formatJson } from '../../../bytes/json.ts'
import { ExpiredError } from '../../../cluster/embedded/journal.ts'
import type { StoreEvent, StoreWatch } from '../../../cluster/embedded/store.ts'
import { ApiError, badRequest, expired } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import { apiVersionOf, type Kind } from '../kinds/kind.ts'
import { selectableFields, selectEvent } from '../local-client.ts'
import type { Resources } from '../resources.ts'
import { type Predicate, selectorPredicate } from '../selectors.ts'
import { type IncludeObject, tableOf } from '../tables.ts'
import { negotiate, type Wanted } from './negotiate.ts'
import { flagOption, integerOption } from './request.ts'
import { type Exchange, sendObject, sendText } from './respond.ts'

/** A watch whose client reads this far behind is ended; the client comes back from its last version. */
const backlogLimitBytes = 64 * 1024 * 1024
const bookmarkMilliseconds = 60_000

/** One object's JSON, made once for all the watchers that it goes to. */
const jsonCache = new WeakMap<KubeObject, string>()
export function objectJson(object: KubeObject): string {
  let json = jsonCache.get(object)
  if (json === undefined) {
    json = formatJson(object)
    jsonCache.set(object, json)
  }
  return json
}

const includeOf = (query: URLSearchParams): IncludeObject => {
  const include = query.get('includeObject') || 'Metadata'
  if (include !== 'Metadata' && include !== 'Object' && include !== 'None')
    throw badRequest(`unrecognized includeObject value: ${include}`)
  return include
}

const partial = (object: KubeObject, version: string): unknown => ({
  kind: 'PartialObjectMetadata',
  apiVersion: `meta.k8s.io/${version}`,
  metadata: object.metadata,
})

/** A single object in the wanted form. */
export function presentObject(kind: Kind, object: KubeObject, wanted: Wanted, query: URLSearchParams): unknown {
  if (wanted.as === 'Table')
    return tableOf(
      kind,
      [object],
      { resourceVersion: object.metadata.resourceVersion },
      wanted.version,
      includeOf(query),
    )
  if (wanted.as === 'PartialObjectMetadata') return partial(object, wanted.version)
  return object
}

interface Cursor {
  readonly version: string
  readonly after: string
}

function parseCursor(text: string, resources: Resources): Cursor {
  let cursor: Cursor
  try {
    cursor = JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor
  } catch (error) {
    throw badRequest('continue key is not valid', error)
  }
  if (typeof cursor?.after !== 'string' || !/^\d+$/.test(String(cursor.version)))
    throw badRequest('continue key is not valid')
  if (Number(cursor.version) < resources.store.compactedVersion)
    throw expired(
      'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
    )
  return cursor
}

const placeOf = (object: KubeObject): string => `${object.metadata.namespace ?? ''}/${object.metadata.name}`

function checkListVersion(query: URLSearchParams, resources: Resources): void {
  const text = query.get('resourceVersion')
  const match = query.get('resourceVersionMatch')
  if (match && !['Exact', 'NotOlderThan'].includes(match))
    throw badRequest(`resourceVersionMatch: Unsupported value: ${JSON.stringify(match)}`)
  if (match && !text) throw badRequest('resourceVersionMatch is forbidden unless resourceVersion is provided')
  if (!text || text === '0') return
  if (!/^\d{1,15}$/.test(text)) throw badRequest(`Invalid value: ${JSON.stringify(text)}: resourceVersion`)
  const { resourceVersion } = resources.store
  if (Number(text) > resourceVersion)
    throw new ApiError(504, 'Timeout', `Too large resource version: ${text}, current: ${resourceVersion}`, {
      retryAfterSeconds: 1,
    })
  if (match === 'Exact' && Number(text) !== resourceVersion)
    throw expired(`The resourceVersion for the provided list is too old: ${text}.`)
}

/** The objects of a list request, a page of them with `limit`. */
export async function sendList(
  exchange: Exchange,
  resources: Resources,
  kind: Kind,
  namespace: string | undefined,
  query: URLSearchParams,
): Promise<void> {
  const wanted = negotiate(exchange.request.headers.accept)
  const limit = integerOption(query, 'limit')
  const cursorText = query.get('continue')
  const cursor = cursorText ? parseCursor(cursorText, resources) : undefined
  if (!cursor) checkListVersion(query, resources)
  const predicate = predicateOf(kind, query)
  const metadata: Record<string, unknown> = {
    resourceVersion: cursor?.version ?? String(resources.store.resourceVersion),
  }
  let objects = resources.list(kind, namespace)
  if (predicate) objects = objects.filter(predicate)
  if (cursor) objects = objects.filter((object) => placeOf(object) > cursor.after)
  if (limit && objects.length > limit) {
    const next: Cursor = { version: String(metadata.resourceVersion), after: placeOf(objects[limit - 1]!) }
    metadata.continue = Buffer.from(JSON.stringify(next)).toString('base64url')
    if (!predicate) metadata.remainingItemCount = objects.length - limit
    objects = objects.slice(0, limit)
  }
  await resources.store.committed()
  if (wanted.as === 'Table')
    return sendObject(exchange, 200, tableOf(kind, objects, metadata, wanted.version, includeOf(query)))
  if (wanted.as === 'PartialObjectMetadataList')
    return sendObject(exchange, 200, {
      kind: 'PartialObjectMetadataList',
      apiVersion: `meta.k8s.io/${wanted.version}`,
      metadata,
      items: objects.map((object) => partial(object, wanted.version)),
    })
  const head = { kind: `${kind.kind}List`, apiVersion: apiVersionOf(kind), metadata }
  if (wanted.media === 'application/yaml') return sendObject(exchange, 200, { ...head, items: objects })
  const items = objects.map(objectJson).join(',')
  return sendText(exchange, 200, 'application/json', `${JSON.stringify(head).slice(0, -1)},"items":[${items}]}\n`)
}

export const predicateOf = (kind: Kind, query: URLSearchParams): Predicate | undefined =>
  selectorPredicate(
    query.get('labelSelector') ?? undefined,
    query.get('fieldSelector') ?? undefined,
    selectableFields(kind),
  )

/** One watch under way. */
export interface OpenWatch {
  /** Ends the stream cleanly, so that the client comes back with its last version. */
  end(): void
}

/** Streams changes until the client leaves, its time is over, or the server ends it. */
export async function startWatch(
  exchange: Exchange,
  resources: Resources,
  kind: Kind,
  namespace: string | undefined,
  query: URLSearchParams,
  closed: (watch: OpenWatch) => void,
): Promise<OpenWatch> {
  const wanted = negotiate(exchange.request.headers.accept)
  const predicate = predicateOf(kind, query)
  const include = includeOf(query)
  const { store } = resources
  const text = query.get('resourceVersion') ?? ''
  if (text && !/^\d{1,15}$/.test(text)) throw badRequest(`Invalid value: ${JSON.stringify(text)}: resourceVersion`)
  const initial = flagOption(query, 'sendInitialEvents')
  if (initial && query.get('resourceVersionMatch') !== 'NotOlderThan')
    throw badRequest(
      'resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan',
    )
  const bookmarks = flagOption(query, 'allowWatchBookmarks')
  const seconds = integerOption(query, 'timeoutSeconds') || 1800 + Math.floor(Math.random() * 1800)
  // Nothing uncommitted may be seen.
  await store.committed()
  const fromNow = text === '' || text === '0' || initial
  const from = fromNow ? store.resourceVersion : Number(text)
  if (from > store.resourceVersion)
    throw new ApiError(504, 'Timeout', `Too large resource version: ${from}, current: ${store.resourceVersion}`, {
      retryAfterSeconds: 1,
    })
  const { response } = exchange
  let first = true
  const present = (object: KubeObject): string => {
    if (wanted.as === 'Table') {
      const table = tableOf(
        kind,
        [object],
        { resourceVersion: object.metadata.resourceVersion },
        wanted.version,
        include,
        first,
      )
      first = false
      return formatJson(table)
    }
    return wanted.as === 'PartialObjectMetadata' ? JSON.stringify(partial(object, wanted.version)) : objectJson(object)
  }
  const write = (type: string, json: string): void => {
    response.write(`{"type":"${type}","object":${json}}\n`)
    if (response.writableLength > backlogLimitBytes) response.destroy()
  }
  const bookmark = (version: number, annotations?: Record<string, string>): void => {
    const metadata = { resourceVersion: String(version), creationTimestamp: null, ...(annotations && { annotations }) }
    const object = { kind: kind.kind, apiVersion: apiVersionOf(kind), metadata } as unknown as KubeObject
    if (wanted.as === 'Table') {
      const table = tableOf(kind, [], { resourceVersion: String(version) }, wanted.version, include, false)
      write(
        'BOOKMARK',
        JSON.stringify({ ...table, rows: [{ cells: [], object: annotations ? object : { ...object } }] }),
      )
    } else write('BOOKMARK', JSON.stringify(object))
  }
  const onEvent = (event: StoreEvent): void => {
    if (namespace !== undefined && kind.namespaced && event.namespace !== namespace) return
    const seen = selectEvent(event, predicate, (object) => resources.view(kind, object))
    if (seen) write(seen.type, present(seen.object))
  }
  const existing = fromNow ? resources.list(kind, namespace) : []
  response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': 'no-cache, private' })
  response.flushHeaders()
  let watch: StoreWatch | undefined
  let sendsBookmarks: NodeJS.Timeout | undefined
  let ends: NodeJS.Timeout | undefined
  const stop = (): void => {
    watch?.close()
    watch = undefined
    clearInterval(sendsBookmarks)
    clearTimeout(ends)
  }
  const handle: OpenWatch = {
    end() {
      if (bookmarks && watch) bookmark(store.committedVersion)
      // A client that reads slowly keeps the connection for a while: nothing may be written to it any more.
      stop()
      response.end()
    },
  }
  response.on('close', () => {
    stop()
    closed(handle)
  })
  for (const object of existing) if (!predicate || predicate(object)) write('ADDED', present(object))
  if (initial && bookmarks) bookmark(from, { 'k8s.io/initial-events-end': 'true' })
  try {
    watch = store.watch(kind.storage, from, onEvent)
  } catch (error) {
    if (!(error instanceof ExpiredError)) throw error
    write('ERROR', JSON.stringify(expired(error.message).toStatus()))
    response.end()
    return handle
  }
  if (bookmarks) sendsBookmarks = setInterval(() => bookmark(store.committedVersion), bookmarkMilliseconds)
  ends = setTimeout(() => handle.end(), seconds * 1000)
  return handle
}
