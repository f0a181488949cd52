import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpClient } from '../http-client.ts'
import { announcementOf, Recorder, testSource } from '../source-suite.ts'
import { KubernetesSource } from './source.ts'
import { nodeObject, TestServer } from './test-server.ts'

const NODES = '/api/v1/nodes'
const MAPS = '/api/v1/namespaces/kube-flannel/configmaps'
const prefix = 'flannel.alpha.coreos.com'
const quiet = { debug() {}, info() {}, warn() {}, error() {} }

const sourceOf = (server: TestServer, nodeName: string): KubernetesSource =>
  new KubernetesSource({
    client: new HttpClient({
      server: server.url,
      insecure: false,

      credentials: async () => ({ authorization: 'Bearer t' }),
    }),
    nodeName,
    annotationPrefix: prefix,
    netConfig: { namespace: 'kube-flannel', name: 'kube-flannel-cfg' },
    log: quiet,
    tuning: { backoff: { first: 5, cap: 50 }, watchSeconds: 60 },
  })

async function openServer(): Promise<TestServer> {
  const server = new TestServer()
  await server.listen()
  for (const n of [1, 2]) server.put(NODES, nodeObject(`n${n}`, `10.244.${n}.0/24`))
  return server
}

testSource(
  'kubernetes',
  async () => {
    const server = await openServer()
    return {
      source: (name) => sourceOf(server, name),
      putNetwork: (text) =>
        server.put(MAPS, { metadata: { name: 'kube-flannel-cfg' }, data: { 'net-conf.json': text } }),
      putGarbage: (name) =>
        server.put(
          NODES,
          nodeObject(name, '10.244.2.0/24', {
            [`${prefix}/kube-subnet-manager`]: 'true',
            [`${prefix}/backend-type`]: 'vxlan',
            [`${prefix}/public-ip`]: '999.1.1.1',
          }),
        ),
      removeNode: (name) => server.remove(NODES, name),
      setUp: (up) => (up ? server.listen() : server.stop()),
      compact: () => server.compact(),
      close: () => server.stop(),
    }
  },
  { hasCalico: true },
)

test("kubernetes: a flannel node that leaves its backend's name empty is one of udp", async () => {
  const server = await openServer()
  const source = sourceOf(server, 'n1')
  const recorder = new Recorder()
  source.start(recorder.listen)
  await recorder.until('synced')
  server.put(
    NODES,
    nodeObject('n2', '10.244.2.0/24', {
      [`${prefix}/kube-subnet-manager`]: 'true',
      [`${prefix}/backend-type`]: '',
      [`${prefix}/backend-data`]: 'null',
      [`${prefix}/public-ip`]: '192.0.2.2',
    }),
  )
  await recorder.until('node', ({ node }) => node.name === 'n2' && node.lease?.backendType === 'udp')
  await source.close()
  await server.stop()
})

test("kubernetes: writes flannel's annotations and the condition; writes nothing twice", async () => {
  const server = await openServer()
  const source = sourceOf(server, 'n1')
  const recorder = new Recorder()
  source.start(recorder.listen)
  await recorder.until('synced')
  await source.announce(announcementOf('192.0.2.1', 'vxlan'))
  await source.setNetworkAvailable()
  const { metadata, status } = server.get(NODES, 'n1')
  assert.deepEqual(metadata.annotations, {
    'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
    'flannel.alpha.coreos.com/backend-type': 'vxlan',
    'flannel.alpha.coreos.com/backend-data': '{"VNI":1}',
    'flannel.alpha.coreos.com/public-ip': '192.0.2.1',
    'weft.dev/node-status': '{"accepts":["vxlan"],"sends":["vxlan"]}',
  })
  const [condition] = status.conditions
  assert.equal(condition.type, 'NetworkUnavailable')
  assert.equal(condition.status, 'False')
  await recorder.until('node', ({ node }) => node.lease !== undefined)
  const patches = () => server.requests.filter((line) => line.startsWith('PATCH')).length
  const before = patches()
  await source.announce(announcementOf('192.0.2.1', 'vxlan'))
  assert.equal(patches(), before)
  source.report({ node: 'n2', uid: 'uid-n2', severity: 'Warning', reason: 'PeerRefused', message: 'overlaps' })
  source.report({ node: 'n2', uid: 'uid-n2', severity: 'Warning', reason: 'PeerRefused', message: 'overlaps' })
  while (server.created.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(server.created.length, 1)
  assert.deepEqual(server.created[0].involvedObject, { kind: 'Node', apiVersion: 'v1', name: 'n2', uid: 'uid-n2' })
  await source.close()
  await server.stop()
})

test('kubernetes: wishes of an administrator are read, and oversized annotations refused', async () => {
  const server = await openServer()
  const wished = { [`${prefix}/public-ip-overwrite`]: '198.51.100.7', 'weft.dev/wiring': 'routed' }
  server.put(NODES, nodeObject('n1', '10.244.1.0/24', wished))
  server.put(NODES, nodeObject('n2', '10.244.1.0/24', { 'weft.dev/node-status': `"${'x'.repeat(100_000)}"` }))
  server.put(NODES, nodeObject('n3', '10.244.3.0/24', { 'weft.dev/wiring': 'tin cans' }))
  const source = sourceOf(server, 'n1')
  const recorder = new Recorder()
  source.start(recorder.listen)
  const own = await recorder.until('node', ({ node }) => node.name === 'n1')
  assert.equal(`${own.wishes.publicIpOverwrite}`, '198.51.100.7')
  assert.equal(own.wishes.wiring, 'routed')
  const other = await recorder.until('node', ({ node }) => node.name === 'n2')
  assert.match(other.problems[0]!.message, /^Node n2: weft\.dev\/node-status: is longer than 4096/)
  const tin = await recorder.until('node', ({ node }) => node.name === 'n3')
  assert.match(tin.problems[0]!.message, /^Node n3: weft\.dev\/wiring: "tin cans" is none of auto, bridge, routed/)
  assert.equal(tin.wishes.wiring, undefined)
  await source.close()
  await server.stop()
})
