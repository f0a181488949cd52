import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { after, before, test } from 'node:test'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import { connectIn, listenIn } from '../../src/lab/connect.ts'
import { LAB_VARIABLE } from '../../src/lab/process.ts'
import { netConfigFor } from '../../src/lab/spec.ts'
import { followPacket, type Hop } from '../../src/lab/walk.ts'
import { SteadyPing } from '../netns/steady-ping.ts'
import { machineState } from '../netns/test-lab.ts'
import { serverContainer, TestCluster, type TestPod, until } from './test-cluster.ts'

let lab: TestCluster
let machineBefore = ''
const pods: Record<string, TestPod> = {}

interface Node {
  readonly metadata: { readonly name: string; readonly resourceVersion: string }
  readonly spec: { readonly podCIDRs: readonly string[] }
  readonly status: {
    readonly conditions: readonly { readonly type: string; readonly status: string; readonly message: string }[]
  }
}

/** n1 and n3 share a subnet; n2 is behind the router. */
before(async () => {
  machineBefore = machineState()
  lab = await TestCluster.start({ nodes: 3, subnets: 2 })
})
after(() => lab?.down())

const nodesNow = async (): Promise<readonly Node[]> => (await lab.cluster.get<{ items: Node[] }>('nodes')).items
const readyOf = (node: Node) => node.status.conditions.find(({ type }) => type === 'Ready')!

test('no node is Ready before its network works, each as soon as its own agent serves', async () => {
  const { cluster } = lab
  // What makes a kubelet ready apart from the network is there when it says that the network is all that lacks.
  const waiting = new Set(cluster.nodes.map(({ name }) => name))
  while (waiting.size > 0)
    for (const node of await nodesNow()) {
      assert.equal(readyOf(node).status, 'False', node.metadata.name)
      if (/cni plugin not initialized/.test(readyOf(node).message)) waiting.delete(node.metadata.name)
    }
  for (const { machine } of cluster.nodes) assert.ok(!existsSync(machine.outside('/etc/cni/net.d/10-weft.conflist')))
  await cluster.prepareAgents()
  await cluster.startAgents(['n1'])
  await cluster.waitReady(['n1'])
  for (const node of await nodesNow())
    assert.equal(readyOf(node).status, node.metadata.name === 'n1' ? 'True' : 'False', node.metadata.name)
  await cluster.startAgents(['n2', 'n3'])
  await cluster.waitReady()
  for (const node of await nodesNow()) assert.equal(node.spec.podCIDRs.length, 2)
})

test('a DaemonSet has a pod on every node, a Deployment as many as it asks for, each pod with an address of both families', async () => {
  const { cluster } = lab
  const workload = (kind: string, name: string, more: object) => ({
    apiVersion: 'apps/v1',
    kind,
    metadata: { name, namespace: 'default' },
    spec: {
      ...more,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: { terminationGracePeriodSeconds: 0, containers: [serverContainer] },
      },
    },
  })
  await cluster.apply([workload('DaemonSet', 'everywhere', {}), workload('Deployment', 'some', { replicas: 4 })])
  for (const what of ['daemonset/everywhere', 'deployment/some'])
    await cluster.kubectl('rollout', 'status', what, '--timeout=90s')
  const everywhere = await lab.pods('app=everywhere')
  assert.deepEqual(everywhere.map(({ node }) => node).sort(), ['n1', 'n2', 'n3'])
  for (const pod of everywhere) pods[pod.node] = pod
  const some = await lab.pods('app=some')
  assert.equal(some.length, 4)
  const cidrs = Object.fromEntries((await nodesNow()).map(({ metadata, spec }) => [metadata.name, spec.podCIDRs]))
  for (const pod of [...everywhere, ...some]) {
    assert.ok(pod.ip.startsWith(cidrs[pod.node]![0]!.replace(/\.0\/24$/, '.')), `${pod.ip} of ${pod.node}`)
    assert.ok(pod.ip6?.startsWith(cidrs[pod.node]![1]!.replace(/:\/64$/, '')), `${pod.ip6} of ${pod.node}`)
  }
  assert.equal(new Set([...everywhere, ...some].map(({ ip }) => ip)).size, 7)
  await cluster.kubectl('delete', 'deployment/some', '--wait=false')
})

test('kubectl exec, logs and port-forward reach a pod', async () => {
  const { cluster } = lab
  const { name } = pods.n2!
  assert.match(await lab.exec(name, 'ip', 'address', 'show', 'dev', 'eth0'), new RegExp(pods.n2!.ip))
  assert.match(await cluster.kubectl('logs', name), /Started HTTP server on port 8080/)
  const forward = inNetns(cluster.fabricNetns, () =>
    spawn('kubectl', ['port-forward', `pod/${name}`, '18080:8080'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, KUBECONFIG: cluster.kubeconfig, [LAB_VARIABLE]: cluster.name },
    }),
  )
  try {
    await new Promise<void>((resolve, reject) => {
      forward.once('exit', (code) => reject(new Error(`kubectl port-forward ended: ${code}`)))
      forward.stdout!.once('data', () => resolve())
    })
    const socket = connectIn(cluster.fabricNetns, '127.0.0.1', 18080)
    socket.write('GET /hostname HTTP/1.0\r\n\r\n')
    let answer = ''
    for await (const chunk of socket) answer += chunk
    assert.ok(answer.endsWith(name), answer)
  } finally {
    forward.removeAllListeners('exit')
    forward.kill()
  }
})

