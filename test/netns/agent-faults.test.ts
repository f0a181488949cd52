import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import type { KubeObject } from '../../src/lab/api/interfaces.ts'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { EtcdServer } from './etcd-server.ts'

const prefix = 'flannel.alpha.coreos.com'
let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let pod1: TestPod
let pod2: TestPod

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  pod1 = cluster.addPod(n1)
  pod2 = cluster.addPod(n2)
})
after(() => cluster.close())

const reaches = (pod: TestPod, address: string): Promise<void> =>
  cluster.until(`${pod.address} reaches ${address}`, () =>
    pod.namespace.succeeds(`ping -c 1 -W 1 ${address}`) ? undefined : pod.node.namespace.run('ip route; ip -d link'),
  )

/** Kernel state of a node as far as peers decide it. */
const peersOf = (node: TestNode): string =>
  node.namespace.run('ip route; ip neigh show nud permanent; bridge fdb show dev flannel.1; nft list table inet weft')

async function putStranger(name: string, podCIDR: string, lease: Record<string, string>): Promise<void> {
  const annotations = Object.fromEntries(
    Object.entries({ 'kube-subnet-manager': 'true', 'backend-type': 'vxlan', ...lease }).map(([key, value]) => [
      `${prefix}/${key}`,
      value,
    ]),
  )
  const object: KubeObject = { metadata: { name, annotations }, spec: { podCIDR, podCIDRs: [podCIDR] } }
  await cluster.client.create('nodes', object)
}

async function eventOn(node: string): Promise<KubeObject> {
  let found: KubeObject | undefined
  await cluster.until(`an Event on ${node}`, async () => {
    const { items } = await cluster.client.list('events', { namespace: 'default' })
    found = items.find((event) => event.involvedObject.name === node && event.reason === 'PeerRefused')
    return found ? undefined : JSON.stringify(items.map(({ reason, message }) => ({ reason, message })))
  })
  return found!
}

