/**
 * What happens to nodes in their life, on a real cluster: their programs are restarted, the underlay's MTU changes, they get
 * another address, their credentials are renewed, clocks jump, they are drained, deleted, and come back under the same name.
 * Agents are plain processes, so that each can be looked at and started in its own way.
 */
import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { connectIn, listenIn } from '../../src/lab/connect.ts'
import { nodeAddress } from '../../src/lab/layout.ts'
import { netConfigFor } from '../../src/lab/spec.ts'
import { type PingCounts, SteadyPing } from '../netns/steady-ping.ts'
import { TestCluster, type TestPod, until } from './test-cluster.ts'

let lab: TestCluster
const pods: Record<string, TestPod> = {}

interface Node {
  readonly metadata: { readonly uid: string; readonly annotations: Record<string, string> }
  readonly spec: { readonly podCIDRs: readonly string[] }
  readonly status: { readonly addresses: readonly { readonly type: string; readonly address: string }[] }
}

before(async () => {
  lab = await TestCluster.start({ nodes: 3 })
  await lab.cluster.prepareAgents()
  await lab.cluster.startAgents()
  await lab.cluster.waitReady()
  for (const node of ['n1', 'n2', 'n3']) pods[node] = await lab.server(`on-${node}`, node)
})
after(() => lab?.down())

const on = (node: string): TestPod => pods[node]!
const run = (node: string, ...argv: string[]): string => lab.cluster.node(node).machine.run(...argv)
const nodeNow = (name: string): Promise<Node> => lab.cluster.get<Node>('node', name)

/** All that a node knows of the way to others: routes, neighbours, VXLAN's table. */
const waysOf = (node: string): string =>
  run(
    node,
    'sh',
    '-c',
    'ip route; ip -6 route; ip neigh show nud permanent; ip -6 neigh show nud permanent; bridge fdb show',
  )

/** Pings both ways between two pods while something happens; nothing may be lost. */
async function unharmed(one: TestPod, other: TestPod, happening: () => Promise<void>): Promise<void> {
  const pings = await Promise.all([
    SteadyPing.start({ path: one.netnsPath }, other.ip, '--icmp'),
    SteadyPing.start({ path: other.netnsPath }, one.ip6!, '--icmp'),
  ])
  let counts: readonly PingCounts[] = []
  try {
    await happening()
  } finally {
    counts = await Promise.all(pings.map((ping) => ping.stop()))
  }
  for (const { sent, lost } of counts) {
    assert.ok(sent > 0)
    assert.equal(lost, 0, `of ${sent} between ${one.name} and ${other.name}`)
  }
}

/** Every pod reaches those on the other nodes. */
async function allTalk(): Promise<void> {
  await lab.ping(on('n1'), on('n2'))
  await lab.ping(on('n2'), on('n3'))
  await lab.ping(on('n3'), on('n1'))
}

test('kubelet and containerd are restarted: pods go on, nothing is lost, new pods start', async () => {
  const { cluster } = lab
  const { kubelet, containerd } = cluster.node('n2')
  await unharmed(on('n1'), on('n2'), async () => {
    await kubelet.restart()
    const first = await lab.server('after-kubelet', 'n2')
    await containerd.restart()
    const second = await lab.server('after-containerd', 'n2')
    await lab.ping(on('n1'), first)
    await lab.ping(on('n1'), second)
    await lab.ping(first, second)
  })
  const { status } = await cluster.get<{ status: { containerStatuses: { restartCount: number }[] } }>('pod', 'on-n2')
  assert.equal(status.containerStatuses[0]!.restartCount, 0)
  await cluster.kubectl('delete', 'pod', 'after-kubelet', 'after-containerd')
  await until(
    'their devices are gone',
    () => run('n2', 'ip', '-o', 'link', 'show', 'master', 'cni0').trim().split('\n').length === 1,
  )
})

/** The largest IPv4 packet that goes from a pod to another is of this size, and a larger one is refused at once. */
async function carries(from: TestPod, to: TestPod, mtuBytes: number): Promise<void> {
  const heads = [
    [to.ip, 28],
    [to.ip6!, 48],
  ] as const
  for (const [ip, headBytes] of heads) {
    const ping = (bytes: number) =>
      lab.runIn(from, 'ping', '-M', 'do', '-c1', '-W3', '-s', String(bytes - headBytes), ip)
    await ping(mtuBytes)
    await assert.rejects(ping(mtuBytes + 1), /message too long, mtu[=:] ?/i)
  }
}

const linkOf = (name: string) => ['ip', '-o', 'link', 'show', name]
const mtuOf = (link: string): number => Number(/ mtu (\d+) /.exec(link)?.[1])

