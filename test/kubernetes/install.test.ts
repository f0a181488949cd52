/**
 * The product as a user gets it: the image, `weft install`, an upgrade, `weft uninstall`, on a real cluster. Agents are the
 * pods of the DaemonSet, with exactly the rights and capabilities of the manifest.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { netConfigFor } from '../../src/lab/spec.ts'
import { agentSelector, InstallationFiles, imageName, weft } from './installation.ts'
import { TestCluster } from './test-cluster.ts'

const files = new InstallationFiles()
let netConfig: string
let lab: TestCluster
let fresh: Record<string, string>

/** Everything of a node that weft might touch; timers and counters run on by themselves. */
function snapshot(node: string): string {
  const { machine } = lab.cluster.node(node)
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
  lab = await TestCluster.start({ nodes: 2 })
  lab.cluster.loadImage(files.buildImage('1.0.0'))
  fresh = Object.fromEntries(['n1', 'n2'].map((name) => [name, snapshot(name)]))
})
after(async () => {
  await lab?.down()
  files.remove()
})

const given = (): string[] => ['--image', imageName('1.0.0'), '--net-config', netConfig]

/** Objects of weft, whatever their kind; definitions of Calico's objects stay when weft goes. */
async function objectsOfWeft(definitionsToo = false): Promise<string[]> {
  const kinds = [
    ...['namespaces', 'serviceaccounts', 'clusterroles', 'clusterrolebindings', 'roles', 'rolebindings', 'leases'],
    ...['configmaps', 'daemonsets', 'deployments', 'validatingadmissionpolicies', 'validatingadmissionpolicybindings'],
    ...(definitionsToo ? ['customresourcedefinitions'] : []),
  ]
  const names = await lab.cluster.kubectl(
    ...['get', kinds.join(), '--all-namespaces', '-l', 'app.kubernetes.io/part-of=weft', '-o', 'name'],
  )
  return names.trim().split('\n').filter(Boolean)
}

test('a dry installation is checked by the API server and keeps nothing', async () => {
  const said = await weft(lab.cluster, 'install', ...given(), '--dry-run', '--wait', '60')
  assert.match(said, /^ClusterRole weft-controller: applied$/m)
  assert.match(said, /^DaemonSet kube-flannel\/weft-agent: not checked, its namespace is not there yet$/m)
  assert.deepEqual(await objectsOfWeft(), [])
  await lab.cluster.kubectl('create', 'namespace', 'network')
  const there = await weft(lab.cluster, 'install', ...given(), '--namespace', 'network', '--dry-run')
  assert.match(there, /^DaemonSet network\/weft-agent: applied$/m)
  assert.match(there, /^Deployment network\/weft-controller: applied$/m)
  assert.deepEqual(await objectsOfWeft(), [])
  await lab.cluster.kubectl('delete', 'namespace', 'network', '--wait=false')
})

test('one command: agents from the image on every node, nodes Ready, pods talk', async () => {
  const said = await weft(lab.cluster, 'install', ...given(), '--wait', '120')
  assert.match(said, /^DaemonSet kube-flannel\/weft-agent: ready on every node$/m)
  assert.match(said, /^Deployment kube-flannel\/weft-controller: ready$/m)
  assert.match(said, /^ValidatingAdmissionPolicy weft-agent-own-node: applied$/m)
  await lab.cluster.waitReady()
  await lab.server('a', 'n1')
  const b = await lab.server('b', 'n2')
  for (const ip of [b.ip, b.ip6!]) await lab.exec('a', 'ping', '-c', '2', '-W', '5', ip)
})

/** What a runtime without named namespaces does: the node's process ids and most of its paths mean nothing in the agent's pod. */
const byHand = `
unshare --net sleep 600 & pid=$!
trap 'kill $pid' EXIT
until [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
mkdir -p /var/elsewhere && touch /var/elsewhere/pod && mount --bind /proc/$pid/ns/net /var/elsewhere/pod
call() { echo '{"cniVersion":"1.0.0","name":"weft","type":"weft"}' |
  CNI_COMMAND=$1 CNI_CONTAINERID=byhand CNI_NETNS=$2 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/weft; }
for path in /proc/$pid/ns/net /var/elsewhere/pod; do
  call ADD $path || exit 1
  nsenter --net=/proc/$pid/ns/net ping -c 2 -W 5 "$1" || exit 1
  call DEL $path || exit 1
  timeout 20 sh -c "while nsenter --net=/proc/$pid/ns/net ip link show eth0 >/dev/null 2>&1; do :; done" || exit 1
done
umount /var/elsewhere/pod; rm -r /var/elsewhere
call ADD /var/elsewhere/pod && exit 1
echo done`

test('a namespace that the agent cannot see from its pod: by a process id, at a path of the node alone', async () => {
  const { ip } = (await lab.pods('app=b'))[0]!
  const said = lab.cluster.node('n1').machine.run('sh', '-c', byHand, 'sh', ip)
  assert.match(said, /"sandbox": "\/proc\/\d+\/ns\/net"/)
  assert.match(said, /"sandbox": "\/var\/elsewhere\/pod"/)
  assert.match(said, /no such network namespace[\s\S]*\ndone/)
})