const mac = '{"VNI":1,"VtepMAC":"0e:00:00:00:00:66"}'
const bad: Record<string, { podCIDR: string; lease: Record<string, string>; says: RegExp }> = {
  'claims-this-subnet': {
    podCIDR: '10.244.1.0/24',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': mac },
    says: /10\.244\.1\.0\/24/,
  },
  'claims-a-wider-subnet': {
    podCIDR: '10.244.0.0/17',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': mac },
    says: /overlaps/,
  },
  'claims-this-address': {
    podCIDR: '10.244.66.0/24',
    lease: { 'public-ip': '172.30.0.11', 'backend-data': mac },
    says: /172\.30\.0\.11/,
  },
  'outside-the-network': {
    podCIDR: '192.168.0.0/24',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': mac },
    says: /not a part of the network/,
  },
  'garbled-address': {
    podCIDR: '10.244.66.0/24',
    lease: { 'public-ip': '172.30.0.666', 'backend-data': mac },
    says: /public-ip/,
  },
  'garbled-data': {
    podCIDR: '10.244.66.0/24',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': '{"VNI":1,"VtepMAC":' },
    says: /backend-data/,
  },
  'multicast-mac': {
    podCIDR: '10.244.66.0/24',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': '{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}' },
    says: /backend-data/,
  },
  oversized: {
    podCIDR: '10.244.66.0/24',
    lease: { 'public-ip': '172.30.0.66', 'backend-data': `{"VNI":1,"x":"${'x'.repeat(8192)}"}` },
    says: /longer than 4096/,
  },
}

for (const [name, { podCIDR, lease, says }] of Object.entries(bad))
  test(`a node that is ${name} is refused with an Event on it, and nobody else is touched`, async () => {
    await reaches(pod1, pod2.address)
    const before = peersOf(n1)
    await putStranger(name, podCIDR, lease)
    assert.match((await eventOn(name)).message, says)
    assert.equal(peersOf(n1), before)
    assert.ok(pod1.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
    await cluster.client.delete('nodes', { name })
  })

test('a second claimant of a subnet gets nothing, and takes over when the first is gone', async () => {
  const lease = (last: number) => ({
    'public-ip': `172.30.0.${last}`,
    'backend-data': `{"VNI":1,"VtepMAC":"0e:00:00:00:00:${last}"}`,
  })
  const via = () => /dst (172\.30\.0\.[78]\d)/.exec(n1.namespace.run('bridge fdb show dev flannel.1'))?.[1]
  await putStranger('first', '10.244.70.0/24', lease(71))
  await cluster.until('the first is believed', () => (via() === '172.30.0.71' ? undefined : via()))
  await putStranger('second', '10.244.70.0/24', lease(82))
  assert.match((await eventOn('second')).message, /10\.244\.70\.0\/24.*first/)
  assert.equal(via(), '172.30.0.71')
  await cluster.client.delete('nodes', { name: 'first' })
  await cluster.until('the second is believed', () => (via() === '172.30.0.82' ? undefined : via()))
  await cluster.client.delete('nodes', { name: 'second' })
})

test('a node that changes its address keeps its subnet, and its peers follow', async () => {
  await reaches(pod1, pod2.address)
  // Its connections to the API server go with the address, without a word to either end.
  n2.namespace.run('ip address del 172.30.0.12/24 dev eth0 && ip address add 172.30.0.99/24 dev eth0')
  n2.namespace.run('ip route add default via 172.30.0.1')
  await cluster.until('the annotation follows', async () => {
    const { metadata } = await cluster.getNode('n2')
    const address = metadata.annotations![`${prefix}/public-ip`]
    return address === '172.30.0.99' ? undefined : address
  })
  await cluster.until('n1 follows', () => {
    const fdb = n1.namespace.run('bridge fdb show dev flannel.1')
    return fdb.includes('dst 172.30.0.99') ? undefined : fdb
  })
  await reaches(pod1, pod2.address)
  await reaches(pod2, pod1.address)
  assert.deepEqual((await cluster.getNode('n2')).spec.podCIDRs, ['10.244.2.0/24'])
})

test('a node that leaves costs nothing any more', async () => {
  await cluster.stopAgent(n2)
  await cluster.client.delete('nodes', { name: 'n2' })
  await cluster.until('n1 has forgotten n2', () => {
    const state = peersOf(n1)
    return /10\.244\.2\.0|172\.30\.0\.99/.test(state) ? state : undefined
  })
})

test('on etcd: two agents take subnets, join, and find them again after a kill', async () => {
  const server = await EtcdServer.start()
  const other = await AgentCluster.open({ Network: '10.244.0.0/16' })
  try {
    // The server listens on this machine's loopback; each node reaches it over a line of its own.
    server.ctl('put', '/coreos.com/network/config', '{"Network":"10.245.0.0/16","Backend":{"Type":"host-gw"}}')
    const nodes = [await other.addNode('e1'), await other.addNode('e2')]
    const line = await server.openLineIn(other.fabric.path, '172.30.0.1')
    for (const node of nodes) other.startAgent(node, ['--etcd-endpoints', line])
    for (const node of nodes) await other.ready(node)
    const pods = nodes.map((node) => other.addPod(node))
    await other.until('pods reach each other', () =>
      pods[0]!.namespace.succeeds(`ping -c 1 -W 1 ${pods[1]!.address}`)
        ? undefined
        : nodes[0]!.namespace.run('ip route'),
    )
    const keys = () => server.ctl('get', '--prefix', '--keys-only', '/coreos.com/network/subnets/')
    const before = keys()
    assert.equal(before.trim().split(/\n+/).length, 2)
    await other.stopAgent(nodes[0]!, 'SIGKILL')
    other.startAgent(nodes[0]!, ['--etcd-endpoints', line])
    await other.ready(nodes[0]!)
    assert.equal(keys(), before)
    assert.ok(pods[0]!.namespace.succeeds(`ping -c 1 -W 2 ${pods[1]!.address}`))
    await other.until('the peer is remembered', () => {
      const view = readFileSync(`${nodes[0]!.folder}/run/cluster-view`, 'utf8')
      return /"e1".*"e2"|"e2".*"e1"/.test(view) ? undefined : view
    })
    server.cutLine()
    await other.stopAgent(nodes[0]!, 'SIGKILL')
    other.startAgent(nodes[0]!, ['--etcd-endpoints', line])
    await other.ready(nodes[0]!)
    assert.match((await other.ask(nodes[0]!, '/readyz')).body, /^working from the cache of/)
    const pod = other.addPod(nodes[0]!)
    assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${pods[1]!.address}`), 'a new pod while etcd is away')
    await server.openLineIn(other.fabric.path, '172.30.0.1')
    await other.until('it works from etcd again', async () => {
      const { body } = await other.ask(nodes[0]!, '/readyz')
      return body === 'ok\n' ? undefined : body
    })
    assert.equal(keys(), before)
  } finally {
    await other.close()
    await server.stop()
  }
})