for (const underlay of [1400, 1500])
  test(`the underlay's MTU becomes ${underlay}: bridge, VXLAN device and the devices in running pods follow`, async () => {
    const names = ['n1', 'n2', 'n3']
    // VXLAN over IPv4 takes 50 bytes, over IPv6 70; pods have the smaller of both.
    const expected = { 'flannel.1': underlay - 50, 'flannel-v6.1': underlay - 70, cni0: underlay - 70 }
    const ofPods = expected.cni0
    await unharmed(on('n1'), on('n2'), async () => {
      // The API server's side as well: what it sends by an old connection would not come in any more.
      const { code } = await lab.cluster.inFabric(['ip', 'link', 'set', 'net0', 'mtu', String(underlay)])
      assert.equal(code, 0)
      for (const node of names) run(node, 'ip', 'link', 'set', 'eth0', 'mtu', String(underlay))
      for (const node of names) {
        for (const [name, mtuBytes] of Object.entries(expected))
          await until(`mtu ${mtuBytes} of ${name} on ${node}`, () => mtuOf(run(node, ...linkOf(name))) === mtuBytes)
        await until(
          `mtu ${ofPods} in the pod on ${node}`,
          async () => mtuOf(await lab.runIn(on(node), ...linkOf('eth0'))) === ofPods,
        )
      }
    })
    await carries(on('n1'), on('n2'), ofPods)
    await carries(on('n2'), on('n1'), ofPods)
    await carries(await lab.server(`made-at-${underlay}`, 'n3'), on('n1'), ofPods)
    await lab.cluster.kubectl('delete', 'pod', `made-at-${underlay}`)
  })

/** A TCP connection between pods that says what arrives. */
async function connection(from: TestPod, to: TestPod, port: number) {
  const server = createServer()
  server.listen({ fd: listenIn(to.netnsPath, port) })
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const near = connectIn(from.netnsPath, to.ip, port)
  await new Promise((resolve, reject) => near.once('connect', resolve).once('error', reject))
  const far = await accepted
  return {
    async echo(text: string): Promise<string> {
      const heard = new Promise<string>((resolve) => far.once('data', (data) => resolve(String(data))))
      near.write(text)
      return heard
    },
    close() {
      near.destroy()
      far.destroy()
      server.close()
    },
  }
}

for (const backend of ['vxlan', 'host-gw'])
  test(`${backend}: a running node gets another address; the others follow, connections go on`, async () => {
    const { cluster } = lab
    await cluster.switchTo(netConfigFor(backend, true))
    const before = cluster.node('n2').spec
    const held = await connection(on('n1'), on('n2'), 9100)
    try {
      await cluster.readdressNode('n2', async () => {
        const { spec } = cluster
        const now = spec.nodes.find(({ name }) => name === 'n2')!
        // Agents say at once where they are; the kubelet's word comes later.
        for (const node of ['n1', 'n3'])
          await until(`${node} sends to n2's new address`, () => {
            const ways = waysOf(node)
            return [4, 6].every((family) => ways.includes(` ${nodeAddress(now, family as 4 | 6)}`))
          })
      })
      for (const node of ['n1', 'n3']) await lab.ping(on(node), on('n2'))
      assert.equal(await held.echo('still here'), 'still here')
    } finally {
      held.close()
    }
    const after = cluster.node('n2').spec
    await until('the new address in the Node object', async () => {
      const { status, metadata } = await nodeNow('n2')
      const own = status.addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address)
      const told = metadata.annotations['flannel.alpha.coreos.com/public-ip']
      return own[0] === String(nodeAddress(after, 4)) && told === own[0]
    })
    for (const node of ['n1', 'n3'])
      for (const family of [4, 6] as const)
        assert.ok(!waysOf(node).includes(` ${nodeAddress(before, family)} `), `${node} still knows the old address`)
    const made = await lab.server('after-address', 'n2')
    await lab.ping(made, on('n1'))
    await cluster.kubectl('delete', 'pod', 'after-address')
  })

/** What an agent has written since. */
function logOf(node: string): { since(): string } {
  const path = lab.cluster.node(node).agent.plan.log
  const from = statSync(path).size
  return { since: () => readFileSync(path).subarray(from).toString() }
}

/** A credential that the API server believes as long as its Secret exists. */
async function tokenBoundTo(secret: string): Promise<string> {
  const { cluster } = lab
  await cluster.kubectl('create', 'secret', 'generic', secret, '--namespace', 'kube-flannel')
  return cluster.token({ boundObjectRef: { apiVersion: 'v1', kind: 'Secret', name: secret } })
}

