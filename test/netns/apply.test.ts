import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { Applier, type ApplyReport } from '../../src/apply/applier.ts'
import { datapathOf } from '../../src/datapath/datapath.ts'
import type { VxlanConfig } from '../../src/model/backend.ts'
import { formatObject } from '../../src/model/format.ts'
import type { ObjectKind } from '../../src/model/kernel-object.ts'
import type { Fragment } from '../../src/model/kernel-state.ts'
import { WEFT_ROUTE_PROTOCOL } from '../../src/model/route.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from './namespace.ts'

const kinds: readonly (readonly ObjectKind[])[] = [['link'], ['address', 'neighbour', 'fdb'], ['route', 'rule']]
const config: VxlanConfig = { type: 'vxlan', vni: 1, port: 8472, gbp: false, learning: false, directRouting: false }

const node = new TestNamespace()
node.run(
  'ip link add eth0 type veth peer name far && ip link set far up && ip link set eth0 up && ip addr add 172.30.1.1/24 dev eth0',
)
after(() => node.delete())

const context = {
  name: 'n1',
  uid: 'uid-1',
  podCidrs: [Cidr.parse('10.244.1.0/24')],
  external: { device: 'eth0', mtuBytes: 1500, addresses: [{ ip: Ip.parse('172.30.1.1'), prefixLength: 24 }] },
  publicIp: Ip.parse('172.30.1.1'),
}
const vxlan = datapathOf(config)
const mac = (n: number): string =>
  `0e:00:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`
const peer = (n: number): Fragment =>
  vxlan.toward(config, context, {
    name: `n${n}`,
    addresses: [],
    podCidrs: [Cidr.of(Ip.parse('10.244.0.0').plus(n * 256), 24)],
    lease: {
      publicIp: Ip.parse('172.30.1.0').plus(n),
      backendType: 'vxlan',
      backendData: { VNI: 1, VtepMAC: mac(n) },
    },
  }).fragment

async function started(...fragments: Fragment[]) {
  const reports: ApplyReport[] = []
  let wake = (): void => undefined
  const onReport = (report: ApplyReport) => {
    reports.push(report)
    wake()
  }
  const applier = new Applier(node.kernel, { kinds, onReport })
  applier.set(...fragments)
  await applier.start()
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  /** Looks again after every pass of the applier until something holds. */
  const until = async (holds: () => boolean | Promise<boolean>): Promise<void> => {
    const deadline = setTimeout(() => wake(), 10_000)
    const end = performance.now() + 10_000
    for (;;) {
      const next = new Promise<void>((resolve) => {
        wake = resolve
      })
      if (await holds()) break
      assert.ok(performance.now() < end, 'waited in vain')
      await next
    }
    clearTimeout(deadline)
  }
  const written = () => reports.flatMap((report) => report.ops).filter((op) => op.object.kind !== 'sysctl')
  return { applier, until, written }
}

/** flannel.1 and what hangs on it, our routes: read anew, as lines. */
async function dump(): Promise<string> {
  const objects = await node.kernel.read('link', 'address', 'neighbour', 'fdb', 'route')
  const ours = objects.filter((object) => {
    if (object.kind === 'link') return object.name === 'flannel.1'
    if (object.kind === 'route') return object.protocol === WEFT_ROUTE_PROTOCOL
    if (object.kind === 'fdb') return object.device === 'flannel.1' && object.remote !== undefined
    return object.device === 'flannel.1' && !object.ip.isMulticast
  })
  return ours
    .map((object) => formatObject({ ...object, ...(object.kind === 'link' && { ifindex: 0 }) }))
    .sort()
    .join('\n')
}

