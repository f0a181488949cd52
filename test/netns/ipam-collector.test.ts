/**
 * The collector of address pools over the lab's API server: pools, blocks and pods as objects, nodes as the controller has them, an
 * agent that answers over HTTP.
 */
import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { KubernetesStore } from '../../src/cluster/calico/kubernetes-store.ts'
import { IpamCollector } from '../../src/controller/ipam-collector.ts'
import type { IpamMetrics } from '../../src/controller/ipam-metrics.ts'
import { IpamSight } from '../../src/controller/ipam-sight.ts'
import { ControllerMetrics } from '../../src/controller/metrics.ts'
import { allocationsOf, isInUse } from '../../src/ipam/block.ts'
import { ipamOf, poolOf, quietLog } from '../../src/ipam/stores/ipam-store-suite.ts'
import type { NodeInfo } from '../../src/model/cluster.ts'
import { Ip } from '../../src/net/ip.ts'
import { define, type LabApi, put, send, startLabApi, undefine } from './calico-api.ts'

let api: LabApi
let agent: Server
/** What the agent of n1 answers; undefined: an error. */
let journal: string[] | undefined = []

before(async () => {
  api = await startLabApi()
  agent = createServer((request, response) => {
    response.statusCode = journal && request.url === '/addresses' ? 200 : 503
    response.end(journal?.map((line) => `${line}\n`).join(''))
  })
  await new Promise<void>((resolve) => agent.listen(0, '127.0.0.1', resolve))
})
after(async () => {
  agent.close()
  await api.close()
})

const log = { ...quietLog, error: () => {} } as never
const nodeOf = (name: string, further: Partial<NodeInfo> = {}): NodeInfo => ({
  name,
  addresses: [],
  podCidrs: [],
  ...further,
})

/** A collector of its own memory, with the nodes that are there. */
function collectorOf(nodes: () => NodeInfo[]) {
  const client = api.open()
  const { signal } = new AbortController()
  const { port } = agent.address() as AddressInfo
  const sight = new IpamSight({
    client,
    log,
    signal,
    nodes,
    agents: () => nodes().map(({ name }) => ({ node: name, address: '127.0.0.1', port })),
  })
  const store = new KubernetesStore({ client })
  const reports: string[] = []
  const metrics = new ControllerMetrics()
  const collector = new IpamCollector({
    store,
    interval: 1000,
    log,
    signal,
    events: { report: ({ node, reason }) => reports.push(`${node} ${reason}`) },
    metrics: metrics.ipam satisfies IpamMetrics,
    readPools: () => sight.readPools(),
    look: () => sight.look(),
    now: () => Date.now(),
    mayWrite: () => true,
  })
  const close = async () => {
    await store.close()
    client.close()
  }
  return { collector, store, sight, reports, metrics, close }
}

const podOf = (name: string, phase: string, ips: readonly Ip[]) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: { nodeName: 'n1', containers: [{ name: 'c', image: 'i' }] },
  status: { phase, podIPs: ips.map((ip) => ({ ip: `${ip}` })) },
})

test('without definitions, and without pools, nothing is looked for', async () => {
  const { collector, sight, close } = collectorOf(() => [nodeOf('n1')])
  assert.equal(await sight.readPools(), undefined)
  await collector.collect()
  await define(api.admin)
  assert.equal(await sight.readPools(), undefined)
  await undefine(api.admin)
  await close()
})

test('of pods, journals and nodes, what nobody has goes back', async () => {
  await define(api.admin)
  await put(api.admin, 'ippools', 'p', { cidr: '172.26.0.0/24', blockSize: 29, nodeSelector: 'all()' })
  await put(api.admin, 'ipreservations', 'r', { reservedCIDRs: ['172.26.0.0/27'] })
  const tunnel = Ip.parse('172.26.0.200')
  let nodes = [nodeOf('n1', { calico: { ipv4IpipTunnelAddr: tunnel } }), nodeOf('n2')]
  const { collector, store, reports, metrics, close } = collectorOf(() => nodes)
  const pool = poolOf('p', '172.26.0.0/24', { blockSize: 29 })
  const add = async (node: string, name: string, ip?: Ip) => {
    const ipam = ipamOf(store, node, [pool])
    const attributes = { node, namespace: 'default', pod: name }
    const wanted = [{ family: 4 as const, ...(ip ? { ip } : {}) }]
    const [got] = await ipam.assign({ handleId: `k8s-pod-network.${name}`, attributes, use: 'Workload', wanted })
    ipam.close()
    return got!.ip
  }
  const names = ['runs', 'finished', 'journal', 'leaked'] as const
  const ips = new Map<string, Ip>()
  for (const name of names) ips.set(name, await add('n1', name))
  ips.set('tunnel', await add('n1', 'tunnel', tunnel))
  ips.set('gone', await add('n2', 'gone'))
  journal = [`${ips.get('journal')}`]
  for (const [name, phase] of [
    ['runs', 'Running'],
    ['finished', 'Succeeded'],
  ] as const) {
    await send(api.admin, 'POST', '/api/v1/namespaces/default/pods', podOf(name, phase, []))
    await send(api.admin, 'PUT', `/api/v1/namespaces/default/pods/${name}/status`, podOf(name, phase, [ips.get(name)!]))
  }
  const held = async () => {
    const all = (await store.blocks.list()).objects.flatMap(({ value }) => [...allocationsOf(value)].filter(isInUse))
    return [...ips].filter(([, ip]) => all.some((each) => each.ip.equals(ip))).map(([name]) => name)
  }
  const lines = journal
  journal = undefined
  await collector.collect()
  await collector.collect()
  assert.deepEqual(await held(), ['runs', 'finished', 'journal', 'leaked', 'tunnel', 'gone'], 'no agent answers')

  journal = lines
  await collector.collect()
  await collector.collect()
  assert.deepEqual(await held(), ['runs', 'journal', 'tunnel'])
  assert.deepEqual(reports, ['n1 AddressesFreed', 'n2 AddressesFreed'])
  const text = await metrics.registry.metrics()
  assert.match(text, /^ipam_ippool_reserved\{ippool="p"\} 32$/m)
  assert.match(text, /^ipam_allocations_gc_reclamations\{ippool="p",node="n1"\} 2$/m)

  nodes = nodes.slice(1)
  await send(api.admin, 'DELETE', '/api/v1/namespaces/default/pods/runs?gracePeriodSeconds=0')
  for (let look = 0; look < 4; look++) await collector.collect()
  assert.deepEqual(await held(), [])
  const owners = (await store.blocks.list()).objects.map(({ value }) => value.owner?.name)
  assert.deepEqual(owners, ['n2'])
  assert.deepEqual(
    (await store.affinities.list()).objects.map(({ value }) => value.owner.name),
    ['n2'],
  )
  await close()
})

test('what cannot be read of pools stops the collector and not the controller', async () => {
  const { collector, close } = collectorOf(() => [nodeOf('n1')])
  await api.setUp(false)
  await assert.rejects(collector.collect())
  await api.setUp(true)
  await close()
})
