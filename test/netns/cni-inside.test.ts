/**
 * CNI_NETNS as the caller sees it and the agent does not: in another mount namespace, by a process id, through a link. The
 * plugin goes inside, and its connection tells the agent which namespace that is.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { CniNode, cannotRun, fails, ok, weftConfig } from './cni-node.ts'
import { TestNamespace } from './namespace.ts'

const skip = cannotRun
/** As in a container: mounts and process ids of its own. */
const container = [
  ...['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private'],
  ...['sh', '-c', 'mount -t tmpfs none /run/netns && exec "$@"', 'sh'],
]
let folder: string
let outside: CniNode
let contained: CniNode

before(async () => {
  if (skip) return
  folder = mkdtempSync(join(tmpdir(), 'weft-inside-'))
  outside = new CniNode()
  contained = new CniNode({}, container)
  await Promise.all([outside.start(), contained.start()])
})
after(async () => {
  if (skip) return
  await contained.stop('SIGKILL')
  await Promise.all([outside.delete(), contained.delete()])
  rmSync(folder, { recursive: true })
})

/** A process in a namespace; its id is what runtimes without named namespaces pass. */
async function processIn(namespace: TestNamespace): Promise<{ pid: number; end(): void }> {
  const child = spawn('nsenter', [`--net=${namespace.path}`, 'sh', '-c', 'echo; exec sleep 1000'])
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve)
    child.once('error', reject)
  })
  return { pid: child.pid!, end: () => void child.kill() }
}

async function wholeLife(node: CniNode, pod: TestNamespace, netns: string): Promise<void> {
  const config = weftConfig('1.1.0', { runtimeConfig: { bandwidth: { egressRate: 1e8, ingressRate: 1e8 } } })
  const containerId = 'inside'
  const { json } = ok(await node.call('ADD', { containerId, netns, config }))
  assert.equal(json.interfaces[2].sandbox, netns, 'the answer has the path of the caller')
  pod.run('ping -c 1 -W 5 10.77.0.1 && ping -c 1 -W 5 fd00:77::1')
  fails(await node.call('ADD', { containerId, netns, config }), 104, /attached already/)
  ok(await node.call('CHECK', { containerId, netns, config: { ...config, prevResult: json } }))
  await node.stop('SIGKILL')
  await node.start()
  ok(await node.call('CHECK', { containerId, netns, config: { ...config, prevResult: json } }))
  ok(await node.call('DEL', { containerId, netns, config }))
  await node.drained()
  assert.doesNotMatch(pod.run('ip -o link'), /eth0/)
}

for (const where of ['outside', 'in a container'] as const) {
  const node = () => (where === 'outside' ? outside : contained)
  test(`agent ${where}: a path in /run/netns that was made after its start`, { skip }, async () => {
    using pod = new TestNamespace()
    await wholeLife(node(), pod, pod.path)
  })

  test(`agent ${where}: /proc/<pid>/ns/net of the caller's process ids`, { skip }, async () => {
    using pod = new TestNamespace()
    const { pid, end } = await processIn(pod)
    try {
      await wholeLife(node(), pod, `/proc/${pid}/ns/net`)
    } finally {
      end()
    }
  })

  test(`agent ${where}: a link, and a bridge chained behind another plugin`, { skip }, async () => {
    using pod = new TestNamespace()
    const link = join(folder, `link to ${where}`)
    symlinkSync(pod.path, link)
    await wholeLife(node(), pod, link)
    node().namespace.run(`ip link add other0 type veth peer name eth0 netns ${pod.name} && ip link set other0 up`)
    const config = weftConfig('1.0.0', {
      runtimeConfig: { bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000 } },
      prevResult: { cniVersion: '1.0.0', ips: [{ address: '10.95.0.2/24' }] },
    })
    ok(await node().call('ADD', { containerId: 'chained', netns: link, config }))
    assert.match(node().namespace.run('tc qdisc show dev other0'), /tbf/)
    ok(await node().call('DEL', { containerId: 'chained', netns: link, config }))
  })

  test(`agent ${where}: what is no namespace, or its own, is refused`, { skip }, async () => {
    const add = (netns: string) => node().call('ADD', { netns })
    fails(await add('/run/netns/weft-test-nothing'), 3, /no such network namespace/)
    fails(await add('/proc/999999999/ns/net'), 3, /no such network namespace/)
    fails(await add('/etc/passwd'), 4, /is not a network namespace/)
    fails(await add('/dev/zero'), 4, /is not a network namespace/)
    fails(await add('/proc/self/ns/mnt'), 4, /is not a network namespace/)
    const fifo = join(folder, `fifo ${where}`)
    execFileSync('mkfifo', [fifo])
    fails(await add(fifo), 4, /is not a network namespace/)
    const { pid, end } = await processIn(node().namespace)
    try {
      fails(await add(`/proc/${pid}/ns/net`), 4, /own network namespace/)
    } finally {
      end()
    }
    assert.deepEqual(node().devices(), [])
  })
}

test('a container that the agent cannot see is kept until DEL, also without its device', { skip }, async () => {
  using pod = new TestNamespace()
  const { json } = ok(await contained.call('ADD', { containerId: 'bare', netns: pod.path }))
  await contained.stop('SIGKILL')
  contained.namespace.run(`ip link delete ${json.interfaces[1].name}`)
  assert.equal((await contained.start()).kept, 1)
  ok(await contained.call('DEL', { containerId: 'bare', netns: pod.path }))
  assert.equal((await contained.call('DEL', { containerId: 'bare' })).exitCode, 0)
})
