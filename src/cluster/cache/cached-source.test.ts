import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { NodeInfo } from '../../model/cluster.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import type { ClusterEvent } from '../cluster.ts'
import { FakeCluster } from '../fake/fake-source.ts'
import { announcementOf, Recorder, testSource } from '../source-suite.ts'
import { CachedSource } from './cached-source.ts'
import { type ClusterView, formatViewBody, parseView, readView, VIEW_VERSION, writeView } from './view.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-test-view-'))
after(() => rmSync(folder, { recursive: true, force: true }))

let files = 0
const newFile = (): string => join(folder, `view-${++files}`)
const identity = { node: 'n1', store: 'fake' }

const nodeOf = (n: number, more: Partial<NodeInfo> = {}): NodeInfo => ({
  name: `n${n}`,
  uid: `u${n}`,
  createdAtSeconds: 1_700_000_000,
  addresses: [Ip.parse(`192.0.2.${n}`)],
  podCidrs: [Cidr.parse(`10.244.${n}.0/24`), Cidr.parse(`fd00:10:244:${n}::/64`)],
  ...more,
})

class Log {
  readonly warnings: string[] = []
  debug(): void {}
  info(): void {}
  error(): void {}
  warn(fields: object, message: string): void {
    this.warnings.push(`${message}: ${JSON.stringify(fields)}`)
  }
}

function open(cluster: FakeCluster, file: string, log = new Log()) {
  const recorder = new Recorder()
  const source = new CachedSource({
    source: cluster.source('n1'),
    file,
    identity,
    log,
    patienceMs: 50,
    writeEveryMs: 1,
  })
  source.start(recorder.listen)
  return { source, recorder, log }
}

/** A file as an agent leaves it that saw these nodes. */
async function leaveView(cluster: FakeCluster): Promise<string> {
  const file = newFile()
  const { source, recorder } = open(cluster, file)
  await recorder.until('synced')
  await source.close()
  return file
}

function openCluster(): FakeCluster {
  const cluster = new FakeCluster()
  cluster.putNetwork('{"Network":"10.244.0.0/16"}')
  const lease = { backendType: 'vxlan', publicIp: Ip.parse('192.0.2.2'), backendData: { VNI: 1 } }
  const weft = {
    accepts: ['vxlan/1/8472'],
    sends: ['vxlan/1/8472'],
    endpoints: { 'vxlan/1/8472': { data: { VNI: 1 } } },
  }
  cluster.putNode(nodeOf(1), { publicIp: Ip.parse('192.0.2.77') })
  const calico = {
    ipv4: { ip: Ip.parse('192.0.2.2'), prefixLength: 24 },
    ipv6: { ip: Ip.parse('2001:db8::2'), prefixLength: 64 },
    asNumber: 64512,
    routeReflectorClusterId: '244.0.0.1',
    ipv4IpipTunnelAddr: Ip.parse('172.26.0.1'),
    ipv4VxlanTunnelAddr: Ip.parse('172.26.0.2'),
    ipv6VxlanTunnelAddr: Ip.parse('fd00:172:26::'),
    vxlanTunnelMac: Mac.parse('66:00:00:00:00:02'),
    vxlanTunnelMacV6: Mac.parse('66:00:00:00:00:03'),
  }
  cluster.putNode(nodeOf(2, { lease, weft, calico, labels: { 'topology.kubernetes.io/zone': 'a' } }))
  cluster.putNode(nodeOf(3))
  return cluster
}

testSource(
  'with a memory',
  async () => {
    const cluster = new FakeCluster()
    const file = newFile()
    for (const n of [1, 2]) cluster.putNode(nodeOf(n, { podCidrs: [Cidr.parse(`10.244.${n}.0/24`)] }))
    return {
      source: (nodeName) =>
        new CachedSource({
          source: cluster.source(nodeName),
          file: `${file}-${nodeName}`,
          identity: { node: nodeName, store: 'fake' },
          log: new Log(),
        }),
      putNetwork: (text) => cluster.putNetwork(text),
      removeNode: (name) => cluster.removeNode(name),
      setUp: (up) => cluster.setUp(up),
      close: () => {},
    }
  },
  { hasCalico: true },
)

test('a view is read as it was written, whole', () => {
  const file = newFile()
  const cluster = openCluster()
  const nodes = [...cluster.nodes.values()].map(({ node, wishes }) => ({ node, wishes }))
  const written = [{ accepts: ['host-gw'], sends: ['host-gw', 'udp/8285'] }]
  const view = { network: { text: '{}', object: 'x' }, written, nodes }
  writeView(file, '2026-01-02T03:04:05.000Z', formatViewBody(identity, view))
  assert.deepEqual(readView(file, identity), { savedAt: '2026-01-02T03:04:05.000Z', ...view } satisfies ClusterView)
  assert.equal(statSync(file).mode & 0o777, 0o600)
})

