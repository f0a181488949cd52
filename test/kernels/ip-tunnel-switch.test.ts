/**
 * A running network of two nodes with a router between them moves among tunnels of IP in IP and VXLAN under traffic. In an emulated
 * kernel a second may pass until a queue is looked at. At a thousand a second more echo replies wait in it than the kernel lets its
 * ICMP socket have on the way, and it discards the others (Icmp6OutErrors of the pod that answers): hence fewer pings here.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type TestNode, TestTopology } from '../netns/node-topology.ts'
import { SwitchingCluster, startPing, startStream } from '../netns/switching-agents.ts'

type Step = readonly [backend: object, path: string]
const overlay = (rest: object): object => ({ Type: 'kube-router', ...rest })
const PINGS_PER_SECOND = 100
const full = { 'overlay-type': 'full' }

/** Every step under pings and a stream, on a topology of its own. */
async function walk(t: TestContext, dualStack: boolean, first: Step, steps: readonly Step[]): Promise<void> {
  const topology = new TestTopology([1, 2])
  const cluster = new SwitchingCluster(topology, { dualStack })
  try {
    const [n1, n2] = topology.nodes as [TestNode, TestNode]
    await cluster.start()
    await cluster.move(...first)
    const targets = [n2.podIp, ...(dualStack ? [n2.podIpv6] : [])]
    for (const to of targets) n1.pod.run(`ping -c 3 -i 0.1 -W 2 ${to}`)
    const stream = startStream(n1, n2, '500K')
    const losses: string[] = []
    for (const [backend, path] of steps) {
      const pings = await Promise.all(targets.map((to) => startPing(n1, to, PINGS_PER_SECOND)))
      await cluster.move(backend, path)
      const counts = await Promise.all(pings.map((ping) => ping.stop()))
      const lost = counts.map((count) => count.lost)
      const found = `${JSON.stringify(backend)}: lost ${lost} of ${counts.map(({ sent }) => sent)}`
      t.diagnostic(found)
      if (lost.some((count) => count > 0)) losses.push(found)
    }
    assert.equal(await stream.end(), undefined)
    assert.deepEqual(losses, [])
    // A node that leaves the overlay keeps nothing of it.
    await cluster.move({ Type: 'vxlan' }, 'vxlan/1/8472')
    for (const { namespace } of [n1, n2]) {
      const links = namespace.run('ip -o link show')
      assert.doesNotMatch(links, /tun-|flannel\.ipip/)
      assert.equal(namespace.run('ip fou show; ip -6 fou show; ip rule show table 77; ip -6 rule show table 77'), '')
      assert.equal(namespace.run('ip route show table 77 2>/dev/null || true'), '')
    }
  } finally {
    await cluster.close()
    topology.delete()
  }
}

test("flannel's ipip, with and without DirectRouting, from VXLAN and to the overlay", (t) =>
  walk(
    t,
    false,
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    [
      [{ Type: 'ipip' }, 'ipip'],
      [{ Type: 'ipip', DirectRouting: true }, 'ipip'],
      [overlay(full), 'tun/ipip'],
      [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    ],
  ))

test("kube-router's overlay changes its encapsulation, port and type, both families", (t) =>
  walk(
    t,
    true,
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    [
      [overlay(full), 'tun/ipip'],
      [overlay({ ...full, 'overlay-encap': 'fou' }), 'tun/fou/5555'],
      [overlay({ ...full, 'overlay-encap': 'fou', 'overlay-encap-port': 5556 }), 'tun/fou/5556'],
      [overlay({ 'overlay-encap': 'fou' }), 'tun/fou/5555'],
      [overlay({}), 'tun/ipip'],
      [{ Type: 'vxlan' }, 'vxlan/1/8472'],
    ],
  ))
