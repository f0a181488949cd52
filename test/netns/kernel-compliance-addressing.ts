/**
 * What every Kernel must do with addresses, routes, neighbours and forwarding entries: a part of the compliance suite.
 */
import assert from 'node:assert/strict'
import { type KernelObject, keyOf } from '../../src/model/kernel-object.ts'
import { Mac } from '../../src/net/mac.ts'
import {
  add,
  address,
  bridge,
  type Check,
  cidr,
  codes,
  ip,
  keys,
  Listener,
  mac,
  remove,
  route,
  set,
  succeed,
  vxlan,
} from './kernel-compliance-subject.ts'

export function checkAddressing(check: Check): void {
  check('an address brings its connected route and takes it along', async ({ kernel }) => {
    await succeed(kernel, add(bridge('br0')), add(address('10.1.0.1', 24)), add(address('fd00::1', 64)))
    const connected = ['route 254 10.1.0.0/24 0', 'route 254 fd00::/64 256']
    let have = await keys(kernel, 'address', 'route')
    for (const key of [...connected, 'address br0 10.1.0.1/24', 'address br0 fd00::1/64']) assert.ok(have.has(key), key)
    assert.deepEqual(await codes(kernel, add(address('10.1.0.1', 24))), ['EEXIST'])
    assert.deepEqual(await codes(kernel, add(address('fd00::1', 64))), ['EEXIST'])
    assert.deepEqual(await codes(kernel, set(address('10.1.0.1', 24)), set(address('fd00::1', 64))), [
      undefined,
      undefined,
    ])
    await succeed(kernel, remove(address('10.1.0.1', 24)), remove(address('fd00::1', 64)))
    have = await keys(kernel, 'address', 'route')
    for (const key of connected) assert.ok(!have.has(key), key)
    assert.deepEqual(await codes(kernel, remove(address('10.1.0.1', 24)), remove(address('fd00::1', 64))), [
      'EADDRNOTAVAIL',
      'EADDRNOTAVAIL',
    ])
  })

  check('a route needs a device that is up and a gateway that is reachable', async ({ kernel }) => {
    const far = route('10.9.0.0/16', '10.7.0.1')
    assert.deepEqual(await codes(kernel, add(far)), ['ENODEV'])
    await succeed(kernel, add(bridge('br0', { up: false })))
    assert.deepEqual(await codes(kernel, add(route('10.9.0.0/16')), add(far)), ['ENETDOWN', 'ENETUNREACH'])
    await succeed(kernel, set(bridge('br0')), add(address('10.1.0.1', 24)))
    assert.deepEqual(await codes(kernel, add(far)), ['ENETUNREACH'])
    const onlink = { ...far, hops: [{ ...far.hops[0], onlink: true }] }
    assert.deepEqual(await codes(kernel, add(onlink), add(onlink)), [undefined, 'EEXIST'])
    const read = (await kernel.read('route')).find((found) => keyOf(found) === keyOf(far))!
    assert.deepEqual([read.protocol, read.hops.length, `${read.hops[0]!.via}`], [119, 1, '10.7.0.1'])
    assert.deepEqual([read.hops[0]!.device, read.hops[0]!.onlink], ['br0', true])
  })

  for (const [subnet, own, first, second, destination] of [
    [24, '10.1.0.1', '10.1.0.2', '10.1.0.3', '10.9.0.0/16'],
    [64, 'fd00::1', 'fd00::2', 'fd00::3', 'fd09::/64'],
  ] as const)
    check(`setting a route to ${destination} replaces it; deleting it twice fails`, async ({ kernel }) => {
      await succeed(kernel, add(bridge('br0')), add(address(own, subnet)))
      await succeed(kernel, set(route(destination, first)), set(route(destination, second)))
      const found = (await kernel.read('route')).filter((one) => `${one.destination}` === destination)
      assert.deepEqual(
        found.map((one) => one.hops.map((hop) => `${hop.via}`)),
        [[second]],
      )
      const gone = route(destination, second)
      assert.deepEqual(await codes(kernel, remove(gone), remove(gone)), [undefined, 'ESRCH'])
    })

  check('routes differ by table and metric; kinds without a next hop stand alone', async ({ kernel }) => {
    await succeed(
      kernel,
      add(bridge('br0')),
      add(address('10.1.0.1', 24)),
      add(route('10.9.0.0/16', '10.1.0.2')),
      add(route('10.9.0.0/16', '10.1.0.2', { metric: 50 })),
      add(route('10.9.0.0/16', '10.1.0.2', { table: 1000 })),
      add({ kind: 'route', destination: cidr('10.8.0.0/16'), type: 'blackhole', hops: [], protocol: 119 }),
      add({ kind: 'route', destination: cidr('fd08::/48'), type: 'unreachable', hops: [], protocol: 119 }),
    )
    await succeed(kernel, remove(route('10.9.0.0/16', '10.1.0.2', { metric: 50 })))
    const have = await keys(kernel, 'route')
    assert.ok(have.has('route 254 10.9.0.0/16 0') && have.has('route 1000 10.9.0.0/16 0'))
    assert.ok(!have.has('route 254 10.9.0.0/16 50'))
    const read = await kernel.read('route')
    for (const [destination, type] of [
      ['10.8.0.0/16', 'blackhole'],
      ['fd08::/48', 'unreachable'],
    ] as const) {
      const found = read.find((each) => `${each.destination}` === destination)!
      assert.deepEqual([found.type, found.hops.length], [type, 0])
    }
  })

  check('a multipath route reads back with its weights', async ({ kernel }) => {
    const hops = [
      { via: ip('10.1.0.2'), device: 'br0', weight: 3 },
      { via: ip('10.1.0.3'), device: 'br0', weight: 1 },
    ]
    await succeed(
      kernel,
      add(bridge('br0')),
      add(address('10.1.0.1', 24)),
      add(route('10.9.0.0/16', undefined, { hops })),
    )
    const read = (await kernel.read('route')).find((found) => `${found.destination}` === '10.9.0.0/16')!
    assert.deepEqual(
      read.hops.map((hop) => `${hop.via} ${hop.weight}`),
      ['10.1.0.2 3', '10.1.0.3 1'],
    )
  })

  check('neighbours and FDB entries are set over, and deleted once', async ({ kernel }) => {
    const neighbour = (last: number): KernelObject => ({
      kind: 'neighbour',
      device: 'vx0',
      ip: ip('10.244.1.0'),
      mac: mac(last),
    })
    const entry = (remote: string): KernelObject => ({ kind: 'fdb', device: 'vx0', mac: mac(9), remote: ip(remote) })
    assert.deepEqual(await codes(kernel, set(neighbour(1)), set(entry('10.0.0.9'))), ['ENODEV', 'ENODEV'])
    await succeed(
      kernel,
      add(vxlan),
      set(neighbour(1)),
      set(neighbour(2)),
      set(entry('10.0.0.8')),
      set(entry('10.0.0.9')),
    )
    assert.deepEqual(await codes(kernel, add(neighbour(3)), add(entry('10.0.0.7'))), ['EEXIST', 'EEXIST'])
    const [found] = (await kernel.read('neighbour')).filter((one) => `${one.ip}` === '10.244.1.0')
    assert.equal(`${found!.mac}`, `${mac(2)}`)
    assert.equal(found!.state ?? 'permanent', 'permanent')
    const remotes = (await kernel.read('fdb')).filter((one) => one.mac.equals(mac(9))).map((one) => `${one.remote}`)
    assert.deepEqual(remotes, ['10.0.0.9'])
    await succeed(kernel, remove(neighbour(2)), remove(entry('10.0.0.9')))
    assert.deepEqual(await codes(kernel, remove(neighbour(2)), remove(entry('10.0.0.9'))), ['ENOENT', 'ENOENT'])
  })

  check('the all-zero FDB address keeps a list of remotes', async ({ kernel }) => {
    const flood = (remote: string): KernelObject => ({ kind: 'fdb', device: 'vx0', mac: Mac.zero, remote: ip(remote) })
    await succeed(kernel, add(vxlan), set(flood('10.0.0.8')), set(flood('10.0.0.9')), remove(flood('10.0.0.8')))
    const remotes = (await kernel.read('fdb')).filter((one) => one.mac.isZero).map((one) => `${one.remote}`)
    assert.deepEqual(remotes, ['10.0.0.9'])
  })

  check(
    'IPv4 routes go with their device, or its last address, unannounced; IPv6 routes are announced',
    async (subject) => {
      const { kernel } = subject
      await succeed(
        kernel,
        add(bridge('br0')),
        add(address('10.1.0.1', 24)),
        add(address('fd00::1', 64)),
        add(route('10.9.0.0/16', '10.1.0.2')),
        add(route('fd09::/64', 'fd00::2')),
      )
      const listener = new Listener()
      const watch = kernel.watch(['link', 'address', 'route'], listener.listen)
      await succeed(kernel, remove(address('10.1.0.1', 24)))
      await listener.until('delete address br0 10.1.0.1/24')
      await listener.until('delete route 254 10.1.0.0/24 0')
      assert.ok(!(await keys(kernel, 'route')).has('route 254 10.9.0.0/16 0'))
      await succeed(kernel, add(address('10.1.0.1', 24)), add(route('10.9.0.0/16', '10.1.0.2')))
      await listener.until('new route 254 10.9.0.0/16 0')
      await succeed(kernel, remove(bridge('br0')))
      await listener.until('delete link br0')
      assert.deepEqual(
        [...(await keys(kernel, 'route'))].filter((key) => key.startsWith('route 254')),
        [],
      )
      assert.ok(listener.heard.includes('delete route 254 fd09::/64 1024'))
      assert.ok(!listener.heard.includes('delete route 254 10.9.0.0/16 0'))
      watch.close()
    },
  )
}
