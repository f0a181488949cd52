/** Calico's BGP objects on the lab's API server: what is taken and what is refused, as the parsers do. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { MemoryJournal } from '../../cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../cluster/embedded/store.ts'
import { bgpCases } from '../../config/calico/definitions/bgp-cases.ts'
import { calicoDefinitions } from '../../config/calico/definitions/index.ts'
import { ApiServer } from './server.ts'

const tokens = new Map([['admin-token', { user: 'admin', groups: ['system:masters'] }]])
const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
let store: ObjectStore
let server: ApiServer
let port: number

async function call(method: string, path: string, body?: unknown) {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const answer = (await response.json()) as { readonly message?: string; readonly spec?: unknown }
  return { code: response.status, answer, warning: response.headers.get('warning') }
}

before(async () => {
  store = await ObjectStore.open(new MemoryJournal())
  server = new ApiServer({ store, tokens })
  port = (await server.listen({ host: '127.0.0.1', port: 0 })).port
  for (const definition of calicoDefinitions.filter(({ metadata }) => metadata.name.startsWith('bgp'))) {
    const { code, answer, warning } = await call('POST', definitions, definition)
    assert.equal(code, 201, answer.message)
    assert.equal(warning, null, 'every rule is evaluated')
  }
})
after(async () => {
  await server.close()
  await store.close()
})

for (const [n, { kind, what, name, spec, refused, parserOnly }] of bgpCases.entries())
  test(`${kind}: ${what}`, async () => {
    const own = name ?? (kind === 'BGPConfiguration' ? 'default' : `case-${n}`)
    const path = `/apis/crd.projectcalico.org/v1/${kind.toLowerCase()}s`
    const object = { apiVersion: 'crd.projectcalico.org/v1', kind, metadata: { name: own }, spec }
    const { code, answer } = await call('POST', path, object)
    if (refused && !parserOnly) {
      assert.equal(code, 422, what)
      assert.ok(answer.message?.includes(refused.key), answer.message)
      assert.match(answer.message ?? '', refused.says)
      return
    }
    assert.equal(code, 201, answer.message)
    const { answer: read } = await call('GET', `${path}/${own}`)
    const kept = read.spec as Record<string, unknown>
    for (const [key, value] of Object.entries(spec)) assert.deepEqual(kept[key], value, key)
    assert.equal((await call('DELETE', `${path}/${own}`)).code, 200)
  })
