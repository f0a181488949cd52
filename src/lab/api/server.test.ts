/** The API over HTTP, on loopback: what clients other than kubectl rely on. */
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, test } from 'node:test'
import { MemoryJournal } from '../../cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../cluster/embedded/store.ts'
import type { TokenUser } from './interfaces.ts'
import { ApiServer } from './server.ts'

const tokens = new Map<string, TokenUser>([
  ['admin-token', { user: 'admin', groups: ['system:masters'] }],
  ['node-token', { user: 'system:node:n1', groups: ['system:nodes'] }],
])
const journal = { current: new MemoryJournal() }
let store: ObjectStore
let server: ApiServer
let port = 0

async function start(windowEvents?: number): Promise<void> {
  store = await ObjectStore.open(journal.current, windowEvents === undefined ? {} : { windowEvents })
  server = new ApiServer({ store, tokens })
  port = (await server.listen({ host: '127.0.0.1', port })).port
}
async function stop(): Promise<void> {
  await server.close()
  await store.close()
}
beforeEach(async () => {
  journal.current = new MemoryJournal()
  port = 0
  await start()
})
afterEach(stop)

// biome-ignore lint/suspicious/noExplicitAny: answers of many kinds
type Json = any
interface Answer {
  readonly code: number
  readonly body: Json
  readonly headers: Headers
}

async function call(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await response.text()
  const isJson = response.headers.get('content-type')?.includes('json')
  return { code: response.status, body: isJson ? JSON.parse(text) : text, headers: response.headers }
}

const configmaps = '/api/v1/namespaces/default/configmaps'
const make = (name: string, data: object = {}) => call('POST', configmaps, { metadata: { name }, data })

/** Lines of a watch; `next` waits for one, and gives undefined at the end of the stream. */
function watch(path: string): Promise<{ next(): Promise<Json>; close(): void; code: number }> {
  return new Promise((done, fail) => {
    const outgoing = request(
      { host: '127.0.0.1', port, path, headers: { authorization: 'Bearer admin-token' } },
      (response) => {
        const lines = createInterface({ input: response })[Symbol.asyncIterator]()
        response.on('error', () => {})
        done({
          code: response.statusCode!,
          async next() {
            const { value, done: ended } = await lines.next()
            return ended ? undefined : JSON.parse(value)
          },
          close: () => outgoing.destroy(),
        })
      },
    )
    outgoing.on('error', fail)
    outgoing.end()
  })
}

test('a watch resumes where it was, also over a restart of the server', async () => {
  await make('a')
  const { body: list } = await call('GET', configmaps)
  const version = list.metadata.resourceVersion
  const first = await watch(`${configmaps}?watch=true&resourceVersion=${version}&allowWatchBookmarks=true`)
  await make('b')
  const event = await first.next()
  assert.deepEqual([event.type, event.object.metadata.name], ['ADDED', 'b'])
  const ended = (async () => {
    let bookmark: Json
    for (let line = await first.next(); line; line = await first.next()) bookmark = line
    return bookmark
  })()
  await stop()
  assert.equal((await ended).type, 'BOOKMARK', 'a clean stop tells how far the stream got')
  await start()
  await make('c')
  const second = await watch(`${configmaps}?watch=true&resourceVersion=${version}`)
  assert.equal((await second.next()).object.metadata.name, 'b')
  assert.equal((await second.next()).object.metadata.name, 'c')
  second.close()
})

test('a version that is no longer kept answers 410', async () => {
  await stop()
  await start(10)
  const { body } = await make('a')
  for (let n = 0; n < 20; n++) await make(`x${n}`)
  const old = await watch(`${configmaps}?watch=true&resourceVersion=${body.metadata.resourceVersion}`)
  const event = await old.next()
  assert.equal(event.type, 'ERROR')
  assert.deepEqual([event.object.code, event.object.reason], [410, 'Expired'])
  assert.equal(await old.next(), undefined)
  const future = await call('GET', `${configmaps}?resourceVersion=99999999`)
  assert.equal(future.code, 504)
})

test('initial events end with a marked bookmark; a timeout ends the stream', async () => {
  await make('a')
  const query =
    'watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1'
  const stream = await watch(`${configmaps}?${query}`)
  assert.equal((await stream.next()).type, 'ADDED')
  const bookmark = await stream.next()
  assert.equal(bookmark.type, 'BOOKMARK')
  assert.equal(bookmark.object.metadata.annotations['k8s.io/initial-events-end'], 'true')
  assert.equal((await stream.next()).type, 'BOOKMARK')
  assert.equal(await stream.next(), undefined)
})

