/**
 * Agents that have nothing but address pools: no net-conf.json, no podCIDRs. Real processes, real pods by the plugin, blocks
 * and pools on the lab's API server.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { SteadyPing, startServer } from './steady-ping.ts'

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

/** Waits until every node goes by these paths alone and nothing of another is left. */
async function settled(accepts: readonly string[], devices: readonly string[]): Promise<void> {
  for (const node of [n1, n2])
    await cluster.until(`${node.name} goes by ${accepts}`, async () => {
      const answer = await cluster
        .ask(node, '/state')
        .catch((error: Error) => ({ body: JSON.stringify(error.message) }))
      const { calico, settled: isSettled } = JSON.parse(answer.body)
      const links = node.namespace
        .json<{ ifname: string }[]>('ip -j link')
        .map(({ ifname }) => ifname)
        .filter((name) => /calico$|^tunl0$/.test(name))
        .sort()
      const right =
        isSettled &&
        calico?.status.accepts.sort().join() === accepts.join() &&
        links.join() === [...devices].sort().join()
      return right ? undefined : `${links} ${answer.body}`
    })
}

/** Runs `work` under streams in both directions and says what was lost. No stream outlives it. */
async function underLoad(work: () => Promise<void>): Promise<void> {
  const streams: SteadyPing[] = []
  try {
    streams.push(await SteadyPing.start(pod1.namespace, pod2.address, '--icmp'))
    streams.push(await SteadyPing.start(pod2.namespace, pod1.address, '--udp', '9001'))
    streams.push(await SteadyPing.start(pod1.namespace, pod2.address, '--tcp', '9000'))
    streams.push(await SteadyPing.start(pod1.namespace, pod2.addresses[1]!, '--icmp'))
    await work()
    for (const [i, stream] of streams.entries()) {
      const counts = await stream.stop()
      const what = ['ICMP', 'UDP', 'TCP', 'ICMPv6'][i]
      assert.equal(counts.lost, 0, `${what}: ${JSON.stringify(counts)}\n${cluster.log(n1).slice(-3000)}`)
      assert.ok(counts.sent > 10, 'the stream ran')
    }
  } finally {
    for (const stream of streams) stream.kill()
  }
}

const setMode = async (vxlanMode: string): Promise<void> => {
  await cluster.putPool('blue', { vxlanMode })
  await cluster.putPool('six', { vxlanMode })
}

const plain = ['calico/plain']
const both = ['calico/plain', 'calico/vxlan-v6/4096/4789', 'calico/vxlan/4096/4789']
const vxlan = ['calico/vxlan-v6/4096/4789', 'calico/vxlan/4096/4789']
const devices = ['vxlan.calico', 'vxlan-v6.calico']

test('pods have an address of each family alone and reach each other', async () => {
  assert.match(pod1.addresses.join(), /^172\.26\.\d+\.\d+,fd00:26::/)
  assert.match(pod1.namespace.run('ip -4 route'), /^default via 169\.254\.1\.1 dev eth0/)
  assert.match(pod1.namespace.run('ip -4 address show eth0'), new RegExp(`inet ${pod1.address}/32 `))
  for (const address of pod2.addresses)
    await cluster.until(`${address} answers`, () =>
      pod1.namespace.succeeds(`ping -c 1 -W 1 ${address}`) ? undefined : n1.namespace.run('ip route; ip -6 route'),
    )
  await settled(plain, [])
})

for (const [mode, accepts, links] of [
  ['CrossSubnet', both, devices],
  ['Always', vxlan, devices],
  ['Never', plain, []],
  ['Always', vxlan, devices],
] as const)
  test(`vxlanMode ${mode}: not one message is lost on the way there`, async () => {
    await underLoad(async () => {
      await setMode(mode)
      await settled(accepts, links)
    })
  })

test('a tunnel has an address of the pool, kept over a restart; pods follow its MTU', async () => {
  const tunnel = () => n1.namespace.run('ip -o -4 address show dev vxlan.calico').match(/inet (\S+)/)![1]
  const before = tunnel()!
  assert.match(before, /^172\.26\..*\/32$/)
  const { metadata } = await cluster.getNode('n1')
  assert.equal(metadata.annotations?.['projectcalico.org/IPv4VXLANTunnelAddr'], before.split('/')[0])
  assert.equal(metadata.annotations?.['projectcalico.org/IPv4Address'], '172.30.0.11/24')
  assert.match(pod1.namespace.run('ip link show eth0'), /mtu 1430/)
  await cluster.stopAgent(n1)
  cluster.startAgent(n1)
  await cluster.ready(n1)
  assert.equal(tunnel(), before)
})

test('agents killed and started again lose not one message', async () => {
  await underLoad(async () => {
    for (const node of [n1, n2]) {
      await cluster.stopAgent(node, 'SIGKILL')
      cluster.startAgent(node)
      await cluster.ready(node)
    }
    await settled(vxlan, devices)
  })
})

