/**
 * A lab's underlay of two subnets with its faults, without agents: nodes, cables and router are built, and packets between
 * the nodes are delayed by netem, lost and let go again.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { Faults, requireNetem } from '../../src/lab/faults.ts'
import { type LabSpec, labPaths, netnsPath, nodeAddress } from '../../src/lab/layout.ts'
import { buildFabric, buildNode, deleteNamespaces } from '../../src/lab/underlay.ts'

const nodes = [
  { name: 'n1', index: 1, subnet: 0 },
  { name: 'n2', index: 2, subnet: 1 },
  { name: 'n3', index: 3, subnet: 0 },
] as const
const [n1, n2, n3] = nodes
const spec: LabSpec = { name: `t${process.pid}x1`, subnets: 2, ipv6: true, netConfig: '{}', nodes }
const faults = new Faults(spec.name)

before(async () => {
  mkdirSync(labPaths(spec.name).run, { recursive: true })
  await buildFabric(spec)
  for (const node of nodes) await buildNode(spec, node)
})
after(() => {
  deleteNamespaces(spec.name)
  rmSync(labPaths(spec.name).run, { recursive: true, force: true })
})

/** Three pings from n1: how many were answered, and the shortest round trip in milliseconds. */
function ping(node: (typeof nodes)[number], family: 4 | 6): { answered: number; shortestMs: number } {
  const words = ['ping', '-n', '-c', '3', '-i', '0.2', '-W', '5', `${nodeAddress(node, family)}`]
  const text = execFileSync(
    'nsenter',
    [`--net=${netnsPath(spec.name, n1.name)}`, 'sh', '-c', `${words.join(' ')}; true`],
    {
      encoding: 'utf8',
    },
  )
  return {
    answered: Number(/(\d+) received/.exec(text)![1]),
    shortestMs: Number(/= ([\d.]+)\//.exec(text)?.[1] ?? NaN),
  }
}

for (const family of [4, 6] as const)
  test(`IPv${family}: nodes of one subnet and, through the router, of two reach each other`, () => {
    assert.equal(ping(n3, family).answered, 3)
    assert.equal(ping(n2, family).answered, 3)
  })

test('delay: netem holds back what goes to the node, and nothing else; heal takes it away', async () => {
  await requireNetem(spec.name)
  await faults.change(spec, (active) => {
    active.delay.n2 = 400
  })
  assert.deepEqual(faults.describe(), ['n2 delayed 400 ms'])
  for (const family of [4, 6] as const) {
    assert.ok(ping(n2, family).shortestMs >= 400)
    assert.ok(ping(n3, family).shortestMs < 400)
  }
  await faults.clear(spec)
  assert.ok(ping(n2, 4).shortestMs < 400)
})

test('a whole loss stops everything of the node, and nothing else', async () => {
  await faults.change(spec, (active) => {
    active.loss.n3 = 100
  })
  assert.equal(ping(n3, 4).answered, 0)
  assert.equal(ping(n3, 6).answered, 0)
  assert.equal(ping(n2, 4).answered, 3)
  await faults.clear(spec)
  assert.equal(ping(n3, 4).answered, 3)
})