test('lists come in pages', async () => {
  for (const name of ['a', 'b', 'c', 'd', 'e']) await make(name)
  const names: string[] = []
  let token = ''
  do {
    const { body } = await call('GET', `${configmaps}?limit=2&continue=${token}`)
    names.push(...body.items.map((item: Json) => item.metadata.name))
    token = body.metadata.continue ?? ''
  } while (token)
  assert.deepEqual(names, ['a', 'b', 'c', 'd', 'e'])
  assert.equal((await call('GET', `${configmaps}?limit=2&continue=nonsense`)).code, 400)
})

test('selectors choose, and name what they cannot choose by', async () => {
  await call('POST', configmaps, { metadata: { name: 'a', labels: { app: 'web', tier: 'x' } } })
  await call('POST', configmaps, { metadata: { name: 'b', labels: { app: 'db' } } })
  const select = async (query: string) => {
    const { body } = await call('GET', `${configmaps}?${query}`)
    return body.items?.map((item: Json) => item.metadata.name) ?? body.message
  }
  assert.deepEqual(await select('labelSelector=app%3Dweb'), ['a'])
  assert.deepEqual(await select('labelSelector=app+in+(web,db),!tier'), ['b'])
  assert.deepEqual(await select('labelSelector=app,app!%3Dweb'), ['b'])
  assert.deepEqual(await select('fieldSelector=metadata.name%3Db'), ['b'])
  assert.match(await select('fieldSelector=spec.x%3Db'), /field label not supported: spec.x/)
  assert.match(await select('labelSelector=a%3D%3D%3Db'), /unable to parse requirement/)
})

