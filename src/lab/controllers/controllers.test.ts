import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { pino } from 'pino'
import { MemoryJournal } from '../../cluster/embedded/memory-journal.ts'
import { ObjectStore } from '../../cluster/embedded/store.ts'
import type { KubeObject, LocalClient } from '../api/interfaces.ts'
import { ApiServer } from '../api/server.ts'
import type { LabSpec } from '../layout.ts'
import { startControllers } from './controllers.ts'

const spec: LabSpec = { name: 'unit', subnets: 1, ipv6: true, netConfig: '{}', nodes: [] }
let api: ApiServer
let client: LocalClient
let controllers: { close(): void }

before(async () => {
  api = new ApiServer({ store: await ObjectStore.open(new MemoryJournal()), tokens: new Map() })
  client = api.client
  controllers = startControllers(client, spec, pino({ level: 'silent' }))
})
after(async () => {
  controllers.close()
  await api.close()
})

/** Resolves with the objects of a resource as soon as the test holds for them. */
function until(
  resource: string,
  holds: (objects: KubeObject[]) => boolean,
  namespace = 'default',
): Promise<KubeObject[]> {
  return new Promise((resolve, reject) => {
    const objects = new Map<string, KubeObject>()
    const timer = setTimeout(
      () => reject(new Error(`${resource}: ${JSON.stringify([...objects.values()].map((o) => o.status ?? o.spec))}`)),
      20_000,
    )
    const watch = client.watch(resource, resource === 'nodes' ? {} : { namespace }, (event) => {
      if (event.type === 'DELETED') objects.delete(event.object.metadata.name!)
      else if (event.type !== 'SYNCED') objects.set(event.object.metadata.name!, event.object)
      if (!holds([...objects.values()])) return
      clearTimeout(timer)
      setImmediate(() => watch.close())
      resolve([...objects.values()])
    })
  })
}

async function makeNode(name: string, labels: Record<string, string> = {}): Promise<void> {
  await client.create('nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, spec: {} })
  const conditions = [{ type: 'Ready', status: 'True', reason: 'KubeletReady', message: '' }]
  await client.patch(
    'nodes',
    { name },
    { status: { conditions, allocatable: { pods: '110' } } },
    { subresource: 'status' },
  )
  await client.create('leases.coordination.k8s.io', {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace: 'kube-node-lease' },
    spec: { renewTime: '2026-01-01T00:00:00.000000Z' },
  })
}

/** What a kubelet would do: every bound pod is running and ready, deleted ones go. */
function playKubelet(): { close(): void } {
  let next = 2
  const ips = new Map<string, string>()
  return client.watch('pods', {}, (event) => {
    if (event.type === 'SYNCED' || event.type === 'DELETED') return
    const pod = event.object
    const name = { namespace: pod.metadata.namespace!, name: pod.metadata.name! }
    if (pod.metadata.deletionTimestamp) void client.delete('pods', name, { gracePeriodSeconds: 0 }).catch(() => {})
    else if (pod.spec.nodeName && pod.status?.phase !== 'Running') {
      const ip = ips.get(pod.metadata.uid!) ?? `10.244.0.${next++}`
      ips.set(pod.metadata.uid!, ip)
      const status = { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] }
      void client.patch('pods', name, { status }, { subresource: 'status' }).catch(() => {})
    }
  })
}

const template = (labels: Record<string, string>, extra: object = {}) => ({
  metadata: { labels },
  spec: {
    containers: [{ name: 'main', image: 'weft/server', ports: [{ containerPort: 8080, name: 'http' }] }],
    ...extra,
  },
})

test('each node gets the lowest free block of both families; a freed one is given again', async () => {
  const blocks = async (count: number) =>
    (await until('nodes', (nodes) => nodes.length === count && nodes.every((node) => node.spec.podCIDRs))).map((node) =>
      node.spec.podCIDRs.join(' '),
    )
  await makeNode('n1')
  await makeNode('n2', { disk: 'fast' })
  assert.deepEqual(await blocks(2), ['10.244.0.0/24 fd00:10:244::/64', '10.244.1.0/24 fd00:10:244:1::/64'])
  await client.delete('nodes', { name: 'n1' })
  await until('nodes', (nodes) => nodes.length === 1)
  await makeNode('n3')
  assert.deepEqual((await blocks(2)).sort(), ['10.244.0.0/24 fd00:10:244::/64', '10.244.1.0/24 fd00:10:244:1::/64'])
})

