/**
 * Agents that have nothing but address pools: no net-conf.json, no podCIDRs. Real processes, real pods by the plugin, blocks
 * and pools on the lab's API server.
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { startServer } from './steady-ping.ts'

const BLUE = { cidr: '172.26.0.0/16', blockSize: 26, natOutgoing: true }
const SIX = { cidr: 'fd00:26::/64', blockSize: 122 }

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let pod1: TestPod
let pod2: TestPod
const servers: ChildProcess[] = []

before(async () => {
  cluster = await AgentCluster.open(undefined)
  await cluster.defineCalico()
  await cluster.putPool('blue', { ...BLUE, vxlanMode: 'Never' })
  await cluster.putPool('six', { ...SIX, vxlanMode: 'Never' })
  n1 = await cluster.addNode('n1', { dualStack: true, podCidrs: false })
  n2 = await cluster.addNode('n2', { dualStack: true, podCidrs: false })
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  pod1 = await cluster.joinPod(n1)
  pod2 = await cluster.joinPod(n2)
  for (const pod of [pod1, pod2]) servers.push(startServer(pod.namespace))
})
after(async () => {
  for (const server of servers) server.kill('SIGKILL')
  await cluster?.close()
})

test('pods have an address of each family alone and reach each other', async () => {
  assert.match(pod1.addresses.join(), /^172\.26\.\d+\.\d+,fd00:26::/)
  assert.match(pod1.namespace.run('ip -4 route'), /^default via 169\.254\.1\.1 dev eth0/)
  assert.match(pod1.namespace.run('ip -4 address show eth0'), new RegExp(`inet ${pod1.address}/32 `))
  for (const address of pod2.addresses)
    await cluster.until(`${address} answers`, () =>
      pod1.namespace.succeeds(`ping -c 1 -W 1 ${address}`) ? undefined : n1.namespace.run('ip route; ip -6 route'),
    )
})
