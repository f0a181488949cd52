/**
 * The capabilities `portMappings` and `bandwidth`, native and chained behind another plugin.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { CniNode, cannotRun, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
let node: CniNode

before(async () => {
  if (skip) return
  node = new CniNode()
  await node.start()
})
after(async () => {
  if (!skip) await node.delete()
})

/** A server in a pod that answers every connection or datagram with a word; `stop` ends it. */
async function serve(pod: TestNamespace, listen: string, word: string): Promise<{ stop(): void }> {
  const socat = spawn('ip', [
    'netns',
    'exec',
    pod.name,
    'socat',
    '-d',
    '-d',
    `${listen},fork`,
    `SYSTEM:read line; echo ${word}`,
  ])
  await listening(socat)
  return { stop: () => socat.kill() }
}

/** socat with -d -d says when it listens; a datagram socket that forks says only that it starts its loop. */
const listening = (socat: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    socat.stderr!.on('data', (chunk: Buffer) => {
      if (/listening on|receiving on|starting|UDP/.test(chunk.toString())) resolve()
    })
    socat.once('exit', (code) => reject(new Error(`socat ended with ${code}`)))
  })

const ask = (from: TestNamespace, address: string): string =>
  from.run(`echo hello | timeout 10 socat -t2 - ${address} 2>&1 || true`).trim()

