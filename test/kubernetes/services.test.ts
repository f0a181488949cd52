/**
 * Services as kube-proxy makes them, over pods of weft: both write rules on the same nodes and neither undoes the other's. In
 * both modes of kube-proxy and over VXLAN and plain routes, IPv4 and IPv6. Who asked is what the test server says it was
 * asked by: pods are seen by their own addresses, also through a service.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import type { ProxyMode } from '../../src/lab/kubernetes/node.ts'
import { netnsPath, nodeAddress, OUTSIDE } from '../../src/lab/layout.ts'
import { netConfigFor } from '../../src/lab/spec.ts'
import { serverContainer, TestCluster, type TestPod, until } from './test-cluster.ts'

let lab: TestCluster
/** Servers of the service are on n1 and n2; n3 has a client alone. */
let servers: TestPod[]
let client: TestPod

const NODE_PORT = 30080
const LOCAL_PORT = 30081
const DNS_PORT = 53

/** By the short name of a family. */
type Addresses = Readonly<Record<4 | 6, string>>
const services: Record<string, Addresses> = {}

const families = [4, 6] as const
const ipOf = (pod: TestPod, family: 4 | 6): string => (family === 4 ? pod.ip : pod.ip6!)
const nodeIp = (node: string, family: 4 | 6): string => String(nodeAddress(lab.cluster.node(node).spec, family))
const outside = (): string => netnsPath(lab.cluster.name, 'outside')

function service(name: string, selector: object, more: object, ports: readonly object[]): object {
  const spec = { type: 'NodePort', ipFamilyPolicy: 'RequireDualStack', selector, ports, ...more }
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec }
}

before(async () => {
  lab = await TestCluster.start({ nodes: 3 })
  const { cluster } = lab
  await cluster.prepareAgents()
  await cluster.startAgents()
  await cluster.waitReady()
  const http = { name: 'http', port: 80, targetPort: 8080 }
  const dns = { name: 'dns', port: DNS_PORT, targetPort: 8081, protocol: 'UDP' }
  await cluster.apply([
    service('everywhere', { app: 'server' }, {}, [{ ...http, nodePort: NODE_PORT }, dns]),
    service('local', { on: 'n1' }, { externalTrafficPolicy: 'Local' }, [{ ...http, nodePort: LOCAL_PORT }]),
    ...['n1', 'n2'].map((on) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `server-${on}`, namespace: 'default', labels: { app: 'server', on } },
      spec: { nodeName: on, terminationGracePeriodSeconds: 0, containers: [serverContainer] },
    })),
  ])
  client = await lab.server('client', 'n3')
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod', '--selector=app=server', '--timeout=60s')
  servers = (await lab.pods('app=server')).sort((a, b) => a.node.localeCompare(b.node))
  for (const name of ['everywhere', 'local']) {
    const { spec } = await cluster.get<{ spec: { clusterIPs: string[] } }>('service', name)
    services[name] = { 4: spec.clusterIPs[0]!, 6: spec.clusterIPs[1]! }
  }
})
after(() => lab?.down())

type Question = 'clientip' | 'hostname'

const bracket = (ip: string): string => (ip.includes(':') ? `[${ip}]` : ip)

/** What the server says over HTTP to somebody in a namespace; rejects when nobody answers in time. */
async function ask(netns: string, ip: string, port: number, what: Question, seconds = 5): Promise<string> {
  const curl = ['curl', '-gsS', '--max-time', String(seconds), `http://${bracket(ip)}:${port}/${what}`]
  const { stdout } = await promisify(execFile)('nsenter', [`--net=${netns}`, ...curl])
  return what === 'clientip' ? stdout.trim().replace(/:\d+$/, '').replace(/[[\]]/g, '') : stdout.trim()
}

/** The same in one datagram each way. */
async function askByDatagram(netns: string, ip: string, what: Question): Promise<string> {
  const script = `exec 3<>/dev/udp/${ip}/${DNS_PORT}; printf ${what} >&3; timeout 5 dd bs=512 count=1 <&3 2>/dev/null`
  const { stdout } = await promisify(execFile)('nsenter', [`--net=${netns}`, 'bash', '-c', script])
  assert.notEqual(stdout, '', `no answer from ${ip}`)
  return what === 'clientip' ? stdout.trim().replace(/:\d+$/, '').replace(/[[\]]/g, '') : stdout.trim()
}

/** Who answers, until every one of the servers has; a service takes turns by chance. */
async function everyServerAnswers(one: () => Promise<string>): Promise<void> {
  const heard = new Set<string>()
  await until('every server answers', async () => heard.add(await one()).size === servers.length)
}

/** Checks of one combination; each holds for both families. */
const checks: Record<string, (family: 4 | 6) => Promise<void>> = {
  async 'a pod reaches every server by the cluster address, over TCP and UDP, and is seen by its own'(family) {
    const ip = services.everywhere![family]
    const transports = [
      (what: Question) => ask(client.netnsPath, ip, 80, what),
      (what: Question) => askByDatagram(client.netnsPath, ip, what),
    ]
    for (const transport of transports) {
      await everyServerAnswers(() => transport('hostname'))
      for (let n = 0; n < 4; n++) assert.equal(await transport('clientip'), ipOf(client, family))
    }
  },
  async 'a server reaches itself through its service'(family) {
    for (const server of servers)
      await until(`${server.name} answers itself`, async () => {
        const answer = await ask(server.netnsPath, services.everywhere![family], 80, 'hostname')
        return answer === server.name
      })
  },
  async 'a node reaches the cluster address'(family) {
    for (const node of ['n1', 'n3']) {
      const { netns } = lab.cluster.node(node).machine
      await everyServerAnswers(() => ask(netns, services.everywhere![family], 80, 'hostname'))
    }
  },
  async 'from outside, every node answers at the node port, with or without a server of its own'(family) {
    for (const node of ['n1', 'n3'])
      await everyServerAnswers(() => ask(outside(), nodeIp(node, family), NODE_PORT, 'hostname'))
  },
  async 'a pod and a node reach the node port of another node'(family) {
    for (const netns of [client.netnsPath, lab.cluster.node('n3').machine.netns])
      await everyServerAnswers(() => ask(netns, nodeIp('n2', family), NODE_PORT, 'hostname'))
  },
  async 'with externalTrafficPolicy Local the server sees who asks from outside, and other nodes do not answer'(
    family,
  ) {
    const host = String(OUTSIDE.host[family === 4 ? 'v4' : 'v6'])
    await until('n1 answers', async () => (await ask(outside(), nodeIp('n1', family), LOCAL_PORT, 'clientip')) === host)
    await until('n2 does not answer', () =>
      ask(outside(), nodeIp('n2', family), LOCAL_PORT, 'hostname', 1).then(
        () => false,
        () => true,
      ),
    )
  },
}

let standing: ProxyMode = 'nftables'

async function useProxyMode(mode: ProxyMode): Promise<void> {
  if (mode === standing) return
  await Promise.all(lab.cluster.nodes.map((node) => node.setProxyMode(mode)))
  standing = mode
}

for (const mode of ['nftables', 'iptables'] as const satisfies readonly ProxyMode[])
  for (const backend of ['vxlan', 'host-gw'])
    test(`kube-proxy by ${mode} over ${backend}`, async (t) => {
      await useProxyMode(mode)
      await lab.cluster.switchTo(netConfigFor(backend, true))
      for (const [name, check] of Object.entries(checks))
        await t.test(name, async () => {
          for (const family of families) await check(family)
        })
    })