test('what is deleted or changed by hand is put right', async (t: TestContext) => {
  const { applier, until, written } = await started(vxlan.local(config, context), peer(2), peer(3))
  applier.markComplete()
  await applier.settle()
  const whole = await dump()
  for (const command of [
    'ip route del 10.244.2.0/24',
    'ip route replace 10.244.2.0/24 via 172.30.1.77 dev eth0',
    'ip neigh del 10.244.2.0 dev flannel.1',
    'ip neigh replace 10.244.2.0 lladdr 0e:00:00:00:99:99 dev flannel.1 nud permanent',
    `bridge fdb del ${mac(2)} dev flannel.1 dst 172.30.1.2 self`,
    `bridge fdb replace ${mac(2)} dev flannel.1 dst 172.30.1.66 self permanent`,
    'ip addr del 10.244.1.0/32 dev flannel.1',
    'ip link set flannel.1 mtu 1300',
    'ip link set flannel.1 address 0e:11:11:11:11:11',
    'ip link set flannel.1 down',
    'ip link del flannel.1',
    'ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dstport 4789',
    'ip neigh add 10.244.99.0 lladdr 0e:00:00:00:00:99 dev flannel.1 nud permanent',
    'ip route add 10.77.0.0/16 dev flannel.1 proto 119',
  ]) {
    const before = written().length
    node.run(command)
    const start = performance.now()
    await until(async () => written().length > before && (await dump()) === whole)
    t.diagnostic(`${command}: right again after ${(performance.now() - start).toFixed(0)} ms`)
  }
  await applier.close()
})

test('a new run takes over what stands, writes nothing, and sweeps what nobody wants once all have spoken', async () => {
  node.run('ip route add 10.9.0.0/16 dev eth0 proto static; ip neigh add 172.30.1.99 lladdr 02:00:00:00:00:99 dev eth0')
  const { applier, written } = await started(vxlan.local(config, context), peer(2))
  assert.deepEqual(written(), [])
  assert.match(node.run('ip route'), /10\.244\.3\.0\/24/)
  applier.markComplete()
  await applier.settle()
  assert.doesNotMatch(await dump(), /10\.244\.3\.0|172\.30\.1\.3/)
  assert.match(await dump(), /10\.244\.2\.0\/24/)
  assert.match(node.run('ip route'), /10\.9\.0\.0\/16/)
  assert.match(node.run('ip neigh'), /172\.30\.1\.99/)
  applier.change([], [...applier.desired.sources()])
  await applier.settle()
  assert.equal(node.run('ip -o link show type vxlan; ip route show proto 119'), '')
  assert.match(node.run('ip route'), /10\.9\.0\.0\/16/)
  await applier.close()
})

test('a device that flannel left is taken over with its address', async () => {
  node.run(
    'ip link add flannel.1 address 0e:aa:bb:cc:dd:ee type vxlan id 1 dev eth0 local 172.30.1.1 dstport 8472 nolearning && ip link set flannel.1 up mtu 1450 && ip addr add 10.244.1.0/32 dev flannel.1 && ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink && ip neigh add 10.244.77.0 lladdr 0e:00:00:00:00:77 dev flannel.1 nud permanent',
  )
  const index = node.json<{ ifindex: number }[]>('ip -j link show flannel.1')[0]!.ifindex
  const stored = { ...context, lease: { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: '0e:aa:bb:cc:dd:ee' } } }
  const { applier, until } = await started(vxlan.local(config, stored), peer(2))
  applier.markComplete()
  await until(() => !node.run('ip neigh show nud permanent').includes('10.244.77.0'))
  const [link] = node.json<{ ifindex: number; address: string; ifalias: string }[]>('ip -j -d link show flannel.1')
  assert.deepEqual([link?.ifindex, link?.address, link?.ifalias], [index, '0e:aa:bb:cc:dd:ee', 'weft:vxlan'])
  assert.match(node.run('ip route'), /10\.244\.2\.0\/24 via 10\.244\.2\.0 dev flannel\.1 proto 119 onlink/)
  applier.change([], [...applier.desired.sources()])
  await applier.settle()
  await applier.close()
})

test('one more peer costs three operations', async () => {
  const peers = Array.from({ length: 250 }, (_, i) => peer(i + 2))
  const { applier, written } = await started(vxlan.local(config, context), ...peers)
  applier.markComplete()
  await applier.settle()
  const before = written().length
  applier.set(peer(254))
  await applier.settle()
  assert.equal(written().length - before, 3)
  applier.change([], [...applier.desired.sources()])
  await applier.settle()
  await applier.close()
})
