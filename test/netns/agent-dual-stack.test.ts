import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'

const netConfig = (backend: object): object => ({
  Network: '10.244.0.0/16',
  EnableIPv6: true,
  IPv6Network: 'fd00:10:244::/56',
  Backend: backend,
})

let cluster: AgentCluster
let n1: TestNode
let pods: TestPod[]

before(async () => {
  cluster = await AgentCluster.open(netConfig({ Type: 'host-gw' }))
  const nodes = [await cluster.addNode('n1', { dualStack: true }), await cluster.addNode('n2', { dualStack: true })]
  n1 = nodes[0]!
  for (const node of nodes) cluster.startAgent(node)
  await Promise.all(nodes.map((node) => cluster.ready(node)))
  pods = nodes.map((node) => cluster.addPod(node))
})
after(() => cluster.close())

const addressOf = (pod: TestPod): string =>
  pod.namespace
    .json<{ addr_info: { local: string; scope: string }[] }[]>('ip -6 -j address show dev eth0')[0]!
    .addr_info.find(({ scope }) => scope === 'global')!.local

for (const [name, backend, path] of [
  ['host-gw', { Type: 'host-gw' }, 'host-gw'],
  ['vxlan', { Type: 'vxlan' }, 'vxlan/1/8472'],
  ['direct', { Type: 'vxlan', DirectRouting: true }, 'vxlan/1/8472'],
  ['udp', { Type: 'udp' }, 'udp/8285'],
] as const)
  test(`${name}: both families reach the other node`, async () => {
    await cluster.putNetConfig(netConfig(backend))
    await cluster.until(`n1 is on ${name}`, async () => {
      const state = JSON.parse((await cluster.ask(n1, '/state')).body)
      const by = state.peers[0]?.by
      return state.settled && by?.path === path && by.direct === (name === 'direct') ? undefined : JSON.stringify(state)
    })
    for (const to of [pods[1]!.address, addressOf(pods[1]!)])
      await cluster.until(`reach ${to}`, () =>
        pods[0]!.namespace.succeeds(`ping -c 1 -W 1 ${to}`) ? undefined : n1.namespace.run('ip route; ip -6 route'),
      )
  })

test('the metrics show what the rules and the tunnel count', async () => {
  const { body } = await cluster.ask(n1, '/metrics')
  assert.match(body, /^weft_forged_packets_total\{check="tunnel-source"\} 0$/m)
  assert.match(body, /^weft_tunnel_packets_total\{device="flannel0",direction="sent"\} [1-9]/m)
  assert.match(body, /^weft_peers\{state="believed"\} 1$/m)
})

test('what both families were told stands in annotations and subnet.env', async () => {
  const { annotations } = (await cluster.getNode('n1')).metadata
  assert.equal(annotations!['flannel.alpha.coreos.com/public-ipv6'], 'fd00:172:30::11')
  assert.match(n1.namespace.run(`cat ${n1.folder}/run/subnet.env`), /^FLANNEL_IPV6_SUBNET=fd00:10:244:1::1\/64$/m)
})
