import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { HttpClient } from '../http-client.ts'
import { Informer, type InformerOptions } from './informer.ts'
import { nodeObject, TestServer } from './test-server.ts'

const NODES = '/api/v1/nodes'
let server: TestServer
let informer: Informer<{ cidr: unknown }>
let log: string[]
let wake: () => void = () => {}

/** Resolves when the log has a line like this after what was taken before. */
async function until(pattern: RegExp): Promise<void> {
  const deadline = AbortSignal.timeout(20_000)
  for (;;) {
    const at = log.findIndex((line) => pattern.test(line))
    if (at >= 0) {
      log.splice(0, at + 1)
      return
    }
    await new Promise<void>((resolve, reject) => {
      wake = resolve
      deadline.onabort = () => reject(new Error(`${pattern} never came; there is ${log.join(', ')}`))
    })
  }
}

/** Resolves when the server holds a watch. */
async function watched(): Promise<void> {
  while (server.watching === 0) await new Promise((resolve) => setTimeout(resolve, 5))
}

type Tuning = Pick<
  InformerOptions<unknown>,
  | 'watchSeconds'
  | 'watchGraceMilliseconds'
  | 'headPatienceMs'
  | 'bookmarkPatienceMs'
  | 'spreadMs'
  | 'absentIsEmpty'
  | 'absencePatienceMs'
>

function begin(options: Tuning = {}): void {
  const client = new HttpClient({
    server: server.url,
    insecure: false,
    credentials: async () => ({}),
  })
  const say = (line: string) => {
    log.push(line)
    wake()
  }
  informer = new Informer({
    client,
    path: NODES,
    pageSize: 3,
    backoff: { first: 5, cap: 20 },
    ...options,
    project: (object) => ({ cidr: (object.spec as { podCIDR?: unknown }).podCIDR }),
    onSet: (name, { cidr }) => say(`set ${name} ${cidr}`),
    onDelete: (name) => say(`delete ${name}`),
    onListed: (first) => say(first ? 'listed' : 'listed again'),
    onConnection: (problem) => say(problem ? `down ${problem.message}` : 'up'),
  })
  informer.start()
}

before(async () => {
  server = new TestServer()
  await server.listen()
})
after(() => server.stop())
beforeEach(() => {
  log = []
  server.intercept = undefined
  for (let n = 1; n <= 9; n++) server.remove(NODES, `n${n}`)
  for (let n = 1; n <= 7; n++) server.put(NODES, nodeObject(`n${n}`, `10.244.${n}.0/24`))
  server.requests.length = 0
})

afterEach(() => informer.close())

test('lists in pages, then tells changes; heartbeats are not told', async () => {
  begin()
  await until(/^listed$/)
  assert.equal(server.requests.filter((line) => line.includes('limit=3')).length, 3)
  assert.equal(informer.size, 7)
  await watched()
  server.put(NODES, { ...nodeObject('n1', '10.244.1.0/24'), status: { heartbeat: 1 } })
  server.put(NODES, nodeObject('n2', '10.244.99.0/24'))
  server.remove(NODES, 'n3')
  await until(/^delete n3$/)
  assert.deepEqual(log, [])
  assert.equal(informer.size, 6)
})

test('a cut stream goes on where it was: nothing is lost or told twice', async () => {
  begin()
  await until(/^listed$/)
  for (let round = 0; round < 10; round++) {
    await watched()
    server.cut()
    server.put(NODES, nodeObject('n8', `10.245.${round}.0/24`))
    await until(new RegExp(`^set n8 10.245.${round}.0/24$`))
  }
  assert.equal(server.requests.filter((line) => !line.includes('watch=1')).length, 3, 'no second list')
  assert.deepEqual(
    log.filter((line) => line.startsWith('set')),
    [],
  )
})

test('410 lists again, tells differences only and drops nothing meanwhile', async () => {
  begin()
  await until(/^listed$/)
  await watched()
  await server.stop()
  server.put(NODES, nodeObject('n2', '10.244.77.0/24'))
  server.remove(NODES, 'n5')
  server.compact()
  await until(/^down/)
  assert.equal(informer.size, 7, 'kept while the server is away')
  await server.listen()
  await until(/^set n2 10.244.77.0\/24$/)
  await until(/^delete n5$/)
  await until(/^listed again$/)
  assert.equal(informer.size, 6)
})

test('a server that is back is noticed although it has nothing to tell', async () => {
  begin()
  await until(/^listed$/)
  await watched()
  await server.stop()
  await until(/^down/)
  await server.listen()
  await until(/^up$/)
})

test('429 and 503 wait and try again', async () => {
  let refusals = 0
  server.intercept = (_, response) => {
    if (refusals++ >= 4) return false
    response.writeHead(refusals % 2 ? 429 : 503, { 'retry-after': '0' })
    response.end('{"message":"busy"}')
    return true
  }
  begin()
  await until(/^down .*busy \(429\)$/)
  await until(/^up$/)
  await until(/^listed$/)
  assert.equal(informer.size, 7)
})

