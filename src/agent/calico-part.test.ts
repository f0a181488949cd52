import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeCluster } from '../cluster/fake/fake-source.ts'
import type { IpPool } from '../model/calico.ts'
import type { NodeInfo } from '../model/cluster.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { MemoryPools, TestAgent } from './test-agent.ts'

const poolOf = (further: Partial<IpPool> = {}): IpPool => ({
  name: 'blue',
  cidr: Cidr.parse('172.26.0.0/16'),
  blockSize: 26,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: true,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload', 'Tunnel'],
  assignmentMode: 'Automatic',
  ...further,
})

const nodeOf = (name: string, further: Partial<NodeInfo> = {}): NodeInfo => ({
  name,
  addresses: [],
  podCidrs: [],
  ...further,
})

/** An address for a pod of an agent's node, as the CNI server asks for it. */
async function addPod(agent: TestAgent, name: string): Promise<string> {
  const [assigned] = await agent.network!.routed!.addresses!.assign({
    handleId: `k8s-pod-network.${name}`,
    attributes: { node: agent.network!.routed!.nodeName, pod: name, namespace: 'default' },
    use: 'Workload',
    wanted: [{ family: 4 }],
  })
  return `${assigned!.ip}`
}

async function twoNodes(pools: MemoryPools, further: { netConf?: string } = {}) {
  const cluster = new FakeCluster()
  const withCidr = (n: number) => (further.netConf ? { podCidrs: [Cidr.parse(`10.244.${n}.0/24`)] } : {})
  cluster.putNode(nodeOf('n1', withCidr(1)))
  cluster.putNode(nodeOf('n2', withCidr(2)))
  cluster.putNetwork(further.netConf)
  const agents = [new TestAgent(cluster, 'n1', pools), new TestAgent(cluster, 'n2', pools)] as const
  await agents[0].start('172.30.0.1')
  await agents[1].start('172.30.0.2')
  const close = async () => {
    for (const agent of agents) await agent.close()
  }
  return { cluster, agents, close }
}

test('a block that cannot be read is still reached where it is, as long as it is there', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf())
  const { agents, close } = await twoNodes(pools)
  const [agent] = agents
  const cidr = Cidr.parse('172.26.9.0/26')
  const route = `${cidr} 172.30.0.2 eth0`
  const corrupt = (name: string) =>
    pools.tell({
      type: 'corrupt',
      object: 'IPAMBlock 172-26-9-0-26',
      problem: 'spec.allocations: has 1 entries for 64 addresses',
      head: { cidr, owner: { type: 'host', name } },
    })
  corrupt('n2')
  await agent.until('the route', async () => (await agent.routes()).includes(route))
  // What was known before stands.
  corrupt('n7')
  const ip = await addPod(agents[1], 'a')
  const other = `${Cidr.of(Ip.parse(ip), 26)} 172.30.0.2 eth0`
  await agent.until('another block', async () => (await agent.routes()).includes(other))
  assert.ok((await agent.routes()).includes(route))
  pools.tell({ type: 'block-gone', cidr })
  await agent.until('no route', async () => !(await agent.routes()).includes(route))
  await close()
})

test('pools alone are a network: no net-conf.json, no podCIDRs; blocks of others get routes', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf())
  const { cluster, agents, close } = await twoNodes(pools)
  for (const agent of agents) await agent.until('pods are served', () => agent.network !== undefined)
  assert.deepEqual(agents[0].network!.routed!.families, [4])
  const ip = await addPod(agents[1], 'a')
  const block = `${Cidr.parse(`${ip}/32`).base.masked(26)}/26`
  await agents[0].until('the route', async () => (await agents[0].routes()).includes(`${block} 172.30.0.2 eth0`))
  await agents[1].until('the blackhole', async () =>
    (await agents[1].kernel.read('route')).some(
      ({ destination, type }) => `${destination}` === block && type === 'blackhole',
    ),
  )
  const words = cluster.nodes.get('n2')!.node
  assert.equal(`${words.calico!.ipv4!.ip}/${words.calico!.ipv4!.prefixLength}`, '172.30.0.2/24')
  assert.deepEqual(words.weft, { accepts: ['calico/plain'], sends: ['calico/plain'] })
  assert.equal(words.lease, undefined)
  assert.deepEqual(
    agents[0].loop.checks().filter(({ problem }) => problem),
    [],
  )
  await close()
})

