import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeCluster } from '../cluster/fake/fake-source.ts'
import type { NodeInfo } from '../model/cluster.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { add, TestAgent } from './test-agent.ts'

const netConf = (type: string): string => JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: type } })

/** A node that flannel runs on. */
function flannelNode(n: number, type: string, address = `172.30.0.${n}`): NodeInfo {
  const mac = Mac.parse(`0e:00:00:00:00:${n.toString(16).padStart(2, '0')}`)
  return {
    name: `f${n}`,
    addresses: [],
    podCidrs: [Cidr.parse(`10.244.${n}.0/24`)],
    lease: {
      backendType: type,
      publicIp: Ip.parse(address),
      ...(type === 'vxlan' ? { backendData: { VNI: 1, VtepMAC: mac.toString() } } : {}),
    },
  }
}

function openCluster(): FakeCluster {
  const cluster = new FakeCluster()
  cluster.putNode({ name: 'n1', addresses: [], podCidrs: [Cidr.parse('10.244.1.0/24')] })
  return cluster
}

test('peers come, change and go; one costs its own objects alone', async () => {
  const cluster = openCluster()
  cluster.putNetwork(netConf('vxlan'))
  for (let n = 20; n < 60; n++) cluster.putNode(flannelNode(n, 'vxlan'))
  const agent = new TestAgent(cluster, 'n1')
  await agent.start('172.30.0.1')
  await agent.until('forty peers', async () => (await agent.routes()).split('; ').length === 40)
  const before = agent.kernel.history.length
  cluster.putNode(flannelNode(99, 'vxlan'))
  await agent.until('the newcomer', async () => (await agent.routes()).includes('10.244.99.0/24'))
  const ops = agent.kernel.history.slice(before).map(({ op }) => `${op.verb} ${op.object.kind}`)
  assert.deepEqual(ops.sort(), ['add fdb', 'add neighbour', 'add nft-element', 'add nft-element', 'add route'])
  cluster.removeNode('f99')
  await agent.until('it is gone', async () => !(await agent.routes()).includes('10.244.99.0/24'))
  assert.equal((await agent.kernel.read('fdb')).filter(({ remote }) => remote).length, 40)
  await agent.close()
})

test("the interface's MTU shrinks: devices follow, and nothing towards peers is touched meanwhile", async () => {
  const cluster = openCluster()
  cluster.putNetwork(netConf('vxlan'))
  for (let n = 20; n < 24; n++) cluster.putNode(flannelNode(n, 'vxlan'))
  const agent = new TestAgent(cluster, 'n1')
  await agent.start('172.30.0.1')
  await agent.until('the peers', async () => (await agent.routes()).split('; ').length === 4)
  const mtu = async () => (await agent.kernel.read('link')).find(({ name }) => name === 'flannel.1')!.mtuBytes
  assert.equal(await mtu(), 1450)
  const before = agent.kernel.history.length + 1
  await agent.kernel.execute([{ verb: 'set', object: { kind: 'link', name: 'eth0', type: 'dummy', mtuBytes: 1400 } }])
  await agent.until('the device follows', async () => (await mtu()) === 1350)
  await agent.applier.settle()
  const ops = agent.kernel.history.slice(before).map(({ op }) => `${op.verb} ${op.object.kind}`)
  assert.deepEqual([...new Set(ops)], ['set link'])
  await agent.close()
})

test('a bad configuration and a vanished one change nothing', async () => {
  const cluster = openCluster()
  cluster.putNetwork(netConf('host-gw'))
  cluster.putNode(flannelNode(20, 'host-gw'))
  const agent = new TestAgent(cluster, 'n1')
  await agent.start('172.30.0.1')
  await agent.until('the peer', async () => (await agent.routes()) === '10.244.20.0/24 172.30.0.20 eth0')
  const before = agent.kernel.history.length
  cluster.putNetwork('{"Network":"10.244.0.0/16","Backend":{"Type":"carrier-pigeon"}}')
  await agent.until('it is refused', () => cluster.reports.length > 0)
  assert.match(cluster.reports[0]!.message, /carrier-pigeon/)
  cluster.putNetwork(undefined)
  cluster.putNode(flannelNode(21, 'host-gw'))
  await agent.until('peers are followed meanwhile', async () => (await agent.routes()).includes('10.244.21.0/24'))
  assert.equal(agent.kernel.history.length, before + 1)
  await agent.close()
})

