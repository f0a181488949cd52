/**
 * Packets through devices of the kinds that few kernels at hand have: made by weft on both ends of a wire, or over it.
 *
 *   left ── eth0 10.0.0.1, fd00::1 ════ eth0 10.0.0.2, fd00::2 ── right
 *           t0   10.9.0.1, fd09::1      t0   10.9.0.2, fd09::2
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import type { Link } from '../../src/model/link.ts'
import { Ip } from '../../src/net/ip.ts'
import { TestNamespace } from '../netns/namespace.ts'

const ip = (text: string): Ip => Ip.parse(text)

async function put(space: TestNamespace, ...objects: readonly KernelObject[]): Promise<void> {
  const results = await space.kernel.execute(objects.map((object) => ({ verb: 'add', object })))
  for (const result of results) if (result) throw result
}

const address = (device: string, text: string, prefixLength: number): KernelObject => ({
  kind: 'address',
  device,
  ip: ip(text),
  prefixLength,
  ...(text.includes(':') && { noDad: true }),
})

/** Two namespaces and a wire between them. */
async function wire(left: TestNamespace, right: TestNamespace): Promise<void> {
  await put(left, {
    kind: 'link',
    name: 'eth0',
    type: 'veth',
    up: true,
    settings: { peer: { name: 'eth0', netnsPath: right.path } },
  })
  right.run('ip link set eth0 up')
  for (const [space, last] of [
    [left, 1],
    [right, 2],
  ] as const)
    await put(space, address('eth0', `10.0.0.${last}`, 24), address('eth0', `fd00::${last}`, 64))
}

const pings = (from: TestNamespace, to: string): boolean => from.succeeds(`ping -n -c 3 -i 0.2 -W 5 ${to}`)

/** The device of one end: `own` and `far` are the last numbers of the addresses. */
const kinds: Readonly<Record<string, { link(own: number, far: number): Link; readonly families: readonly (4 | 6)[] }>> =
  {
    ipip: {
      families: [4],
      link: (own, far) => ({
        kind: 'link',
        name: 't0',
        type: 'ipip',
        up: true,
        settings: { local: ip(`10.0.0.${own}`), remote: ip(`10.0.0.${far}`), ttl: 64, pmtuDiscovery: true },
      }),
    },
    ip6tnl: {
      families: [6],
      link: (own, far) => ({
        kind: 'link',
        name: 't0',
        type: 'ip6tnl',
        up: true,
        settings: { local: ip(`fd00::${own}`), remote: ip(`fd00::${far}`), hopLimit: 64 },
      }),
    },
    gre: {
      families: [4, 6],
      link: (own, far) => ({
        kind: 'link',
        name: 't0',
        type: 'gre',
        up: true,
        settings: { local: ip(`10.0.0.${own}`), remote: ip(`10.0.0.${far}`), key: 5, ttl: 64 },
      }),
    },
    geneve: {
      families: [4, 6],
      link: (_own, far) => ({
        kind: 'link',
        name: 't0',
        type: 'geneve',
        up: true,
        settings: { vni: 9, port: 6081, remote: ip(`10.0.0.${far}`) },
      }),
    },
    'geneve over IPv6': {
      families: [4, 6],
      link: (_own, far) => ({
        kind: 'link',
        name: 't0',
        type: 'geneve',
        up: true,
        settings: { vni: 9, port: 6081, remote: ip(`fd00::${far}`) },
      }),
    },
    vlan: {
      families: [4, 6],
      link: () => ({ kind: 'link', name: 't0', type: 'vlan', up: true, settings: { id: 100, lower: 'eth0' } }),
    },
    macvlan: {
      families: [4, 6],
      link: () => ({
        kind: 'link',
        name: 't0',
        type: 'macvlan',
        up: true,
        settings: { mode: 'bridge', lower: 'eth0' },
      }),
    },
    ipvlan: {
      families: [4, 6],
      link: () => ({ kind: 'link', name: 't0', type: 'ipvlan', up: true, settings: { mode: 'l2', lower: 'eth0' } }),
    },
  }

for (const [name, { link, families }] of Object.entries(kinds))
  test(`${name}: pings cross it`, async () => {
    using left = new TestNamespace()
    using right = new TestNamespace()
    await wire(left, right)
    await put(left, link(1, 2))
    await put(right, link(2, 1))
    for (const family of families) {
      const [own, far] = family === 4 ? ['10.9.0.1', '10.9.0.2'] : ['fd09::1', 'fd09::2']
      await put(left, address('t0', own, family === 4 ? 24 : 64))
      assert.ok(!left.succeeds(`ping -n -c 1 -W 1 ${far}`), `IPv${family}: nobody answers without the address`)
      await put(right, address('t0', far, family === 4 ? 24 : 64))
      assert.ok(pings(left, far), `IPv${family}`)
    }
  })

test('vrf: a route in its table carries what enters by its member; dummy: holds an address', async () => {
  using left = new TestNamespace()
  using right = new TestNamespace()
  await wire(left, right)
  await put(right, { kind: 'link', name: 'red', type: 'vrf', up: true, settings: { table: 1000 } })
  await put(right, { kind: 'link', name: 'd0', type: 'dummy', up: true }, address('d0', '10.9.0.2', 32))
  left.run('ip route add 10.9.0.2 via 10.0.0.2')
  assert.ok(pings(left, '10.9.0.2'), 'a plain dummy answers')
  const [moved] = await right.kernel.execute([
    { verb: 'set', object: { kind: 'link', name: 'eth0', type: 'veth', master: 'red' } },
  ])
  assert.equal(moved, undefined)
  right.run('ip link set eth0 up; ip addr replace 10.0.0.2/24 dev eth0')
  assert.ok(pings(left, '10.0.0.2'), 'the member answers from its table')
  await put(right, {
    kind: 'link',
    name: 'd1',
    type: 'dummy',
    up: true,
    master: 'red',
  })
  await put(right, address('d1', '10.9.1.2', 32))
  assert.match(right.run('ip route show table 1000 type local'), /10\.9\.1\.2 dev d1/)
  left.run('ip route add 10.9.1.2 via 10.0.0.2')
  assert.ok(pings(left, '10.9.1.2'), 'what is in the table is reached')
})
