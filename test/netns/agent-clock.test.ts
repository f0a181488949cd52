/**
 * The wall clock of a running agent jumps by a day, forward and back, in the middle of what takes time: watches that end and
 * begin again, a store that is away, a switch, a lease that must be renewed. CLOCK_REALTIME belongs to the whole machine, so
 * the jump is made in the agent's process (shifted-clock.ts).
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { EtcdSource } from '../../src/cluster/etcd/source.ts'
import { Recorder } from '../../src/cluster/source-suite.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { EtcdServer } from './etcd-server.ts'
import { SteadyPing, startServer } from './steady-ping.ts'

const DAY_MS = 24 * 3600 * 1000
const preload = fileURLToPath(new URL('./shifted-clock.ts', import.meta.url))
const conf = (type: string): object => ({ Network: '10.244.0.0/16', Backend: { Type: type } })

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
let pod1: TestPod
let pod2: TestPod
let server: ChildProcess

before(async () => {
  cluster = await AgentCluster.open(conf('vxlan'))
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) {
    setClock(node, 0)
    cluster.startAgent(node, [], { preload, env: { WEFT_TEST_CLOCK: clockOf(node) } })
  }
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
  pod1 = cluster.addPod(n1)
  pod2 = cluster.addPod(n2)
  server = startServer(pod2.namespace)
})
after(async () => {
  server?.kill('SIGKILL')
  await cluster.close()
})

const clockOf = (node: TestNode): string => join(node.folder, 'clock')
const setClock = (node: TestNode, ms: number): void => writeFileSync(clockOf(node), String(ms))

interface Condition {
  readonly type: string
  readonly status: string
  readonly lastHeartbeatTime: string
}

async function networkCondition(node: TestNode): Promise<Condition | undefined> {
  const { status } = (await cluster.getNode(node.name)) as { status?: { conditions?: Condition[] } }
  return status?.conditions?.find(({ type }) => type === 'NetworkUnavailable')
}

async function onPath(path: string): Promise<void> {
  for (const node of [n1, n2])
    await cluster.until(`${node.name} is on ${path}`, async () => {
      const state = JSON.parse((await cluster.ask(node, '/state')).body)
      const there = state.settled && state.peers.length === 1 && state.peers[0].by?.path === path
      return there ? undefined : JSON.stringify(state)
    })
}

for (const [name, first, second] of [
  ['a day forward, then back', DAY_MS, 0],
  ['a day back, then forward', -DAY_MS, 0],
] as const)
  test(`the clock goes ${name}: a reconnect and a switch lose nothing, and the node stays available`, async () => {
    await cluster.putNetConfig(conf('vxlan'))
    await onPath('vxlan/1/8472')
    await cluster.until('the node is available', async () =>
      (await networkCondition(n1))?.status === 'False' ? undefined : 'not yet',
    )
    const stream = await SteadyPing.start(pod1.namespace, pod2.address, '--udp', '9001')
    try {
      setClock(n1, first)
      await cluster.stopApi()
      await cluster.until('n1 notices', async () =>
        JSON.parse((await cluster.ask(n1, '/state')).body).connected ? 'still connected' : undefined,
      )
      setClock(n1, second)
      await cluster.startApi()
      await cluster.until('n1 is connected again', async () =>
        JSON.parse((await cluster.ask(n1, '/state')).body).connected ? undefined : 'not yet',
      )
      setClock(n1, first)
      await cluster.putNetConfig(conf('host-gw'))
      await onPath('host-gw')
      const pod = cluster.addPod(n1)
      assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
      setClock(n1, second)
      cluster.cni(n1, 'DEL', pod.containerId, pod.namespace.path)
      const counts = await stream.stop()
      assert.equal(counts.lost, 0, JSON.stringify(counts))
    } finally {
      stream.kill()
      setClock(n1, 0)
    }
    assert.equal((await networkCondition(n1))?.status, 'False')
    assert.equal((await cluster.ask(n1, '/readyz')).body, 'ok\n')
  })

test('an agent that starts with its clock a day ahead writes times that can be read, and takes the same part', async () => {
  setClock(n1, DAY_MS)
  await cluster.stopAgent(n1, 'SIGKILL')
  // What stands already is not written again.
  await cluster.client.patch('nodes', { name: n1.name }, { status: { conditions: [] } }, { subresource: 'status' })
  cluster.startAgent(n1, [], { preload, env: { WEFT_TEST_CLOCK: clockOf(n1) } })
  await cluster.ready(n1)
  await onPath('host-gw')
  await cluster.until('the condition is written', async () => {
    const condition = await networkCondition(n1)
    const ahead = Date.parse(condition?.lastHeartbeatTime ?? '') - Date.now()
    return condition?.status === 'False' && Math.abs(ahead - DAY_MS) < 3_600_000 ? undefined : JSON.stringify(condition)
  })
  assert.match((await networkCondition(n1))!.lastHeartbeatTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.ok(pod1.namespace.succeeds(`ping -c 1 -W 2 ${pod2.address}`))
})

test('etcd: a lease is renewed by the monotonic clock, whatever the wall clock says', async () => {
  const etcd = await EtcdServer.start()
  const RealDate = globalThis.Date
  const shift = (ms: number): void => {
    globalThis.Date = new Proxy(RealDate, {
      construct: (target, given, newTarget) =>
        Reflect.construct(target, given.length === 0 ? [RealDate.now() + ms] : given, newTarget),
      get: (target, key) => (key === 'now' ? () => RealDate.now() + ms : Reflect.get(target, key)),
    })
  }
  const renewals: string[] = []
  let wake = () => {}
  const log = {
    debug() {},
    warn() {},
    error(fields: object, message: string) {
      assert.fail(`${message} ${JSON.stringify(fields)}`)
    },
    info(_fields: object, message: string) {
      if (/renewed/.test(message)) renewals.push(message)
      wake()
    },
  }
  const source = new EtcdSource({
    client: new EtcdClient({ endpoints: [etcd.url] }),
    prefix: '/weft',
    nodeName: 'n1',
    renewMarginMinutes: 60,
    leaseSeconds: 3,
    renewCheckMs: 200,
    log,
  })
  try {
    const network = Cidr.parse('10.5.0.0/16')
    etcd.ctl('put', '/weft/config', '{"Network":"10.5.0.0/16"}')
    const recorder = new Recorder()
    source.start(recorder.listen)
    await recorder.until('synced')
    const lease = { backendType: 'host-gw', publicIp: Ip.parse('192.0.2.1') }
    const [subnet] = await source.acquire({
      ranges: [{ network, length: 24, min: Ip.parse('10.5.1.0'), max: Ip.parse('10.5.255.0') }],
      previous: [],
      announce: () => ({ lease, weft: { accepts: [], sends: [] } }),
    })
    // Three lives of the lease, with the wall clock a day ahead, a day behind, and right again.
    for (const ms of [DAY_MS, -DAY_MS, 0]) {
      shift(ms)
      const before = renewals.length
      await new Promise<void>((resolve) => {
        wake = () => {
          if (renewals.length >= before + 20) resolve()
        }
      })
    }
    assert.match(etcd.ctl('get', '--prefix', '/weft/subnets/', '--keys-only'), new RegExp(`${subnet!.base}-24`))
    assert.ok(!recorder.events.some(({ type }) => type === 'node-gone'))
  } finally {
    globalThis.Date = RealDate
    await source.close()
    await etcd.stop()
  }
})
