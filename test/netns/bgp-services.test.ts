/** Services as routes see them, over the lab's API: addresses, policies, and ready endpoints here and elsewhere. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BgpServices } from '../../src/cluster/kubernetes/bgp-services.ts'
import type { BgpService } from '../../src/model/bgp-cluster.ts'
import { type LabApi, send, startLabApi } from './calico-api.ts'

let lab: LabApi
before(async () => {
  lab = await startLabApi()
})
after(() => lab.close())

const services = '/api/v1/namespaces/default/services'
const slices = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices'

const service = (name: string, spec: object, annotations = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, annotations },
  spec: { ports: [{ port: 80 }], ...spec },
})

const slice = (
  name: string,
  of: string,
  endpoints: readonly (readonly [node: string, ready: boolean | undefined])[],
) => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, labels: { 'kubernetes.io/service-name': of } },
  addressType: 'IPv4',
  endpoints: endpoints.map(([nodeName, ready], index) => ({
    addresses: [`10.244.0.${index + 1}`],
    nodeName,
    conditions: ready === undefined ? {} : { ready },
  })),
  ports: [],
})

test('addresses, policies and ready endpoints, and only what changes of them', async (t) => {
  const given = { clusterIP: '10.96.7.7', clusterIPs: ['10.96.7.7'], externalIPs: ['198.51.100.7'] }
  const note = { 'kube-router.io/service.local': 'true', other: 'x' }
  await send(
    lab.admin,
    'POST',
    services,
    service('web', { ...given, type: 'LoadBalancer', externalTrafficPolicy: 'Local' }, note),
  )
  await send(lab.admin, 'POST', slices, slice('web-1', 'web', [['n2', true]]))
  const client = lab.open()
  const told: (readonly [string, BgpService | undefined])[] = []
  let wake = () => {}
  let synced = false
  const watch = new BgpServices({
    client,
    nodeName: 'n1',
    tuning: { backoff: { first: 5, cap: 50 } },
    onService: (key, each) => {
      told.push([key, each])
      wake()
    },
    onSynced: () => {
      synced = true
      wake()
    },
    onConnection: () => {},
  })
  const until = async (what: string, holds: () => boolean) => {
    const deadline = AbortSignal.timeout(60_000)
    while (!holds())
      await new Promise<void>((resolve, reject) => {
        wake = resolve
        deadline.onabort = () => reject(new Error(`never: ${what}; there was ${JSON.stringify(told)}`))
      })
  }
  const last = (key = 'default/web') => told.findLast(([each]) => each === key)?.[1]
  t.after(async () => {
    await watch.close()
    client.close()
  })
  watch.start()
  await until('synced', () => synced)
  assert.deepEqual(JSON.parse(JSON.stringify(last())), {
    namespace: 'default',
    name: 'web',
    type: 'LoadBalancer',
    clusterIps: ['10.96.7.7'],
    externalIps: ['198.51.100.7'],
    loadBalancerIps: [],
    externalTrafficPolicy: 'Local',
    internalTrafficPolicy: 'Cluster',
    annotations: { 'kube-router.io/service.local': 'true' },
    isReady: true,
    isReadyHere: false,
  })
  const replace = async (name: string, endpoints: Parameters<typeof slice>[2]) => {
    const { metadata } = await send(lab.admin, 'GET', `${slices}/${name}`)
    const next = slice(name, 'web', endpoints)
    await send(lab.admin, 'PUT', `${slices}/${name}`, { ...next, metadata: { ...metadata, ...next.metadata } })
  }
  await send(lab.admin, 'POST', slices, slice('web-2', 'web', [['n1', undefined]]))
  await until('ready here, where nothing is said of it', () => last()?.isReadyHere === true)
  const before = told.length
  await replace('web-2', [
    ['n1', true],
    ['n3', true],
  ])
  await replace('web-2', [['n1', false]])
  await until('not ready here', () => last()?.isReadyHere === false)
  assert.equal(told.length, before + 1, 'a third endpoint changed nothing for routes')
  await send(lab.admin, 'DELETE', `${slices}/web-1`)
  await until('ready nowhere', () => last()?.isReady === false)
  await send(lab.admin, 'DELETE', `${services}/web`)
  await until('gone', () => told.at(-1)?.[0] === 'default/web' && told.at(-1)?.[1] === undefined)
})