test('a Deployment spreads its pods, rolls to a new template and keeps enough of them ready', async () => {
  const kubelet = playKubelet()
  const labels = { app: 'web' }
  const deployment = (version: string): KubeObject => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      replicas: 4,
      selector: { matchLabels: labels },
      template: { ...template(labels), metadata: { labels, annotations: { version } } },
    },
  })
  await client.create('deployments.apps', deployment('1'))
  await client.create('services', {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: labels, ports: [{ port: 80, targetPort: 'http' }] },
  })
  const ready = (objects: KubeObject[]) =>
    objects.some(
      (o) =>
        o.metadata.name === 'web' &&
        o.status?.readyReplicas === 4 &&
        o.status?.updatedReplicas === 4 &&
        o.status?.replicas === 4,
    )
  await until('deployments.apps', ready)
  const pods = (await client.list('pods', { labelSelector: 'app=web' })).items
  assert.equal(pods.filter((pod) => pod.spec.nodeName === 'n2').length, 2, 'half of them on each node')
  await until('endpointslices.discovery.k8s.io', (slices) =>
    slices.some(
      (slice) =>
        slice.metadata.name === 'web-ipv4' &&
        slice.ports?.[0]?.port === 8080 &&
        slice.endpoints?.filter((e: KubeObject) => e.conditions.ready).length === 4,
    ),
  )
  let least = 4
  const counting = client.watch('pods', { labelSelector: 'app=web' }, () => {
    void client.list('pods', { labelSelector: 'app=web' }).then(({ items }) => {
      least = Math.min(
        least,
        items.filter((pod) => pod.status?.phase === 'Running' && !pod.metadata.deletionTimestamp).length,
      )
    })
  })
  await client.update('deployments.apps', {
    ...(await client.get('deployments.apps', { namespace: 'default', name: 'web' })),
    spec: deployment('2').spec,
  })
  await until(
    'pods',
    (now) =>
      now.length === 4 &&
      now.every((pod) => pod.metadata.annotations?.version === '2' && pod.status?.phase === 'Running'),
  )
  counting.close()
  assert.ok(least >= 3, `at most one of four may be missing; ${least} were there`)
  await client.delete('deployments.apps', { namespace: 'default', name: 'web' }, { propagationPolicy: 'Background' })
  await until('pods', (now) => now.length === 0)
  kubelet.close()
})

test('a DaemonSet has a pod on every node that fits; the scheduler honours selectors, taints and host ports', async () => {
  const kubelet = playKubelet()
  await client.create('daemonsets.apps', {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: 'each', namespace: 'default' },
    spec: { selector: { matchLabels: { app: 'each' } }, template: template({ app: 'each' }) },
  })
  const nodesOf = (pods: KubeObject[], app: string) =>
    pods
      .filter((pod) => pod.metadata.labels?.app === app)
      .map((pod) => pod.spec.nodeName)
      .sort()
  await until('pods', (pods) => nodesOf(pods, 'each').join() === 'n2,n3')

  const pod = (name: string, extra: object): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Pod',
    ...template({}, extra),
    metadata: { name, namespace: 'default', labels: { app: name } },
  })
  const make = (name: string, extra: object) => client.create('pods', pod(name, extra))
  const bound = async (name: string) =>
    (await until('pods', (pods) => pods.some((p) => p.metadata.name === name && p.spec.nodeName))).find(
      (p) => p.metadata.name === name,
    )!.spec.nodeName
  await make('fast', { nodeSelector: { disk: 'fast' } })
  assert.equal(await bound('fast'), 'n2')

  await client.patch(
    'nodes',
    { name: 'n3' },
    { spec: { taints: [{ key: 'special', value: 'yes', effect: 'NoSchedule' }] } },
  )
  const ports = [{ name: 'main', image: 'x', ports: [{ containerPort: 80, hostPort: 8080 }] }]
  await make('port1', { containers: ports })
  assert.equal(await bound('port1'), 'n2')
  await make('port2', { containers: ports })
  const stuck = (
    await until('pods', (pods) =>
      pods.some(
        (p) =>
          p.metadata.name === 'port2' &&
          p.status?.conditions?.some((c: { reason?: string }) => c.reason === 'Unschedulable'),
      ),
    )
  ).find((p) => p.metadata.name === 'port2')!
  assert.match(
    stuck.status.conditions.find((c: { type: string }) => c.type === 'PodScheduled').message,
    /0\/2 nodes are available: .*free ports.*|.*untolerated taint/,
  )
  await make('port3', { containers: ports, tolerations: [{ key: 'special', operator: 'Equal', value: 'yes' }] })
  assert.equal(await bound('port3'), 'n3')
  kubelet.close()
})
