import assert from 'node:assert/strict'
import type { ClientRequest } from 'node:http'
import { request } from 'node:https'
import { after, afterEach, before, test } from 'node:test'
import type { ListReason, WatchEnd } from '../../src/cluster/cluster.ts'
import type { HttpClient, RequestObserver } from '../../src/cluster/http-client.ts'
import { Informer, type InformerOptions } from '../../src/cluster/kubernetes/informer.ts'
import { missingForKubernetes } from '../../src/lab/kubernetes/programs.ts'
import { RealApiServer } from './api-server.ts'

const skip = missingForKubernetes() ?? false

const WATCHER = 'watcher'
let api: RealApiServer
let spaces = 0

before(async () => {
  if (skip) return
  api = await RealApiServer.start({ audited: [WATCHER] })
  await api.client.request({
    method: 'POST',
    path: '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
    body: {
      metadata: { name: WATCHER },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: WATCHER }],
    },
  })
  // The server takes a moment to heed a new binding.
  const client = watcher()
  const deadline = performance.now() + 30_000
  while (
    !(await client.request({ method: 'GET', path: '/api/v1/nodes' }).then(
      () => true,
      () => false,
    ))
  )
    assert.ok(performance.now() < deadline, 'the watcher may not read')
  client.close()
})
after(() => api?.close())

const watcher = (observe?: RequestObserver): HttpClient =>
  api.clientAs({ commonName: WATCHER, usages: ['client'] }, observe ? { observe } : {})

/** A namespace of ConfigMaps, each with one value. */
class Values {
  readonly path: string
  readonly truth = new Map<string, string>()

  private constructor(path: string) {
    this.path = path
  }

  static async make(count: number, bytes = 0): Promise<Values> {
    const name = `space-${++spaces}`
    await api.client.request({ method: 'POST', path: '/api/v1/namespaces', body: { metadata: { name } } })
    const values = new Values(`/api/v1/namespaces/${name}/configmaps`)
    for (let n = 0; n < count; n++) await values.create(`v${n}`, 'first', bytes)
    return values
  }

  async create(name: string, value: string, bytes = 0): Promise<void> {
    const data = { value, padding: 'x'.repeat(bytes) }
    await api.client.request({ method: 'POST', path: this.path, body: { metadata: { name }, data } })
    this.truth.set(name, value)
  }

  async put(name: string, value: string): Promise<void> {
    await api.client.request({
      method: 'PATCH',
      path: `${this.path}/${name}`,
      contentType: 'application/merge-patch+json',
      body: { data: { value } },
    })
    this.truth.set(name, value)
  }

  async remove(name: string): Promise<void> {
    await api.client.request({ method: 'DELETE', path: `${this.path}/${name}` })
    this.truth.delete(name)
  }
}

/** An informer, what it has been told, and in which order. */
class Follower {
  readonly informer: Informer<{ value: string }>
  readonly told: string[] = []
  readonly lists: ListReason[] = []
  readonly ends: WatchEnd[] = []
  readonly known = new Map<string, string>()
  readonly client: HttpClient
  readonly statuses: { readonly status: number | undefined; readonly atMs: number }[] = []
  #wake = () => {}

  constructor(values: Values, options: Partial<InformerOptions<{ value: string }>> = {}) {
    this.client = watcher((_method, _host, status) => {
      this.statuses.push({ status, atMs: performance.now() })
      this.#wake()
    })
    this.informer = new Informer<{ value: string }>({
      client: this.client,
      path: values.path,
      backoff: { first: 20, cap: 500 },
      project: (object) => ({ value: String((object.data as { value?: unknown } | undefined)?.value) }),
      onSet: (name, { value }) => {
        this.known.set(name, value)
        this.#tell(`${name}=${value}`)
      },
      onDelete: (name) => {
        this.known.delete(name)
        this.#tell(`${name} gone`)
      },
      onListed: (first) => this.#tell(first ? 'listed' : 'listed again'),
      onConnection: (problem) => this.#tell(problem ? `down: ${problem.message}` : 'up'),
      observer: {
        list: (_, reason) => this.lists.push(reason),
        watchEnd: (_, reason) => {
          this.ends.push(reason)
          this.#wake()
        },
      },
      ...options,
    })
    followers.add(this)
    this.informer.start()
  }

