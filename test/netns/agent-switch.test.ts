import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { SteadyPing, startServer } from './steady-ping.ts'

const netConfig = (backend: object): object => ({ Network: '10.244.0.0/16', Backend: backend })

const modes = {
  'host-gw': { backend: { Type: 'host-gw' }, path: 'host-gw', direct: false, devices: [] },
  vxlan: { backend: { Type: 'vxlan' }, path: 'vxlan/1/8472', direct: false, devices: ['flannel.1'] },
  port: { backend: { Type: 'vxlan', Port: 4789 }, path: 'vxlan/1/4789', direct: false, devices: ['flannel.1'] },
  direct: {
    backend: { Type: 'vxlan', DirectRouting: true },
    path: 'vxlan/1/8472',
    direct: true,
    devices: ['flannel.1'],
  },
  udp: { backend: { Type: 'udp' }, path: 'udp/8285', direct: false, devices: ['flannel0'] },
} as const
type Mode = keyof typeof modes

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let pod1: TestPod
let pod2: TestPod
const servers: ChildProcess[] = []

before(async () => {
  cluster = await AgentCluster.open(netConfig(modes['host-gw'].backend))
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  pod1 = cluster.addPod(n1)
  pod2 = cluster.addPod(n2)
  for (const pod of [pod1, pod2]) servers.push(startServer(pod.namespace))
  await settled('host-gw')
})
after(async () => {
  for (const server of servers) server.kill('SIGKILL')
  await cluster.close()
})

/** Waits until every node sends to all by a mode alone, and has no device of another. */
async function settled(mode: Mode): Promise<void> {
  const { path, direct, devices } = modes[mode]
  for (const node of [n1, n2])
    await cluster.until(`${node.name} is on ${mode}`, async () => {
      const answer = await cluster
        .ask(node, '/state')
        .catch((error: Error) => ({ body: JSON.stringify(error.message) }))
      const state = JSON.parse(answer.body)
      const sends = state.peers?.every(
        ({ by }: { by?: { path: string; direct: boolean } }) => by?.path === path && by.direct === direct,
      )
      const tunnels = node.namespace
        .json<{ ifname: string }[]>('ip -j link')
        .map(({ ifname }) => ifname)
        .filter((name) => name.startsWith('flannel'))
      const clean = tunnels.join() === devices.join()
      return state.settled && state.peers.length > 0 && sends && clean ? undefined : `${tunnels} ${answer.body}`
    })
}

/** Runs `work` under streams in both directions and says what was lost. No stream outlives it. */
async function underLoad(work: () => Promise<void>): Promise<void> {
  const streams: SteadyPing[] = []
  try {
    streams.push(await SteadyPing.start(pod1.namespace, pod2.address, '--icmp'))
    streams.push(await SteadyPing.start(pod2.namespace, pod1.address, '--udp', '9001'))
    streams.push(await SteadyPing.start(pod1.namespace, pod2.address, '--tcp', '9000'))
    await work()
    for (const [i, stream] of streams.entries()) {
      const counts = await stream.stop()
      assert.equal(
        counts.lost,
        0,
        `${['ICMP', 'UDP', 'TCP'][i]}: ${JSON.stringify(counts)}\n${cluster.log(n1).slice(-3000)}`,
      )
      assert.ok(counts.sent > 10, 'the stream ran')
    }
  } finally {
    for (const stream of streams) stream.kill()
  }
}

const way: Mode[] = [
  'vxlan',
  'udp',
  'host-gw',
  'direct',
  'udp',
  'vxlan',
  'direct',
  'host-gw',
  'udp',
  'direct',
  'port',
  'vxlan',
  'host-gw',
]
for (const [i, mode] of way.entries())
  test(`${i === 0 ? 'host-gw' : way[i - 1]} → ${mode}: not one message is lost`, async () => {
    await underLoad(async () => {
      await cluster.putNetConfig(netConfig(modes[mode].backend))
      await settled(mode)
    })
  })

for (const mode of ['host-gw', 'vxlan', 'udp'] as const)
  test(`${mode}: agents killed and started again lose not one message`, async () => {
    await cluster.putNetConfig(netConfig(modes[mode].backend))
    await settled(mode)
    await underLoad(async () => {
      for (const node of [n1, n2]) {
        await cluster.stopAgent(node, 'SIGKILL')
        cluster.startAgent(node)
        await cluster.ready(node)
      }
      await settled(mode)
    })
  })

for (const [before, mode] of [
  ['udp', 'vxlan'],
  ['vxlan', 'port'],
  ['port', 'vxlan'],
] as const)
  test(`a configuration that changes while all agents are down is followed without loss: ${before} → ${mode}`, async () => {
    await cluster.putNetConfig(netConfig(modes[before].backend))
    await settled(before)
    await underLoad(async () => {
      for (const node of [n1, n2]) await cluster.stopAgent(node, 'SIGTERM')
      await cluster.putNetConfig(netConfig(modes[mode].backend))
      for (const node of [n1, n2]) cluster.startAgent(node)
      await settled(mode)
    })
  })

test('the API server away: packets pass, hands that remove routes are undone, and the watch resumes', async () => {
  await cluster.putNetConfig(netConfig(modes.vxlan.backend))
  await settled('vxlan')
  await underLoad(async () => {
    await cluster.stopApi()
    await cluster.until('n1 notices', async () =>
      JSON.parse((await cluster.ask(n1, '/state')).body).connected ? 'still connected' : undefined,
    )
    const pod3 = cluster.addPod(n1)
    assert.ok(pod3.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`), 'a new pod works meanwhile')
    await cluster.startApi()
    await cluster.until('n1 is connected again', async () =>
      JSON.parse((await cluster.ask(n1, '/state')).body).connected ? undefined : 'not yet',
    )
  })
  await cluster.putNetConfig(netConfig(modes['host-gw'].backend))
  await settled('host-gw')
})

test('stopping leaves everything in place', async () => {
  const before = n1.namespace.run('ip route; ip -br link; nft list table inet weft')
  await cluster.stopAgent(n1, 'SIGTERM')
  assert.equal(n1.namespace.run('ip route; ip -br link; nft list table inet weft'), before)
  assert.ok(pod1.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
})
