/** One controller on the lab's API server, with the rights of deploy/controller-rbac.yaml and no others. */
import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { STATUS_ANNOTATION } from '../../src/cluster/kubernetes/annotations.ts'
import type { ControllerMetrics } from '../../src/controller/metrics.ts'
import type { KubeObject } from '../../src/lab/api/interfaces.ts'
import { type Asked, ControllerCluster, controllerRights } from './controller-cluster.ts'

let cluster: ControllerCluster
const servers: Server[] = []
beforeEach(async () => {
  cluster = await ControllerCluster.start()
})
afterEach(async () => {
  for (const server of servers.splice(0)) server.close()
  await cluster.close()
})

const eventsOf = (events: KubeObject[], reason: string) => events.filter((event) => event.reason === reason)
const unavailable = (node: KubeObject | undefined) =>
  (node?.status?.conditions ?? []).find((each: { type: string }) => each.type === 'NetworkUnavailable')

describe('pod CIDRs', () => {
  test('both families; nothing that somebody has, and nobody who has some is touched', async () => {
    const old = await cluster.addNode('old', ['10.244.0.0/24', 'fd00:10:244::/64'])
    const small = await cluster.addNode('small', ['10.244.1.128/25'])
    await cluster.addNode('addressed', [], {
      status: { addresses: [{ type: 'InternalIP', address: '10.244.2.9' }] },
    })
    await cluster.addNode('new')
    await cluster.run('a', {
      'cluster-cidr': '10.244.0.0/16,fd00:10:244::/56',
      'service-cluster-ip-range': '10.244.3.0/24',
    })
    const given = await cluster.allGiven(4)
    assert.deepEqual([...given.get('addressed')!, ...given.get('new')!].sort(), [
      '10.244.4.0/24',
      '10.244.5.0/24',
      'fd00:10:244:1::/64',
      'fd00:10:244:2::/64',
    ])
    for (const before of [old, small]) {
      const now = await cluster.client.get('nodes', { name: before.metadata.name! })
      assert.equal(now.metadata.resourceVersion, before.metadata.resourceVersion, before.metadata.name)
    }
  })

  test('a full network is told on the node, and a block that comes free goes to it', async () => {
    await cluster.addNode('first', ['10.244.0.0/25'])
    await cluster.addNode('second', ['10.244.0.128/25'])
    const waiting = await cluster.addNode('third')
    const { metrics } = await cluster.run('a', {
      'cluster-cidr': '10.244.0.0/24',
      'node-cidr-mask-size': '25',
      'cidr-reuse-delay': '300ms',
    })
    const events = await cluster.until('events', (all) => eventsOf(all, 'CIDRNotAvailable').length > 0)
    const [event] = eventsOf(events, 'CIDRNotAvailable')
    assert.equal(event!.involvedObject.uid, waiting.metadata.uid)
    assert.match(event!.message, /no free \/25 is left of 10\.244\.0\.0\/24 \(2 blocks\)/)
    assert.match(await metrics.registry.metrics(), /^weft_nodes_without_pod_cidr 1$/m)
    await cluster.client.delete('nodes', { name: 'first' })
    assert.deepEqual((await cluster.allGiven(2)).get('third'), ['10.244.0.0/25'])
  })

  test('the network is that of net-conf.json, as soon as there is one, and follows it', async () => {
    for (const name of ['one', 'two', 'three']) await cluster.addNode(name)
    const { controller } = await cluster.run('a', {})
    const configMap = (network: string) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: 'kube-flannel', name: 'kube-flannel-cfg' },
      data: { 'net-conf.json': JSON.stringify({ Network: network, SubnetLen: 26, Backend: { Type: 'host-gw' } }) },
    })
    await cluster.client.create('configmaps', configMap('10.5.0.0/24'))
    // The first subnet is none, by flannel's default of SubnetMin.
    await cluster.allGiven(3)
    await cluster.addNode('four')
    await cluster.until('events', (all) => eventsOf(all, 'CIDRNotAvailable').length > 0)
    await cluster.client.update('configmaps', configMap('10.5.0.0/23'))
    const given = await cluster.allGiven(4)
    assert.deepEqual(given.get('four'), ['10.5.1.0/26'])
    assert.deepEqual(
      controller.checks().filter(({ problem }) => problem !== undefined),
      [],
    )
  })

  test('what a predecessor promised is kept, what it gave last is not given next', async () => {
    const node = await cluster.addNode('promised')
    await cluster.addNode('other')
    await cluster.client.create('configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: 'kube-flannel', name: 'weft-pod-cidrs' },
      data: {
        promises: JSON.stringify({
          promised: { uid: node.metadata.uid, cidrs: ['10.244.7.0/24'] },
          gone: { uid: 'x', cidrs: ['10.244.9.0/24'] },
        }),
        last: '["10.244.8.0/24"]',
      },
    })
    await cluster.run('a', { 'cluster-cidr': '10.244.0.0/16' })
    const given = await cluster.allGiven(2)
    assert.deepEqual(given.get('promised'), ['10.244.7.0/24'])
    assert.deepEqual(given.get('other'), ['10.244.10.0/24'])
    const [ledger] = await cluster.until(
      'configmaps',
      (all) => all.find(({ metadata }) => metadata.name === 'weft-pod-cidrs')?.data.promises === '{}',
    )
    assert.ok(ledger)
  })

  test('a ledger that cannot be read gives nothing, and says why', async () => {
    await cluster.addNode('one')
    await cluster.client.create('configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: 'kube-flannel', name: 'weft-pod-cidrs' },
      data: { promises: '{"a":{"uid":"u","cidrs":["10.244.0.0/99"]}}' },
    })
    const { proxy, controller } = await cluster.run('a', { 'cluster-cidr': '10.244.0.0/16' })
    // Read twice: the first reading was refused.
    await new Promise<void>((resolve) => {
      proxy.onRequest = () => {
        if (proxy.asked.filter(({ url }) => url.endsWith('/weft-pod-cidrs')).length >= 2) resolve()
      }
    })
    assert.match(
      String(controller.checks().find(({ name }) => name === 'nodes')?.problem),
      /weft-pod-cidrs cannot be read/,
    )
    assert.deepEqual(
      proxy.asked.filter(({ method }) => method === 'PATCH'),
      [],
    )
  })

  test('two nodes with one block are told of', async () => {
    await cluster.addNode('a', ['10.244.0.0/24'])
    await cluster.addNode('b', ['10.244.0.0/24'])
    const { metrics } = await cluster.run('a', { 'cluster-cidr': '10.244.0.0/16' })
    const events = await cluster.until('events', (all) => eventsOf(all, 'CIDRConflict').length > 0)
    assert.match(eventsOf(events, 'CIDRConflict')[0]!.message, /^10\.244\.0\.0\/24 overlaps podCIDRs of [ab]$/)
    assert.match(await metrics.registry.metrics(), /^weft_pod_cidr_conflicts 1$/m)
  })

  test('of two that both believe to lead, one is refused: it would have given a block that the other gave meanwhile', async () => {
    const flags = { 'cluster-cidr': '10.244.0.0/16' }
    await cluster.addNode('n')
    const a = await cluster.run('a', flags)
    const promising = a.proxy.holdWhen(({ method, url }) => method === 'PATCH' && url.endsWith('/weft-pod-cidrs'))
    // One has chosen the first block for `n` and is about to promise it; for the other one that is the second of two nodes.
    await promising
    await cluster.addNode('m')
    const b = await cluster.run('b', flags)
    const writing = b.proxy.holdWhen(({ method, url }) => method === 'PATCH' && url === '/api/v1/nodes/n')
    await cluster.until('nodes', (all) =>
      all.some(({ metadata, spec }) => metadata.name === 'm' && spec.podCIDR === '10.244.0.0/24'),
    )
    await writing
    a.proxy.release()
    assert.deepEqual((await cluster.allGiven(2)).get('n'), ['10.244.1.0/24'], 'as promised by the other one')
    assert.deepEqual(
      a.proxy.asked.filter(({ method, url }) => method === 'PATCH' && url.endsWith('/weft-pod-cidrs'))[0]?.status,
      409,
    )
    b.proxy.release()
  })
})