  async until(what: string, isTrue: () => boolean, seconds = 60): Promise<void> {
    const deadline = AbortSignal.timeout(seconds * 1000)
    while (!isTrue())
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve
        deadline.onabort = () =>
          reject(new Error(`${what}: not within ${seconds} s; told ${this.told.slice(-20).join(', ')}`))
      })
  }

  /** Until it has been told such a line. */
  tells(pattern: RegExp): Promise<void> {
    return this.until(String(pattern), () => this.told.some((line) => pattern.test(line)))
  }

  /** Until it knows what is true; whatever it was told on the way. */
  agrees(values: Values): Promise<void> {
    const text = (map: Map<string, string>) => JSON.stringify([...map].sort())
    return this.until('agrees with the server', () => text(this.known) === text(values.truth))
  }

  /** Watches that the server has let begin. */
  get watches(): string[] {
    return api
      .requests(WATCHER)
      .filter(({ verb }) => verb === 'watch')
      .map(({ uri }) => uri)
  }

  async close(): Promise<void> {
    followers.delete(this)
    await this.informer.close()
    this.client.close()
  }

  #tell(line: string): void {
    this.told.push(line)
    this.#wake()
  }
}

const followers = new Set<Follower>()
afterEach(async () => {
  for (const follower of followers) await follower.close()
  api?.relay.slow(0)
  api?.relay.silence(false)
})

/** Looks at what tells of itself to nobody, until it holds. */
async function soon(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000
  while (!holds()) {
    assert.ok(performance.now() < deadline, what)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Resolves when the server holds a watch of the namespace. */
function watched(values: Values, count = 1): Promise<void> {
  const namespace = values.path.split('/')[4]!
  const isWatch = ({ verb, uri }: { verb: string; uri: string }) => verb === 'watch' && uri.includes(`/${namespace}/`)
  return soon(`no ${count} watches of ${namespace}`, () => api.requests(WATCHER).filter(isWatch).length >= count)
}

/** Resolves when the follower has come back, at least as far as to a connection. */
const connected = (): Promise<void> => soon('nobody has come back', () => api.relay.open > 0)

const versionIn = (uri: string): number => Number(new URLSearchParams(uri.split('?')[1]).get('resourceVersion'))

test('lists in pages and follows; bookmarks carry an idle watch on', { skip }, async () => {
  const values = await Values.make(25)
  const elsewhere = await Values.make(0)
  const follower = new Follower(values, { pageSize: 10, watchSeconds: 6 })
  await follower.tells(/^listed$/)
  const path = values.path
  assert.equal(api.requests(WATCHER).filter(({ verb, uri }) => verb === 'list' && uri.startsWith(path)).length, 3)
  await watched(values)
  await values.put('v3', 'second')
  await values.remove('v4')
  await values.create('new', 'one')
  await follower.agrees(values)
  const told = follower.told.length
  // What goes on elsewhere moves the version, and nobody here is told anything else than by bookmarks.
  for (let n = 0; n < 10; n++) await elsewhere.create(`v${n}`, 'x')
  await follower.until('two watches have ended', () => follower.ends.length >= 2)
  await watched(values, 3)
  assert.deepEqual([...new Set(follower.ends)], ['ended'])
  assert.deepEqual(follower.lists, ['first'])
  assert.equal(follower.told.length, told)
  const versions = follower.watches.filter((uri) => uri.startsWith(path)).map(versionIn)
  assert.ok(versions.at(-1)! >= versions[0]! + 10, `versions ${versions}`)
})

test('a version that the server has forgotten: one new list, and differences only are told', { skip }, async () => {
  const values = await Values.make(30)
  const follower = new Follower(values, { pageSize: 10 })
  await follower.tells(/^listed$/)
  await watched(values)
  api.relay.silence(true)
  await values.put('v7', 'second')
  await values.remove('v8')
  await values.create('v99', 'late')
  api.compact()
  await api.stopApi('SIGKILL')
  await api.startApi()
  follower.told.length = 0
  api.relay.silence(false)
  await follower.tells(/^listed again$/)
  assert.deepEqual(follower.lists, ['first', 'expired'])
  const told = follower.told.filter((line) => !/^(up|down)/.test(line))
  assert.deepEqual([...told].sort(), ['listed again', 'v7=second', 'v8 gone', 'v99=late'])
})

/** Mulberry32: the same numbers for the same seed. */
function seeded(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (((t ^ (t >>> 14)) >>> 0) % below) | 0
  }
}

test('connections reset, and cut in the middle of an event: nothing is lost, and nothing listed again', {
  skip,
}, async () => {
  const seed = Date.now() >>> 0
  console.log(`seed ${seed}`)
  const below = seeded(seed)
  const values = await Values.make(20, 500)
  const follower = new Follower(values)
  await follower.tells(/^listed$/)
  await watched(values)
  for (let n = 0; n < 200; n++) {
    await values.put(`v${below(20)}`, `round ${n}`)
    if (n % 10 === 3) {
      await connected()
      api.relay.cut()
    }
    // An event takes about a kilobyte: the cut falls anywhere in it, or in the handshake of the connection after.
    if (n % 10 === 7) api.relay.cutAfter(1 + below(4000))
  }
  await follower.agrees(values)
  assert.ok(follower.ends.filter((end) => end === 'failed').length >= 10, follower.ends.join(' '))
  assert.deepEqual(follower.lists, ['first'])
  assert.ok(!follower.told.some((line) => line.endsWith(' gone')))
})

test('the server ends, in order and killed: what was known stays known, and what was missed is told', {
  skip,
}, async () => {
  const values = await Values.make(20)
  const follower = new Follower(values)
  await follower.tells(/^listed$/)
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await values.put('v1', `before ${signal}`)
    await follower.agrees(values)
    follower.told.length = 0
    await api.stopApi(signal)
    await follower.tells(/^down: /)
    assert.equal(follower.known.size, 20)
    await api.startApi()
    await values.put('v2', `after ${signal}`)
    await follower.agrees(values)
    await follower.tells(/^up$/)
    assert.ok(!follower.told.some((line) => line.endsWith(' gone')))
  }
})

