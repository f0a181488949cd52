/**
 * What every Kernel must do, as tests: run over the real kernel in namespaces (kernel-compliance.test.ts) and over the
 * twin in memory (src/kernel/fake/compliance.test.ts). An expectation here is what Linux does.
 */
import assert from 'node:assert/strict'
import { type KernelObject, keyOf } from '../../src/model/kernel-object.ts'
import type { Link } from '../../src/model/link.ts'
import { checkAddressing } from './kernel-compliance-addressing.ts'
import {
  add,
  address,
  bridge,
  checker,
  cidr,
  codes,
  ip,
  keys,
  Listener,
  mac,
  remove,
  route,
  type Subject,
  set,
  succeed,
  vxlan,
} from './kernel-compliance-subject.ts'
import { checkTunnels } from './kernel-compliance-tunnels.ts'
import { checkVlans } from './kernel-compliance-vlan.ts'

/** Defines the tests; `make` gives a fresh subject for each. */
export function testKernelCompliance(name: string, make: () => Subject): void {
  const check = checker(name, make)
  checkAddressing(check)
  checkVlans(check)

  check('a device is added once, changed, and deleted once', async ({ kernel }) => {
    assert.deepEqual(await codes(kernel, add(bridge('br0', { mtuBytes: 1400, alias: 'weft:test' }))), [undefined])
    const read = (await kernel.read('link')).find((link) => link.name === 'br0')!
    assert.equal(read.type, 'bridge')
    assert.deepEqual([read.up, read.mtuBytes, read.alias], [true, 1400, 'weft:test'])
    assert.deepEqual(await codes(kernel, add(bridge('br0'))), ['EEXIST'])
    await succeed(kernel, set(bridge('br0', { mtuBytes: 1300, up: false })))
    const changed = (await kernel.read('link')).find((link) => link.name === 'br0')!
    assert.deepEqual([changed.up, changed.mtuBytes, changed.alias], [false, 1300, 'weft:test'])
    const promiscuous = async () =>
      (await kernel.read('link')).find((link) => link.name === 'br0')!.promiscuous ?? false
    assert.equal(await promiscuous(), false)
    await succeed(kernel, set(bridge('br0', { promiscuous: true })))
    assert.equal(await promiscuous(), true)
    await succeed(kernel, set(bridge('br0', { promiscuous: false })))
    assert.equal(await promiscuous(), false)
    assert.deepEqual(await codes(kernel, remove(bridge('br0')), remove(bridge('br0'))), [undefined, 'ENODEV'])
    assert.ok(!(await keys(kernel, 'link')).has('link br0'))
    assert.deepEqual(await codes(kernel, set(bridge('br0'))), ['ENODEV'])
  })

  check('adding over a foreign device of the same name leaves that device alone', async ({ kernel }) => {
    await succeed(kernel, add(bridge('br0', { alias: 'theirs', up: false })))
    assert.deepEqual(await codes(kernel, add(bridge('br0', { alias: 'weft:ours' }))), ['EEXIST'])
    const read = (await kernel.read('link')).find((link) => link.name === 'br0')!
    assert.deepEqual([read.alias, read.up], ['theirs', false])
  })

  check('a failed operation has its own result and stops no other', async ({ kernel }) => {
    const missing = address('10.0.0.1', 24, 'nope')
    const results = await kernel.execute([
      add(bridge('br0')),
      add(missing),
      add(address('10.1.0.1', 24)),
      add(route('10.9.0.0/16', '99.0.0.1')),
      add(route('10.8.0.0/16', '10.1.0.2')),
    ])
    assert.deepEqual(
      results.map((result) => result?.code),
      [undefined, 'ENODEV', undefined, 'ENETUNREACH', undefined],
    )
    assert.match(results[1]!.message, /nope.*ENODEV/)
    assert.match(results[3]!.message, /^Cannot .*10\.9\.0\.0\/16 via 99\.0\.0\.1.*\(ENETUNREACH\)$/)
    assert.ok(results[3]!.errno > 0)
  })

  check('deleting a device takes along what hangs on it', async ({ kernel }) => {
    await succeed(
      kernel,
      add(vxlan),
      add(address('10.244.0.0', 32, 'vx0')),
      set({
        ...route('10.244.1.0/24', undefined),
        hops: [{ via: ip('10.244.1.0'), device: 'vx0', onlink: true }],
      }),
      set({ kind: 'neighbour', device: 'vx0', ip: ip('10.244.1.0'), mac: mac(1) }),
      set({ kind: 'fdb', device: 'vx0', mac: mac(1), remote: ip('10.0.0.9') }),
    )
    await succeed(kernel, remove(vxlan))
    for (const object of await kernel.read('address', 'route', 'neighbour', 'fdb'))
      assert.doesNotMatch(keyOf(object), /vx0|10\.244\./)
  })

  check('taking a device down drops its routes and its IPv6 addresses', async ({ kernel }) => {
    await succeed(
      kernel,
      add(bridge('br0')),
      add(address('10.1.0.1', 24)),
      add(address('fd00::1', 64)),
      add(route('10.9.0.0/16', '10.1.0.2')),
      set(bridge('br0', { up: false })),
    )
    let have = await keys(kernel, 'address', 'route')
    assert.ok(have.has('address br0 10.1.0.1/24'))
    for (const key of ['address br0 fd00::1/64', 'route 254 10.1.0.0/24 0', 'route 254 10.9.0.0/16 0'])
      assert.ok(!have.has(key), key)
    await succeed(kernel, set(bridge('br0')))
    have = await keys(kernel, 'route')
    assert.ok(have.has('route 254 10.1.0.0/24 0') && !have.has('route 254 10.9.0.0/16 0'))
  })

  check(
    'a device keeps the settings that a change does not name, and refuses what cannot change',
    async ({ kernel }) => {
      const vx = (settings: object): Link => ({
        kind: 'link',
        name: 'vx0',
        type: 'vxlan',
        settings: { vni: 7, port: 8472, learning: false, ...settings },
      })
      await succeed(kernel, add(vx({})), set({ ...vx({}), up: true }), set({ ...vx({}), mtuBytes: 1400 }))
      await succeed(kernel, { verb: 'set', object: vx({ ttl: 64 }), was: vx({ ttl: 0 }) })
      const changed = (await kernel.read('link')).find((link) => link.name === 'vx0') as Extract<
        Link,
        { type: 'vxlan' }
      >
      const { vni, port, ttl, learning } = changed.settings!
      assert.deepEqual([changed.up, changed.mtuBytes, vni, port, ttl, learning], [true, 1400, 7, 8472, 64, false])
      assert.deepEqual(await codes(kernel, { verb: 'set', object: vx({ port: 8473 }), was: vx({}) }), ['EOPNOTSUPP'])
    },
  )

  check('a veth pair spans namespaces and dies as one', async ({ kernel, other, otherPath }) => {
    const pair: KernelObject = {
      kind: 'link',
      name: 'veth0',
      type: 'veth',
      up: true,
      master: 'br0',
      settings: { peer: { name: 'eth0', netnsPath: otherPath, ifindex: 2, mac: mac(5), mtuBytes: 1400 } },
    }
    await succeed(kernel, add(bridge('br0')), add(pair))
    const peer = (await other.read('link')).find((link) => link.name === 'eth0')!
    assert.deepEqual([peer.type, peer.ifindex, `${peer.mac}`, peer.mtuBytes], ['veth', 2, `${mac(5)}`, 1400])
    assert.equal((await kernel.read('link')).find((link) => link.name === 'veth0')!.master, 'br0')
    await succeed(
      other,
      set({ kind: 'link', name: 'eth0', type: 'veth', up: true }),
      add(address('10.1.0.5', 24, 'eth0')),
    )
    await succeed(other, remove({ kind: 'link', name: 'eth0', type: 'veth' }))
    assert.ok(!(await keys(kernel, 'link')).has('link veth0'))
    assert.deepEqual(
      await codes(
        kernel,
        add({ ...pair, settings: { peer: { name: 'eth0', netnsPath: `${otherPath}-gone` } } } as KernelObject),
      ),
      ['ENOENT'],
    )
  })

  check('a master is joined and left; a missing one is ENODEV', async ({ kernel }) => {
    const pair = (rest: object): KernelObject => ({ kind: 'link', name: 'veth0', type: 'veth', ...rest })
    await succeed(kernel, add(bridge('br0')), add(pair({ settings: { peer: { name: 'veth1' } } })))
    await succeed(kernel, set(pair({ master: 'br0', port: { hairpin: true } })))
    const port = (await kernel.read('link')).find((link) => link.name === 'veth0')!
    assert.deepEqual([port.master, port.port?.hairpin], ['br0', true])
    await succeed(kernel, set(pair({ master: null })))
    assert.equal((await kernel.read('link')).find((link) => link.name === 'veth0')!.master ?? null, null)
    assert.deepEqual(await codes(kernel, set(pair({ master: 'nope' }))), ['ENODEV'])
  })

  check('devices deleted at once are all gone, and each answer is its own', async ({ kernel }) => {
    const names = Array.from({ length: 8 }, (_, i) => `br${i}`)
    await succeed(kernel, ...names.map((name) => add(bridge(name))))
    const results = await Promise.all([...names, 'nope'].map((name) => codes(kernel, remove(bridge(name)))))
    assert.deepEqual(results.flat(), [...names.map(() => undefined), 'ENODEV'])
    assert.equal((await kernel.read('link')).filter((link) => link.name !== 'lo').length, 0)
  })

  check('a device group goes with one call; an empty one is fine', async ({ kernel }) => {
    await succeed(kernel, add(bridge('br0', { group: 77 })), add(bridge('br1', { group: 77 })), add(bridge('br2')))
    assert.equal(await kernel.deleteGroup(77), undefined)
    assert.equal(await kernel.deleteGroup(77), undefined)
    assert.deepEqual([...(await keys(kernel, 'link'))].sort(), ['link br2', 'link lo'])
  })

  check('rules are told apart by their selectors', async ({ kernel }) => {
    const rule = (table: number): KernelObject => ({
      kind: 'rule',
      family: 4,
      priority: 100,
      mark: 0x4000,
      markMask: 0xf000,
      table,
      protocol: 119,
    })
    const other: KernelObject = {
      kind: 'rule',
      family: 6,
      priority: 100,
      from: cidr('fd00::/64'),
      table: 1000,
      protocol: 119,
    }
    await succeed(kernel, add(rule(1000)), add(other))
    assert.deepEqual(await codes(kernel, add(rule(1000))), ['EEXIST'])
    await succeed(kernel, { verb: 'set', object: rule(1001), was: rule(1000) })
    const tables = (await kernel.read('rule')).filter((one) => one.priority === 100 && one.family === 4)
    assert.deepEqual(
      tables.map((one) => one.table),
      [1001],
    )
    await succeed(kernel, remove(rule(1001)), remove(other))
    assert.deepEqual(await codes(kernel, remove(rule(1001))), ['ENOENT'])
  })

  check('watchers hear what anyone changes and what comes of it, until they close', async ({ kernel }) => {
    const listener = new Listener()
    const watch = kernel.watch(['link', 'address', 'route', 'neighbour', 'fdb', 'rule'], listener.listen)
    await succeed(kernel, add(bridge('br0')), add(address('10.1.0.1', 24)), add(route('10.9.0.0/16', '10.1.0.2')))
    await listener.until('new route 254 10.9.0.0/16 0')
    for (const line of ['new link br0', 'new address br0 10.1.0.1/24', 'new route 254 10.1.0.0/24 0'])
      assert.ok(listener.heard.includes(line), line)
    await succeed(kernel, remove(route('10.9.0.0/16', '10.1.0.2')))
    await listener.until('delete route 254 10.9.0.0/16 0')
    await succeed(kernel, remove(bridge('br0')))
    await listener.until('delete link br0')
    assert.ok(listener.heard.includes('delete address br0 10.1.0.1/24'))
    watch.close()
    const before = listener.heard.length
    await succeed(kernel, add(bridge('br1')))
    await kernel.read('link')
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(listener.heard.length, before)
  })

  check('a watcher of one kind hears of that kind alone', async ({ kernel }) => {
    const listener = new Listener()
    const watch = kernel.watch(['neighbour'], listener.listen)
    await succeed(kernel, add(vxlan), set({ kind: 'neighbour', device: 'vx0', ip: ip('10.244.1.0'), mac: mac(1) }))
    await listener.until('new neighbour vx0 10.244.1.0')
    assert.ok(listener.heard.every((line) => line.includes(' neighbour ')))
    watch.close()
  })

  check('closing a kernel ends its watches', async ({ kernel, otherPath }) => {
    const again = kernel.open(otherPath)
    const listener = new Listener()
    again.watch(['link'], listener.listen)
    again.close()
    const other = kernel.open(otherPath)
    const alive = new Listener()
    other.watch(['link'], alive.listen)
    await succeed(other, add(bridge('br0')))
    await alive.until('new link br0')
    assert.deepEqual(listener.heard, [])
    other.close()
  })

  check(
    'a kernel that is closed refuses, and a namespace that is not there cannot be opened',
    async ({ kernel, otherPath }) => {
      assert.throws(() => kernel.open(`${otherPath}-gone`), { name: 'KernelError', code: 'ENOENT' })
      const again = kernel.open(otherPath)
      assert.ok((await keys(again, 'link')).has('link lo'))
      again.close()
      await assert.rejects(async () => again.read('link'))
    },
  )

  // Last, because the modules that they load put devices into every namespace from then on.
  checkTunnels(check)
}
