/**
 * `weft controller` as the Deployment of an installation, on a cluster whose kube-controller-manager gives no pod CIDRs: nothing
 * has a network before it works, and nothing is given twice whatever happens to the replica that leads.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { agentAccount, controllerAccount } from '../../src/install/rights.ts'
import type { KubernetesCluster } from '../../src/lab/kubernetes/cluster.ts'
import { netConfigFor } from '../../src/lab/spec.ts'
import { agentSelector, controllerSelector, InstallationFiles, imageName, rightsOf, weft } from './installation.ts'
import { TestCluster } from './test-cluster.ts'

const IMAGE = imageName('1.0.0')
const TIMEOUT_MS = 90_000

const files = new InstallationFiles()
let archive: string
before(() => {
  archive = files.buildImage('1.0.0')
})
after(() => files.remove())

interface Node {
  readonly metadata: {
    readonly name: string
    readonly uid: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly managedFields: readonly { readonly manager: string; readonly fieldsV1: object }[]
  }
  readonly spec: { readonly podCIDRs?: readonly string[]; readonly taints?: readonly { readonly key: string }[] }
  readonly status: { readonly conditions?: readonly { type: string; status: string; reason: string }[] }
}
interface Lease {
  readonly spec: { readonly holderIdentity: string; readonly leaseTransitions: number }
}
interface Pod {
  readonly metadata: { readonly name: string }
  readonly spec: { readonly nodeName?: string }
  readonly status: { readonly phase: string }
}

const nodesOf = async (cluster: KubernetesCluster) =>
  (await cluster.get<{ items: Node[] }>('nodes', '--show-managed-fields')).items
const leaseOf = (cluster: KubernetesCluster) => cluster.get<Lease>('lease', '-n', 'kube-flannel', 'weft-controller')
const podsOf = async (cluster: KubernetesCluster, selector: string) =>
  (await cluster.get<{ items: Pod[] }>('pods', '-n', 'kube-flannel', '--selector', selector)).items

/** Asks again until the answer is as wished. */
async function until<T>(what: string, ask: () => Promise<T>, wished: (answer: T) => boolean): Promise<T> {
  const end = performance.now() + TIMEOUT_MS
  for (;;) {
    const answer = await ask()
    if (wished(answer)) return answer
    if (performance.now() > end) throw new Error(`${what}: still ${JSON.stringify(answer).slice(0, 2000)}`)
  }
}

/** Node objects alone. Without the label of an operating system no DaemonSet wants them. */
const bareNodes = (from: number, to: number): object[] =>
  Array.from({ length: to - from }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: `bare-${from + i}`, labels: { 'weft.test/bare': 'true' } },
  }))

/** No address is in the pod CIDRs of two nodes, and each has one of every family. */
function assertApart(nodes: readonly Node[], families: number): void {
  const owners = new Map<string, string>()
  for (const { metadata, spec } of nodes) {
    assert.equal(spec.podCIDRs?.length, families, metadata.name)
    for (const cidr of spec.podCIDRs!) {
      assert.equal(owners.get(cidr), undefined, `${cidr} is given to ${owners.get(cidr)} and ${metadata.name}`)
      owners.set(cidr, metadata.name)
    }
  }
  // All are of one length: two that differ do not overlap.
  const lengths = new Set([...owners.keys()].map((cidr) => `${cidr.includes(':')} ${cidr.split('/')[1]}`))
  assert.equal(lengths.size, families, [...lengths].join())
}

const allGiven = (nodes: readonly Node[]) => nodes.every(({ spec }) => (spec.podCIDRs?.length ?? 0) > 0)

/** kill -9 of the controller's process on a node. */
function killController({ cluster }: TestCluster, node: string): void {
  const { machine } = cluster.node(node)
  const pids = machine.run('pgrep', '-f', '^/usr/bin/node .*weft controller ').trim().split('\n')
  assert.equal(pids.length, 1, `processes of the controller on ${node}: ${pids}`)
  machine.run('kill', '-9', pids[0]!)
}

