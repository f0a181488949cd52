import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import { formatOp } from '../model/format.ts'
import { type KernelObject, keyOf } from '../model/kernel-object.ts'
import type { KernelState } from '../model/kernel-state.ts'
import type { FouPort, Link } from '../model/link.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Applier } from './applier.ts'
import { diff } from './diff.ts'
import { weftOwnership } from './ownership.ts'

const stateOf = (...objects: readonly KernelObject[]): KernelState =>
  new Map(objects.map((object) => [keyOf(object), object]))
const lines = (have: KernelState, want: KernelState): string[] => diff(have, want, weftOwnership()).map(formatOp)
const tunnel = (name: string, remote: string): Link => ({
  kind: 'link',
  name,
  type: 'ipip',
  settings: { local: Ip.parse('172.30.0.1'), remote: Ip.parse(remote) },
  alias: 'weft:tun',
})
const route = (device: string): KernelObject => ({
  kind: 'route',
  destination: Cidr.parse('10.244.2.0/24'),
  hops: [{ device }],
  protocol: 119,
})
const port: FouPort = { kind: 'fou', family: 4, port: 5555, type: 'gue', marked: true }

test('a route leaves a device before the device goes, and is never missing', () => {
  const ops = lines(stateOf(tunnel('tun-a', '172.30.0.2'), route('tun-a')), stateOf(route('eth0')))
  assert.deepEqual(ops, ['ip route replace 10.244.2.0/24 dev eth0 proto 119', 'ip link delete tun-a'])
})

test('a route of a device that is made anew is added again', () => {
  const want = { ...tunnel('tun-a', '172.30.0.2'), settings: { external: true } } as Link
  const ops = lines(stateOf(tunnel('tun-a', '172.30.0.2'), route('tun-a')), stateOf(want, route('tun-a')))
  assert.deepEqual(
    ops.map((op) => op.split(' ').slice(0, 4).join(' ')),
    ['ip link delete tun-a', 'ip link add tun-a', 'ip route add 10.244.2.0/24'],
  )
})

test('a port of Foo over UDP is opened before the tunnels and closed after them; another hand’s is left open', () => {
  const up = lines(stateOf(), stateOf(tunnel('tun-a', '172.30.0.2'), port))
  assert.match(up[0]!, /^ip fou add port 5555 gue/)
  const down = lines(stateOf(tunnel('tun-a', '172.30.0.2'), port), stateOf())
  assert.deepEqual(down, ['ip link delete tun-a', 'ip fou del port 5555'])
  const { marked: _, ...theirs } = port
  assert.deepEqual(lines(stateOf(theirs), stateOf(port)), [])
  assert.deepEqual(lines(stateOf(theirs), stateOf()), [])
})

test('the fallback device is taken, and given back with its addresses off', async () => {
  const kernel = FakeKernel.create()
  const taken: Link = { kind: 'link', type: 'ipip', name: 'tunl0', up: true, mtuBytes: 1430, alias: 'weft:ipip' }
  const address: KernelObject = { kind: 'address', device: 'tunl0', ip: Ip.parse('172.26.0.1'), prefixLength: 32 }
  const applier = new Applier(kernel)
  await applier.start()
  applier.set({ source: 'pools', objects: [taken, address] })
  applier.markComplete()
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  const device = async () => (await kernel.read('link')).find(({ name }) => name === 'tunl0')!
  assert.deepEqual([(await device()).up, (await device()).alias], [true, 'weft:ipip'])
  applier.remove('pools')
  await applier.settle()
  assert.deepEqual([(await device()).up, (await device()).alias], [false, undefined])
  assert.deepEqual(await kernel.read('address'), [])
  const before = kernel.history.length
  applier.resync()
  await applier.settle()
  assert.equal(kernel.history.length, before, 'what is given back is nobody’s')
  await applier.close()
})

test("a fallback device in another's use is told about, and stays theirs", async () => {
  const kernel = FakeKernel.create()
  const theirs: Link = { kind: 'link', type: 'gre', name: 'tunl0', up: true, settings: { key: 7 } }
  await kernel.execute([{ verb: 'add', object: theirs }])
  const applier = new Applier(kernel)
  await applier.start()
  applier.set({
    source: 'pools',
    objects: [{ kind: 'link', type: 'ipip', name: 'tunl0', up: true, alias: 'weft:ipip' }],
  })
  applier.markComplete()
  await applier.settle()
  assert.match(applier.failures()[0]!.error.message, /tunl0 is there and another's: it is of kind gre; take it away/)
  applier.remove('pools')
  await applier.settle()
  assert.equal((await kernel.read('link')).find(({ name }) => name === 'tunl0')?.type, 'gre')
  await applier.close()
})