test('a view that is not to be believed is refused, each for its reason', () => {
  const file = newFile()
  writeView(file, 'now', formatViewBody(identity, { written: [], nodes: [] }))
  const good = readFileSync(file, 'utf8')
  assert.ok(parseView(good, identity))
  for (let length = 0; length < good.length; length++)
    assert.throws(() => parseView(good.slice(0, length), identity), /checksum|version|not the view/, `cut at ${length}`)
  for (let at = 0; at < good.length; at++) {
    const bytes = Buffer.from(good)
    bytes[at]! ^= 1
    assert.throws(() => parseView(bytes.toString(), identity), `bit at ${at}`)
  }
  assert.throws(() => parseView(good.replace(` ${VIEW_VERSION} `, ' 99 '), identity), /version 99/)
  assert.throws(() => parseView(good, { ...identity, node: 'n2' }), /node n1/)
  assert.throws(() => parseView(good, { ...identity, store: 'other' }), /another store/)
  assert.equal(readView(`${file}-missing`, identity), undefined)
})

test('the store away: what was known is told, marked, and nothing more', async () => {
  const cluster = openCluster()
  const file = await leaveView(cluster)
  cluster.setUp(false)
  const { source, recorder } = open(cluster, file)
  const told: ClusterEvent[] = []
  await recorder.until('remembered', (event) => {
    told.push(...recorder.events)
    return event.savedAt.includes('T')
  })
  const names = told.flatMap((event) => (event.type === 'node' ? event.node.name : []))
  assert.deepEqual(names, ['n1', 'n2', 'n3'])
  assert.ok(told.some((event) => event.type === 'network' && event.text === '{"Network":"10.244.0.0/16"}'))
  assert.ok(!told.some(({ type }) => type === 'synced'))
  await source.close()
})

test('the store away: that there was no network configuration is told as well', async () => {
  const cluster = new FakeCluster()
  cluster.putNode(nodeOf(1))
  const file = await leaveView(cluster)
  cluster.setUp(false)
  const { source, recorder } = open(cluster, file)
  const told: ClusterEvent[] = []
  await recorder.until('remembered', () => {
    told.push(...recorder.events)
    return true
  })
  const texts = told.flatMap((event) => (event.type === 'network' ? [event.text] : []))
  assert.deepEqual(texts, [undefined])
  await source.close()
})

test('the store comes back: differences alone are told, then that it has told everything', async () => {
  const cluster = openCluster()
  const file = await leaveView(cluster)
  cluster.setUp(false)
  const { source, recorder } = open(cluster, file)
  await recorder.until('remembered')
  cluster.removeNode('n3')
  cluster.putNode(nodeOf(4))
  cluster.setUp(true)
  const between: ClusterEvent[] = []
  await recorder.until('synced', () => {
    between.push(...recorder.events)
    return true
  })
  const told = between.flatMap((event) =>
    event.type === 'node' ? `+${event.node.name}` : event.type === 'node-gone' ? `-${event.name}` : [],
  )
  assert.deepEqual(told, ['-n3', '+n4'])
  await source.close()
  assert.deepEqual(
    readView(file, identity)
      ?.nodes.map(({ node }) => node.name)
      .sort(),
    ['n1', 'n2', 'n4'],
  )
})

test('the store answers at once: nothing is remembered', async () => {
  const cluster = openCluster()
  const { source, recorder } = open(cluster, await leaveView(cluster))
  await recorder.until('synced', () => !recorder.events.some(({ type }) => type === 'remembered'))
  await source.close()
})

test('what this node is writing is in the file before the store has it', async () => {
  const cluster = openCluster()
  const file = newFile()
  const { source, recorder } = open(cluster, file)
  await recorder.until('synced')
  cluster.setUp(false)
  const writing = source.announce(announcementOf('192.0.2.1', 'udp'))
  assert.deepEqual(readView(file, identity)?.written, [{ accepts: ['udp'], sends: ['udp'] }])
  cluster.setUp(true)
  await writing
  await recorder.until('node', ({ node }) => node.name === 'n1' && node.weft !== undefined)
  const view = readView(file, identity)
  assert.deepEqual(view?.written, [])
  assert.deepEqual(view?.nodes.find(({ node }) => node.name === 'n1')?.node.weft?.accepts, ['udp'])
  await source.close()
})

test('a file that cannot be believed costs a warning', async () => {
  const cluster = openCluster()
  const file = newFile()
  writeFileSync(file, 'weft-cluster-view 1 now')
  cluster.setUp(false)
  const { source, recorder, log } = open(cluster, file)
  await recorder.until('connection')
  assert.match(log.warnings.join(), /is not used.*checksum|is not used.*not the view/)
  cluster.setUp(true)
  await recorder.until('synced')
  assert.equal(readView(file, identity)?.nodes.length, 3, 'and it is replaced')
  await source.close()
})
