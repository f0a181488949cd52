/** Two controllers, each a process with a clock of its own, and what may happen to the one that leads. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { type Asked, ControllerCluster, type Replica } from './controller-cluster.ts'

const DAY_MS = 86_400_000
const network = ['--cluster-cidr', '10.244.0.0/16,fd00:10:244::/48']
const timing = (lease: string, deadline: string, retry: string): string[] => [
  ...['--leader-elect-lease-duration', lease, '--leader-elect-renew-deadline', deadline],
  ...['--leader-elect-retry-period', retry],
]
const quick = [...network, ...timing('4s', '2s', '300ms')]

let cluster: ControllerCluster
beforeEach(async () => {
  cluster = await ControllerCluster.start()
})
afterEach(() => cluster.close())

const isNodeWrite = ({ method, url }: Asked) => method === 'PATCH' && url.startsWith('/api/v1/nodes/')
const isLedgerWrite = ({ method, url }: Asked) => method === 'PATCH' && url.endsWith('/weft-pod-cidrs')

/** Two replicas; the first leads, the second knows it. Their clocks are two days apart. */
async function startTwo(flags: readonly string[]): Promise<[leader: Replica, follower: Replica]> {
  const leader = await cluster.spawn('leader', flags, DAY_MS)
  await leader.said('all nodes are known')
  const follower = await cluster.spawn('follower', flags, -DAY_MS)
  await heard(follower, ({ method, url }) => method === 'GET' && url.endsWith('/leases/weft-controller'))
  return [leader, follower]
}

/** Resolves when the replica asks for something. */
function heard(replica: Replica, what: (asked: Asked) => boolean): Promise<void> {
  return new Promise((resolve) => {
    replica.proxy.onRequest = (asked) => {
      if (what(asked)) resolve()
    }
  })
}

async function join(from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await cluster.addNode(`n${i}`)
}

const given = ({ lines }: Replica) => lines.filter(({ msg }) => msg === 'pod CIDR given').length

test('the leader is killed while 200 nodes join: the other goes on, nothing is given twice', async () => {
  const [leader, follower] = await startTwo(quick)
  let written = 0
  const killed = heard(leader, (asked) => isNodeWrite(asked) && ++written === 70)
  const joined = join(0, 200)
  await killed
  await leader.end('SIGKILL')
  await joined
  const all = await cluster.allGiven(200)
  for (const cidrs of all.values()) assert.equal(cidrs.length, 2)
  await follower.said('this replica leads')
  assert.ok(given(follower) > 0, 'the follower had nothing left to do')
})

for (const [what, held] of [
  ['to nodes', isNodeWrite],
  ['to the ledger', isLedgerWrite],
] as const)
  test(`the leader is stopped in the middle of writes ${what}, for longer than the lease: none of them is taken, nor any other`, async () => {
    const [leader, follower] = await startTwo(quick)
    await join(0, 20)
    await cluster.allGiven(20)
    const holding = leader.proxy.holdWhen(held)
    await join(20, 60)
    await holding
    leader.process.kill('SIGSTOP')
    const stale = leader.proxy.asked.filter(({ status }) => status === undefined).filter(held)
    assert.ok(stale.length > 0)
    // One of the nodes that are being written leaves and comes back as another one.
    await cluster.client.delete('nodes', { name: 'n20' })
    await cluster.addNode('n20')
    await follower.said('this replica leads')
    const before = await cluster.allGiven(60)
    const asked = leader.proxy.asked.length
    leader.proxy.release()
    leader.process.kill('SIGCONT')
    await leader.said('this replica leads no more')
    await heard(leader, ({ method, url }) => method === 'GET' && url.endsWith('/leases/weft-controller'))
    assert.deepEqual(
      stale.map(({ status }) => status),
      stale.map(() => 409),
    )
    // One that was on its way into its connection when the leader was stopped is refused like those that were held.
    const written = leader.proxy.asked.slice(asked).filter((each) => isNodeWrite(each) || isLedgerWrite(each))
    assert.deepEqual(
      written.filter(({ status }) => status !== 409),
      [],
    )
    assert.deepEqual(await cluster.allGiven(60), before)
    await join(60, 80)
    await cluster.allGiven(80)
  })

test('the API server is away for longer than the lease: nobody leads meanwhile, one does afterwards', async () => {
  const [leader, follower] = await startTwo(quick)
  await join(0, 10)
  await cluster.allGiven(10)
  await cluster.stopServer()
  await leader.said('this replica leads no more')
  await cluster.startServer()
  await join(10, 30)
  await cluster.allGiven(30)
  const led = [leader, follower].map(({ lines }) => lines.filter(({ msg }) => msg === 'this replica leads').length)
  assert.equal(led[0]! + led[1]!, 2, `led: ${led}`)
})

test('a leader that is asked to stop gives the lease back: the other need not wait for its end', async () => {
  const [leader, follower] = await startTwo([...network, ...timing('10m', '5m', '300ms')])
  assert.equal(await leader.end('SIGTERM'), 0)
  await join(0, 5)
  await cluster.allGiven(5)
  const [lease] = await cluster.until('leases.coordination.k8s.io', (all) => all.length === 1)
  assert.equal(lease!.spec.holderIdentity, (await follower.said('this replica leads')).identity)
  assert.equal(lease!.spec.leaseTransitions, 1)
  assert.equal(await follower.end('SIGTERM'), 0)
  const [free] = await cluster.until('leases.coordination.k8s.io', (all) => all[0]?.spec.holderIdentity === '')
  assert.equal(free!.spec.leaseDurationSeconds, 1)
})