test('each problem of a peer is said once, however often the peers are planned', async () => {
  const cluster = openCluster()
  cluster.putNode({ name: 'n1', addresses: [], podCidrs: ['10.244.1.0/24', 'fd00:1::/64'].map(Cidr.parse) })
  const v6 = { EnableIPv6: true, IPv6Network: 'fd00::/16', IPv6SubnetLen: 64 }
  cluster.putNetwork(JSON.stringify({ Network: '10.244.0.0/16', ...v6, Backend: { Type: 'host-gw' } }))
  const lease = { backendType: 'host-gw', publicIp: Ip.parse('172.30.99.9'), publicIpv6: Ip.parse('fd99::9') }
  cluster.putNode({ name: 'f9', addresses: [], podCidrs: ['10.244.9.0/24', 'fd00:9::/64'].map(Cidr.parse), lease })
  const agent = new TestAgent(cluster, 'n1')
  await agent.start('172.30.0.1')
  const about = () => cluster.reports.filter(({ node }) => node === 'f9').map(({ message }) => message)
  await agent.until('both are said', () => new Set(about()).size === 2)
  for (let n = 20; n < 24; n++) {
    cluster.putNode(flannelNode(n, 'host-gw'))
    await agent.until(`peer ${n}`, async () => (await agent.routes()).includes(`10.244.${n}.0/24`))
  }
  assert.equal(about().length, 2, about().join('\n'))
  await agent.close()
})

test('nothing is swept before the first list is complete', async () => {
  const cluster = openCluster()
  cluster.setUp(false)
  const agent = new TestAgent(cluster, 'n1')
  const left = { kind: 'route', destination: Cidr.parse('10.244.77.0/24'), protocol: 119 } as const
  await agent.kernel.execute([
    add({ kind: 'link', name: 'eth9', type: 'dummy' }),
    { verb: 'set', object: { kind: 'link', name: 'eth9', type: 'dummy', up: true } },
    add({ ...left, hops: [{ device: 'eth9' }] }),
  ])
  await agent.start('172.30.0.1')
  await agent.applier.settle()
  assert.match(await agent.routes(), /10\.244\.77\.0/)
  cluster.putNetwork(netConf('host-gw'))
  cluster.setUp(true)
  await agent.until('it is swept', async () => !/10\.244\.77\.0/.test(await agent.routes()))
  await agent.close()
})

test('two weft nodes move among modes; their routes depend on the last configuration alone', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (state >> 8) % below
  }
  const cluster = openCluster()
  cluster.putNode({ name: 'n2', addresses: [], podCidrs: [Cidr.parse('10.244.2.0/24')] })
  cluster.putNetwork(netConf('host-gw'))
  const agents = [new TestAgent(cluster, 'n1'), new TestAgent(cluster, 'n2')]
  await agents[0]!.start('172.30.0.1')
  await agents[1]!.start('172.30.0.2')
  const expected: Record<string, string> = {
    'host-gw': '10.244.2.0/24 172.30.0.2 eth0',
    vxlan: '10.244.2.0/24 10.244.2.0 flannel.1',
    udp: '10.244.2.0/24 undefined flannel0',
  }
  const devices: Record<string, string[]> = { 'host-gw': [], vxlan: ['flannel.1'], udp: ['flannel0'] }
  for (let round = 0; round < 12; round++) {
    const steps = 1 + random(3)
    let mode = 'host-gw'
    for (let step = 0; step < steps; step++) {
      mode = ['host-gw', 'vxlan', 'udp'][random(3)]!
      cluster.putNetwork(netConf(mode))
      for (let turns = random(6); turns > 0; turns--) await new Promise(setImmediate)
    }
    await agents[0]!.until(`round ${round}: ${mode}`, async () => {
      const links = (await agents[0]!.kernel.read('link'))
        .map(({ name }) => name)
        .filter((name) => /^flannel/.test(name))
      return (await agents[0]!.routes()) === expected[mode] && links.join() === devices[mode]!.join()
    })
  }
  for (const agent of agents) await agent.close()
})