test('forms of answers: tables, metadata, YAML, and 406 for protobuf alone', async () => {
  await make('a', { x: '1', y: '2' })
  const table = await call('GET', configmaps, undefined, { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' })
  assert.deepEqual(
    table.body.columnDefinitions.map((c: Json) => c.name),
    ['Name', 'Data', 'Age'],
  )
  assert.deepEqual(table.body.rows[0].cells.slice(0, 2), ['a', 2])
  const metadata = await call('GET', configmaps, undefined, {
    accept: 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io',
  })
  assert.equal(metadata.body.items[0].data, undefined)
  const yaml = await call('GET', `${configmaps}/a`, undefined, { accept: 'application/yaml' })
  assert.match(yaml.body, /^data:\n {2}x: "1"$/m)
  const protobuf = await call('GET', configmaps, undefined, { accept: 'application/vnd.kubernetes.protobuf' })
  assert.equal(protobuf.code, 406)
  const fallback = await call('GET', configmaps, undefined, {
    accept: 'application/vnd.kubernetes.protobuf,application/json',
  })
  assert.equal(fallback.code, 200)
})

test('bad requests are told apart and name what is wrong', async () => {
  const cases: [Promise<Answer>, number, RegExp][] = [
    [call('POST', configmaps, '{'), 400, /JSON/],
    [call('POST', configmaps, { metadata: { name: 'a' }, data: { x: 1 } }), 400, /ConfigMap\.data\.x of type string/],
    [call('POST', configmaps, { kind: 'Pod', metadata: { name: 'a' } }), 400, /cannot be handled as a ConfigMap/],
    [
      call('POST', `${configmaps}?fieldValidation=Strict`, { metadata: { name: 'a' }, dat: {} }),
      400,
      /unknown field "dat"/,
    ],
    [call('PUT', `${configmaps}/b`, { metadata: { name: 'a' } }), 400, /does not match the name on the URL/],
    [call('POST', `${configmaps}?dryRun=maybe`, { metadata: { name: 'a' } }), 400, /dryRun/],
    [call('PATCH', `${configmaps}/a`, {}, { 'content-type': 'text/plain' }), 415, /unknown format/],
    [call('GET', '/api/v1/nothing'), 404, /could not find the requested resource/],
    [call('GET', '/api/v1/namespaces/default/nodes'), 404, /could not find/],
    [call('DELETE', `${configmaps}/a`), 404, /configmaps "a" not found/],
    [call('POST', `${configmaps}/a`, {}), 405, /does not allow this method/],
    [call('POST', configmaps, `{"metadata":{"name":"big"},"data":{"x":"${'y'.repeat(4_000_000)}"}}`), 413, /too large/],
    [call('GET', '/api/v1/namespaces/%ZZ/pods'), 404, /could not find/],
    [call('GET', configmaps, undefined, { authorization: 'Bearer wrong' }), 401, /Unauthorized/],
  ]
  for (const [answer, code, message] of cases) {
    const { code: found, body } = await answer
    assert.equal(found, code, JSON.stringify(body))
    assert.equal(body.kind, 'Status')
    assert.match(body.message, message)
  }
  const unknown = await call('POST', configmaps, { metadata: { name: 'warned' }, dat: {} })
  assert.equal(unknown.code, 201)
  assert.match(unknown.headers.get('warning') ?? '', /299 - "unknown field \\"dat\\""/)
  assert.equal((await call('GET', '/healthz', undefined, { authorization: '' })).body, 'ok')
})

test('a dry run changes nothing', async () => {
  const { code, body } = await call('POST', `${configmaps}?dryRun=All`, { metadata: { name: 'a' } })
  assert.equal(code, 201)
  assert.ok(body.metadata.uid)
  assert.equal((await call('GET', `${configmaps}/a`)).code, 404)
})

test('a node writes its own objects only', async () => {
  const node = { authorization: 'Bearer node-token' }
  const own = await call('POST', '/api/v1/nodes', { metadata: { name: 'n1' } }, node)
  assert.equal(own.code, 201)
  await call('POST', '/api/v1/nodes', { metadata: { name: 'n2' } })
  const patch = { metadata: { annotations: { a: 'b' } } }
  const merge = { ...node, 'content-type': 'application/merge-patch+json' }
  assert.equal((await call('PATCH', '/api/v1/nodes/n1', patch, merge)).code, 200)
  assert.equal((await call('PATCH', '/api/v1/nodes/n1/status', { status: {} }, merge)).code, 200)
  const other = await call('PATCH', '/api/v1/nodes/n2', patch, merge)
  assert.equal(other.code, 403)
  assert.match(other.body.message, /system:node:n1.*node "n1" is not allowed to patch node "n2"/)
  const pods = '/api/v1/namespaces/default/pods'
  for (const [name, nodeName] of [
    ['mine', 'n1'],
    ['other', 'n2'],
  ])
    await call('POST', pods, { metadata: { name }, spec: { nodeName, containers: [{ name: 'c', image: 'x' }] } })
  const status = { status: { phase: 'Running' } }
  assert.equal((await call('PATCH', `${pods}/mine/status`, status, merge)).code, 200)
  assert.equal((await call('PATCH', `${pods}/other/status`, status, merge)).code, 403)
  assert.equal((await call('PATCH', `${pods}/mine`, patch, merge)).code, 403)
  assert.equal((await call('GET', '/api/v1/pods', undefined, node)).code, 200)
  assert.equal((await call('POST', configmaps, { metadata: { name: 'x' } }, node)).code, 403)
  const event = { metadata: { name: 'e' }, involvedObject: { kind: 'Node', name: 'n1' }, reason: 'R', message: 'm' }
  assert.equal((await call('POST', '/api/v1/namespaces/default/events', event, node)).code, 201)
})

test('events are one set under two groups', async () => {
  const event = { metadata: { name: 'e' }, regarding: { kind: 'Node', name: 'n1' }, note: 'hello', reason: 'R' }
  await call('POST', '/apis/events.k8s.io/v1/namespaces/default/events', event)
  const { body } = await call('GET', '/api/v1/namespaces/default/events/e')
  assert.deepEqual([body.message, body.involvedObject.name, body.apiVersion], ['hello', 'n1', 'v1'])
  const selected = await call('GET', '/api/v1/events?fieldSelector=involvedObject.name%3Dn1')
  assert.equal(selected.body.items.length, 1)
})

test('OpenAPI and discovery agree with what is served', async () => {
  const { body: index } = await call('GET', '/openapi/v3')
  const { body: apps } = await call('GET', index.paths['apis/apps/v1'].serverRelativeURL)
  const marked = Object.entries<Json>(apps.components.schemas).filter(([, s]) => s['x-kubernetes-group-version-kind'])
  assert.ok(marked.some(([, s]) => s['x-kubernetes-group-version-kind'][0].kind === 'Deployment'))
  for (const [, schema] of Object.entries<Json>(apps.components.schemas))
    for (const ref of JSON.stringify(schema).matchAll(/#\/components\/schemas\/([\w.]+)/g))
      assert.ok(apps.components.schemas[ref[1]!], ref[1])
  const { body: v2 } = await call('GET', '/openapi/v2')
  assert.equal(v2.definitions['io.k8s.api.v1.PodSpec'].properties.containers['x-kubernetes-patch-merge-key'], 'name')
  const { body: groups } = await call('GET', '/apis')
  for (const { name, versions } of groups.groups)
    for (const { version } of versions) {
      const { body } = await call('GET', `/apis/${name}/${version}`)
      assert.equal(body.kind, 'APIResourceList')
    }
  const aggregated = await call('GET', '/apis', undefined, {
    accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
  })
  assert.equal(aggregated.body.kind, 'APIGroupDiscoveryList')
})