test('a server that answers nobody any more while its connections stand is left for another', { skip }, async () => {
  const values = await Values.make(3)
  const follower = new Follower(values, { headPatienceMs: 1000, bookmarkPatienceMs: 90_000 })
  await follower.tells(/^listed$/)
  await watched(values)
  api.relay.cut()
  api.relay.silence(true)
  // The next connection is taken and nothing comes: no probe of TCP would ever fail.
  await follower.until('a watch is given up', () => follower.ends.includes('silent'))
  assert.equal(follower.known.size, 3)
  await values.put('v1', 'meanwhile')
  api.relay.silence(false)
  await follower.agrees(values)
  await follower.tells(/^up$/)
  assert.deepEqual(follower.lists, ['first'])
})

test('a slow server is waited for', { skip }, async () => {
  const values = await Values.make(60, 1000)
  api.relay.slow(30_000)
  const follower = new Follower(values, { pageSize: 20 })
  await follower.tells(/^listed$/)
  await watched(values)
  await values.put('v1', 'slowly')
  await follower.agrees(values)
  assert.ok(!follower.told.some((line) => /^down/.test(line)), follower.told.join(', '))
})

test('turned away by flow control, it waits as long as it is asked to, then goes on where it was', {
  skip,
}, async () => {
  const values = await Values.make(12)
  const open = new Follower(values)
  await open.tells(/^listed$/)
  await watched(values)
  const release = await jail()
  const late = new Follower(values)
  await late.tells(/^down: .*\(429\)$/)
  api.relay.cut()
  await open.tells(/^down: .*\(429\)$/)
  await late.until('three refusals', () => late.statuses.filter(({ status }) => status === 429).length >= 3)
  const refusedAt = late.statuses.filter(({ status }) => status === 429).map(({ atMs }) => atMs)
  // kube-apiserver asks for a second.
  for (let n = 1; n < refusedAt.length; n++) assert.ok(refusedAt[n]! - refusedAt[n - 1]! >= 990, refusedAt.join(' '))
  await values.put('v1', 'while they wait')
  await release()
  for (const follower of [late, open]) {
    await follower.tells(/^up$/)
    await follower.agrees(values)
  }
  assert.deepEqual([open.lists, late.lists], [['first'], ['first']])
})