const walk = async (from: TestPod, to: TestPod): Promise<readonly Hop[]> => {
  const end = (pod: TestPod) => ({ pod: pod.name, node: pod.node, netnsPath: pod.netnsPath, ip: pod.ip })
  const { hops, answered } = await followPacket(lab.cluster.name, end(from), end(to))
  assert.ok(answered, `${from.name} → ${to.name} is not answered; seen at ${hops.map(({ place }) => place).join(', ')}`)
  return hops.filter((hop) => hop.device === 'eth0' && /^node/.test(hop.place))
}

/** Pods move megabytes and say who asked: nobody translates addresses between pods. */
async function talk(from: TestPod, to: TestPod): Promise<void> {
  for (const ip of [to.ip, to.ip6!]) {
    await lab.exec(from.name, 'ping', '-c', '2', '-W', '5', ip)
    const url = `http://${ip.includes(':') ? `[${ip}]` : ip}:8080`
    const asked = await lab.exec(from.name, 'wget', '-q', '-O', '-', `${url}/clientip`)
    assert.ok(asked.includes(ip.includes(':') ? from.ip6! : from.ip), `${to.name} was asked by ${asked}`)
  }
  for (const ip of [to.ip, to.ip6!]) assert.equal(await move(from, to, ip), MOVED_BYTES)
}

const MOVED_BYTES = 8 << 20

/** Sends bytes over one TCP connection between two pods; resolves with how many arrived. */
async function move(from: TestPod, to: TestPod, ip: string): Promise<number> {
  const server = createServer()
  server.listen({ fd: listenIn(to.netnsPath, 9000) })
  try {
    const arrived = new Promise<number>((resolve, reject) => {
      server.once('connection', (socket) => {
        let bytes = 0
        socket.on('data', (chunk) => {
          bytes += chunk.length
        })
        socket.once('end', () => resolve(bytes)).once('error', reject)
        socket.resume()
      })
    })
    const socket = connectIn(from.netnsPath, ip, 9000)
    const failed = new Promise<never>((_, reject) => socket.once('error', reject))
    socket.setTimeout(30_000, () => socket.destroy(new Error(`nothing moves from ${from.name} to ${ip}`)))
    socket.end(Buffer.alloc(MOVED_BYTES))
    return await Promise.race([arrived, failed])
  } finally {
    server.close()
  }
}

const encapsulations: Record<string, { near: RegExp; far: RegExp | undefined }> = {
  vxlan: { near: /VXLAN VNI 1/, far: /VXLAN VNI 1/ },
  'vxlan-direct': { near: /^bare$/, far: /VXLAN VNI 1/ },
  // The router between the subnets knows no pod route.
  'host-gw': { near: /^bare$/, far: undefined },
  udp: { near: /UDP.* 8285/, far: /UDP.* 8285/ },
}

for (const [backend, { near, far }] of Object.entries(encapsulations))
  test(`${backend}: switched to by the ConfigMap without a lost packet; pods ping, ask and move data`, async () => {
    const { n1, n2, n3 } = pods as Record<'n1' | 'n2' | 'n3', TestPod>
    const pings = [await SteadyPing.start({ path: n1.netnsPath }, n3.ip, '--icmp')]
    try {
      await lab.cluster.switchTo(netConfigFor(backend, true))
    } finally {
      for (const ping of pings) {
        const { sent, lost } = await ping.stop()
        assert.ok(sent > 0)
        assert.equal(lost, 0)
      }
    }
    for (const hop of await walk(n1, n3)) assert.match(hop.encapsulation ?? 'bare', near)
    await talk(n1, n3)
    if (far === undefined) return
    for (const hop of await walk(n1, n2)) assert.match(hop.encapsulation ?? 'bare', far)
    await talk(n2, n1)
  })

test('a node that is deleted is gone from every other node', async (t) => {
  const { cluster } = lab
  const [gone] = (await nodesNow()).filter(({ metadata }) => metadata.name === 'n3')
  const routesOf = (name: string): string =>
    ['-4', '-6'].map((family) => cluster.node(name).machine.run('ip', family, 'route')).join('\n')
  const others = ['n1', 'n2']
  const prefixes = gone!.spec.podCIDRs
  for (const name of others) for (const prefix of prefixes) assert.ok(routesOf(name).includes(prefix), name)
  await cluster.dropNode('n3')
  await cluster.kubectl('delete', 'node', 'n3')
  const startedAt = performance.now()
  await until(`rid of ${prefixes}`, () =>
    others.every((name) => prefixes.every((prefix) => !routesOf(name).includes(prefix))),
  )
  t.diagnostic(`gone ${Math.round(performance.now() - startedAt)} ms after kubectl had ended`)
})

test('a node that was off comes back with its pods, which reach the others', async () => {
  const { cluster } = lab
  const before = readFileSync(cluster.node('n2').machine.stateOf('init'), 'utf8')
  await cluster.rebootNode('n2')
  assert.notEqual(readFileSync(cluster.node('n2').machine.stateOf('init'), 'utf8'), before)
  await cluster.startAgents(['n2'])
  await cluster.kubectl('rollout', 'restart', 'daemonset/everywhere')
  await cluster.kubectl('rollout', 'status', 'daemonset/everywhere', '--timeout=120s')
  const [n1, n2] = (await lab.pods('app=everywhere')).sort((a, b) => a.node.localeCompare(b.node))
  await talk(n2!, n1!)
})

test('the machine itself is as it was', () => {
  assert.equal(machineState(), machineBefore)
})