describe('both families, two replicas', () => {
  let lab: TestCluster
  before(async () => {
    lab = await TestCluster.start({ nodes: 2, allocateNodeCidrs: false })
    lab.cluster.loadImage(archive)
  })
  after(() => lab?.down())

  /** The leader and since when it is one by this clock. */
  const takeOver = async (before: string, startedAt: number): Promise<string> => {
    const { spec } = await until(
      'another leader',
      () => leaseOf(lab.cluster),
      ({ spec }) => spec.holderIdentity !== '' && spec.holderIdentity !== before,
    )
    console.log(`taken over after ${((performance.now() - startedAt) / 1000).toFixed(1)} s`)
    return spec.holderIdentity
  }

  test('nodes get their pod CIDRs, then agents start, then nodes are Ready', async () => {
    const { cluster } = lab
    assert.ok((await nodesOf(cluster)).every(({ spec }) => spec.podCIDRs === undefined))
    const conf = files.write('dual.json', netConfigFor('vxlan', true))
    const quick = ['--controller-arg=--agent-missed-after=3s', '--leak-check-interval=2s']
    const args = ['--allocate-node-cidrs', ...quick, '--wait', '120']
    const said = await weft(cluster, 'install', '--image', IMAGE, '--net-config', conf, ...args)
    assert.match(said, /^DaemonSet kube-flannel\/weft-agent: ready on every node$/m)
    assert.match(said, /^Deployment kube-flannel\/weft-controller: ready$/m)
    await cluster.waitReady()
    const nodes = await nodesOf(cluster)
    assertApart(nodes, 2)
    for (const { metadata } of nodes) {
      const writers = metadata.managedFields.filter(({ fieldsV1 }) => JSON.stringify(fieldsV1).includes('f:podCIDR'))
      assert.deepEqual(
        writers.map(({ manager }) => manager),
        ['weft-controller'],
      )
    }
    const replicas = await until(
      'two replicas run',
      () => podsOf(cluster, controllerSelector),
      (pods) => pods.length === 2 && pods.every(({ status }) => status.phase === 'Running'),
    )
    assert.deepEqual(replicas.map(({ spec }) => spec.nodeName).sort(), ['n1', 'n2'])
    await lab.server('a', 'n1')
    const b = await lab.server('b', 'n2')
    for (const ip of [b.ip, b.ip6!]) await lab.exec('a', 'ping', '-c', '2', '-W', '5', ip)
  })

  test('the leader is killed while nodes join, 50 at a time: nothing is given twice', async () => {
    const { cluster } = lab
    const { holderIdentity } = (await leaseOf(cluster)).spec
    const given = async () => (await nodesOf(cluster)).filter(({ spec }) => spec.podCIDRs !== undefined).length
    let joined = false
    const joining = (async () => {
      for (let from = 0; from < 150; from += 50) await cluster.apply(bareNodes(from, from + 50))
      joined = true
    })()
    await until('some of them have theirs', given, (count) => count >= 12)
    const killedAt = performance.now()
    killController(lab, holderIdentity.split('_')[0]!)
    console.log(`killed with ${await given()} of 152 given, ${joined ? 'all' : 'not all'} joined`)
    await joining
    await takeOver(holderIdentity, killedAt)
    const nodes = await until('all have theirs', () => nodesOf(cluster), allGiven)
    assert.equal(nodes.length, 152)
    assertApart(nodes, 2)
  })

  test('the leader is asked to go while nodes leave, join again and others come: nothing is given twice', async () => {
    const { cluster } = lab
    const uids = new Map((await nodesOf(cluster)).map(({ metadata }) => [metadata.name, metadata.uid]))
    const { holderIdentity } = (await leaseOf(cluster)).spec
    const [leader] = (await podsOf(cluster, controllerSelector)).filter(
      ({ spec }) => spec.nodeName === holderIdentity.split('_')[0],
    )
    const names = Array.from({ length: 25 }, (_, i) => `bare-${i}`)
    const turmoil = (async () => {
      await cluster.kubectl('delete', 'node', ...names, '--wait=false')
      await cluster.apply([...bareNodes(0, 25), ...bareNodes(150, 175)])
    })()
    const askedAt = performance.now()
    await cluster.kubectl('delete', 'pod', '-n', 'kube-flannel', leader!.metadata.name, '--wait=false')
    await takeOver(holderIdentity, askedAt)
    await turmoil
    const nodes = await until('all have theirs', () => nodesOf(cluster), allGiven)
    assert.equal(nodes.length, 177)
    assertApart(nodes, 2)
    for (const { metadata } of nodes)
      if (names.includes(metadata.name)) assert.notEqual(metadata.uid, uids.get(metadata.name))
    await cluster.kubectl('delete', 'nodes', '-l', 'weft.test/bare=true', '--wait=false')
  })

  test('a node that lost its agent is told of, and taken back when the agent is', async () => {
    const { cluster } = lab
    const condition = async () => {
      const nodes = await nodesOf(cluster)
      const { status } = nodes.find(({ metadata }) => metadata.name === 'n2')!
      return status.conditions?.find(({ type }) => type === 'NetworkUnavailable')?.reason
    }
    assert.equal(await condition(), 'WeftIsUp')
    await cluster.kubectl('label', 'node', 'n2', 'kubernetes.io/os=other', '--overwrite')
    await until('said to be without an agent', condition, (reason) => reason === 'WeftAgentGone')
    const events = await cluster.kubectl('get', 'events', '--field-selector', 'reason=WeftAgentGone', '-o', 'name')
    assert.notEqual(events, '')
    await cluster.kubectl('label', 'node', 'n2', 'kubernetes.io/os=linux', '--overwrite')
    await until('the agent is back', condition, (reason) => reason === 'WeftIsUp')
  })

  test('an address that a node holds and no pod has is told of', async () => {
    const { cluster } = lab
    const { machine } = cluster.node('n2')
    // As a runtime leaves it that lost its state: a namespace, and an attachment that nobody deletes.
    machine.run('ip', 'netns', 'add', 'forgotten')
    const plugin = (command: string) => {
      const words = { COMMAND: command, CONTAINERID: 'forgotten', IFNAME: 'eth0', NETNS: '/run/netns/forgotten' }
      const environment = Object.entries({ ...words, PATH: '/opt/cni/bin' }).map(
        ([key, value]) => `CNI_${key}=${value}`,
      )
      const conf = '{"cniVersion":"1.0.0","name":"weft","type":"weft"}'
      return machine.run('env', ...environment, 'sh', '-c', `echo '${conf}' | /opt/cni/bin/weft`)
    }
    const { ips } = JSON.parse(plugin('ADD')) as { ips: { address: string }[] }
    const held = ips.map(({ address }) => address.split('/')[0]).join(' ')
    const events = () =>
      cluster.kubectl(
        'get',
        'events',
        '--field-selector',
        'reason=AddressesLeaked',
        '-o',
        'jsonpath={.items[*].message}',
      )
    await until('it is told', events, (text) => text.includes(held))
    assert.equal(await events(), `addresses are held that no pod has: ${held}`)
    plugin('DEL')
    machine.run('ip', 'netns', 'delete', 'forgotten')
  })

  test('agents and controllers may do what their roles say, and asked for nothing else', async () => {
    const { cluster } = lab
    await cluster.kubectl('create', 'serviceaccount', '-n', 'kube-flannel', 'nobody')
    for (const account of [agentAccount, controllerAccount({ allocates: true, findsLeaks: true })])
      for (const namespace of ['kube-flannel', 'default']) {
        const anybody = await rightsOf(cluster, 'nobody', namespace)
        const all = await rightsOf(cluster, account.name, namespace)
        const rules = [...account.everywhere, ...(namespace === 'kube-flannel' ? account.here : account.inDefault)]
        const granted = rules.flatMap(({ apiGroups, resources, resourceNames = ['*'], verbs }) =>
          apiGroups.flatMap((group) =>
            resources.flatMap((resource) =>
              resourceNames.flatMap((name) => verbs.map((verb) => `${group}/${resource} ${name} ${verb}`)),
            ),
          ),
        )
        assert.deepEqual(
          [...all].filter((right) => !anybody.has(right)).sort(),
          [...new Set(granted)].sort(),
          account.name,
        )
      }
    for (const [port, pods] of [
      [9180, await podsOf(cluster, agentSelector)],
      [9181, await podsOf(cluster, controllerSelector)],
    ] as const)
      for (const { spec } of pods) {
        const metrics = cluster.node(spec.nodeName!).machine.run('curl', '-s', `http://127.0.0.1:${port}/metrics`)
        assert.match(metrics, /^rest_client_requests_total\{.*code="200"/m)
        assert.deepEqual(metrics.match(/^rest_client_requests_total\{.*code="40[13]".*/gm), null)
      }
  })

  test('of nodes a controller writes pod CIDRs and status, and neither labels nor taints', async () => {
    const { cluster } = lab
    const patch = async (body: object, ...more: string[]) => {
      const as = ['--as', 'system:serviceaccount:kube-flannel:weft-controller']
      const argv = ['kubectl', 'patch', 'node', 'n1', '--type=merge', '--patch', JSON.stringify(body), ...as, ...more]
      return (await cluster.inFabric(argv)).stderr
    }
    const labels = { metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } } }
    assert.match(await patch(labels), /the weft controller may not change labels of nodes/)
    const taint = { key: 'x', effect: 'NoExecute' }
    for (const spec of [{ taints: [taint] }, { unschedulable: true }])
      assert.match(await patch({ spec }), /the weft controller may not change taints of nodes/)
    assert.equal(await patch({ metadata: { annotations: { 'example.test/x': 'y' } } }), '')
  })

  test('a controller whose values change loses the rights that it does not need any more', async () => {
    const { cluster } = lab
    const said = await weft(cluster, 'install', '--image', IMAGE, '--no-controller')
    assert.match(said, /^Deployment kube-flannel\/weft-controller: deleted, the values do not ask for it$/m)
    assert.match(said, /^ServiceAccount kube-flannel\/weft-controller: deleted/m)
    await weft(cluster, 'install', '--image', IMAGE, '--wait', '60')
    const rights = await rightsOf(cluster, 'weft-controller', 'kube-flannel')
    assert.ok(rights.has('/nodes/status * patch'))
    assert.ok(!rights.has('/nodes * patch') && !rights.has('/configmaps * create'))
  })

  test('a dry uninstallation changes nothing; a true one leaves neither Lease nor ledger', async () => {
    const { cluster } = lab
    const left = () =>
      cluster.kubectl(
        'get',
        'all,leases,configmaps,roles,rolebindings,serviceaccounts',
        '-n',
        'kube-flannel',
        '-o',
        'name',
      )
    const before = await left()
    for (const name of ['lease.coordination.k8s.io/weft-controller', 'configmap/weft-pod-cidrs'])
      assert.ok(before.includes(name), before)
    const said = await weft(cluster, 'uninstall', '--image', IMAGE, '--dry-run')
    assert.match(said, /^Deployment kube-flannel\/weft-controller: deleted$/m)
    assert.equal(await left(), before)
    await cluster.kubectl('delete', 'pod', 'a', 'b', '--wait')
    await cluster.kubectl('delete', 'serviceaccount', '-n', 'kube-flannel', 'nobody')
    await weft(cluster, 'uninstall', '--image', IMAGE, '--wait', '120')
    await until('the namespace is gone', left, (text) => text === '')
    for (const { metadata, spec, status } of await nodesOf(cluster)) {
      assert.equal(spec.podCIDRs?.length, 2, `${metadata.name} keeps what it has: nobody may change it`)
      assert.ok(!status.conditions?.some(({ type }) => type === 'NetworkUnavailable'))
    }
  })
})

test('one family, one node: one replica works, the other waits for a node of its own', async () => {
  const lab = await TestCluster.start({ nodes: 1, ipv6: false, allocateNodeCidrs: false })
  try {
    const { cluster } = lab
    cluster.loadImage(archive)
    await cluster.apply(bareNodes(0, 50))
    const conf = files.write('v4.json', netConfigFor('host-gw', false))
    await weft(cluster, 'install', '--image', IMAGE, '--net-config', conf, '--allocate-node-cidrs', '--wait', '120')
    await cluster.waitReady()
    assertApart(await until('all have theirs', () => nodesOf(cluster), allGiven), 1)
    const phases = (await podsOf(cluster, controllerSelector)).map(({ status }) => status.phase)
    assert.deepEqual(phases.sort(), ['Pending', 'Running'])
    await lab.server('a', 'n1')
    await lab.exec('a', 'ping', '-c', '1', '-W', '5', '127.0.0.1')
  } finally {
    await lab.down()
  }
})