test('host ports: from outside, the node, loopback and pods, TCP and UDP, both families; gone after DEL', {
  skip,
}, async () => {
  using pod = new TestNamespace()
  using other = new TestNamespace()
  using outside = new TestNamespace()
  const { namespace } = node
  namespace.run(
    `ip link add up0 type veth peer name eth0 netns ${outside.name} && ip link set up0 up && ip addr add 192.0.2.1/24 dev up0 && ip addr add 192.0.2.9/24 dev up0 && ip -6 addr add fd00:ee::1/64 dev up0 nodad`,
  )
  outside.run('ip link set eth0 up && ip addr add 192.0.2.2/24 dev eth0 && ip -6 addr add fd00:ee::2/64 dev eth0 nodad')
  const portMappings = [
    { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    { hostPort: 8053, containerPort: 53, protocol: 'udp' },
    { hostPort: 8081, containerPort: 80, protocol: 'tcp', hostIP: '192.0.2.9' },
    { hostPort: 0, containerPort: 99, protocol: 'tcp' },
  ]
  const config = weftConfig('1.0.0', { runtimeConfig: { portMappings } })
  ok(await node.call('ADD', { containerId: 'web', netns: pod.path, config }))
  ok(await node.call('ADD', { containerId: 'client', netns: other.path }))
  const servers = [
    await serve(pod, 'TCP6-LISTEN:80,reuseaddr', 'web'),
    await serve(pod, 'UDP6-LISTEN:53,reuseaddr', 'dns'),
  ]
  try {
    assert.equal(ask(outside, 'TCP:192.0.2.1:8080'), 'web')
    assert.equal(ask(outside, 'TCP:[fd00:ee::1]:8080'), 'web')
    assert.equal(ask(outside, 'UDP:192.0.2.1:8053'), 'dns')
    assert.equal(ask(outside, 'TCP:192.0.2.9:8081'), 'web')
    assert.match(ask(outside, 'TCP:192.0.2.1:8081'), /refused/)
    assert.equal(ask(namespace, 'TCP:192.0.2.1:8080'), 'web')
    assert.equal(ask(namespace, 'TCP:127.0.0.1:8080'), 'web')
    assert.equal(ask(other, 'TCP:192.0.2.1:8080'), 'web')
    assert.equal(ask(pod, 'TCP:192.0.2.1:8080'), 'web')
    const taken = await node.call('ADD', { containerId: 'rival', netns: outside.path, ifname: 'eth7', config })
    assert.equal(taken.json.code, 106, taken.stdout)
    assert.match(taken.json.msg, /^Host port tcp 8080 is taken by eth0 of container web$/)
    assert.doesNotMatch(outside.run('ip -o link'), /eth7/)
    await node.stop('SIGKILL')
    assert.equal(ask(outside, 'TCP:192.0.2.1:8080'), 'web', 'the agent is down, the port is not')
    await node.start()
    assert.equal(ask(outside, 'TCP:192.0.2.1:8080'), 'web')
    ok(await node.call('DEL', { containerId: 'web' }))
    assert.match(ask(outside, 'TCP:192.0.2.1:8080'), /refused/)
    assert.doesNotMatch(namespace.run('nft list table inet weft'), /8080|8053|8081/)
    ok(await node.call('DEL', { containerId: 'client' }))
  } finally {
    for (const server of servers) server.stop()
  }
})

interface QdiscReading {
  readonly kind: string
  readonly dev: string
  readonly root?: boolean
  readonly options?: { readonly rate?: number; readonly burst?: number }
  readonly bytes?: number
  readonly overlimits?: number
}

test('bandwidth: token buckets both ways that hold traffic up, and go with the pod', { skip }, async () => {
  using pod = new TestNamespace()
  const bandwidth = { ingressRate: 4_000_000, ingressBurst: 800_000, egressRate: 2_000_000, egressBurst: 2 ** 31 - 1 }
  const config = weftConfig('1.1.0', { runtimeConfig: { bandwidth } })
  const { json } = ok(await node.call('ADD', { containerId: 'slow', netns: pod.path, config }))
  const host = json.interfaces[1].name
  const ifb = host.replace('veth', 'ifb')
  const buckets = () => node.namespace.json<QdiscReading[]>('tc -j -s qdisc').filter(({ kind }) => kind === 'tbf')
  const bucketOf = (device: string) => buckets().find(({ dev }) => dev === device)!
  assert.equal(bucketOf(host).options!.rate, 500_000)
  assert.equal(bucketOf(host).options!.burst, 100_000)
  assert.equal(bucketOf(ifb).options!.rate, 250_000)
  assert.equal(bucketOf(ifb).options!.burst, 65_536, 'a burst of 2^31-1 means that none was named')
  // More than each bucket holds, as fast as it goes: the queues must have held packets up.
  const address = json.ips[0].address.split('/')[0]
  const blast = (to: string) => `head -c 600000 /dev/zero | socat -u -b 1400 - UDP4-DATAGRAM:${to}:9999`
  node.namespace.run(blast(address))
  pod.run(blast('10.77.0.1'))
  assert.ok(bucketOf(host).bytes! > 100_000)
  assert.ok(bucketOf(host).overlimits! > 0, JSON.stringify(bucketOf(host)))
  assert.ok(bucketOf(ifb).bytes! > 65_536, 'what the pod sends passes the ifb device')
  assert.ok(bucketOf(ifb).overlimits! > 0, JSON.stringify(bucketOf(ifb)))
  const checked = weftConfig('1.1.0', { runtimeConfig: { bandwidth }, prevResult: json })
  ok(await node.call('CHECK', { containerId: 'slow', netns: pod.path, config: checked }))
  node.namespace.run(`tc qdisc del dev ${host} root`)
  const broken = await node.call('CHECK', { containerId: 'slow', netns: pod.path, config: checked })
  assert.match(broken.json.msg, /has lost its tbf limit/)
  ok(await node.call('DEL', { containerId: 'slow' }))
  await node.drained()
})

test('chained behind another plugin: limits and host ports only, its result passed on', { skip }, async () => {
  using pod = new TestNamespace()
  node.namespace.run(
    `ip link add far0 type veth peer name net1 netns ${pod.name} && ip link set far0 up && ip addr add 10.55.0.1/24 dev far0`,
  )
  pod.run('ip link set net1 up && ip addr add 10.55.0.2/24 dev net1 && ip route add default via 10.55.0.1')
  const prevResult = {
    cniVersion: '0.4.0',
    interfaces: [{ name: 'far0' }, { name: 'net1', sandbox: pod.path, mac: '02:00:00:00:00:01' }],
    ips: [{ version: '4', address: '10.55.0.2/24', gateway: '10.55.0.1', interface: 1 }],
    routes: [{ dst: '0.0.0.0/0', gw: '10.55.0.1' }],
    dns: { nameservers: ['10.0.0.10'] },
  }
  const runtimeConfig = {
    portMappings: [{ hostPort: 9090, containerPort: 80, protocol: 'tcp' }],
    bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 },
  }
  const config = weftConfig('0.4.0', { name: 'chain', runtimeConfig, prevResult })
  const call = { containerId: 'chained', ifname: 'net1', netns: pod.path, config }
  assert.deepEqual(ok(await node.call('ADD', call)).json, prevResult)
  const server = await serve(pod, 'TCP-LISTEN:80,reuseaddr', 'chained')
  assert.equal(ask(node.namespace, 'TCP:10.55.0.1:9090'), 'chained')
  server.stop()
  assert.match(node.namespace.run('tc qdisc show dev far0'), /tbf[\s\S]*ingress/)
  ok(await node.call('CHECK', call))
  ok(await node.call('DEL', call))
  assert.doesNotMatch(node.namespace.run('tc qdisc show dev far0'), /tbf|ingress/)
  assert.match(node.namespace.run('ip -o link'), /far0/)
  assert.doesNotMatch(node.namespace.run('nft list table inet weft'), /9090/)
  assert.deepEqual(node.devices(), [])
})
