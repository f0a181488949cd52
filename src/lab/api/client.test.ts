/** The rules behind every request, through the in-process client on a store in memory. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { MemoryJournal } from '../../cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../cluster/embedded/store.ts'
import type { ApiError } from './api-error.ts'
import type { KubeObject, LocalClient, ObjectEvent } from './interfaces.ts'
import { ApiServer } from './server.ts'

let store: ObjectStore
let server: ApiServer
let client: LocalClient

beforeEach(async () => {
  store = await ObjectStore.open(new MemoryJournal())
  server = new ApiServer({ store, tokens: new Map(), serviceCidrs: ['10.96.0.0/24', 'fd00:10:96::/112'] })
  client = server.client
  await store.committed()
})
afterEach(async () => {
  await server.close()
  await store.close()
})

const pod = (name: string, more: Record<string, unknown> = {}): KubeObject => ({
  metadata: { name, namespace: 'default', labels: { app: 'web' } },
  spec: { containers: [{ name: 'c', image: 'x' }], ...more },
})

const rejects = (promise: Promise<unknown>, code: number, pattern: RegExp): Promise<void> =>
  assert.rejects(promise, (error: ApiError) => {
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    return true
  })

/** Resolves with the events once `until` holds for one of them. */
function eventsUntil(
  resource: string,
  options: object,
  until: (event: ObjectEvent) => boolean,
): Promise<ObjectEvent[]> {
  return new Promise((done) => {
    const seen: ObjectEvent[] = []
    const watch = client.watch(resource, options, (event) => {
      seen.push(event)
      if (!until(event)) return
      done(seen)
      setImmediate(() => watch.close())
    })
  })
}
const gone = (resource: string, name: string) =>
  eventsUntil(resource, {}, (event) => event.type === 'DELETED' && event.object.metadata.name === name)

test('create fills defaults and identity, refuses a second one and a wrong one', async () => {
  const created = await client.create('pods', pod('a'))
  assert.equal(created.spec.restartPolicy, 'Always')
  assert.equal(created.spec.containers[0].imagePullPolicy, 'Always')
  assert.equal(created.status.phase, 'Pending')
  assert.match(created.metadata.uid!, /^[0-9a-f-]{36}$/)
  await rejects(client.create('pods', pod('a')), 409, /pods "a" already exists/)
  await rejects(client.create('pods', pod('A')), 422, /metadata.name: Invalid value: "A"/)
  await rejects(client.create('pods', { metadata: { name: 'b', namespace: 'default' }, spec: {} }), 422, /containers/)
  await rejects(
    client.create('pods', { ...pod('b'), metadata: { name: 'b', namespace: 'no' } }),
    404,
    /namespaces "no"/,
  )
  const generated = await client.create<KubeObject>('pods', {
    ...pod('x'),
    metadata: { generateName: 'web-', namespace: 'default' },
  })
  assert.match(generated.metadata.name!, /^web-[a-z0-9]{5}$/)
})

test('updates hold to the version they were read at; status and spec are written apart', async () => {
  const first = await client.create('pods', pod('a'))
  const second = await client.update('pods', { ...first, metadata: { ...first.metadata, labels: { app: 'db' } } })
  await rejects(
    client.update('pods', { ...first, metadata: { ...first.metadata, labels: {} } }),
    409,
    /has been modified/,
  )
  const running = await client.update('pods', { ...second, status: { phase: 'Running' } }, { subresource: 'status' })
  assert.equal(running.status.phase, 'Running')
  const plain = await client.update('pods', { ...running, status: { phase: 'Failed' } })
  assert.equal(plain.status.phase, 'Running')
  assert.equal(plain.metadata.resourceVersion, running.metadata.resourceVersion, 'nothing changed, nothing written')
  await rejects(
    client.patch('pods', { namespace: 'default', name: 'a' }, { spec: { restartPolicy: 'Never' } }),
    422,
    /pod updates may not change fields/,
  )
})

test('generation counts changes of the spec alone', async () => {
  const labels = { app: 'web' }
  const deployment: KubeObject = {
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: pod('x').spec } },
  }
  const name = { namespace: 'default', name: 'web' }
  assert.equal((await client.create('deployments.apps', deployment)).metadata.generation, 1)
  await client.patch('deployments.apps', name, { metadata: { labels: { a: 'b' } } })
  await client.patch('deployments.apps', name, { status: { replicas: 1 } }, { subresource: 'status' })
  assert.equal((await client.get('deployments.apps', name)).metadata.generation, 1)
  await client.patch('deployments.apps', name, { spec: { replicas: 5 } })
  const found = await client.get('deployments.apps', name)
  assert.equal(found.metadata.generation, 2)
  assert.equal(found.status.replicas, 1)
})

