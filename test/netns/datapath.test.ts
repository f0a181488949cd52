import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Applier, type ApplyReport } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { BackendConfig, VxlanConfig } from '../../src/model/backend.ts'
import { type TestNode, TestTopology } from './node-topology.ts'

const vxlan: VxlanConfig = { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false }

/** Three nodes, the third behind a router. */
const topology = new TestTopology([1, 1, 2])
const [n1, n2, n3] = topology.nodes as [TestNode, TestNode, TestNode]
const appliers = new Map<TestNode, Applier>()
const reports: ApplyReport[] = []
after(async () => {
  // Tunnel processes outlive whoever started them.
  await deploy({ type: 'host-gw' })
  for (const applier of appliers.values()) await applier.close()
  topology.delete()
})

/** Every node by one backend, as its agent would plan it; returns what was refused, by node and peer. */
async function deploy(config: BackendConfig, nodes = topology.nodes): Promise<string[]> {
  const path = datapathOf(config)
  const problems: string[] = []
  reports.length = 0
  for (const node of topology.nodes) {
    if (!appliers.has(node)) {
      const applier = new Applier(node.namespace.kernel, { onReport: (report) => reports.push(report) })
      appliers.set(node, applier)
      await applier.start()
    }
  }
  for (const node of nodes) {
    const applier = appliers.get(node)!
    const fragments = [path.local(config, node.context)]
    for (const peer of nodes) {
      if (peer === node) continue
      const { data, v6Data } = path.endpoint(config, peer.context)
      const info = peer.info({ backendType: config.type, backendData: data, backendV6Data: v6Data })
      const toward = path.toward(config, node.context, info, { direct: true })
      fragments.push(path.from(config, node.context, info), toward.fragment)
      for (const problem of toward.problems) problems.push(`${node.name}: ${problem.node}: ${problem.key}`)
    }
    const kept = new Set(fragments.map((fragment) => fragment.source))
    applier.change(
      fragments,
      [...applier.desired.sources()].filter((source) => !kept.has(source)),
    )
    applier.markComplete()
  }
  for (const applier of appliers.values()) await applier.settle()
  assert.deepEqual(
    reports.flatMap((report) => report.failures.map((failure) => failure.error.message)),
    [],
  )
  return problems
}

const ping = (from: TestNode, to: TestNode, size = 56): string[] =>
  [to.podIp, to.podIpv6].filter((ip) => !from.pod.succeeds(`ping -c 2 -i 0.05 -W 1 -M do -s ${size} ${ip}`))

const routes = (node: TestNode): string => node.namespace.run('ip route show proto 119; ip -6 route show proto 119')

test('host-gw reaches peers on the link and says whom it cannot reach', async () => {
  const problems = await deploy({ type: 'host-gw' })
  assert.deepEqual(ping(n1, n2, 1400), [])
  assert.equal(ping(n1, n3).length, 2)
  assert.deepEqual(
    problems.filter((problem) => problem.startsWith('n1')),
    ['n1: n3: public-ip', 'n1: n3: public-ipv6'],
  )
  assert.match(routes(n1), /^10\.244\.2\.0\/24 via 172\.30\.1\.2 dev eth0/m)
})

test('vxlan reaches every peer, over the router too, with the MTU it says', async () => {
  assert.deepEqual(await deploy(vxlan), [])
  for (const [from, to] of [
    [n1, n2],
    [n1, n3],
    [n3, n2],
  ] as const)
    assert.deepEqual(ping(from, to, 1382), [])
  assert.match(routes(n1), /^10\.244\.3\.0\/24 via 10\.244\.3\.0 dev flannel\.1 onlink/m)
  const links = n1.namespace.json<{ ifname: string; mtu: number; address: string }[]>('ip -j -d link show type vxlan')
  assert.deepEqual(
    links.map(({ ifname, mtu }) => [ifname, mtu]),
    [
      ['flannel.1', 1450],
      ['flannel-v6.1', 1430],
    ],
  )
  const { data } = datapathOf(vxlan).endpoint(vxlan, n1.context)
  assert.equal(links[0]!.address, (data as { VtepMAC: string }).VtepMAC)
})

test('a node that changes its address keeps its device and its MAC', async () => {
  const device = () => n1.namespace.json<{ ifindex: number; address: string }[]>('ip -j link show flannel.1')[0]!
  const before = device()
  n1.host = 101
  n1.namespace.run('ip addr del 172.30.1.1/24 dev eth0; ip -6 addr del fd00:172:30:1::1/64 dev eth0')
  n1.namespace.run(`ip addr add ${n1.publicIp}/24 dev eth0; ip addr add ${n1.publicIpv6}/64 dev eth0 nodad`)
  n1.namespace.run('ip route replace default via 172.30.1.254; ip route replace default via fd00:172:30:1::254')
  assert.deepEqual(await deploy(vxlan), [])
  const { ifindex, address } = device()
  assert.deepEqual([ifindex, address], [before.ifindex, before.address])
  assert.match(n1.namespace.run('ip -d link show flannel.1'), /local 172\.30\.1\.101/)
  for (const peer of [n2, n3]) assert.deepEqual(ping(n1, peer), [])
})

test('DirectRouting sends plainly on the link and wraps across the router', async () => {
  assert.deepEqual(await deploy({ ...vxlan, directRouting: true }), [])
  for (const peer of [n2, n3]) assert.deepEqual(ping(n1, peer), [])
  assert.match(routes(n1), /^10\.244\.2\.0\/24 via 172\.30\.1\.2 dev eth0/m)
  assert.match(routes(n1), /^10\.244\.3\.0\/24 via 10\.244\.3\.0 dev flannel\.1 onlink/m)
})

test('another VNI stands beside the old one until nobody wants that', async () => {
  assert.deepEqual(await deploy({ ...vxlan, vni: 7 }), [])
  assert.deepEqual(ping(n1, n3), [])
  assert.ok(!n1.namespace.succeeds('ip link show flannel.1'))
})

test('a setting that is fixed at creation makes the device anew, with all that hangs on it', async () => {
  assert.deepEqual(await deploy({ ...vxlan, vni: 7, gbp: true }), [])
  assert.match(n1.namespace.run('ip -d link show flannel.7'), /gbp/)
  assert.deepEqual(ping(n1, n3), [])
})

test('udp reaches every peer through its own process, both families, with the MTU it says', async () => {
  assert.deepEqual(await deploy({ type: 'udp', port: 8285 }), [])
  for (const [from, to] of [
    [n1, n2],
    [n1, n3],
    [n3, n2],
  ] as const)
    assert.deepEqual(ping(from, to, 1412), [])
  assert.match(routes(n1), /^10\.244\.3\.0\/24 dev flannel0/m)
  assert.ok(!n1.pod.succeeds(`ping -c 1 -W 1 -M do -s 1445 ${n3.podIp}`))
})

test('back to host-gw leaves no device, neighbour or forwarding entry behind', async () => {
  await deploy({ type: 'host-gw' })
  assert.deepEqual(ping(n1, n2), [])
  assert.equal(n1.namespace.run('ip -o link show type vxlan'), '')
  assert.equal(n1.namespace.run('ip neigh show nud permanent'), '')
  assert.ok(!n1.namespace.succeeds('ip link show flannel0'))
  assert.equal(n1.namespace.run('ss -Hlnu sport = 8285'), '')
})