test('the API server away: pods get what is kept ready, then an ADD says try again; the agent killed over it loses none', async () => {
  const made: TestPod[] = []
  await underLoad(async () => {
    await cluster.stopApi()
    const addAll = async () => {
      // Eight are kept ready of each pool.
      for (;;) made.push(await cluster.joinPod(n1))
    }
    await assert.rejects(addAll(), /"code": 11/)
    assert.ok(made.length >= 1 && made.length <= 8, `${made.length}`)
    await cluster.stopAgent(n1, 'SIGKILL')
    await cluster.startApi()
    cluster.startAgent(n1)
    await cluster.ready(n1)
    made.push(await cluster.joinPod(n1))
    assert.equal(new Set([pod1, ...made].map(({ address }) => address)).size, made.length + 1)
    for (const { address } of made) assert.ok(pod2.namespace.succeeds(`ping -c 1 -W 5 ${address}`), address)
  })
  const living = [pod1, pod2, ...made].flatMap(({ containerId }) => Array(2).fill(`k8s-pod-network.${containerId}`))
  await handlesAre(living)
  for (const pod of made) await cluster.leavePod(pod)
  await handlesAre([pod1, pod2].flatMap(({ containerId }) => Array(2).fill(`k8s-pod-network.${containerId}`)))
})

/** Waits until blocks say that these handles of pods have addresses, one for each time that it is named, and no others. */
const handlesAre = (living: readonly string[]): Promise<void> =>
  cluster.until('blocks hold what lives, and nothing else', async () => {
    const { items } = await cluster.client.list('ipamblocks.crd.projectcalico.org')
    const handles = items.flatMap(({ spec }) =>
      (spec as { attributes: { handle_id?: string }[] }).attributes.map(({ handle_id }) => handle_id),
    )
    const pods = handles.filter((handle) => handle?.startsWith('k8s-pod-network.')).sort()
    return pods.join() === [...living].sort().join() ? undefined : handles.join('\n')
  })

test('a node moves to another subnet: CrossSubnet wraps what goes there, and only that', async () => {
  const isPlain = () => {
    const routes = n1.namespace.run('ip route; ip -6 route')
    const ways = [/172\.26\.\S+\/26 via 172\.30\.0\.12 dev eth0/, /fd00:26::\S+\/122 via fd00:172:30::12 dev eth0/]
    const isReached = () => pod2.addresses.every((address) => pod1.namespace.succeeds(`ping -c 1 -W 1 ${address}`))
    return ways.every((way) => way.test(routes)) && isReached() ? undefined : routes
  }
  await setMode('CrossSubnet')
  await settled(both, devices)
  await cluster.until('the plain way', isPlain)
  cluster.moveNode(n2, 2)
  for (const address of pod2.addresses)
    await cluster.until(`${address} answers behind the router`, () =>
      pod1.namespace.succeeds(`ping -c 1 -W 1 ${address}`) ? undefined : n1.namespace.run('ip route; ip -6 route'),
    )
  assert.match(n1.namespace.run('ip route'), /172\.26\.\S+\/26 via 172\.26\.\S+ dev vxlan\.calico/)
  cluster.moveNode(n2, 0)
  await cluster.until('the plain way again', isPlain)
  await underLoad(async () => {
    await setMode('Never')
    await settled(plain, [])
  })
})

/** Runs a command of weft in a node's namespace. */
async function weft(
  node: TestNode,
  ...args: string[]
): Promise<{ readonly code: number | null; readonly text: string }> {
  const child = inNetns(node.namespace.path, () =>
    spawn(process.execPath, ['--import', 'tsx', 'bin/weft.ts', ...args], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    }),
  )
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      text += chunk
    })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, text }
}

test('a dry run beside a living agent finds nothing to do; on a new node it says everything', async () => {
  await setMode('Always')
  await settled(vxlan, devices)
  await cluster.until('nothing to do', async () => {
    const { code, text } = await weft(n1, 'agent', ...cluster.flags(n1), '--dry-run')
    const done = code === 0 && text.split('\n').every((line) => line === '' || line.startsWith('#'))
    return done ? undefined : `${code}: ${text}`
  })
  const n3 = await cluster.addNode('n3', { dualStack: true, podCidrs: false })
  const { code, text } = await weft(n3, 'agent', ...cluster.flags(n3), '--dry-run')
  assert.equal(code, 0, text)
  assert.match(text, /^# pods: addresses out of pools, routed, MTU 1430$/m)
  assert.match(text, /^ip link add vxlan\.calico .* type vxlan id 4096 dstport 4789 /m)
  assert.match(text, /^ip route add 172\.26\.\S+\/26 via \S+ dev vxlan\.calico .*onlink/m)
  const { items } = await cluster.client.list('blockaffinities.crd.projectcalico.org')
  assert.deepEqual(
    items.filter(({ spec }) => (spec as { node: string }).node === 'n3'),
    [],
    'nothing is claimed',
  )
  assert.equal(n3.namespace.run('ip -br link | grep -c calico || true').trim(), '0')
})

test('cleanup takes devices, routes, rules and sets away', async () => {
  await cluster.stopAgent(n1)
  const { folder } = n1
  const flags = [
    '--run-dir',
    `${folder}/run`,
    '--cni-bin-dir',
    `${folder}/cni-bin`,
    '--cni-conf-dir',
    `${folder}/cni-conf`,
  ]
  const { code, text } = await weft(n1, 'cleanup', ...flags)
  assert.equal(code, 0, text)
  assert.doesNotMatch(n1.namespace.run('ip -br link'), /calico|cali[0-9a-f]{11}|tunl0/)
  assert.doesNotMatch(n1.namespace.run('ip route; ip -6 route'), /proto 119|172\.26\./)
  assert.equal(n1.namespace.run('nft list tables').trim(), '')
})