describe('state of nodes', () => {
  const agent = (node: string, ready: boolean): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `agent-${node}`, namespace: 'kube-flannel', labels: { app: 'weft-agent' } },
    spec: { nodeName: node, containers: [{ name: 'weft', image: 'weft' }] },
    status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] },
  })
  const announced = {
    [STATUS_ANNOTATION]: '{"accepts":["host-gw"],"sends":["host-gw"]}',
    'flannel.alpha.coreos.com/backend-type': 'host-gw',
    'flannel.alpha.coreos.com/public-ip': '192.0.2.1',
    'flannel.alpha.coreos.com/public-ip-overwrite': '192.0.2.7',
    'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
    'example.com/other': 'stays',
  }
  const setReady = (node: string, ready: boolean) =>
    cluster.client.patch(
      'pods',
      { namespace: 'kube-flannel', name: `agent-${node}` },
      { status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] } },
      { subresource: 'status' },
    )
  const mark =
    (wished: (condition: { status: string; reason: string } | undefined) => boolean) => (all: KubeObject[]) =>
      all.every((node) => wished(unavailable(node)))

  test('a new node is unavailable until its agent says otherwise, and an agent is not talked over', async () => {
    await cluster.addNode('spoken', [], {
      status: { conditions: [{ type: 'NetworkUnavailable', status: 'False', reason: 'WeftIsUp' }] },
    })
    await cluster.run('a', { 'allocate-node-cidrs': false, 'set-network-unavailable': true })
    await cluster.addNode('new')
    const nodes = await cluster.until('nodes', (all) => all.length === 2 && all.every((node) => unavailable(node)))
    const statuses = new Map(nodes.map((node) => [node.metadata.name, unavailable(node).reason]))
    assert.deepEqual(Object.fromEntries(statuses), { spoken: 'WeftIsUp', new: 'NoWeftYet' })
  })

  test('an agent that is missed marks its node, one that is back takes the mark away', async () => {
    await cluster.addNode('n', [], {
      metadata: { annotations: announced },
      status: { conditions: [{ type: 'NetworkUnavailable', status: 'False', reason: 'WeftIsUp' }] },
    })
    await cluster.client.create('pods', agent('n', true))
    await setReady('n', true)
    await cluster.run('a', {
      'allocate-node-cidrs': false,
      'agent-pods': 'kube-flannel/app=weft-agent',
      'agent-missed-after': '50ms',
    })
    await setReady('n', false)
    await cluster.until(
      'nodes',
      mark((each) => each?.status === 'True' && each.reason === 'WeftAgentGone'),
    )
    await cluster.until('events', (all) => eventsOf(all, 'WeftAgentGone').length === 1)
    await setReady('n', true)
    const [node] = await cluster.until(
      'nodes',
      mark((each) => each?.status === 'False' && each.reason === 'WeftIsUp'),
    )
    assert.equal(node!.metadata.annotations![STATUS_ANNOTATION], announced[STATUS_ANNOTATION])
  })

  test('after very long, if so configured, its words are removed and nobody else’s', async () => {
    await cluster.addNode('gone', [], { metadata: { annotations: announced } })
    await cluster.addNode('flannel', [], {
      metadata: { annotations: { 'flannel.alpha.coreos.com/backend-type': 'vxlan' } },
    })
    await cluster.client.patch(
      'nodes',
      { name: 'gone' },
      { status: { conditions: [{ type: 'NetworkUnavailable', status: 'False', reason: 'WeftIsUp' }] } },
      { subresource: 'status' },
    )
    await cluster.run('a', {
      'allocate-node-cidrs': false,
      'agent-pods': 'kube-flannel/app=weft-agent',
      'agent-missed-after': '10ms',
      'agent-forget-after': '50ms',
    })
    const nodes = await cluster.until('nodes', (all) =>
      all.some(({ metadata }) => metadata.name === 'gone' && !metadata.annotations?.[STATUS_ANNOTATION]),
    )
    const annotations = new Map(nodes.map(({ metadata }) => [metadata.name, metadata.annotations]))
    assert.deepEqual(annotations.get('gone'), {
      'flannel.alpha.coreos.com/public-ip-overwrite': '192.0.2.7',
      'example.com/other': 'stays',
    })
    assert.deepEqual(annotations.get('flannel'), { 'flannel.alpha.coreos.com/backend-type': 'vxlan' })
  })
})

