import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { EtcdNodesSource } from '../../src/cluster/calico/etcd-nodes-source.ts'
import type { ClusterSource, LeaseAnnouncement, SubnetRange } from '../../src/cluster/cluster.ts'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { EtcdSource, type EtcdSourceOptions } from '../../src/cluster/etcd/source.ts'
import { announcementOf, Recorder, type StoreHarness, testSource } from '../../src/cluster/source-suite.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { EtcdServer } from './etcd-server.ts'

const quiet = { debug() {}, info() {}, warn() {}, error() {} }
const v4: SubnetRange = {
  network: Cidr.parse('10.244.0.0/16'),
  length: 24,
  min: Ip.parse('10.244.1.0'),
  max: Ip.parse('10.244.255.0'),
}
let prefixes = 0
let server: EtcdServer

before(async () => {
  server = await EtcdServer.start()
})
after(() => server.stop())
const opened: EtcdSource[] = []
afterEach(async () => {
  for (const source of opened.splice(0)) await source.close()
})

const optionsOf = (endpoint: string, prefix: string, nodeName: string): EtcdSourceOptions => ({
  client: new EtcdClient({ endpoints: [endpoint] }),
  prefix,
  nodeName,
  renewMarginMinutes: 60,
  log: quiet,
  backoff: { first: 5, cap: 50 },
})

function open(...args: Parameters<typeof optionsOf>): EtcdSource {
  const source = new EtcdSource(optionsOf(...args))
  opened.push(source)
  return source
}

const request = (announcement: LeaseAnnouncement, ranges = [v4], previous: Cidr[] = []) => ({
  ranges,
  previous,
  ...(announcement.lease.publicIp ? { publicIp: announcement.lease.publicIp } : {}),
  announce: () => announcement,
})

/** A source that takes a subnet with its first announcement, as the agent does. */
class TakingSource extends EtcdSource {
  #taken = false

  override async announce(announcement: LeaseAnnouncement): Promise<void> {
    if (!this.#taken && announcement.lease) {
      await this.acquire(request(announcement))
      this.#taken = true
    }
    await super.announce(announcement)
  }
}

const harnessAt = async (
  open: (line: string, prefix: string, name: string) => ClusterSource,
): Promise<StoreHarness> => {
  const prefix = `/suite${++prefixes}`
  const line = await server.openLine()
  return {
    source: (name) => open(line, prefix, name),
    putNetwork: (text) => void server.ctl('put', `${prefix}/config`, text),
    putGarbage: () =>
      void server.ctl('put', `${prefix}/subnets/10.244.77.0-24`, '{"PublicIP":"999.1.1.1","BackendType":"vxlan"}'),
    removeNode: () => {
      const keys = server.ctl('get', '--prefix', '--keys-only', `${prefix}/subnets/`).trim().split('\n')
      server.ctl('del', keys[0]!)
    },
    setUp: async (up) => {
      if (up) await server.openLine()
      else server.cutLine()
    },
    compact: () => {
      const status = JSON.parse(server.ctl('endpoint', 'status', '-w', 'json'))
      server.ctl('put', '/elsewhere', 'x')
      server.ctl('compact', String(status[0].Status.header.revision + 1))
    },
    close: () => server.cutLine(),
  }
}

testSource('etcd', () => harnessAt((...at) => new TakingSource(optionsOf(...at))))

testSource(
  "etcd with Calico's nodes",
  () => {
    server.ctl('del', '--prefix', '/calico/')
    return harnessAt(
      (line, prefix, nodeName) =>
        new EtcdNodesSource({
          source: new TakingSource(optionsOf(line, prefix, nodeName)),
          client: new EtcdClient({ endpoints: [line] }),
          nodeName,
          log: quiet,
          backoff: { first: 5, cap: 50 },
        }),
    )
  },
  { hasCalico: true },
)

const storedAt = (key: string) => JSON.parse(server.ctl('get', '--print-value-only', key))
/** The key's lease in hexadecimal, as etcdctl takes it; undefined when it has none, or there is no such key. Too long for a number. */
function leaseOf(key: string): string | undefined {
  const lease = /"lease":(\d+)/.exec(server.ctl('get', key, '-w', 'json'))?.[1]
  return lease === undefined ? undefined : BigInt(lease).toString(16)
}

test("etcd: the key and value are flannel's, under a lease of a day", async () => {
  const prefix = `/shape${++prefixes}`
  const source = open(server.url, prefix, 'n1')
  source.start(() => {})
  const v6 = {
    network: Cidr.parse('fd00:10:244::/56'),
    length: 64,
    min: Ip.parse('fd00:10:244:1::'),
    max: Ip.parse('fd00:10:244:1::'),
  }
  const narrow = { ...v4, min: Ip.parse('10.244.9.0'), max: Ip.parse('10.244.9.0') }
  const taken = await source.acquire(request(announcementOf('192.0.2.1', 'vxlan'), [narrow, v6]))
  assert.deepEqual(taken.map(String), ['10.244.9.0/24', 'fd00:10:244:1::/64'])
  const key = `${prefix}/subnets/10.244.9.0-24&fd00:10:244:1::-64`
  const { PublicIP, PublicIPv6, BackendType, BackendData } = storedAt(key)
  assert.deepEqual(
    { PublicIP, PublicIPv6, BackendType, BackendData },
    {
      PublicIP: '192.0.2.1',
      PublicIPv6: null,
      BackendType: 'vxlan',
      BackendData: { VNI: 1 },
    },
  )
  const shown = server.ctl('lease', 'timetolive', leaseOf(key)!)
  assert.match(shown, /granted with TTL\(86400s\)/)
})

