/**
 * The backend udp from the DaemonSet: the process that carries packets is started by the agent and outlives its container, its
 * pod and its image's version.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { netConfigFor } from '../../src/lab/spec.ts'
import { SteadyPing } from '../netns/steady-ping.ts'
import { agentSelector, InstallationFiles, imageName, weft } from './installation.ts'
import { TestCluster, type TestPod } from './test-cluster.ts'

const files = new InstallationFiles()
let lab: TestCluster
let netConfig: string
let a: TestPod
let b: TestPod

before(async () => {
  netConfig = files.write('net-conf.json', netConfigFor('udp', false))
  lab = await TestCluster.start({ nodes: 2, ipv6: false })
  for (const tag of ['1.0.0', '2.0.0']) lab.cluster.loadImage(files.buildImage(tag))
})
after(async () => {
  await lab?.down()
  files.remove()
})

const wishes = (tag: string): string[] => [
  ...['--image', imageName(tag), '--net-config', netConfig, '--privileged', '--no-controller'],
]

/** Process ids of tunnels on a node, and the cgroups of each. */
function tunnels(node: string): Record<string, string> {
  const { machine } = lab.cluster.node(node)
  const pids = machine.run('sh', '-c', 'pgrep -x weft-tunnel || true').trim().split('\n').filter(Boolean)
  return Object.fromEntries(pids.map((pid) => [pid, machine.run('cat', `/proc/${pid}/cgroup`)]))
}

/** `what` happens while a pod pings one of another node, both ways, a thousand times a second. */
async function undisturbed(what: () => Promise<unknown>): Promise<void> {
  const pings = await Promise.all([
    SteadyPing.start({ path: a.netnsPath }, b.ip, '--icmp'),
    SteadyPing.start({ path: b.netnsPath }, a.ip, '--icmp'),
  ])
  try {
    await what()
  } finally {
    for (const ping of pings) {
      const { sent, lost } = await ping.stop()
      console.log(`${sent} sent, ${lost} lost`)
      assert.ok(sent > 1000)
      assert.equal(lost, 0)
    }
  }
}

test('the tunnel runs where process 1 does, from no file of the image', async () => {
  // As from deploy/weft.yaml: the manifest alone, by kubectl.
  await lab.cluster.apply(await weft(lab.cluster, 'install', ...wishes('1.0.0'), '--output', 'yaml'))
  await lab.cluster.waitReady()
  a = await lab.server('a', 'n1')
  b = await lab.server('b', 'n2')
  await lab.exec('a', 'ping', '-c', '2', '-W', '5', b.ip)
  for (const node of ['n1', 'n2']) {
    const { machine } = lab.cluster.node(node)
    const found = Object.entries(tunnels(node))
    assert.equal(found.length, 1, node)
    const [pid, cgroups] = found[0]!
    assert.equal(cgroups, machine.run('cat', '/proc/1/cgroup'))
    assert.match(machine.run('readlink', `/proc/${pid}/exe`), /^\/memfd:weft-tunnel/)
    for (const kind of ['mnt', 'cgroup', 'pid', 'net'])
      assert.equal(machine.run('readlink', `/proc/${pid}/ns/${kind}`), machine.run('readlink', `/proc/1/ns/${kind}`))
  }
})

test('agents are killed, then their pods deleted: no packet is lost, and the tunnels are the same processes', async () => {
  const { cluster } = lab
  const before = [tunnels('n1'), tunnels('n2')]
  await undisturbed(async () => {
    for (const node of ['n1', 'n2']) {
      const { machine } = cluster.node(node)
      const pid = machine.run('pgrep', '-f', '^/usr/bin/node .*weft agent ').trim()
      machine.run('kill', '-9', pid)
    }
    await cluster.kubectl('delete', 'pod', '-n', 'kube-flannel', '-l', agentSelector, '--wait')
    await cluster.kubectl('rollout', 'status', '-n', 'kube-flannel', 'daemonset/weft-agent', '--timeout=90s')
  })
  assert.deepEqual([tunnels('n1'), tunnels('n2')], before)
})

test('an upgrade loses no packet', async () => {
  await undisturbed(() => weft(lab.cluster, 'install', ...wishes('2.0.0'), '--wait', '120'))
  const said = await lab.cluster.kubectl(
    'get',
    'pods',
    '-n',
    'kube-flannel',
    '-o',
    'jsonpath={.items[*].spec.containers[*].image}',
  )
  assert.equal(said, `${imageName('2.0.0')} ${imageName('2.0.0')}`)
})

test('a tunnel that is killed is started again by the agent, outside as before', async () => {
  const { machine } = lab.cluster.node('n1')
  const [before] = Object.keys(tunnels('n1'))
  machine.run('kill', '-9', before!)
  const answered = () =>
    lab.exec('a', 'ping', '-c', '1', '-W', '1', b.ip).then(
      () => true,
      () => false,
    )
  for (const end = performance.now() + 60_000; !(await answered()); ) assert.ok(performance.now() < end, 'no answer')
  const [[after, cgroups] = []] = Object.entries(tunnels('n1'))
  assert.notEqual(after, before)
  assert.equal(cgroups, machine.run('cat', '/proc/1/cgroup'))
})

test('uninstalling ends the tunnels', async () => {
  await lab.cluster.kubectl('delete', 'pod', 'a', 'b', '--wait')
  await weft(lab.cluster, 'uninstall', '--image', imageName('2.0.0'), '--privileged', '--wait', '120')
  assert.deepEqual([tunnels('n1'), tunnels('n2')], [{}, {}])
  for (const node of ['n1', 'n2']) assert.doesNotMatch(lab.cluster.node(node).machine.run('ip', 'link'), /flannel|cni0/)
})