test('pods end gracefully, finalizers hold, force ends at once', async () => {
  const name = { namespace: 'default', name: 'a' }
  await client.create('pods', pod('a', { nodeName: 'n1' }))
  await client.delete('pods', name)
  const ending = await client.get('pods', name)
  assert.equal(ending.metadata.deletionGracePeriodSeconds, 30)
  assert.ok(ending.metadata.deletionTimestamp)
  await client.delete('pods', name, { gracePeriodSeconds: 0 })
  await rejects(client.get('pods', name), 404, /pods "a" not found/)
  await client.create('configmaps', { metadata: { ...name, finalizers: ['weft.dev/hold'] } })
  await client.delete('configmaps', name)
  assert.ok((await client.get('configmaps', name)).metadata.deletionTimestamp)
  await client.patch('configmaps', name, { metadata: { finalizers: null } })
  await rejects(client.get('configmaps', name), 404, /not found/)
})

test('a watch with a selector sees objects come into sight and go out of it', async () => {
  await client.create('pods', pod('a'))
  await client.create('pods', pod('b', { nodeName: 'n1' }))
  const seen: string[] = []
  const watch = client.watch('pods', { fieldSelector: 'spec.nodeName=n1' }, (event) =>
    seen.push(event.type === 'SYNCED' ? event.type : `${event.type} ${event.object.metadata.name}`),
  )
  assert.deepEqual(seen, ['ADDED b', 'SYNCED'])
  const binding = { metadata: { name: 'a', namespace: 'default' }, target: { name: 'n1' } }
  await client.create('pods', binding as KubeObject, { subresource: 'binding' })
  await rejects(client.create('pods', binding as KubeObject, { subresource: 'binding' }), 409, /already assigned/)
  await client.delete('pods', { namespace: 'default', name: 'b' }, { gracePeriodSeconds: 0 })
  assert.deepEqual(seen.slice(2), ['ADDED a', 'DELETED b'])
  watch.close()
})

test('owners that go take what they own; orphans stay', async () => {
  const owner = await client.create<KubeObject>('configmaps', { metadata: { name: 'owner', namespace: 'default' } })
  const reference = { apiVersion: 'v1', kind: 'ConfigMap', name: 'owner', uid: owner.metadata.uid! }
  const owned = (name: string): KubeObject => ({
    metadata: { name, namespace: 'default', ownerReferences: [reference] },
  })
  await client.create('secrets', owned('s'))
  const collected = gone('secrets', 's')
  await client.delete('configmaps', { namespace: 'default', name: 'owner' })
  await collected
  const late = gone('secrets', 'late')
  await client.create('secrets', owned('late'))
  await late

  const second = await client.create<KubeObject>('configmaps', { metadata: { name: 'second', namespace: 'default' } })
  const kept = { ...owned('kept') }
  kept.metadata.ownerReferences = [{ ...reference, name: 'second', uid: second.metadata.uid! }]
  await client.create('secrets', kept)
  const orphaned = gone('configmaps', 'second')
  await client.delete('configmaps', { namespace: 'default', name: 'second' }, { propagationPolicy: 'Orphan' })
  await orphaned
  const found = await client.get('secrets', { namespace: 'default', name: 'kept' })
  assert.deepEqual(found.metadata.ownerReferences ?? [], [])
})

test('foreground deletion takes the dependents first', async () => {
  const owner = await client.create<KubeObject>('configmaps', { metadata: { name: 'owner', namespace: 'default' } })
  const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'owner', uid: owner.metadata.uid! }]
  await client.create('secrets', { metadata: { name: 's', namespace: 'default', ownerReferences } })
  const order: string[] = []
  const watches = ['secrets', 'configmaps'].map((resource) =>
    client.watch(resource, {}, (event) => event.type === 'DELETED' && order.push(event.object.metadata.name!)),
  )
  const done = gone('configmaps', 'owner')
  await client.delete('configmaps', { namespace: 'default', name: 'owner' }, { propagationPolicy: 'Foreground' })
  await done
  assert.deepEqual(order, ['s', 'owner'])
  for (const watch of watches) watch.close()
})

