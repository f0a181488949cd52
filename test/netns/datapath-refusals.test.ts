/**
 * What real agents refuse of real peers: packets whose inner source is not the sender's, counted where an operator finds
 * it, and a peer that plain routes cannot reach, said in an Event on its Node.
 */
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
let n2: TestNode
let pod: TestPod

before(async () => {
  cluster = await AgentCluster.open(netConfig({ Type: 'udp' }))
  n1 = await cluster.addNode('n1', { dualStack: true })
  n2 = await cluster.addNode('n2', { dualStack: true })
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([n1, n2].map((node) => cluster.ready(node)))
  pod = cluster.addPod(n1)
  // Pods of a third node, and of the receiver, whom n2 will pretend to be.
  for (const source of ['10.244.9.9/32', '10.244.1.99/32', 'fd00:10:244:9::9/128', 'fd00:10:244:1::99/128'])
    n2.namespace.run(`ip address add ${source} dev lo`)
})
after(() => cluster.close())

const addressOf = (family: 4 | 6): string =>
  pod.namespace
    .json<{ addr_info: { local: string; scope: string }[] }[]>(`ip -${family} -j address show dev eth0`)[0]!
    .addr_info.find(({ scope }) => scope === 'global')!.local

async function settledOn(path: string): Promise<void> {
  await cluster.until(`both on ${path}`, async () => {
    for (const node of [n1, n2]) {
      const state = JSON.parse((await cluster.ask(node, '/state')).body)
      if (!state.settled || state.peers[0]?.by?.path !== path) return JSON.stringify(state)
    }
    return undefined
  })
  for (const family of [4, 6] as const)
    await cluster.until(`n2 reaches ${addressOf(family)}`, () =>
      n2.namespace.succeeds(`ping -c 1 -W 1 ${addressOf(family)}`)
        ? undefined
        : n1.namespace.run('ip route; ip -6 route'),
    )
}

async function metric(series: string): Promise<number> {
  const { body } = await cluster.ask(n1, '/metrics')
  const line = body.split('\n').find((text) => text.startsWith(`${series} `))
  assert.ok(line, `${series} is no series of\n${body}`)
  return Number(line.slice(series.length + 1))
}

/** Two packets of each forged source; all of them must be counted as that, and none answered. */
async function forge(series: string): Promise<void> {
  const start = await metric(series)
  for (const [source, family] of [
    ['10.244.9.9', 4],
    ['10.244.1.99', 4],
    ['fd00:10:244:9::9', 6],
    ['fd00:10:244:1::99', 6],
  ] as const)
    assert.ok(!n2.namespace.succeeds(`ping -c 2 -i 0.05 -W 0.3 -I ${source} ${addressOf(family)}`), source)
  await cluster.until(`${series} counts eight more`, async () => {
    const counted = (await metric(series)) - start
    return counted === 8 ? undefined : counted
  })
}

test('udp: inner sources that are not the sender’s are dropped and counted, in both families', async () => {
  await settledOn('udp/8285')
  await forge('weft_tunnel_dropped_packets_total{device="flannel0",reason="forged-source"}')
})

test('udp: datagrams from no node are dropped and counted before the tunnel sees them', async () => {
  const series = 'weft_forged_packets_total{check="tunnel-source"}'
  const start = await metric(series)
  cluster.fabric.run('echo x | socat -u - UDP4:172.30.0.11:8285; echo x | socat -u - UDP6:[fd00:172:30::11]:8285')
  await cluster.until('both are counted', async () => {
    const counted = (await metric(series)) - start
    return counted === 2 ? undefined : counted
  })
})

test('vxlan: inner sources that are not the sender’s are dropped and counted, in both families', async () => {
  await cluster.putNetConfig(netConfig({ Type: 'vxlan' }))
  await settledOn('vxlan/1/8472')
  await forge('weft_forged_packets_total{check="inner-source"}')
})

test('host-gw: a peer behind a router gets no route, and an Event on its Node says why', async () => {
  await cluster.putNetConfig(netConfig({ Type: 'host-gw' }))
  await settledOn('host-gw')
  const lease = { 'kube-subnet-manager': 'true', 'backend-type': 'host-gw', 'public-ip': '172.30.99.13' }
  const annotations = Object.fromEntries(
    Object.entries(lease).map(([key, value]) => [`flannel.alpha.coreos.com/${key}`, value]),
  )
  const spec = { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24'] }
  await cluster.client.create('nodes', { metadata: { name: 'beyond', annotations }, spec })
  let message = ''
  await cluster.until('an Event on the Node', async () => {
    const { items } = await cluster.client.list('events', { namespace: 'default' })
    message = items.find((event) => event.involvedObject.name === 'beyond')?.message ?? ''
    return message ? undefined : JSON.stringify(items.map(({ message }) => message))
  })
  assert.match(
    message,
    /Node beyond: public-ip: 172\.30\.99\.13 is not on a subnet of eth0: host-gw cannot cross a router/,
  )
  assert.equal(n1.namespace.run('ip route show 10.244.3.0/24'), '')
  assert.ok(n2.namespace.succeeds(`ping -c 1 -W 2 ${addressOf(4)}`), 'others are untouched')
})