test('each other reason of failing is told once', async () => {
  const refusals = [503, 503, 401, 401, 401, 503]
  server.intercept = (_, response) => {
    const status = refusals.shift()
    if (status === undefined) return false
    response.writeHead(status)
    response.end('{"message":"no"}')
    return true
  }
  begin()
  const told: string[] = []
  while (told.at(-1) !== 'up') {
    while (log.length === 0) await new Promise<void>((resolve) => (wake = resolve))
    told.push(log.shift()!.replace(/ GET .*(?=\()/, ' '))
  }
  assert.deepEqual(told, ['down (503)', 'down (401)', 'down (503)', 'up'])
})

test('a stream that is silent beyond its time is left and watched anew', async () => {
  let silent = 0
  server.intercept = (request, response) => {
    if (!request.url!.includes('watch=1') || silent > 0) return false
    silent++
    response.writeHead(200)
    response.flushHeaders()
    return true
  }
  begin({ watchSeconds: 0.01, watchGraceMilliseconds: 200 })
  await until(/^listed$/)
  // The server above neither ends the watch after its one second nor says anything; the informer leaves it a little later.
  server.put(NODES, nodeObject('n9', '10.244.9.0/24'))
  await until(/^set n9/)
  assert.equal(silent, 1)
})

test('garbage in a stream is an error of that stream alone', async () => {
  let sent = 0
  server.intercept = (request, response) => {
    if (!request.url!.includes('watch=1') || sent++ > 0) return false
    response.writeHead(200)
    response.end('{"type":"ADDED","object":{"metadata":{"name":\n')
    return true
  }
  begin()
  await until(/^listed$/)
  await until(/^down/)
  // It would come again from the same version: only a new list leads past it.
  await until(/^listed again$/)
  await watched()
  server.put(NODES, nodeObject('n9', '10.244.9.0/24'))
  await until(/^set n9/)
})

test('a page that is refused is asked for again, not the list; one that is gone begins it anew', async () => {
  const answers = new Map([
    [2, 429],
    [3, 500],
    [5, 410],
  ])
  let asked = 0
  server.intercept = (_, response) => {
    const status = answers.get(++asked)
    if (status === undefined) return false
    response.writeHead(status)
    response.end(`{"message":"no","reason":"${status === 410 ? 'Expired' : ''}"}`)
    return true
  }
  begin()
  await until(/^listed$/)
  const pages = server.requests.map((line) => new URLSearchParams(line.split('?')[1]).get('continue') ?? 'first')
  assert.deepEqual(pages.slice(0, 8), ['first', '3', '3', '3', '6', 'first', '3', '6'])
})

test('history that is always gone is not asked for in a tight loop', async () => {
  let lists = 0
  server.intercept = (request, response) => {
    if (!request.url!.includes('watch=1')) {
      if (!request.url!.includes('continue=')) lists++
      return false
    }
    response.writeHead(410)
    response.end('{"message":"too old","reason":"Expired"}')
    return true
  }
  // Each pause is somewhere in a window of a second.
  begin({ spreadMs: () => 1000 })
  await until(/^listed$/)
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.ok(lists <= 8, `${lists} lists in 300 ms`)
})

test('a server that does not begin to answer a watch is left, and said to be away', async () => {
  let silent = 0
  server.intercept = (request) => request.url!.includes('watch=1') && silent++ === 0
  begin({ headPatienceMs: 50 })
  await until(/^down http.* does not answer$/)
  await until(/^up$/)
})

test('a watch that has carried a bookmark and then says nothing is begun anew where the bookmark was', async () => {
  let first = true
  server.intercept = (request, response) => {
    if (!request.url!.includes('watch=1') || !first) return false
    first = false
    response.writeHead(200)
    response.write('{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"98765"}}}\n')
    return true
  }
  begin({ bookmarkPatienceMs: 50 })
  await until(/^listed$/)
  await watched()
  const [, second] = server.requests.filter((line) => line.includes('watch=1'))
  assert.match(second!, /resourceVersion=98765/)
  assert.deepEqual(log, [])
})

/** Answers lists and watches of nodes as a server does that does not serve them. */
const deny = (): void => {
  server.intercept = (_, response) => {
    response.statusCode = 404
    response.end('404 page not found')
    return true
  }
}

test('a resource that is not served has no objects, and is asked for again', async () => {
  deny()
  begin({ absentIsEmpty: true, absencePatienceMs: 10 })
  await until(/^listed$/)
  assert.ok(!log.some((line) => line.startsWith('down')), 'that is no failure')
  server.intercept = undefined
  await until(/^set n7/)
})

test('a resource that is denied for a moment is not given up, one that is denied for long is', async () => {
  begin({ absentIsEmpty: true, absencePatienceMs: 150 })
  await until(/^listed$/)
  await watched()
  deny()
  const deniedAt = performance.now()
  server.requests.length = 0
  server.cut()
  await until(/^delete n1$/)
  assert.ok(performance.now() - deniedAt >= 150)
  assert.ok(server.requests.length > 1, 'it was asked for again before that')
  await until(/^listed again$/)
  server.intercept = undefined
  await until(/^set n1/)
})