test('etcd: a node finds its own subnet again: by address, by name, by subnet.env', async () => {
  const prefix = `/again${++prefixes}`
  const take = async (nodeName: string, publicIp: string, previous: Cidr[] = []) => {
    const source = open(server.url, prefix, nodeName)
    source.start(() => {})
    const taken = await source.acquire(request(announcementOf(publicIp), [v4], previous))
    await source.close()
    return taken.join()
  }
  const first = await take('n1', '192.0.2.1')
  assert.equal(await take('n1', '192.0.2.1'), first, 'as it was')
  assert.equal(await take('renamed', '192.0.2.1'), first, 'by the address')
  assert.equal(await take('renamed', '192.0.2.77'), first, 'by the name, the address being new')
  const previous = [Cidr.parse('10.244.200.0/24')]
  assert.equal(await take('n2', '192.0.2.2', previous), '10.244.200.0/24', 'by subnet.env')
  assert.notEqual(await take('n3', '192.0.2.3', previous), '10.244.200.0/24', 'unless somebody else has it')
})

test('etcd: a key without a lease is a reservation and stays one', async () => {
  const prefix = `/reserved${++prefixes}`
  const key = `${prefix}/subnets/10.244.42.0-24`
  server.ctl('put', key, '{"PublicIP":"192.0.2.42"}')
  const source = open(server.url, prefix, 'n42')
  source.start(() => {})
  assert.equal((await source.acquire(request(announcementOf('192.0.2.42')))).join(), '10.244.42.0/24')
  assert.equal(leaseOf(key), undefined)
  assert.equal(storedAt(key).WeftNode, 'n42')
})

test('etcd: sixteen nodes that start together get sixteen subnets; the seventeenth is told that it is full', async () => {
  const prefix = `/race${++prefixes}`
  const range = { ...v4, min: Ip.parse('10.244.1.0'), max: Ip.parse('10.244.16.0') }
  const sources = Array.from({ length: 17 }, (_, i) => open(server.url, prefix, `n${i}`))
  const take = (i: number) => sources[i]!.acquire(request(announcementOf(`192.0.2.${i + 1}`), [range]))
  const taken = await Promise.all(Array.from({ length: 16 }, (_, i) => take(i)))
  assert.equal(new Set(taken.map(String)).size, 16)
  await assert.rejects(take(16), /Network: 10\.244\.0\.0\/16 has no free subnet/)
})

test('etcd: a lease that ended while its node lived is taken again, the same subnet', async () => {
  const prefix = `/ended${++prefixes}`
  const source = open(server.url, prefix, 'n1')
  const recorder = new Recorder()
  source.start(recorder.listen)
  await recorder.until('synced')
  const [taken] = await source.acquire(request(announcementOf('192.0.2.1')))
  const key = `${prefix}/subnets/${taken!.base}-24`
  await recorder.until('node', ({ node }) => node.name === 'n1')
  const lease = leaseOf(key)
  server.ctl('lease', 'revoke', lease!)
  const deadline = performance.now() + 20_000
  for (;;) {
    const found = leaseOf(key)
    if (found !== undefined && found !== lease) break
    assert.ok(performance.now() < deadline, 'never taken again')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
})

test('etcd: TLS with client certificates', async () => {
  const tls = await EtcdServer.start(makeCertificates(server.folder))
  const { ca, cert, key } = makeCertificates(server.folder)
  const client = new EtcdClient({ endpoints: [tls.url], caFile: ca, certFile: cert, keyFile: key })
  assert.equal(await client.putIf('/x', '0', 'y', '0'), true)
  assert.equal((await client.range('/x')).pairs[0]!.value, 'y')
  const stranger = new EtcdClient({ endpoints: [tls.url], caFile: ca })
  await assert.rejects(stranger.range('/x'))
  for (const each of [client, stranger]) each.close()
  await tls.stop()
})

test('etcd: user and password', async () => {
  const locked = await EtcdServer.start()
  locked.ctl('user', 'add', 'root:secret')
  locked.ctl('user', 'grant-role', 'root', 'root')
  locked.ctl('auth', 'enable')
  const client = new EtcdClient({ endpoints: [locked.url], username: 'root', password: 'secret' })
  assert.equal(await client.putIf('/x', '0', 'y', '0'), true)
  const wrong = new EtcdClient({ endpoints: [locked.url], username: 'root', password: 'guess' })
  await assert.rejects(wrong.range('/x'), /authentication failed/)
  const nobody = new EtcdClient({ endpoints: [locked.url] })
  await assert.rejects(nobody.range('/x'), /user name is empty|permission denied/)
  for (const each of [client, wrong, nobody]) each.close()
  await locked.stop()
})

let certificates: { ca: string; cert: string; key: string } | undefined

/** A CA, and one certificate for both ends. */
function makeCertificates(folder: string): { ca: string; cert: string; key: string } {
  if (certificates) return certificates
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
    '-subj',
    '/CN=test',
  )
  openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'end.key', '-out', 'end.csr', '-subj', '/CN=end')
  writeFileSync(join(folder, 'end.ext'), 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n')
  openssl(
    'x509',
    '-req',
    '-in',
    'end.csr',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-out',
    'end.pem',
    '-days',
    '2',
    '-extfile',
    'end.ext',
  )
  certificates = { ca: join(folder, 'ca.pem'), cert: join(folder, 'end.pem'), key: join(folder, 'end.key') }
  return certificates
}