/**
 * Gives the watcher one request at a time, no room to wait, and uses up the one; resolves when the server turns others away.
 * Call the result to let the watcher in again.
 */
async function jail(): Promise<() => Promise<void>> {
  const group = '/apis/flowcontrol.apiserver.k8s.io/v1'
  const name = 'jail'
  const levels = `${group}/prioritylevelconfigurations`
  const schemas = `${group}/flowschemas`
  const limited = {
    nominalConcurrencyShares: 0,
    lendablePercent: 0,
    borrowingLimitPercent: 0,
    limitResponse: { type: 'Reject' },
  }
  const make = (path: string, spec: object) =>
    api.client.request({ method: 'POST', path, body: { metadata: { name }, spec } })
  await make(levels, { type: 'Limited', limited })
  const all = { verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*'] }
  await make(schemas, {
    priorityLevelConfiguration: { name },
    matchingPrecedence: 2,
    rules: [{ subjects: [{ kind: 'User', user: { name: WATCHER } }], resourceRules: [all] }],
  })
  const { cert, key } = api.authority.issue({ commonName: WATCHER, usages: ['client'] })
  let held: ClientRequest | undefined
  // A request whose body never comes is under way until the server's patience is over.
  const hold = () => {
    held = request(`${api.url}/api/v1/namespaces/default/configmaps`, {
      method: 'POST',
      ca: api.authority.cert,
      cert,
      key,
      agent: false,
      headers: { 'content-type': 'application/json', 'content-length': '9999' },
    })
    held.on('error', () => {})
    held.on('close', () => held && hold())
    held.flushHeaders()
  }
  const client = watcher()
  const isRefused = () =>
    client.request({ method: 'GET', path: '/api/v1/namespaces/default' }).then(
      () => false,
      (error: { status?: number }) => error.status === 429,
    )
  const until = async (closed: boolean) => {
    const deadline = performance.now() + 30_000
    while ((await isRefused()) !== closed) {
      assert.ok(performance.now() < deadline, 'flow control takes no effect')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  hold()
  await until(true)
  return async () => {
    const last = held
    held = undefined
    last?.destroy()
    for (const path of [schemas, levels]) await api.client.request({ method: 'DELETE', path: `${path}/${name}` })
    await until(false)
    client.close()
  }
}

test('without a watch cache: history that etcd has compacted ends a list between its pages, and a watch', {
  skip,
}, async () => {
  await api.stopApi('SIGKILL')
  await api.startApi({ 'watch-cache': 'false' })
  const values = await Values.make(30)
  let compactions = 0
  const follower = new Follower(values, {
    pageSize: 10,
    project: (object) => {
      // Between the first page and the second of the first list only.
      if (compactions === 0) {
        compactions++
        api.etcdctl('put', '/weft/test', 'moves the revision')
        api.compact()
      }
      return { value: String((object.data as { value?: unknown }).value) }
    },
  })
  await follower.tells(/^listed$/)
  await follower.agrees(values)
  const lists = api.requests(WATCHER).filter(({ verb, uri }) => verb === 'list' && uri.startsWith(values.path))
  assert.deepEqual(
    lists.map(({ code }) => code),
    [200, 410, 200, 200, 200],
  )
  await watched(values)
  api.relay.silence(true)
  await values.put('v1', 'second')
  await values.remove('v2')
  api.compact()
  follower.told.length = 0
  api.relay.silence(false)
  await follower.tells(/^listed again$/)
  assert.deepEqual(follower.told.filter((line) => !/^(up|down)/.test(line)).sort(), [
    'listed again',
    'v1=second',
    'v2 gone',
  ])
  await api.stopApi('SIGKILL')
  await api.startApi()
})
