import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { probeLinkKinds } from '../../src/kernel/probe.ts'
import { PoolCluster, type PoolNode, startPing, testPool } from './pool-cluster.ts'

const kinds = await probeLinkKinds(['ipip'])
const skip = kinds.has('ipip') ? false : 'this kernel has no IPIP'

/** As many as an emulated kernel answers whatever it is busy with; see test/kernels/ip-tunnel-switch.test.ts. */
const PINGS_PER_SECOND = 100

/** A router stands between the two. */
let cluster: PoolCluster
let n1: PoolNode
let n2: PoolNode
const ipip = [testPool('four', '172.26.0.0/16', { ipipMode: 'CrossSubnet' })]
const vxlan = [testPool('four', '172.26.0.0/16', { vxlanMode: 'CrossSubnet' })]

before(async () => {
  if (skip) return
  cluster = new PoolCluster([1, 2])
  ;[n1, n2] = cluster.nodes as [PoolNode, PoolNode]
  await cluster.start(ipip)
  await cluster.settled(() => 'calico/ipip', ['four'])
})
after(() => cluster?.close())

test('IPIP across subnets: routes onlink by tunl0, packets of both pods and nodes', { skip }, () => {
  assert.match(n1.pod.run(`ping -c 2 -i 0.1 -W 5 ${n2.podIp}`), / 0% packet loss/)
  assert.match(n1.namespace.run(`ping -c 1 -W 5 ${n2.podIp}`), / 0% packet loss/)
  assert.match(n1.namespace.run('ip route show 172.26.2.0/26'), /via 172\.30\.2\.2 dev tunl0 .*onlink/)
  assert.match(n1.namespace.run('ip -o address show dev tunl0'), /inet 172\.26\.1\.1\/32/)
  assert.match(n1.namespace.run('ip link show tunl0'), /mtu 1480/)
})

test('IPIP of strangers is dropped and counted', { skip }, () => {
  const { router } = cluster
  n1.pod.run(
    'nft add table inet seen; nft add counter inet seen pings; nft add chain inet seen in "{ type filter hook input priority 0; }"; nft add rule inet seen in ip saddr 172.26.9.9 counter name pings',
  )
  router.run(
    `ip link add forged type ipip remote ${n1.ip} local 172.30.1.254 && ip addr add 172.26.9.9/32 dev forged && ip link set forged up && ip route add ${n1.podIp}/32 dev forged src 172.26.9.9`,
  )
  router.succeeds(`ping -c 3 -i 0.05 -W 1 ${n1.podIp}`)
  router.run('ip link del forged')
  assert.match(n1.pod.run('nft list counter inet seen pings'), /packets 0 /)
  const dropped = /packets (\d+)/.exec(n1.namespace.run('nft list counter inet weft calico-forged-tunnel-source'))![1]
  assert.ok(Number(dropped) >= 3, `${dropped} were counted`)
})

test('from IPIP to VXLAN and back under way; tunl0 is given back', { skip }, async (t) => {
  const ping = await startPing(n1, n2.podIp, PINGS_PER_SECOND)
  cluster.setPools(vxlan)
  await cluster.settled(() => 'calico/vxlan/4096/4789', ['four'])
  assert.doesNotMatch(n1.namespace.run('ip -o link show tunl0; ip -o address show dev tunl0'), /,UP|inet /)
  cluster.setPools(ipip)
  await cluster.settled(() => 'calico/ipip', ['four'])
  const { sent, lost } = await ping.stop()
  t.diagnostic(`${sent} sent`)
  assert.equal(lost, 0)
})