/** An agent's pod and what it answers on its port. */
async function speakingAgent(node: string, answer: () => string): Promise<void> {
  const server = createServer((request, response) => {
    response.statusCode = request.url === '/addresses' ? 200 : 404
    response.end(answer())
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await cluster.client.create('pods', {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `agent-${node}`, namespace: 'kube-flannel', labels: { app: 'weft-agent' } },
    spec: {
      nodeName: node,
      hostNetwork: true,
      containers: [{ name: 'weft', image: 'weft', ports: [{ name: 'metrics', containerPort: port }] }],
    },
  })
  await setStatus('kube-flannel', `agent-${node}`, {
    podIP: '127.0.0.1',
    podIPs: [{ ip: '127.0.0.1' }],
    conditions: [{ type: 'Ready', status: 'True' }],
  })
}

const setStatus = (namespace: string, name: string, status: object) =>
  cluster.client.patch('pods', { namespace, name }, { status }, { subresource: 'status' })

const leakFlags = {
  'allocate-node-cidrs': false,
  'agent-pods': 'kube-flannel/app=weft-agent',
  'leak-check-interval': '100ms',
}

describe('leaked addresses', () => {
  /** Resolves when a line of /metrics is as wished. */
  const metricsSay = async (metrics: ControllerMetrics, line: RegExp) => {
    for (const end = performance.now() + 30_000; !line.test(await metrics.registry.metrics()); ) {
      assert.ok(performance.now() < end, `no ${line} in ${await metrics.registry.metrics()}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  test('what a node holds and no pod of it has is told, and no more when a pod has it', async () => {
    await cluster.addNode('n')
    let held = '10.244.1.2 fd00:10:244:1::2\n10.244.1.3\n10.244.1.9 fd00:10:244:1::9\n'
    await speakingAgent('n', () => held)
    for (const [name, node, ip] of [
      ['a', 'n', '10.244.1.2'],
      ['b', 'n', '10.244.1.3'],
      ['c', 'other', '10.244.1.9'],
    ] as const) {
      const spec = { nodeName: node, containers: [{ name: 'c', image: 'c' }] }
      await cluster.client.create('pods', {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace: 'default' },
        spec,
      })
      await setStatus('default', name, { podIP: ip, podIPs: [{ ip }] })
    }
    const { metrics } = await cluster.run('a', leakFlags)
    const events = await cluster.until('events', (all) => eventsOf(all, 'AddressesLeaked').length > 0)
    const [event] = eventsOf(events, 'AddressesLeaked')
    assert.equal(event!.involvedObject.name, 'n')
    assert.equal(event!.message, 'addresses are held that no pod has: 10.244.1.9 fd00:10:244:1::9')
    await metricsSay(metrics, /^weft_leaked_addresses 2$/m)
    held = '10.244.1.2 fd00:10:244:1::2\n10.244.1.3\n'
    await metricsSay(metrics, /^weft_leaked_addresses 0$/m)
    assert.doesNotMatch(await metrics.registry.metrics(), /weft_leak_checks_total\{result="failed"\}/)
  })

  test('an agent that answers nonsense, too much or nothing is a check that failed, and accuses nobody', async () => {
    const answers = ['<html>', 'x'.repeat(2 << 20), '10.244.1.2\n'.repeat(100_000)]
    for (const [index, answer] of answers.entries()) {
      await cluster.addNode(`n${index}`)
      await speakingAgent(`n${index}`, () => answer)
    }
    const { metrics } = await cluster.run('a', leakFlags)
    await metricsSay(metrics, /^weft_leak_checks_total\{result="failed"\} ([6-9]|\d\d)/m)
    assert.match(await metrics.registry.metrics(), /^weft_leaked_addresses 0$/m)
  })
})

test('uses every right of its role, and needs no other', async () => {
  await cluster.client.create('configmaps', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { namespace: 'kube-flannel', name: 'kube-flannel-cfg' },
    data: { 'net-conf.json': '{"Network":"10.5.0.0/24","SubnetLen":26,"Backend":{"Type":"host-gw"}}' },
  })
  const { proxy } = await cluster.run('a', {
    'leader-elect': true,
    'leader-elect-retry-period': '100ms',
    'set-network-unavailable': true,
    'agent-pods': 'kube-flannel/app=weft-agent',
    'leak-check-interval': '100ms',
  })
  await speakingAgent('one', () => '')
  for (const name of ['one', 'two', 'three', 'four']) await cluster.addNode(name)
  await cluster.until('events', (all) => eventsOf(all, 'CIDRNotAvailable').length > 0)
  await cluster.until('nodes', (all) => all.every((node) => unavailable(node)))
  await new Promise<void>((resolve) => {
    const isRenewal = ({ method, url }: Asked) => method === 'PATCH' && url.includes('/leases/')
    proxy.onRequest = () => {
      if (
        proxy.asked.filter(isRenewal).length >= 2 &&
        proxy.asked.some(({ url }) => url.includes('watch=1&') && url.includes('/pods')) &&
        proxy.asked.some(({ url }) => url.startsWith('/api/v1/pods?'))
      )
        resolve()
    }
  })
  assert.deepEqual(
    proxy.asked.filter(({ status }) => status === 403 || status === 401),
    [],
  )
  const granted = controllerRights()
    .filter(({ kind }) => kind === 'Role' || kind === 'ClusterRole')
    .flatMap(({ rules, metadata }) =>
      rules.flatMap((rule: { resources: string[]; verbs: string[]; resourceNames?: string[] }) =>
        rule.resources.flatMap((resource) =>
          (rule.resourceNames ?? ['*']).flatMap((name) =>
            rule.verbs.map((verb) => [metadata.namespace ?? '*', resource, name, verb].join(' ')),
          ),
        ),
      ),
    )
  // This cluster has no pools, so what it takes to look after them is not asked for: ipam-collector.test.ts and
  // pool-conditions.test.ts do.
  const ofPools = / (ip\S*|blockaffinities) \S+ \S+$/
  const asked = new Set(proxy.asked.filter(({ url }) => url !== '/apis').map(rightFor))
  assert.deepEqual([...asked].sort(), granted.filter((right) => !ofPools.test(right)).sort())
})

/** `namespace resource name verb` of a request, in the words of the role. */
function rightFor({ method, url }: Asked): string {
  const { pathname, searchParams } = new URL(url, 'http://x')
  const parts = pathname.replace(/^\/apis?\/(.*?\/)?v1\//, '').split('/')
  const namespace = parts[0] === 'namespaces' && parts.length > 2 ? parts.splice(0, 2)[1]! : '*'
  const [resource = '', name, subresource] = parts
  const selected = /^metadata\.name=(.*)$/.exec(searchParams.get('fieldSelector') ?? '')?.[1]
  const verb =
    method === 'POST'
      ? 'create'
      : method === 'PATCH'
        ? 'patch'
        : name
          ? 'get'
          : searchParams.has('watch')
            ? 'watch'
            : 'list'
  const clusterWide = resource === 'nodes'
  return [
    clusterWide ? '*' : namespace,
    subresource ? `${resource}/${subresource}` : resource,
    clusterWide ? '*' : (name ?? selected ?? '*'),
    verb,
  ].join(' ')
}
