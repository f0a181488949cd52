/**
 * Real Multus: weft as the cluster's default network with another plugin's second interface, weft as the second
 * interface beside another default, and both. The agent and Multus read one API server; the definitions of networks are
 * custom resources that kubectl applies.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { KubeObject } from '../../../src/lab/api/interfaces.ts'
import { AgentCluster, type TestNode } from '../../netns/agent-cluster.ts'
import { cannotRun } from '../../netns/cni-node.ts'
import { TestNamespace } from '../../netns/namespace.ts'
import type { BuiltPeer } from '../go-program.ts'
import { buildEarlierMultus, buildTool, type Ended, PLUGINS, Stage } from './stage.ts'

const built = cannotRun ? { missing: cannotRun } : buildTool('multus')
const skip = 'missing' in built ? built.missing : false
const earlier = skip ? { missing: skip } : buildEarlierMultus()
const skipEarlier = 'missing' in earlier ? earlier.missing : false

const group = 'k8s.cni.cncf.io'
const definition = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `network-attachment-definitions.${group}` },
  spec: {
    group,
    scope: 'Namespaced',
    names: {
      plural: 'network-attachment-definitions',
      singular: 'network-attachment-definition',
      kind: 'NetworkAttachmentDefinition',
      shortNames: ['net-attach-def'],
    },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: 'object',
            properties: { spec: { type: 'object', properties: { config: { type: 'string' } } } },
          },
        },
      },
    ],
  },
}

const space = 'multus'
const attachment = (name: string, config: object) => ({
  apiVersion: `${group}/v1`,
  kind: 'NetworkAttachmentDefinition',
  metadata: { name, namespace: space },
  spec: { config: JSON.stringify({ cniVersion: '1.0.0', name, ...config }) },
})

const capabilities = { portMappings: true, bandwidth: true, ips: true, mac: true }
const hostLocal = (subnet: string) => ({ type: 'host-local', ranges: [[{ subnet }]] })
const networks = [
  attachment('reference', { type: 'bridge', bridge: 'ref0', isGateway: true, ipam: hostLocal('10.90.0.0/24') }),
  attachment('weft-more', { type: 'weft', isDefaultGateway: false, capabilities }),
  attachment('weft-plain', { type: 'weft', capabilities }),
  attachment('weft-blue', { type: 'weft', bridge: 'blue0', isGateway: true, ipam: hostLocal('10.91.0.0/24') }),
]

interface Pod {
  readonly name: string
  readonly uid: string
  readonly containerId: string
  readonly namespace: TestNamespace
}

interface Status {
  readonly name: string
  readonly interface: string
  readonly ips: readonly string[]
  readonly default?: boolean
}

describe('multus', { skip }, () => {
  let cluster: AgentCluster
  let node: TestNode
  let stage: Stage
  let count = 0
  const pods: Pod[] = []
  const conf = { weft: '', reference: '' }
  let program = ''

  before(async () => {
    program = (built as BuiltPeer).program
    const network = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10:244::/56' }
    cluster = await AgentCluster.open({ ...network, Backend: { Type: 'host-gw' } }, { tls: true })
    node = await cluster.addNode('n1', { dualStack: true })
    cluster.startAgent(node)
    await cluster.ready(node)
    stage = await Stage.open(node.namespace, node.folder)
    conf.weft = join(node.folder, 'cni-conf/10-weft.conflist')
    // Not a list: of a list's plugins Multus forgets the ranges until DEL.
    conf.reference = join(node.folder, 'reference.conf')
    const ipam = { ...hostLocal('10.92.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] }
    const reference = { cniVersion: '1.0.0', name: 'reference-default', type: 'bridge', bridge: 'def0' }
    writeFileSync(conf.reference, JSON.stringify({ ...reference, isGateway: true, ipam }))
    mkdirSync(join(node.folder, 'multus'))
    await apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: space } }, definition)
    await cluster.until('the definition is served', async () => {
      const { exitCode, stderr } = await kubectl(['get', 'net-attach-def', '-A'])
      return exitCode === 0 ? undefined : stderr
    })
    await apply(...networks)
  })
  after(async () => {
    for (const { namespace } of pods) namespace.delete()
    stage?.close()
    await cluster?.close()
  })

  const kubectl = (words: readonly string[], stdin = '') =>
    stage.run(['kubectl', '--kubeconfig', join(node.folder, 'kubeconfig'), ...words], {
      stdin,
      env: { HOME: node.folder },
    })

  async function apply(...objects: object[]): Promise<void> {
    const list = { apiVersion: 'v1', kind: 'List', items: objects }
    const { exitCode, stderr } = await kubectl(['apply', '-f', '-'], JSON.stringify(list))
    assert.equal(exitCode, 0, stderr)
  }

  /** A pod in the API, with a namespace and no interface. */
  async function makePod(wanted: unknown): Promise<Pod> {
    const name = `p${++count}`
    const networks = wanted === undefined ? {} : { 'k8s.v1.cni.cncf.io/networks': JSON.stringify(wanted) }
    const created: KubeObject = await cluster.client.create('pods', {
      metadata: { name, namespace: space, annotations: networks },
      spec: { nodeName: node.name, containers: [{ name: 'main', image: 'none' }] },
    })
    const namespace = new TestNamespace()
    const pod = { name, uid: created.metadata.uid!, containerId: `multus${process.pid}x${count}`, namespace }
    pods.push(pod)
    return pod
  }

  function call(command: string, pod: Pod, cluster: keyof typeof conf, more: object = {}): Promise<Ended> {
    const { folder } = node
    const stdin = {
      cniVersion: '1.0.0',
      name: 'multus',
      type: 'multus',
      kubeconfig: join(folder, 'kubeconfig'),
      clusterNetwork: conf[cluster],
      confDir: join(folder, 'cni-conf'),
      cniDir: join(folder, 'multus'),
      binDir: join(folder, 'cni-bin'),
      ...more,
    }
    const args = `IgnoreUnknown=true;K8S_POD_NAMESPACE=${space};K8S_POD_NAME=${pod.name}`
    return stage.run([program], {
      stdin: JSON.stringify(stdin),
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: pod.containerId,
        CNI_NETNS: pod.namespace.path,
        CNI_IFNAME: 'eth0',
        CNI_PATH: `${folder}/cni-bin:${PLUGINS}`,
        CNI_ARGS: `${args};K8S_POD_INFRA_CONTAINER_ID=${pod.containerId};K8S_POD_UID=${pod.uid}`,
      },
    })
  }

  async function good(...what: Parameters<typeof call>): Promise<string> {
    const { exitCode, stdout, stderr } = await call(...what)
    assert.equal(exitCode, 0, `${what[0]}: ${stdout}${stderr}\n${cluster.log(node).slice(-3000)}`)
    return stdout
  }

  /** Adds and gives what Multus wrote onto the pod: its interfaces by name. */
  async function add(pod: Pod, cluster_: keyof typeof conf): Promise<Map<string, Status>> {
    await good('ADD', pod, cluster_)
    const { metadata } = await cluster.client.get('pods', { namespace: space, name: pod.name })
    const status = JSON.parse(metadata.annotations!['k8s.v1.cni.cncf.io/network-status']!) as Status[]
    return new Map(status.map((each) => [each.interface, each]))
  }

  const addresses = (pod: Pod, device: string) =>
    pod.namespace
      .json<{ addr_info: { local: string; scope: string }[] }[]>(`ip -j address show dev ${device}`)
      .flatMap(({ addr_info }) => addr_info.filter(({ scope }) => scope === 'global').map(({ local }) => local))
      .sort()

  const journal = () => readFileSync(join(node.folder, 'run/cni/journal'), 'utf8')
  const ports = () => node.namespace.run('ip -br link').match(/^veth\w+/gm) ?? []

  async function nothingLeft(): Promise<void> {
    await cluster.until('no port is left', () => (ports().length === 0 ? undefined : ports().join()))
    const left = readdirSync(join(node.folder, 'multus'), { recursive: true, encoding: 'utf8' })
    assert.deepEqual(
      left.filter((name) => name.includes('multus')),
      [],
    )
  }

  const pings = (from: Pod, to: string, device: string) =>
    assert.ok(from.namespace.succeeds(`ping -c 1 -W 2 -I ${device} ${to}`), `${from.name} to ${to} by ${device}`)

  test('weft is the default network, the reference bridge has net1', async () => {
    const [a, b] = [await makePod([{ name: 'reference' }]), await makePod([{ name: 'reference' }])]
    const first = await add(a, 'weft')
    const second = await add(b, 'weft')
    assert.deepEqual([...first.keys()], ['eth0', 'net1'])
    assert.equal(first.get('eth0')!.default, true)
    assert.deepEqual([...first.get('eth0')!.ips].sort(), addresses(a, 'eth0'))
    for (const device of ['eth0', 'net1']) for (const ip of second.get(device)!.ips) pings(a, ip, device)
    assert.match(a.namespace.run('ip route show default'), /dev eth0/)
    await good('CHECK', a, 'weft')
    for (const pod of [a, b, a]) await good('DEL', pod, 'weft')
    await nothingLeft()
  })

  test('weft has net1 beside another default network, whose route stays', async () => {
    const [a, b] = [await makePod([{ name: 'weft-more' }]), await makePod([{ name: 'weft-more' }])]
    await add(a, 'reference')
    const second = await add(b, 'reference')
    for (const ip of second.get('net1')!.ips) pings(a, ip, 'net1')
    assert.match(a.namespace.run('ip route show default'), /^default via 10\.92\.0\.1 dev eth0\s*$/)
    assert.match(a.namespace.run('ip route'), /10\.244\.0\.0\/16 via 10\.244\.1\.1 dev net1/)
    await good('CHECK', a, 'reference')
    for (const pod of [a, b]) await good('DEL', pod, 'reference')
    await nothingLeft()
  })

  test('weft twice and on a bridge of its own: addresses and records of their own; each goes', async () => {
    const pod = await makePod([{ name: 'weft-more' }, { name: 'weft-blue' }])
    await add(pod, 'weft')
    const all = ['eth0', 'net1', 'net2'].flatMap((device) => addresses(pod, device))
    assert.equal(all.length, 5)
    assert.equal(new Set(all).size, 5)
    for (const device of ['eth0', 'net1', 'net2'])
      assert.match(journal(), new RegExp(`"containerId":"${pod.containerId}","ifname":"${device}"`))
    assert.equal(ports().length, 3)
    pings(pod, '10.244.1.1', 'eth0')
    pings(pod, '10.244.1.1', 'net1')
    pings(pod, '10.91.0.1', 'net2')
    await good('CHECK', pod, 'weft')
    await good('DEL', pod, 'weft')
    await nothingLeft()
  })

  test('weft with its defaults on net1: the default route that is there stays', async () => {
    for (const first of ['reference', 'weft'] as const) {
      const pod = await makePod([{ name: 'weft-plain' }])
      await add(pod, first)
      assert.match(pod.namespace.run('ip route show default'), /^default via \S+ dev eth0\s*$/)
      await good('CHECK', pod, first)
      await good('DEL', pod, first)
    }
    await nothingLeft()
  })

  test('an address and a MAC from the annotation', async () => {
    const wanted = { name: 'weft-more', interface: 'blue', ips: ['10.244.1.77/24'], mac: '02:00:00:00:00:77' }
    const pod = await makePod([wanted])
    const status = await add(pod, 'reference')
    assert.ok(status.get('blue')!.ips.includes('10.244.1.77'))
    assert.match(pod.namespace.run('ip link show blue'), /02:00:00:00:00:77/)
    await good('DEL', pod, 'reference')
    await nothingLeft()
  })

  const defaults = (pod: Pod) => pod.namespace.run('ip route show default; ip -6 route show default')

  test('default-route moves the default route to another interface', { skip: skipEarlier }, async () => {
    program = (earlier as BuiltPeer).program
    try {
      const gateways = ['10.244.1.1', 'fd00:10:244:1::1']
      for (const first of ['weft', 'reference'] as const)
        for (const second of ['weft-more', 'weft-plain']) {
          const pod = await makePod([{ name: second, 'default-route': gateways }])
          await add(pod, first)
          assert.match(
            defaults(pod),
            /^default via 10\.244\.1\.1 dev net1\s+default via fd00:10:244:1::1 dev net1 [^\n]*\s*$/,
            `${first}, ${second}`,
          )
          pings(pod, '10.244.1.1', 'net1')
          await good('DEL', pod, first)
        }
      const pod = await makePod([{ name: 'reference', 'default-route': ['10.90.0.1'] }])
      await add(pod, 'weft')
      assert.match(defaults(pod), /^default via 10\.90\.0\.1 dev net1\s*$/)
      await good('DEL', pod, 'weft')
    } finally {
      program = (built as BuiltPeer).program
    }
    await nothingLeft()
  })

  test('Multus 4.2.1 to 4.2.3 leave the default route where it is, whoever made it', async () => {
    for (const first of ['weft', 'reference'] as const) {
      const pod = await makePod([{ name: 'reference', 'default-route': ['10.90.0.1'] }])
      await add(pod, first)
      assert.match(pod.namespace.run('ip route show default'), /^default via \S+ dev eth0\s*$/)
      await good('DEL', pod, first)
    }
    await nothingLeft()
  })

  test('a second network that fails takes the first away again', async () => {
    const pod = await makePod([{ name: 'no-such' }])
    const ended = await call('ADD', pod, 'weft')
    assert.notEqual(ended.exitCode, 0)
    assert.match(ended.stdout, /no-such/)
    await good('DEL', pod, 'weft')
    await nothingLeft()
  })

  test('STATUS and GC pass through: a living pod is kept', async () => {
    const pod = await makePod([{ name: 'weft-more' }])
    await add(pod, 'weft')
    await good('STATUS', pod, 'weft', { cniVersion: '1.1.0' })
    await good('GC', pod, 'weft', { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] })
    assert.equal(ports().length, 2)
    pings(pod, '10.244.1.1', 'net1')
    await good('DEL', pod, 'weft')
    await nothingLeft()
  })
})
