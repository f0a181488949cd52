/**
 * The condition Allocatable over the lab's API server, with definitions that come after the controller, and with another writer.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { PoolConditions } from '../../src/controller/pool-conditions.ts'
import { quietLog } from '../../src/ipam/stores/ipam-store-suite.ts'
import { type Any, define, GROUP, type LabApi, put, send, startLabApi, until } from './calico-api.ts'

let api: LabApi
const abort = new AbortController()
let mayWrite = true
let running: Promise<void>

const path = `/apis/${GROUP}/ippools`
const said = async (name: string): Promise<Any> =>
  (await send(api.admin, 'GET', `${path}/${name}`)).status?.conditions?.find((each: Any) => each.type === 'Allocatable')
const becomes = (name: string, wanted: string) =>
  until(`${name} ${wanted}`, async () => {
    const condition = await said(name)
    return `${condition?.status} ${condition?.reason}` === wanted ? condition : undefined
  })
const change = (name: string, body: object, subresource = '') =>
  api.admin.request({
    method: 'PATCH',
    path: `${path}/${name}${subresource}`,
    body,
    contentType: 'application/merge-patch+json',
  })

before(async () => {
  api = await startLabApi()
  running = new PoolConditions({
    client: api.open(),
    log: { ...quietLog, error: () => {} } as never,
    signal: abort.signal,
    mayWrite: () => mayWrite,
  }).run()
  await define(api.admin)
})
after(async () => {
  abort.abort()
  await running
  await api.close()
})

test('pools are judged as they come, change and go', async () => {
  await put(api.admin, 'ippools', 'old', { cidr: '172.26.0.0/16' })
  const { lastTransitionTime, message } = await becomes('old', 'True OK')
  assert.ok(Math.abs(Date.parse(lastTransitionTime) - Date.now()) < 600_000)
  assert.ok(message)
  await put(api.admin, 'ippools', 'young', { cidr: '172.26.0.0/17' })
  assert.match((await becomes('young', 'False CIDROverlap')).message, /pool old/)
  await change('old', { spec: { disabled: true } })
  await becomes('old', 'False PoolDisabled')
  await becomes('young', 'True OK')
  await change('old', { spec: { disabled: false } })
  await becomes('old', 'False CIDROverlap')
  assert.equal((await said('young')).status, 'True', 'who stands stays')
  await send(api.admin, 'DELETE', `${path}/young`)
  await becomes('old', 'True OK')
})

test("another writer's words and conditions stay; what it says wrongly is put right", async () => {
  const other = { type: 'Tested', status: 'True', reason: 'X', message: '', lastTransitionTime: '2026-11-22T02:00:00Z' }
  const ours = { ...other, type: 'Allocatable', reason: 'OK', message: 'in other words' }
  await change('old', { status: { conditions: [other, ours] } }, '/status')
  await put(api.admin, 'ippools', 'probe', { cidr: '172.28.0.0/16' })
  await becomes('probe', 'True OK')
  assert.equal((await said('old')).message, 'in other words')
  await change(
    'old',
    { status: { conditions: [other, { ...ours, status: 'False', reason: 'Terminating' }] } },
    '/status',
  )
  await becomes('old', 'True OK')
  const { status } = await send(api.admin, 'GET', `${path}/old`)
  assert.deepEqual(status.conditions.map(({ type }: Any) => type).sort(), ['Allocatable', 'Tested'])
})

test('who leads no more writes nothing', async () => {
  mayWrite = false
  await change('old', { spec: { disabled: true } })
  await put(api.admin, 'ippools', 'late', { cidr: '172.29.0.0/16' })
  mayWrite = true
  await put(api.admin, 'ippools', 'last', { cidr: '172.30.0.0/16' })
  await becomes('last', 'True OK')
  await becomes('old', 'False PoolDisabled')
})
