import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KernelObject } from '../../model/kernel-object.ts'
import type { KernelOp } from '../../model/kernel-state.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import type { KernelEvent } from '../kernel.ts'
import { FakeKernel } from './fake-kernel.ts'

const bridge: KernelObject = { kind: 'link', name: 'cni0', type: 'bridge', up: true }
const address: KernelObject = { kind: 'address', device: 'cni0', ip: Ip.parse('10.244.1.1'), prefixLength: 24 }
const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
const codes = async (kernel: FakeKernel, ...ops: KernelOp[]) =>
  (await kernel.execute(ops)).map((result) => result?.code)

test('an address brings its connected route and both go with the device', async () => {
  const kernel = FakeKernel.create()
  assert.deepEqual(await codes(kernel, add(bridge), add(address)), [undefined, undefined])
  assert.ok(kernel.objects.has('route 254 10.244.1.0/24 0'))
  assert.deepEqual(await codes(kernel, { verb: 'delete', object: bridge }), [undefined])
  assert.deepEqual([...kernel.objects.keys()], ['link lo'])
})

test('a route needs a device that is up and a reachable gateway', async () => {
  const kernel = FakeKernel.create()
  const route = (via: string, onlink = false): KernelOp =>
    add({
      kind: 'route',
      destination: Cidr.parse('10.9.0.0/16'),
      hops: [{ via: Ip.parse(via), device: 'cni0', onlink }],
    })
  assert.deepEqual(await codes(kernel, route('10.244.1.9')), ['ENODEV'])
  await kernel.execute([add({ ...bridge, up: false } as KernelObject)])
  assert.deepEqual(await codes(kernel, route('10.244.1.9'), route('10.244.1.9', true)), ['ENETUNREACH', 'ENETDOWN'])
  await kernel.execute([{ verb: 'set', object: bridge }, add(address)])
  assert.deepEqual(await codes(kernel, route('10.8.0.1')), ['ENETUNREACH'])
  assert.deepEqual(await codes(kernel, route('10.8.0.1', true)), [undefined])
  assert.deepEqual(await codes(kernel, route('10.244.1.9')), ['EEXIST'])
})

test('a veth pair spans namespaces and dies as one', async () => {
  const host = FakeKernel.create()
  const pod = host.createNamespace('/run/netns/pod')
  const veth: KernelObject = {
    kind: 'link',
    name: 'veth1',
    type: 'veth',
    settings: { peer: { name: 'eth0', netnsPath: '/run/netns/pod', ifindex: 2 } },
  }
  assert.deepEqual(await codes(host, add(veth)), [undefined])
  assert.equal((await pod.read('link')).find((link) => link.name === 'eth0')?.ifindex, 2)
  await pod.execute([{ verb: 'delete', object: { kind: 'link', name: 'eth0', type: 'veth' } }])
  assert.ok(!host.objects.has('link veth1'))
  assert.throws(() => host.open('/run/netns/gone'), { code: 'ENOENT' })
})

test('nft ops of one run happen all or not at all', async () => {
  const kernel = FakeKernel.create()
  const table: KernelObject = { kind: 'nft-table', family: 'inet', name: 'weft' }
  const element: KernelObject = { kind: 'nft-element', family: 'inet', table: 'weft', set: 'nodes', key: '10.0.0.1' }
  assert.deepEqual(await codes(kernel, add(table), add(element)), ['ECANCELED', 'ENOENT'])
  assert.ok(!kernel.objects.has('nft-table inet weft'))
  const set: KernelObject = { kind: 'nft-set', family: 'inet', table: 'weft', name: 'nodes', type: ['ipv4_addr'] }
  assert.deepEqual(await codes(kernel, add(table), add(set), add(element)), [undefined, undefined, undefined])
  await kernel.execute([{ verb: 'delete', object: table }])
  assert.deepEqual([...kernel.objects.keys()], ['link lo'])
})

test('watchers hear of consequences, of the kinds they asked for, until they close', async () => {
  const kernel = FakeKernel.create()
  const heard: KernelEvent[] = []
  const watch = kernel.watch(['route'], (event) => heard.push(event))
  await kernel.execute([add(bridge), add(address), { verb: 'delete', object: address }])
  await Promise.resolve()
  assert.deepEqual(
    heard.map((event) => (event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)),
    ['new route 254 10.244.1.0/24 0', 'delete route 254 10.244.1.0/24 0'],
  )
  kernel.loseEvents()
  assert.deepEqual(heard.at(-1), { type: 'resync' })
  watch.close()
  kernel.loseEvents()
  assert.equal(heard.length, 3)
})
