/**
 * flannel's ipip and kube-router's overlay between three nodes, the third behind a router: who is reached by what, at which
 * size, what is on the wire, and who may send.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { planFirewall, planPeerFirewall, tunnelsOf } from '../../src/agent/peer-firewall.ts'
import { Applier } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import { tunnelName } from '../../src/datapath/kube-router/tunnel-name.ts'
import type { BackendConfig, KubeRouterConfig } from '../../src/model/backend.ts'
import type { NodeContext } from '../../src/model/cluster.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { type TestNode, TestTopology } from '../netns/node-topology.ts'

const topology = new TestTopology([1, 1, 2])
const [n1, n2, n3] = topology.nodes as [TestNode, TestNode, TestNode]
const appliers = new Map<TestNode, Applier>()
const failures: string[] = []
after(async () => {
  for (const applier of appliers.values()) await applier.close()
  topology.delete()
})

const networks = ['10.244.0.0/16', 'fd00:10:244::/48'].map(Cidr.parse)
const overlay: KubeRouterConfig = { type: 'kube-router', overlay: 'full', encap: 'ipip', port: 5555, autoMtu: true }

/** Every node by one backend, with its packet rules, as its agent would plan it. */
async function deploy(config: BackendConfig): Promise<void> {
  const path = datapathOf(config)
  failures.length = 0
  // ipip carries one family.
  const contextOf = ({ context }: TestNode): NodeContext =>
    config.type === 'ipip' ? { ...context, podCidrs: context.podCidrs.slice(0, 1) } : context
  for (const node of topology.nodes) {
    let applier = appliers.get(node)
    if (!applier) {
      applier = new Applier(node.namespace.kernel, {
        onReport: (report) => failures.push(...report.failures.map(({ error }) => error.message)),
      })
      appliers.set(node, applier)
      await applier.start()
    }
    const context = contextOf(node)
    const fragments = [
      path.local(config, context),
      planFirewall(networks, context, tunnelsOf([config], context), { masquerade: true, fullyRandom: true }),
    ]
    for (const peer of topology.nodes) {
      if (peer === node) continue
      const info = peer.info({ backendType: config.type })
      fragments.push(path.toward(config, context, info, { direct: true }).fragment, planPeerFirewall(info))
    }
    const kept = new Set(fragments.map((fragment) => fragment.source))
    applier.change(
      fragments,
      [...applier.desired.sources()].filter((source) => !kept.has(source)),
    )
    applier.markComplete()
  }
  for (const applier of appliers.values()) await applier.settle()
  assert.deepEqual(failures, [])
}

/** Addresses of a node's pod that another node's pod does not reach, with packets of exactly this size (IPv4) and less (IPv6). */
const unreached = (from: TestNode, to: TestNode, mtu: number, families: readonly (4 | 6)[] = [4, 6]): string[] =>
  families
    .map((family) => [family === 4 ? to.podIp : to.podIpv6, mtu - (family === 4 ? 28 : 48)] as const)
    .filter(([ip, size]) => !from.pod.succeeds(`ping -c 2 -i 0.2 -W 3 -M do -s ${size} ${ip}`))
    .map(([ip]) => ip)

/** What a node sends by its external interface while a pod pings another, as tcpdump says it. */
function onTheWire(from: TestNode, to: string, filter: string): string {
  return from.namespace.run(
    `timeout 20 tcpdump -i eth0 -Q out -n -c 1 '${filter}' 2>/dev/null & sleep 1; ip netns exec ${from.pod.name} ping -c 3 -i 0.3 -W 1 ${to} >/dev/null; wait`,
  )
}

test('ipip reaches every peer with 20 bytes less, and goes plainly on the link with DirectRouting', async () => {
  await deploy({ type: 'ipip', directRouting: false })
  for (const to of [n1, n2]) assert.deepEqual(unreached(n3, to, 1480, [4]), [])
  assert.match(n1.namespace.run('ip route'), /10\.244\.3\.0\/24 via 172\.30\.2\.3 dev flannel\.ipip proto 119 onlink/)
  assert.match(onTheWire(n1, n3.podIp, 'ip proto 4'), /172\.30\.1\.1 > 172\.30\.2\.3: IP 10\.244\.1\.2 > 10\.244\.3\.2/)
  await deploy({ type: 'ipip', directRouting: true })
  for (const peer of [n2, n3]) assert.deepEqual(unreached(n1, peer, 1480, [4]), [])
  assert.match(n1.namespace.run('ip route'), /10\.244\.2\.0\/24 via 172\.30\.1\.2 dev eth0/)
})