/** The token in the agent's pod on a node. */
async function tokenOfAgent(node: string): Promise<string> {
  const { items } = await lab.cluster.get<{ items: { metadata: { uid: string } }[] }>(
    ...['pods', '-n', 'kube-flannel', '-l', agentSelector, '--field-selector', `spec.nodeName=${node}`],
  )
  const volumes = `/var/lib/kubelet/pods/${items[0]!.metadata.uid}/volumes/kubernetes.io~projected`
  return lab.cluster.node(node).machine.run('sh', '-c', `cat ${volumes}/*/token`).trim()
}

/** What the API server answers to somebody's merge patch of `path` below /api/v1. */
async function patchAs(token: string, path: string, body: object): Promise<string> {
  const { cluster } = lab
  const config = JSON.parse(await cluster.kubectl('config', 'view', '--raw', '-o', 'json')) as {
    clusters: [{ cluster: { server: string } }]
  }
  const { server } = config.clusters[0].cluster
  const headers = [`Authorization: Bearer ${token}`, 'Content-Type: application/merge-patch+json']
  const argv = [
    'curl',
    '-sk',
    '-X',
    'PATCH',
    '-d',
    JSON.stringify(body),
    ...headers.flatMap((header) => ['-H', header]),
  ]
  return (await cluster.inFabric([...argv, `${server}/api/v1/${path}`])).stdout
}

test('an agent writes the status of its own node alone, and no labels', async () => {
  const { cluster } = lab
  const own = await tokenOfAgent('n1')
  const annotation = { metadata: { annotations: { 'example.test/x': null } } }
  assert.match(await patchAs(own, 'nodes/n1/status', annotation), /"kind": ?"Node"/)
  const others = "a weft agent may write its own node's status only"
  assert.match(await patchAs(own, 'nodes/n2/status', annotation), new RegExp(others))
  assert.match(
    await patchAs(own, 'nodes/n1/status', { metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } } }),
    /a weft agent may not change labels of nodes/,
  )
  assert.match(await patchAs(own, 'nodes/n1', { spec: { unschedulable: true } }), /cannot patch resource .*nodes/)
  // One that nobody's pod has says of no node that it is its own.
  const loose = await cluster.token({})
  assert.match(await patchAs(loose, 'nodes/n1/status', annotation), new RegExp(others))
})

test('of pods an agent writes annotations, and of those of its own node alone', async () => {
  const own = await tokenOfAgent('n1')
  const pod = (name: string) => `namespaces/default/pods/${name}`
  const written = { metadata: { annotations: { 'cni.projectcalico.org/podIP': '10.244.0.9/32' } } }
  assert.match(await patchAs(own, `${pod('a')}/status`, written), /"kind": ?"Pod"/)
  assert.match(await patchAs(own, `${pod('b')}/status`, written), /may write on pods of its own node only/)
  assert.match(
    await patchAs(own, `${pod('a')}/status`, { metadata: { labels: { app: 'b' } } }),
    /a weft agent may not change labels of pods/,
  )
  const phase = { status: { phase: 'Failed' } }
  assert.match(await patchAs(own, `${pod('a')}/status`, phase), /may write annotations of pods, and nothing else/)
  assert.match(await patchAs(own, pod('a'), written), /cannot patch resource .*pods/)
  await patchAs(own, `${pod('a')}/status`, { metadata: { annotations: { 'cni.projectcalico.org/podIP': null } } })
})

test('an uninstallation that keeps the nodes takes the objects away and leaves pods their network', async () => {
  const { cluster } = lab
  const said = await weft(cluster, 'uninstall', ...given().slice(0, 2), '--keep-nodes')
  assert.doesNotMatch(said, /clean/)
  assert.match(said, /^CustomResourceDefinition ippools\.crd\.projectcalico\.org: stays, with its objects/m)
  assert.deepEqual(await objectsOfWeft(), [])
  const b = (await lab.pods('app=b'))[0]!
  await lab.exec('a', 'ping', '-c', '2', '-W', '5', b.ip)
  assert.match(cluster.node('n1').machine.run('ip', 'link'), / cni0: /)
  // Over what is there: nothing of it is lost.
  await weft(cluster, 'install', ...given(), '--wait', '120')
  await lab.exec('a', 'ping', '-c', '2', '-W', '5', b.ip)
})

test('weft uninstall leaves every node as it was before, and the cluster without a word of weft', async () => {
  const { cluster } = lab
  await cluster.kubectl('delete', 'pod', 'a', 'b', '--wait')
  const said = await weft(cluster, 'uninstall', ...given().slice(0, 2), '--crds', '--wait', '120')
  assert.match(said, /every node is clean/)
  assert.match(said, /^CustomResourceDefinition ippools\.crd\.projectcalico\.org: deleted, with its objects$/m)
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
  assert.deepEqual(await objectsOfWeft(true), [])
})
