import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { HttpClient } from '../http-client.ts'
import { TestServer } from '../kubernetes/test-server.ts'
import type { CalicoGroup } from './api-group.ts'
import { GroupWatch } from './group-watch.ts'

const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const V1 = 'crd.projectcalico.org/v1'
const V3 = 'projectcalico.org/v3'

let server: TestServer
let watch: GroupWatch
const told: (CalicoGroup | undefined)[] = []
let wake: () => void = () => {}

beforeEach(async () => {
  server = new TestServer()
  await server.listen()
  told.length = 0
})
afterEach(async () => {
  await watch.close()
  await server.stop()
})

function begin(): void {
  watch = new GroupWatch({
    client: new HttpClient({ server: server.url, insecure: false, credentials: async () => ({}) }),
    tuning: { backoff: { first: 5, cap: 20 } },
    askEveryMs: 5,
    onGroup: (group) => {
      told.push(group)
      wake()
    },
    onConnection: () => {},
  })
  watch.start()
}

async function next(): Promise<CalicoGroup | undefined> {
  while (told.length === 0)
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  return told.shift()
}

const define = (name: string, isEstablished = true): void =>
  server.put(DEFINITIONS, {
    metadata: { name },
    status: { conditions: [{ type: 'Established', status: isEstablished ? 'True' : 'False' }] },
  })

test('neither, then the later group, then the earlier, which counts beside it', async () => {
  begin()
  assert.equal(await next(), undefined)
  define('ippools.projectcalico.org', false)
  define('ippools.projectcalico.org')
  assert.equal(await next(), V3)
  define('ippools.crd.projectcalico.org')
  assert.equal(await next(), V1)
  server.remove(DEFINITIONS, 'ippools.projectcalico.org')
  server.remove(DEFINITIONS, 'ippools.crd.projectcalico.org')
  // Two streams: the later group may be seen to be alone for a moment.
  while ((await next()) !== undefined) {}
})

test('who may not watch definitions asks for the groups', async () => {
  let groups: readonly string[] = ['apps']
  server.intercept = ({ url = '' }, response) => {
    const isAsking = url === '/apis'
    response.statusCode = isAsking ? 200 : 403
    response.end(JSON.stringify(isAsking ? { groups: groups.map((name) => ({ name })) } : { reason: 'Forbidden' }))
    return true
  }
  begin()
  assert.equal(await next(), undefined)
  groups = ['projectcalico.org', 'crd.projectcalico.org']
  assert.equal(await next(), V1)
  groups = ['projectcalico.org']
  assert.equal(await next(), V3)
  const watches = () => server.requests.filter((line) => line.includes('customresourcedefinitions')).length
  const before = watches()
  groups = []
  assert.equal(await next(), undefined)
  assert.equal(watches(), before, 'definitions are not asked for any more')
})
