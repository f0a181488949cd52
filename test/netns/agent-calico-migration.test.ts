/**
 * From flannel's bridge and VXLAN to routed pods out of pools, node by node; then from one pool to another. Addresses that
 * stay lose nothing on the way, and pods of both wirings reach each other all the time.
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { SteadyPing, startServer } from './steady-ping.ts'

const POOL = { blockSize: 26, vxlanMode: 'Always', natOutgoing: true, nodeSelector: "wiring == 'routed'" }

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let bridged: [TestPod, TestPod]
let routed: TestPod[] = []
const servers: ChildProcess[] = []

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  bridged = [await join(n1), await join(n2)]
})
after(async () => {
  for (const server of servers) server.kill('SIGKILL')
  await cluster?.close()
})

async function join(node: TestNode): Promise<TestPod> {
  const pod = await cluster.joinPod(node)
  servers.push(startServer(pod.namespace))
  return pod
}

const reaches = (from: TestPod, to: TestPod): Promise<void> =>
  cluster.until(`${from.address} reaches ${to.address}`, () =>
    from.namespace.succeeds(`ping -c 1 -W 1 ${to.address}`)
      ? undefined
      : `${from.node.namespace.run('ip route')}\n${to.node.namespace.run('ip route')}`,
  )

/** Streams between two pods while `work` is done; not one message may be lost. */
async function keeping(from: TestPod, to: TestPod, work: () => Promise<void>): Promise<void> {
  const streams: SteadyPing[] = []
  try {
    streams.push(await SteadyPing.start(from.namespace, to.address, '--icmp'))
    streams.push(await SteadyPing.start(to.namespace, from.address, '--tcp', '9000'))
    await work()
    for (const stream of streams) {
      const counts = await stream.stop()
      assert.equal(counts.lost, 0, `${JSON.stringify(counts)}\n${cluster.log(n1).slice(-3000)}`)
    }
  } finally {
    for (const stream of streams) stream.kill()
  }
}

const stateOf = async (node: TestNode) => JSON.parse((await cluster.ask(node, '/state')).body)

const wired = (node: TestNode, wiring: string): Promise<void> =>
  cluster.until(`${node.name} is ${wiring}`, async () => {
    const state = await stateOf(node)
    return state.wiring === wiring && state.settled ? undefined : JSON.stringify(state)
  })

test('a pool that selects no node changes nothing; one that selects a node routes its new pods', async () => {
  await keeping(...bridged, async () => {
    await cluster.defineCalico()
    await cluster.putPool('blue', { ...POOL, cidr: '172.26.0.0/16' })
    await cluster.until('both know the pool', async () =>
      (await stateOf(n1)).calico && (await stateOf(n2)).calico ? undefined : 'not yet',
    )
    await wired(n1, 'bridge')
    const another = await join(n1)
    assert.match(another.address, /^10\.244\.1\./)
    await cluster.client.patch('nodes', { name: 'n1' }, { metadata: { labels: { wiring: 'routed' } } })
    await wired(n1, 'routed')
    routed = [await join(n1)]
    assert.match(routed[0]!.address, /^172\.26\./)
    for (const pod of [...bridged, another]) {
      await reaches(routed[0]!, pod)
      await reaches(pod, routed[0]!)
    }
  })
})

test('what leaves the pools for the bridges keeps its address', async () => {
  const capture = bridged[1].namespace.run(`timeout 5 tcpdump -nlc 1 -i eth0 icmp 2>/dev/null & sleep 1
    ip netns exec ${routed[0]!.namespace.name} ping -c 3 -i 0.3 ${bridged[1].address} >/dev/null; wait`)
  assert.match(capture, new RegExp(`${routed[0]!.address} > ${bridged[1].address}`.replaceAll('.', '\\.')))
})

test('the second node follows; the last pods on bridges go', async () => {
  await keeping(bridged[0], routed[0]!, async () => {
    await cluster.client.patch('nodes', { name: 'n2' }, { metadata: { labels: { wiring: 'routed' } } })
    await wired(n2, 'routed')
    routed.push(await join(n2))
    await reaches(routed[0]!, routed[1]!)
    await reaches(bridged[0], routed[1]!)
  })
  await keeping(routed[0]!, routed[1]!, async () => {
    for (const pod of bridged) await cluster.leavePod(pod)
  })
})

test('from one pool to another: pods that are there stay, new ones are of the new pool', async () => {
  await keeping(routed[0]!, routed[1]!, async () => {
    await cluster.putPool('green', { ...POOL, cidr: '172.27.0.0/16' })
    await cluster.putPool('blue', { disabled: true })
    await cluster.until('new pods are of the new pool', async () => {
      const pod = await join(n1)
      if (pod.address.startsWith('172.27.')) {
        routed.push(pod)
        return undefined
      }
      await cluster.leavePod(pod)
      return pod.address
    })
    for (const pod of routed.slice(0, 2)) await reaches(pod, routed[2]!)
    await wired(n1, 'routed')
    await wired(n2, 'routed')
  })
  const [old, younger] = routed as [TestPod, TestPod, TestPod]
  for (const pod of [old, younger]) await cluster.leavePod(pod)
})

test('reservations over living addresses leave them alone; new pods get others', async () => {
  const block = routed[2]!.address.replace(/\.\d+$/, '.0/25')
  await cluster.client.create('ipreservations.crd.projectcalico.org', {
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'IPReservation',
    metadata: { name: 'kept' },
    spec: { reservedCIDRs: [block] },
  })
  await cluster.until('new pods are outside', async () => {
    const pod = await join(n1)
    const [last] = pod.address.split('.').slice(3).map(Number)
    const isInside = pod.address.startsWith(block.replace(/\d+\/25$/, '')) && last! < 128
    await reaches(pod, routed[2]!)
    await cluster.leavePod(pod)
    return isInside ? `${pod.address} is reserved by ${block}` : undefined
  })
})

test('without a net-conf.json what runs stays as it is; agents that start take flannel’s part away', async () => {
  const pod = await join(n2)
  await reaches(pod, routed[2]!)
  await keeping(pod, routed[2]!, async () => {
    await cluster.client.delete('configmaps', { namespace: 'kube-flannel', name: 'kube-flannel-cfg' })
    for (const node of [n1, n2])
      await cluster.until(`${node.name} has heard of it`, () =>
        cluster.log(node).includes('the last one stays') ? undefined : cluster.log(node).slice(-500),
      )
    for (const node of [n1, n2]) assert.ok(node.namespace.succeeds('ip link show flannel.1'))
    for (const node of [n1, n2]) {
      await cluster.stopAgent(node)
      cluster.startAgent(node)
      await cluster.ready(node)
      await cluster.until(`${node.name} has nothing of flannel's`, () =>
        node.namespace.succeeds('ip link show flannel.1') ? node.namespace.run('ip route') : undefined,
      )
      assert.doesNotMatch(node.namespace.run('ip route'), /10\.244\.\d+\.0\/24 via/)
    }
  })
})