test('the overlay has a tunnel for each peer, both families, with the MTU it says', async () => {
  await deploy(overlay)
  for (const to of [n2, n3]) assert.deepEqual(unreached(n1, to, 1460), [])
  assert.deepEqual(unreached(n1, n3, 1480, [4]), [])
  const device = tunnelName(n3.publicIp)
  assert.match(n1.namespace.run('ip route'), new RegExp(`10\\.244\\.3\\.0/24 dev ${device} .*src 172\\.30\\.1\\.1`))
  assert.match(n1.namespace.run('ip route show table 77'), new RegExp(`172\\.30\\.2\\.3 dev ${device}`))
  assert.match(n1.namespace.run('ip rule'), /from 10\.244\.1\.0\/24 lookup 77 proto 119/)
  assert.match(onTheWire(n1, n3.podIp, 'ip proto 4'), /172\.30\.1\.1 > 172\.30\.2\.3: IP 10\.244\.1\.2 > 10\.244\.3\.2/)
  // Pods reach nodes as well, by the tunnel.
  assert.ok(n1.pod.succeeds(`ping -c 2 -i 0.2 -W 3 ${n3.publicIp}`))
})

test('fou wraps the same in UDP; subnet needs no tunnel to a neighbour', async () => {
  await deploy({ ...overlay, encap: 'fou' })
  for (const peer of [n2, n3]) assert.deepEqual(unreached(n1, peer, 1448), [])
  assert.deepEqual(unreached(n1, n3, 1468, [4]), [])
  assert.match(onTheWire(n1, n3.podIp, 'udp port 5555'), /172\.30\.1\.1\.\d+ > 172\.30\.2\.3\.5555: UDP, length/)
  assert.match(n1.namespace.run('ip fou show; ip -6 fou show'), /port 5555 gue[\s\S]*port 5555 gue -6|port 5555 gue/)
  await deploy({ ...overlay, encap: 'fou', overlay: 'subnet' })
  for (const peer of [n2, n3]) assert.deepEqual(unreached(n1, peer, 1448), [])
  assert.match(n1.namespace.run('ip route'), /10\.244\.2\.0\/24 via 172\.30\.1\.2 dev eth0/)
  assert.ok(!n1.namespace.succeeds(`ip link show ${tunnelName(n2.publicIp)}`))
})

test('a port and a device that another hand takes away are there again', async () => {
  await deploy({ ...overlay, encap: 'fou' })
  n1.namespace.run(`ip fou del port 5555; ip link del ${tunnelName(n3.publicIp)}`)
  const end = performance.now() + 30_000
  const isBack = () => n1.namespace.run('ip fou show').includes('port 5555 gue') && unreached(n1, n3, 1448).length === 0
  while (!isBack()) {
    assert.ok(performance.now() < end, n1.namespace.run('ip fou show; ip link'))
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
})

/** Packets that the node dropped for their source, by counter. */
const dropped = (node: TestNode, counter: string): number =>
  Number(/packets (\d+)/.exec(node.namespace.run(`nft list counter inet weft ${counter}`))![1])

test('strangers and pods of other nodes are dropped and counted, wrapped in UDP or not', async () => {
  await deploy({ ...overlay, encap: 'fou' })
  const { router } = topology
  const stranger = (name: string, encap: string) =>
    `ip link add ${name} type ipip local 172.30.1.254 remote ${n1.publicIp} ${encap} && ip link set ${name} up && ip route replace ${n1.podIp}/32 dev ${name} && { ping -c 3 -i 0.2 -W 1 -I 10.244.3.9 ${n1.podIp}; ip link del ${name}; }`
  router.run('ip addr add 10.244.3.9/32 dev lo; modprobe fou')
  for (const [name, encap] of [
    ['bad0', ''],
    ['bad1', 'encap gue encap-sport auto encap-dport 5555'],
  ] as const) {
    const before = dropped(n1, 'forged-tunnel-source')
    router.run(`${stranger(name, encap)} || true`)
    assert.ok(dropped(n1, 'forged-tunnel-source') - before >= 3, `${name}: strangers`)
  }
  // A node may not speak for another's pods.
  n2.namespace.run('ip addr add 10.244.3.9/32 dev lo')
  const before = dropped(n1, 'forged-inner-source')
  assert.ok(!n2.namespace.succeeds(`ping -c 3 -i 0.2 -W 1 -I 10.244.3.9 ${n1.podIp}`))
  assert.equal(dropped(n1, 'forged-inner-source') - before, 3)
  assert.deepEqual(unreached(n2, n1, 1448), [])
})

test('back to host-gw leaves nothing of a tunnel, and the fallback devices as they were', async () => {
  await deploy({ type: 'host-gw' })
  assert.deepEqual(unreached(n1, n2, 1500), [])
  const { namespace } = n1
  assert.doesNotMatch(namespace.run('ip -o link'), /tun-|flannel/)
  assert.equal(namespace.run('ip fou show; ip -6 fou show; ip rule show table 77; ip -6 rule show table 77'), '')
  assert.match(namespace.run('ip -o link show tunl0'), /state DOWN/)
})