test('certificates are renewed and tokens rotated under agents that go on running', async () => {
  const { cluster } = lab
  const user = 'system:serviceaccount:kube-flannel:weft-agent'
  const certificate = (validMs: number) =>
    cluster.plane.issueKubeconfig({ commonName: user, usages: ['client'], validMs })
  const [n1, n3] = [cluster.node('n1'), cluster.node('n3')]
  const validMs = 8_000
  const expiry = performance.now() + validMs
  n1.machine.writeFile('/etc/weft/kubeconfig', certificate(validMs), 0o600)
  const config = JSON.parse(certificate(validMs)) as { users: { name: string; user: object }[] }
  config.users[0]!.user = { tokenFile: 'token' }
  n3.machine.writeFile('/etc/weft/kubeconfig', JSON.stringify(config), 0o600)
  n3.machine.writeFile('/etc/weft/token', await tokenBoundTo('first'), 0o600)
  const logs = { n1: logOf('n1'), n3: logOf('n3') }
  await unharmed(on('n1'), on('n3'), async () => {
    await Promise.all([n1.agent.restart(), n3.agent.restart()])
    for (const log of Object.values(logs))
      await until('an agent serves', () => log.since().includes('pods can be served'))
    const pids = [n1.agent.pid, n3.agent.pid]
    // What follows is the API server's view: the token's Secret is gone, the certificate has expired.
    n3.machine.writeFile('/etc/weft/token', await tokenBoundTo('second'), 0o600)
    await cluster.kubectl('delete', 'secret', 'first', '--namespace', 'kube-flannel')
    await until('the certificate expires', () => performance.now() > expiry)
    await cluster.plane.apiserver.restart()
    await until('the old certificate is refused', () => /\(401\)/.test(logs.n1.since()))
    assert.doesNotMatch(logs.n3.since(), /\(401\)/)
    n1.machine.writeFile('/etc/weft/kubeconfig', certificate(3_600_000), 0o600)
    for (const log of Object.values(logs))
      await until('the API server is followed again', () => log.since().includes('the cluster can be reached again'))
    for (const [at, { agent }] of [n1, n3].entries()) assert.equal(agent.pid, pids[at], agent.logTail())
  })
})

test('the clock of a node jumps by a day, there and back: nothing is lost, pods start, peers are followed', async () => {
  const { machine, agent } = lab.cluster.node('n2')
  const clock = '/run/weft/test-clock'
  const jump = (milliseconds: number) => machine.writeFile(clock, String(milliseconds))
  await agent.stop()
  jump(0)
  const shifted = machine.program(
    'shifted-agent',
    [
      ...[process.execPath, '--import', '/opt/weft/node_modules/tsx/dist/loader.mjs'],
      ...['--import', '/opt/weft/test/netns/shifted-clock.ts', '/opt/weft/dist/weft.js', 'agent'],
      ...['--kubeconfig=/etc/weft/kubeconfig', '--node-name=n2'],
    ],
    { WEFT_TEST_CLOCK: clock },
  )
  try {
    await unharmed(on('n1'), on('n2'), async () => {
      await shifted.start()
      for (const day of [1, -1, 0]) {
        jump(day * 86_400_000)
        const pod = await lab.server(`at-day-${day + 1}`, 'n2')
        await lab.ping(pod, on('n3'))
        await lab.cluster.kubectl('delete', 'pod', pod.name)
      }
    })
    assert.match(shifted.logTail(20_000), new RegExp(new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)))
  } finally {
    await shifted.stop()
    await agent.start()
  }
})

test('a node is drained and deleted: its routes go everywhere; it comes back under its name at another address', async (t) => {
  const { cluster } = lab
  const gone = await nodeNow('n2')
  const before = cluster.node('n2').spec
  await cluster.kubectl('drain', 'n2', '--force', '--timeout=60s')
  const words = [...gone.spec.podCIDRs, ...[4, 6].map((family) => ` ${nodeAddress(before, family as 4 | 6)} `)]
  const left = (node: string) => words.filter((word) => waysOf(node).includes(word))
  for (const node of ['n1', 'n3']) assert.notDeepEqual(left(node), [])
  await cluster.kubectl('delete', 'node', 'n2')
  const startedAt = performance.now()
  await Promise.all(
    ['n1', 'n3'].map(async (node) => {
      await until(`${node} knows nothing of n2`, () => left(node).length === 0)
      t.diagnostic(`${node} knew nothing of it ${Math.round(performance.now() - startedAt)} ms after kubectl had ended`)
    }),
  )
  await cluster.dropNode('n2')
  await cluster.addNode({ name: 'n2' })
  assert.notEqual(String(nodeAddress(cluster.node('n2').spec, 4)), String(nodeAddress(before, 4)))
  await cluster.startAgents(['n2'])
  await cluster.waitReady(['n2'])
  pods.n2 = await lab.server('on-n2-again', 'n2')
  await allTalk()
  for (const node of ['n1', 'n3']) assert.ok(!waysOf(node).includes(` ${nodeAddress(before, 4)} `))
})

test('the Node object of a running node is deleted and made again: pods get addresses of what it has now', async (t) => {
  const { cluster } = lab
  const before = await nodeNow('n3')
  await cluster.kubectl('delete', 'node', 'n3')
  await cluster.node('n3').kubelet.restart()
  await until('another Node object', async () => {
    const { metadata, spec } = await nodeNow('n3')
    return metadata.uid !== before.metadata.uid && spec.podCIDRs?.length === 2
  })
  await cluster.waitReady(['n3'])
  const { spec } = await nodeNow('n3')
  pods.n3 = await lab.server('on-n3-again', 'n3')
  t.diagnostic(`${before.spec.podCIDRs} before, ${spec.podCIDRs} now`)
  assert.ok(on('n3').ip.startsWith(spec.podCIDRs[0]!.replace(/0\/24$/, '')), `${on('n3').ip} of ${spec.podCIDRs}`)
  await allTalk()
})
