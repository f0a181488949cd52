/**
 * Agents that start while the store is away: they work from what they remember of the cluster.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let n3: TestNode
let pod2: TestPod

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } })
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  n3 = await cluster.addNode('n3')
  for (const node of [n1, n2, n3]) cluster.startAgent(node)
  for (const node of [n1, n2, n3]) await cluster.ready(node)
  pod2 = cluster.addPod(n2)
  await remembered(n1, 3)
})
after(async () => {
  await cluster.close()
})

const viewOf = (node: TestNode): string => `${node.folder}/run/cluster-view`
const stateOf = async (node: TestNode) => JSON.parse((await cluster.ask(node, '/state')).body)
const routes = (node: TestNode): string => node.namespace.run('ip route show proto 119')

/** Waits until an agent has written a view with every node's announcement in it. */
async function remembered(node: TestNode, nodes: number): Promise<void> {
  await cluster.until(`${node.name} remembers ${nodes} nodes`, () => {
    let text = ''
    try {
      text = readFileSync(viewOf(node), 'utf8')
    } catch {
      return 'no file yet'
    }
    const view = JSON.parse(text.slice(text.indexOf('\n')))
    const announced = view.nodes.filter(
      ({ node }: { node: { lease?: unknown; weft?: unknown } }) => node.lease && node.weft,
    )
    return announced.length === nodes && view.written.length === 0 ? undefined : text.slice(0, 500)
  })
}

async function restart(node: TestNode): Promise<void> {
  await cluster.stopAgent(node, 'SIGKILL')
  cluster.startAgent(node)
  await cluster.ready(node)
}

test('the API server away: a killed agent starts again, says what it works from, and serves pods', async () => {
  await cluster.stopApi()
  await restart(n1)
  assert.match((await cluster.ask(n1, '/readyz')).body, /^working from the cache of \d{4}-\d\d-\d\dT/)
  const { workingFromCacheOf, synced, peers } = await stateOf(n1)
  assert.match(workingFromCacheOf, /T/)
  assert.equal(synced, false)
  assert.deepEqual(peers.map(({ name }: { name: string }) => name).sort(), ['n2', 'n3'])
  assert.match(cluster.log(n1), /working from the cache of .*the store is away/)
  assert.match((await cluster.ask(n1, '/metrics')).body, /weft_cluster_from_cache 1/)
  cluster.cni(n1, 'STATUS', 'status', '', { cniVersion: '1.1.0' })
  const pod = cluster.addPod(n1)
  assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`), 'a new pod reaches one of another node')
  cluster.cni(n1, 'DEL', pod.containerId, pod.namespace.path)
  const next = cluster.addPod(n1)
  assert.ok(next.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
})

test('drift is healed from memory, and nothing is swept', async () => {
  n1.namespace.run('ip route add 10.244.77.0/24 via 10.244.77.0 dev flannel.1 onlink proto 119')
  n1.namespace.run('ip route del 10.244.2.0/24')
  await cluster.until('the route is back', () => (routes(n1).includes('10.244.2.0/24') ? undefined : routes(n1)))
  assert.match(routes(n1), /10\.244\.77\.0/)
  assert.match(routes(n1), /10\.244\.3\.0/)
})

test('the API server comes back: its list takes the place of the memory, and what left meanwhile is swept', async () => {
  await cluster.stopAgent(n3, 'SIGKILL')
  await cluster.whileAway(async (client) => {
    await client.delete('nodes', { name: 'n3' })
  })
  assert.match(routes(n1), /10\.244\.3\.0/, 'n1 cannot know yet')
  await cluster.startApi()
  await cluster.until('n3 and the stray route are gone', () =>
    /10\.244\.(3|77)\.0/.test(routes(n1)) ? routes(n1) : undefined,
  )
  assert.match(routes(n1), /10\.244\.2\.0/)
  await cluster.until('n1 works from the store', async () => {
    const { body } = await cluster.ask(n1, '/readyz')
    return body === 'ok\n' ? undefined : body
  })
  const pod = cluster.addPod(n1)
  assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
  await remembered(n1, 2)
})

const damages: Readonly<Record<string, (text: string) => string>> = {
  'cut short': (text) => text.slice(0, -20),
  edited: (text) => text.replace('10.244.2.0', '10.244.9.0'),
  'of another version': (text) => text.replace('view 1 ', 'view 2 '),
  "another node's": () => readFileSync(viewOf(n2), 'utf8'),
}
for (const [what, damage] of Object.entries(damages))
  test(`a view that is ${what} is not used: pods wait for the store`, async () => {
    await cluster.stopApi()
    await cluster.stopAgent(n1, 'SIGKILL')
    const before = routes(n1)
    writeFileSync(viewOf(n1), damage(readFileSync(viewOf(n1), 'utf8')))
    const from = cluster.log(n1).length
    cluster.startAgent(n1)
    await cluster.until('it says so', () =>
      /remembered view of the cluster is not used[\s\S]*cannot be reached/.test(cluster.log(n1).slice(from))
        ? undefined
        : cluster.log(n1).slice(from),
    )
    assert.equal((await cluster.ask(n1, '/readyz')).status, 503)
    assert.throws(() => cluster.addPod(n1), /"code":\s*11/)
    assert.equal(routes(n1), before, 'and nothing is touched')
    await cluster.startApi()
    await cluster.ready(n1)
    await remembered(n1, 2)
  })
