/**
 * A node of weft and a node of real flanneld in one cluster with one configuration: their pods talk, their words on the
 * Node objects are alike, and one takes the other's place on a node that has pods.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { AgentCluster, type TestNode } from '../netns/agent-cluster.ts'
import type { TestNamespace } from '../netns/namespace.ts'
import { SteadyPing, startServer } from '../netns/steady-ping.ts'
import { buildFlanneld, FlannelNode, type FlannelPod } from './flanneld.ts'
import type { BuiltPeer } from './go-program.ts'

const prefix = 'flannel.alpha.coreos.com/'
const built = buildFlanneld()
const skip = 'missing' in built ? built.missing : false

interface Setting {
  readonly backend: object
  readonly dualStack?: boolean
  /** flanneld carries the packets itself: with it goes its device, and with that what is on its way. */
  readonly carriesItself?: boolean
}
const settings: Readonly<Record<string, Setting>> = {
  vxlan: { backend: { Type: 'vxlan' } },
  'vxlan, dual stack': { backend: { Type: 'vxlan' }, dualStack: true },
  'vxlan with DirectRouting': { backend: { Type: 'vxlan', DirectRouting: true } },
  'host-gw': { backend: { Type: 'host-gw' } },
  udp: { backend: { Type: 'udp' }, carriesItself: true },
  'host-gw, dual stack': { backend: { Type: 'host-gw' }, dualStack: true },
}

for (const [name, setting] of Object.entries(settings)) describe(name, { skip }, () => suite(setting))

/** Sends bytes over TCP inside namespaces and compares what arrives; both ends are processes of their own. */
async function transfer(from: TestNamespace, to: TestNamespace, address: string, bytes: number): Promise<void> {
  const receiver = node(
    to,
    `const hash = require('crypto').createHash('sha256')
     const server = require('net').createServer((socket) => socket.on('data', (chunk) => hash.update(chunk))
       .on('end', () => { console.log(hash.digest('hex')); process.exit() }))
     server.listen({ port: 7777, host: '::' }, () => console.log('listening'))`,
  )
  await receiver.until(/listening/)
  const sender = node(
    from,
    `require('net').connect(7777, '${address}').end(Buffer.alloc(${bytes}, 'weft beside flannel '))`,
  )
  await receiver.until(/[0-9a-f]{64}/)
  const wanted = createHash('sha256').update(Buffer.alloc(bytes, 'weft beside flannel ')).digest('hex')
  assert.ok(receiver.output().includes(wanted), `${address}: the bytes arrive as they were sent`)
  sender.child.kill('SIGKILL')
}

function node(namespace: TestNamespace, script: string) {
  const child: ChildProcess = inNetns(namespace.path, () =>
    spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] }),
  )
  let output = ''
  let wake = () => {}
  child.stdout!.on('data', (chunk) => {
    output += chunk
    wake()
  })
  const until = (pattern: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL')
        reject(new Error(`no ${pattern} but ${JSON.stringify(output)}`))
      }, 60_000)
      wake = () => {
        if (!pattern.test(output)) return
        clearTimeout(timer)
        resolve()
      }
      wake()
    })
  return { child, until, output: () => output }
}

