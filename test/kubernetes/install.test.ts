/**
 * The product as a user gets it: the image, `weft install`, an upgrade, `weft uninstall`, on a real cluster. Agents are the
 * pods of the DaemonSet, with exactly the rights and capabilities of the manifest.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { netConfigFor } from '../../src/lab/spec.ts'
import { InstallationFiles, imageName, weft } from './installation.ts'
import { TestCluster, type TestPod } from './test-cluster.ts'

const files = new InstallationFiles()
let netConfig: string
let test_: TestCluster
let fresh: Record<string, string>
let pods: TestPod[] = []

/** Everything of a node that weft might touch; timers and counters run on by themselves. */
function snapshot(node: string): string {
  const { machine } = test_.cluster.node(node)
  const shell = (command: string) => machine.run('sh', '-c', command)
  return [
    shell("ip -d link | sed -E 's/[a-z]+_timer +[0-9.]+//g'"),
    shell(
      'ip rule; ip -6 rule; ip route show table all; ip -6 route show table all proto static; ip -6 route show proto 119',
    ),
    shell("nft list ruleset | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/'"),
    shell('find /etc/cni /opt/cni /run/weft /run/flannel /var/lib/weft 2>/dev/null | sort'),
    shell(
      "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding 2>/dev/null; sysctl -a 2>/dev/null | grep '[.]rp_filter'",
    ),
  ].join('\n---\n')
}

before(async () => {
  netConfig = files.write('net-conf.json', netConfigFor('vxlan', true))
  test_ = await TestCluster.start({ nodes: 2 })
  test_.cluster.loadImage(files.buildImage('1.0.0'))
  fresh = Object.fromEntries(['n1', 'n2'].map((name) => [name, snapshot(name)]))
})
after(async () => {
  await test_?.down()
  files.remove()
})

test('one command: agents from the image on every node, nodes Ready, pods talk', async () => {
  const said = await weft(
    test_.cluster,
    'install',
    '--image',
    imageName('1.0.0'),
    '--net-config',
    netConfig,
    '--wait',
    '120',
  )
  assert.match(said, /^DaemonSet kube-flannel\/weft-agent: ready on every node$/m)
  assert.match(said, /^ValidatingAdmissionPolicy weft-agent-own-node: applied$/m)
  await test_.cluster.waitReady()
  pods = [await test_.server('a', 'n1'), await test_.server('b', 'n2')]
  const [a, b] = pods as [TestPod, TestPod]
  for (const ip of [b.ip, b.ip6!]) await test_.exec(a.name, 'ping', '-c', '2', '-W', '5', ip)
})

test('an agent may do what it has to, and nothing near to that; and write its own node alone', async () => {
  const { cluster } = test_
  const can = async (verb: string, what: string, ...more: string[]) => {
    const account = '--as=system:serviceaccount:kube-flannel:weft-agent'
    const { stdout } = await cluster.inFabric([
      'kubectl',
      '--kubeconfig',
      cluster.kubeconfig,
      'auth',
      'can-i',
      verb,
      what,
      account,
      ...more,
    ])
    return stdout.trim()
  }
  assert.equal(await can('patch', 'nodes', '--subresource=status'), 'yes')
  for (const [verb, what] of [
    ['patch', 'nodes'],
    ['delete', 'nodes'],
    ['list', 'pods'],
    ['get', 'secrets'],
    ['create', 'pods'],
  ] as const)
    assert.equal(await can(verb, what), 'no', `${verb} ${what}`)
  const server = (
    await cluster.kubectl('config', 'view', '--raw', '-o', 'jsonpath={.clusters[0].cluster.server}')
  ).trim()
  const token = await cluster.agentToken('n1')
  /** As n1's agent does it; kubectl would read the subresource first. */
  const annotate = async (node: string): Promise<string> => {
    const headers = [`Authorization: Bearer ${token}`, 'Content-Type: application/merge-patch+json']
    const body = JSON.stringify({ metadata: { annotations: { 'example.test/x': null } } })
    const argv = ['curl', '-sk', '-X', 'PATCH', '-d', body, ...headers.flatMap((header) => ['-H', header])]
    return (await cluster.inFabric([...argv, `${server}/api/v1/nodes/${node}/status`])).stdout
  }
  assert.match(await annotate('n1'), /"kind": ?"Node"/)
  assert.match(await annotate('n2'), /a weft agent may write its own node's status only/)
})

test('weft uninstall leaves every node as it was before, and the cluster without a word of weft', async () => {
  const { cluster } = test_
  await cluster.kubectl('delete', 'pod', 'a', 'b', '--wait')
  const said = await weft(cluster, 'uninstall', '--image', imageName('1.0.0'), '--wait', '120')
  assert.match(said, /every node is clean/)
  for (const [name, before] of Object.entries(fresh)) assert.equal(snapshot(name), before, name)
  const { items } = await cluster.get<{
    items: { metadata: { annotations: Record<string, string> }; status: { conditions: { type: string }[] } }[]
  }>('nodes')
  for (const { metadata, status } of items) {
    assert.deepEqual(
      Object.keys(metadata.annotations).filter((key) => /weft|flannel/.test(key)),
      [],
    )
    assert.ok(!status.conditions.some(({ type }) => type === 'NetworkUnavailable'))
  }
  const kinds =
    'clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces'
  const left = await cluster.kubectl('get', kinds, '-l', 'app.kubernetes.io/part-of=weft', '-o', 'name')
  assert.equal(left.replaceAll('namespace/kube-flannel', '').trim(), '')
})
