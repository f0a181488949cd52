import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { type TestNode, TestTopology } from './node-topology.ts'
import { SwitchingCluster, startPing, startStream } from './switching-agents.ts'

/** Three nodes on one subnet. */
const topology = new TestTopology([1, 1, 1])
const cluster = new SwitchingCluster(topology)
after(async () => {
  await cluster.close()
  topology.delete()
})

test('a running network moves among all modes and loses nothing', async (t: TestContext) => {
  await cluster.start()
  await cluster.move({ Type: 'vxlan' }, 'vxlan/1/8472')
  const [n1, n2, n3] = topology.nodes as [TestNode, TestNode, TestNode]
  // What follows is about switching: let every pod and gateway know its neighbours first.
  for (const to of [n2.podIp, n3.podIp, n2.podIpv6, n3.podIpv6]) n1.pod.run(`ping -c 3 -i 0.1 -W 2 ${to}`)
  const stream = startStream(n1, n2)
  const losses: number[] = []
  for (const [backend, path] of [
    [{ Type: 'host-gw' }, 'host-gw'],
    [{ Type: 'udp' }, 'udp/8285'],
    [{ Type: 'udp', Port: 8286 }, 'udp/8286'],
    [{ Type: 'vxlan', DirectRouting: true }, 'vxlan/1/8472'],
    [{ Type: 'udp' }, 'udp/8285'],
    [{ Type: 'vxlan', VNI: 9 }, 'vxlan/9/8472'],
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    // One device name, two ports: by way of another VNI.
    [{ Type: 'vxlan', Port: 4789 }, 'vxlan/1/4789'],
    [{ Type: 'vxlan', Port: 4790, GBP: true, DirectRouting: true }, 'vxlan/1/4790/gbp'],
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    [{ Type: 'host-gw' }, 'host-gw'],
  ] as const) {
    const pings = await Promise.all([n2.podIp, n2.podIpv6, n3.podIp].map((to) => startPing(n1, to)))
    const start = performance.now()
    await cluster.move(backend, path)
    const took = performance.now() - start
    const counts = await Promise.all(pings.map((ping) => ping.stop()))
    const lost = counts.map((count) => count.lost)
    t.diagnostic(`${JSON.stringify(backend)}: ${took.toFixed(0)} ms, lost ${lost} of ${counts.map(({ sent }) => sent)}`)
    losses.push(...lost)
  }
  assert.equal(await stream.end(), undefined)
  assert.ok(
    losses.every((lost) => lost === 0),
    `lost ${losses}`,
  )
  assert.equal(n1.namespace.run('ip -o link show type vxlan; ip -o link show type tun'), '')
})