function suite({ backend, dualStack = false, carriesItself = false }: Setting): void {
  // Enough for every kind of burst, where packets pass through two programs instead of one kernel.
  const bytes = carriesItself ? 200 << 20 : 4 << 20
  const netConfig = {
    Network: '10.244.0.0/16',
    EnableNFTables: true,
    ...(dualStack ? { EnableIPv6: true, IPv6Network: 'fd00:10:244::/56' } : {}),
    Backend: backend,
  }
  let cluster: AgentCluster
  let a: TestNode
  let b: TestNode
  let flannel: FlannelNode
  let own: { readonly namespace: TestNamespace; readonly addresses: readonly string[] }
  let theirs: FlannelPod
  const servers: ChildProcess[] = []
  let flannelWords: Record<string, string>

  before(async () => {
    cluster = await AgentCluster.open(netConfig, { tls: true })
    a = await cluster.addNode('weft-node', { dualStack })
    b = await cluster.addNode('flannel-node', { dualStack })
    for (const { namespace } of [a, b]) namespace.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    // A kubelet's: flanneld 0.28.4 ends with a panic on a Node that has no annotation at all.
    const annotations = { 'volumes.kubernetes.io/controller-managed-attach-detach': 'true' }
    await cluster.client.patch('nodes', { name: b.name }, { metadata: { annotations } })
    flannel = new FlannelNode(built as BuiltPeer, b)
    cluster.startAgent(a)
    await Promise.all([cluster.ready(a), flannel.start(netConfig)])
    theirs = flannel.addPod()
    const pod = cluster.addPod(a)
    own = { namespace: pod.namespace, addresses: addressesOf(pod.namespace) }
    servers.push(startServer(theirs.namespace))
  })
  after(async () => {
    for (const server of servers) server.kill('SIGKILL')
    flannel?.close()
    await cluster?.close()
  })

  async function bothWays(): Promise<void> {
    assert.equal(own.addresses.length, dualStack ? 2 : 1)
    assert.equal(theirs.addresses.length, dualStack ? 2 : 1)
    for (const [from, to] of [
      [own, theirs],
      [theirs, own],
    ] as const)
      for (const address of to.addresses) {
        await cluster.until(`${address} answers`, () =>
          from.namespace.succeeds(`ping -c 1 -W 1 ${address}`)
            ? undefined
            : `${a.namespace.run('ip route; ip -6 route; bridge fdb')}\n${b.namespace.run('ip route; ip -6 route; bridge fdb; ip -d link')}\n${flannel.log}`,
        )
        await transfer(from.namespace, to.namespace, address, bytes)
      }
  }

  /** The time to live of an answer: that of a packet that has gone the same way in the other direction. */
  const hopsLeft = (from: TestNamespace, to: string): number =>
    Number(/ttl=(\d+)/.exec(from.run(`ping -c 1 -W 2 ${to}`))?.[1])

  /** The words of flannel's vocabulary on a Node. */
  async function words(name: string): Promise<Record<string, string>> {
    const annotations = (await cluster.getNode(name)).metadata.annotations ?? {}
    const words = Object.fromEntries(Object.entries(annotations).filter(([key]) => key.startsWith(prefix)))
    // flannel's udp backend alone leaves out its name, which weft writes and reads from both.
    if (carriesItself) words[`${prefix}backend-type`] ||= 'udp'
    return words
  }

  test('pods ping each other and move data, both ways', async () => {
    await bothWays()
    // Two forwarding nodes, and two tunnels that each count as a hop where they are programs.
    const expected = carriesItself ? 60 : 62
    assert.equal(hopsLeft(own.namespace, theirs.addresses[0]!), expected)
    assert.equal(hopsLeft(theirs.namespace, own.addresses[0]!), expected)
    flannelWords = await words('flannel-node')
    assert.equal(flannelWords[`${prefix}kube-subnet-manager`], 'true')
    const shape = (of: Record<string, string>) =>
      Object.keys(of)
        .sort()
        .map((key) => `${key} ${Object.keys(JSON.parse(/^[{n]/.test(of[key]!) ? of[key]! : '{}') ?? {}).join()}`)
    assert.deepEqual(shape(await words('weft-node')), shape(flannelWords))
  })

  test('weft takes the place of flanneld on its node, with the same words; no message is lost by the kernel', async () => {
    const stream = await SteadyPing.start(own.namespace, theirs.addresses[0]!, '--icmp')
    try {
      await flannel.stop()
      cluster.startAgent(b, ['--host-local-dir', `${b.folder}/host-local`])
      await cluster.ready(b)
      await cluster.until('the weft node is spoken to by weft', async () => {
        const status = (await cluster.getNode('flannel-node')).metadata.annotations?.['weft.dev/node-status']
        return status ? undefined : cluster.log(b).slice(-2000)
      })
      await bothWays()
      const pod = cluster.addPod(b)
      assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${own.addresses[0]}`), 'a new pod of weft on the old bridge')
      assert.ok(pod.namespace.succeeds(`ping -c 1 -W 2 ${theirs.addresses[0]}`), 'beside an old one')
      assert.ok(!theirs.addresses.includes(pod.address))
      cluster.cni(b, 'DEL', pod.containerId, pod.namespace.path)
      const counts = await stream.stop()
      console.log(JSON.stringify(counts))
      if (!carriesItself) assert.equal(counts.lost, 0)
    } finally {
      stream.kill()
    }
    assert.deepEqual(await words('flannel-node'), flannelWords)
  })

  test('and flanneld takes the place of weft again', async () => {
    await cluster.stopAgent(b)
    if (carriesItself) {
      // The tunnel outlives its agent, and holds the device's name and the port that flanneld wants.
      b.namespace.run('ip link del flannel0')
      await cluster.until('the port is free', () => b.namespace.run('ss -Hlun sport = 8285') || undefined)
    }
    await flannel.start(netConfig)
    await bothWays()
    assert.deepEqual(await words('flannel-node'), flannelWords)
  })
}

const addressesOf = (pod: TestNamespace): string[] =>
  pod
    .json<{ addr_info: { local: string; scope: string }[] }[]>('ip -j address show dev eth0')
    .flatMap(({ addr_info }) => addr_info)
    .filter(({ scope }) => scope === 'global')
    .map(({ local }) => local)
