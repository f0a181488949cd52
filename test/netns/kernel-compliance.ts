/**
 * What every Kernel must do, as tests: run over the real kernel in namespaces (kernel-compliance.test.ts) and over the
 * twin in memory (src/kernel/fake/compliance.test.ts). An expectation here is what Linux does.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Kernel, KernelEvent } from '../../src/kernel/kernel.ts'
import { type KernelKey, type KernelObject, keyOf, type ObjectKind } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import type { Link } from '../../src/model/link.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'

export interface Subject {
  readonly kernel: Kernel
  /** A second namespace of the same machine and its path. */
  readonly other: Kernel
  readonly otherPath: string
  dispose(): void
}

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })
const set = (object: KernelObject): KernelOp => ({ verb: 'set', object })
const remove = (object: KernelObject): KernelOp => ({ verb: 'delete', object })
const ip = (text: string): Ip => Ip.parse(text)
const cidr = (text: string): Cidr => Cidr.parse(text)
const mac = (last: number): Mac => new Mac(Uint8Array.of(2, 0, 0, 0, 0, last))

const bridge = (name: string, rest: Partial<Link> = {}): KernelObject =>
  ({ kind: 'link', name, type: 'bridge', up: true, ...rest }) as KernelObject
const vxlan: KernelObject = {
  kind: 'link',
  name: 'vx0',
  type: 'vxlan',
  up: true,
  settings: { vni: 7, port: 8472, learning: false },
}
const address = (text: string, prefixLength: number, device = 'br0'): KernelObject => ({
  kind: 'address',
  device,
  ip: ip(text),
  prefixLength,
  ...(text.includes(':') && { noDad: true }),
})
const route = (destination: string, via?: string, rest: Partial<Extract<KernelObject, { kind: 'route' }>> = {}) =>
  ({
    kind: 'route',
    destination: cidr(destination),
    hops: [{ ...(via && { via: ip(via) }), device: 'br0' }],
    protocol: 119,
    ...rest,
  }) as const

async function codes(kernel: Kernel, ...ops: KernelOp[]): Promise<(string | undefined)[]> {
  return (await kernel.execute(ops)).map((result) => result?.code)
}

async function succeed(kernel: Kernel, ...ops: KernelOp[]): Promise<void> {
  for (const result of await kernel.execute(ops)) if (result) throw result
}

async function keys(kernel: Kernel, ...kinds: ObjectKind[]): Promise<Set<KernelKey>> {
  return new Set((await kernel.read(...kinds)).map(keyOf))
}

/** Waits for an event, with a limit far beyond what any machine needs. */
class Listener {
  readonly heard: string[] = []
  #waiting: (() => void) | undefined

  readonly listen = (event: KernelEvent): void => {
    this.heard.push(event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)
    this.#waiting?.()
  }

  async until(line: string): Promise<void> {
    const limit = AbortSignal.timeout(20_000)
    while (!this.heard.includes(line)) {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = resolve
        limit.addEventListener('abort', () => reject(new Error(`never heard ${line}; heard ${this.heard.join(', ')}`)))
      })
    }
  }
}

/** Defines the tests; `make` gives a fresh subject for each. */
export function testKernelCompliance(name: string, make: () => Subject): void {
  const check = (what: string, body: (subject: Subject) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => {
      const subject = make()
      try {
        await body(subject)
      } finally {
        subject.dispose()
      }
    })
  }

  check('a device is added once, changed, and deleted once', async ({ kernel }) => {
    assert.deepEqual(await codes(kernel, add(bridge('br0', { mtuBytes: 1400, alias: 'weft:test' }))), [undefined])
    const read = (await kernel.read('link')).find((link) => link.name === 'br0')!
    assert.equal(read.type, 'bridge')
    assert.deepEqual([read.up, read.mtuBytes, read.alias], [true, 1400, 'weft:test'])
    assert.deepEqual(await codes(kernel, add(bridge('br0'))), ['EEXIST'])
    await succeed(kernel, set(bridge('br0', { mtuBytes: 1300, up: false })))
    const changed = (await kernel.read('link')).find((link) => link.name === 'br0')!
    assert.deepEqual([changed.up, changed.mtuBytes, changed.alias], [false, 1300, 'weft:test'])
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
    const black = (await kernel.read('route')).find((found) => `${found.destination}` === '10.8.0.0/16')!
    assert.deepEqual([black.type, black.hops.length], ['blackhole', 0])
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
}