test('a namespace goes with everything in it, and takes nothing new meanwhile', async () => {
  await client.create('namespaces', { metadata: { name: 'team' } })
  await client.create('configmaps', { metadata: { name: 'held', namespace: 'team', finalizers: ['weft.dev/hold'] } })
  await client.create('pods', { ...pod('p'), metadata: { name: 'p', namespace: 'team' } })
  const podGone = gone('pods', 'p')
  await client.delete('namespaces', { name: 'team' })
  await podGone
  await rejects(client.create('configmaps', { metadata: { name: 'x', namespace: 'team' } }), 403, /being terminated/)
  const namespaceGone = gone('namespaces', 'team')
  await client.patch('configmaps', { namespace: 'team', name: 'held' }, { metadata: { finalizers: null } })
  await namespaceGone
  assert.deepEqual((await client.list('serviceaccounts', { namespace: 'team' })).items, [])
})

test('services get addresses and node ports of their own, and give them back', async () => {
  const service = (name: string, spec: object): KubeObject => ({
    metadata: { name, namespace: 'default' },
    spec: { ports: [{ port: 80 }], ...spec },
  })
  assert.equal((await client.get('services', { namespace: 'default', name: 'kubernetes' })).spec.clusterIP, '10.96.0.1')
  const first = await client.create('services', service('a', { type: 'NodePort', ipFamilyPolicy: 'PreferDualStack' }))
  assert.deepEqual(first.spec.ipFamilies, ['IPv4', 'IPv6'])
  assert.match(first.spec.clusterIPs[1], /^fd00:10:96::/)
  const { nodePort } = first.spec.ports[0]
  assert.ok(nodePort >= 30_000 && nodePort <= 32_767)
  await rejects(
    client.create('services', service('b', { type: 'NodePort', ports: [{ port: 80, nodePort }] })),
    422,
    /provided port is already allocated/,
  )
  await rejects(client.create('services', service('b', { clusterIP: first.spec.clusterIP })), 422, /already allocated/)
  await rejects(client.create('services', service('b', { clusterIP: '192.0.2.1' })), 422, /not in the valid range/)
  await client.delete('services', { namespace: 'default', name: 'a' })
  const again = await client.create('services', service('b', { clusterIP: first.spec.clusterIP }))
  assert.equal(again.spec.clusterIP, first.spec.clusterIP)
  const headless = await client.create('services', service('c', { clusterIP: 'None', ports: [] }))
  assert.deepEqual(headless.spec.clusterIPs, ['None'])
})

test("a node's podCIDR is set once", async () => {
  await client.create('nodes', { metadata: { name: 'n1' } })
  const set = await client.patch('nodes', { name: 'n1' }, { spec: { podCIDRs: ['10.244.0.0/24'] } })
  assert.equal(set.spec.podCIDR, '10.244.0.0/24')
  await rejects(
    client.patch('nodes', { name: 'n1' }, { spec: { podCIDR: '10.1.0.0/24', podCIDRs: ['10.1.0.0/24'] } }),
    422,
    /may not change podCIDR/,
  )
})

test('a definition serves its kind at once, with defaults, pruning and rules; it takes its objects along', async () => {
  const definition: KubeObject = {
    metadata: { name: 'pools.weft.dev' },
    spec: {
      group: 'weft.dev',
      scope: 'Cluster',
      names: { plural: 'pools', kind: 'Pool' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: {
                  type: 'object',
                  required: ['cidr'],
                  properties: { cidr: { type: 'string' }, size: { type: 'integer', default: 26, maximum: 32 } },
                },
                status: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
              },
            },
          },
        },
      ],
    },
  }
  await client.create('customresourcedefinitions.apiextensions.k8s.io', definition)
  const made = await client.create('pools.weft.dev', {
    metadata: { name: 'a' },
    spec: { cidr: '10.0.0.0/8', odd: 1 },
    status: { used: 1 },
  })
  assert.deepEqual(made.spec, { cidr: '10.0.0.0/8', size: 26 })
  assert.equal(made.status, undefined)
  await rejects(
    client.create('pools.weft.dev', { metadata: { name: 'b' }, spec: { size: 40 } }),
    422,
    /spec.cidr: Required.*|spec.size/,
  )
  const used = await client.patch('pools.weft.dev', { name: 'a' }, { status: { used: 2 } }, { subresource: 'status' })
  assert.deepEqual([used.status, used.metadata.generation], [{ used: 2 }, 1])
  await client.delete('customresourcedefinitions.apiextensions.k8s.io', { name: 'pools.weft.dev' })
  await rejects(client.list('pools.weft.dev'), 404, /could not find the requested resource/)
  assert.equal(store.count('pools.weft.dev'), 0)
})
