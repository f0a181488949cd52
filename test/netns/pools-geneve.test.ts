/**
 * Pools whose packets go by GENEVE between nodes: by one device, the far end said by the route.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { probeLinkKinds } from '../../src/kernel/probe.ts'
import { PoolCluster, type PoolNode, startPing, testPool } from './pool-cluster.ts'

const kinds = await probeLinkKinds(['geneve'])
const skip = kinds.has('geneve') ? false : 'this kernel has no GENEVE'

/** A router stands between the two. */
let cluster: PoolCluster
let n1: PoolNode
let n2: PoolNode
const pools = (mode: Parameters<typeof testPool>[2]) => [
  testPool('four', '172.26.0.0/16', mode),
  testPool('six', 'fd00:26::/32', mode),
]
/** As many as an emulated kernel answers whatever it is busy with; see test/kernels/ip-tunnel-switch.test.ts. */
const PINGS_PER_SECOND = 100
const geneve = 'calico/geneve/4096/6081'

before(async () => {
  if (skip) return
  cluster = new PoolCluster([1, 2])
  ;[n1, n2] = cluster.nodes as [PoolNode, PoolNode]
  await cluster.start(pools({ geneveMode: 'CrossSubnet' }))
  await cluster.settled(() => geneve, ['four', 'six'])
})
after(() => cluster?.close())

test('GENEVE across subnets, both families, by one device', { skip }, () => {
  for (const to of [n2.podIp, n2.podIpv6]) assert.match(n1.pod.run(`ping -c 2 -i 0.1 -W 5 ${to}`), / 0% packet loss/)
  assert.match(
    n1.namespace.run('ip route show 172.26.2.0/26'),
    /encap ip id 4096 .*dst 172\.30\.2\.2 .*ttl 64 .*dev geneve\.weft/,
  )
})

test('from GENEVE to VXLAN and back under way, both families', { skip }, async (t) => {
  const vxlan = (_from: PoolNode, _to: PoolNode, pool: string) => `calico/vxlan${pool === 'six' ? '-v6' : ''}/4096/4789`
  const steps = [
    [{ vxlanMode: 'CrossSubnet' }, vxlan],
    [{ geneveMode: 'CrossSubnet' }, () => geneve],
  ] as const
  const losses: number[] = []
  for (const [mode, pathOf] of steps) {
    const pings = await Promise.all([n2.podIp, n2.podIpv6].map((to) => startPing(n1, to, PINGS_PER_SECOND)))
    cluster.setPools(pools(mode))
    await cluster.settled(pathOf, ['four', 'six'])
    const counts = await Promise.all(pings.map((ping) => ping.stop()))
    t.diagnostic(`${JSON.stringify(mode)}: lost ${counts.map(({ lost, sent }) => `${lost} of ${sent}`)}`)
    losses.push(...counts.map(({ lost }) => lost))
    assert.equal(n1.namespace.succeeds('ip link show geneve.weft'), 'geneveMode' in mode)
  }
  assert.deepEqual(losses, [0, 0, 0, 0])
})
