import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { HttpClient, HttpError } from './http-client.ts'
import { TestServer } from './kubernetes/test-server.ts'

let server: TestServer
const arrivals: number[] = []

before(async () => {
  server = new TestServer()
  await server.listen()
  server.intercept = (request, response) => {
    arrivals.push(performance.now())
    const [, status = '200'] = /status=(\d+)/.exec(request.url!) ?? []
    response.writeHead(Number(status), { 'retry-after': '7' })
    response.end(status === '200' ? '{}' : 'no,\n  not now\n')
    return true
  }
})
after(() => server.stop())

const clientWith = (limit?: { perSecond: number; burst: number }): HttpClient =>
  new HttpClient({ server: server.url, insecure: false, credentials: async () => ({}) }, undefined, undefined, limit)

test('a burst goes at once, the rest as fast as it may, and nobody is left out', async () => {
  const client = clientWith({ perSecond: 20, burst: 3 })
  arrivals.length = 0
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: 10 }, () => client.request({ method: 'GET', path: '/x' })))
  assert.equal(arrivals.length, 10)
  // Seven had to wait for a twentieth of a second each.
  assert.ok(performance.now() - startedAt >= 345, `${performance.now() - startedAt} ms`)
  client.close()
})

test('who gives up while it waits in line is let go at once', async () => {
  const client = clientWith({ perSecond: 0.01, burst: 1 })
  await client.request({ method: 'GET', path: '/x' })
  const abort = new AbortController()
  const waiting = client.request({ method: 'GET', path: '/x', signal: abort.signal })
  arrivals.length = 0
  abort.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  assert.equal(arrivals.length, 0)
  client.close()
})

test('a refusal tells what was asked, the status, and for how long to stay away', async () => {
  const client = clientWith()
  await assert.rejects(client.request({ method: 'GET', path: '/x?status=429' }), (error: HttpError) => {
    assert.ok(error instanceof HttpError)
    assert.equal(error.message, 'GET /x: no,\n  not now (429)')
    assert.deepEqual([error.status, error.retryAfterSeconds], [429, 7])
    return true
  })
  client.close()
})