test('VXLAN: the tunnel has an address of the pool, told to the others; never again, and it is given back', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf({ vxlanMode: 'Always' }))
  const { cluster, agents, close } = await twoNodes(pools)
  for (const agent of agents) await agent.until('pods are served', () => agent.network !== undefined)
  await addPod(agents[1], 'a')
  const tunnel = () => cluster.nodes.get('n2')!.node.calico?.ipv4VxlanTunnelAddr
  await agents[0].until('the route by VXLAN', async () =>
    (await agents[0].routes()).includes(`${tunnel()} vxlan.calico`),
  )
  assert.equal(agents[0].network!.mtuBytes, 1450)
  pools.put(poolOf())
  await agents[0].until('plain', async () => /\/26 172\.30\.0\.2 eth0/.test(await agents[0].routes()))
  for (const agent of agents)
    await agent.until('the device goes', async () =>
      (await agent.kernel.read('link')).every(({ name }) => name !== 'vxlan.calico'),
    )
  await agents[1].until('the address is given back', () => {
    const handles = pools.store.blocks.all().flatMap(({ value }) => value.attributes.map(({ handleId }) => handleId))
    return tunnel() === undefined && !handles.includes('vxlan-tunnel-addr-n2')
  })
  await close()
})

test('a tunnel keeps its address over a restart', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf({ vxlanMode: 'Always' }))
  const cluster = new FakeCluster()
  cluster.putNode(nodeOf('n1'))
  const said: string[] = []
  for (let life = 0; life < 3; life++) {
    const agent = new TestAgent(cluster, 'n1', pools)
    await agent.start('172.30.0.1')
    await agent.until('it is served', () => agent.network !== undefined)
    said.push(`${cluster.nodes.get('n1')!.node.calico!.ipv4VxlanTunnelAddr}`)
    await agent.close()
  }
  assert.equal(new Set(said).size, 1, said.join())
  const held = pools.store.blocks.all().flatMap(({ value }) => value.allocations.filter((index) => index !== null))
  assert.equal(held.length, 1)
})

test('both dialects: bridge where no pool selects the node; flags and annotations decide', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf({ nodeSelector: "kind == 'routed'" }))
  const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  const { cluster, agents, close } = await twoNodes(pools, { netConf })
  for (const agent of agents) await agent.until('pods are served', () => agent.network !== undefined)
  assert.equal(agents[0].network!.routed, undefined)
  assert.deepEqual(agents[0].network!.allNetworks.map(String), ['10.244.0.0/16', '172.26.0.0/16'])
  const label = (name: string, wishes = {}) =>
    cluster.putNode({ ...cluster.nodes.get(name)!.node, labels: { kind: 'routed' } }, wishes)
  label('n1')
  await agents[0].until('n1 is routed', () => agents[0].network!.routed !== undefined)
  label('n2', { wiring: 'bridge' })
  await addPod(agents[0], 'a')
  await agents[1].until('n2 reaches the block of n1', async () =>
    /\/26 172\.30\.0\.1 eth0/.test(await agents[1].routes()),
  )
  await agents[1].until('and its podCIDR', async () =>
    /10\.244\.1\.0\/24 10\.244\.1\.0 flannel\.1/.test(await agents[1].routes()),
  )
  assert.equal(agents[1].network!.routed, undefined)
  const status = cluster.nodes.get('n1')!.node.weft!
  assert.deepEqual(status.accepts, ['vxlan/1/8472', 'calico/plain'])
  const elements = await agents[1].kernel.read('nft-element')
  assert.ok(elements.some(({ set, key }) => set === 'others4' && key === '172.26.0.0/16'))
  assert.ok(elements.some(({ set, key }) => set === 'calico-pools4' && key === '10.244.0.0/16'))
  await close()
})

test('pools that overlap: the older stands, the other is told of; so is one inside the network of net-conf.json', async () => {
  const pools = new MemoryPools()
  pools.put(poolOf({ createdAtSeconds: 1 }))
  pools.put(poolOf({ name: 'green', cidr: Cidr.parse('172.26.128.0/17'), createdAtSeconds: 2 }))
  pools.put(poolOf({ name: 'red', cidr: Cidr.parse('10.244.128.0/17'), createdAtSeconds: 0 }))
  const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } })
  const { cluster, agents, close } = await twoNodes(pools, { netConf })
  await agents[0].until('pods are served', () => agents[0].network !== undefined)
  const told = () => cluster.reports.filter(({ node }) => node === 'n1').map(({ message }) => message)
  await agents[0].until('both are told', () => told().length >= 2)
  assert.match(told().join('\n'), /IPPool green: .*overlaps 172\.26\.0\.0\/16 of the pool blue, which came first/)
  assert.match(told().join('\n'), /IPPool red: .*overlaps 10\.244\.0\.0\/16 of net-conf\.json/)
  assert.equal(agents[0].loop.remarks.length, 2)
  pools.remove('green')
  await agents[0].until('it is right again', () => agents[0].loop.remarks.length === 1)
  await close()
})
