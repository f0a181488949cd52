/**
 * What the kernel's own tools say beside what we read, and what they see of what we wrote.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { KernelObject, ObjectKind, ObjectOf } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import type { Link } from '../../src/model/link.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'
import { canCreate, TestNamespace } from './namespace.ts'

let here: TestNamespace
let there: TestNamespace
before(() => {
  here = new TestNamespace()
  there = new TestNamespace()
})
after(() => {
  here.delete()
  there.delete()
})

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })

async function succeed(...ops: KernelOp[]): Promise<void> {
  for (const result of await here.kernel.execute(ops)) if (result) throw result
}

const read = <K extends ObjectKind>(kind: K): Promise<ObjectOf<K>[]> => here.kernel.read(kind)

/** The shape of `ip -j` output that is compared. */
// biome-ignore lint/suspicious/noExplicitAny: JSON of another program
type Json = any

test('a namespace with everything is set up by weft', async () => {
  await succeed(
    add({ kind: 'link', name: 'br0', type: 'bridge', up: true, settings: { multicastSnooping: false, stp: false } }),
    add({
      kind: 'link',
      name: 'v0',
      type: 'veth',
      up: true,
      mtuBytes: 1450,
      mac: Mac.parse('02:00:00:00:00:01'),
      master: 'br0',
      alias: 'weft:pod',
      port: { hairpin: true, isolated: true },
      settings: { peer: { name: 'eth0', netnsPath: there.path, ifindex: 2 } },
    }),
    add({
      kind: 'address',
      device: 'br0',
      ip: Ip.parse('10.1.0.1'),
      prefixLength: 24,
      broadcast: Ip.parse('10.1.0.255'),
    }),
    add({ kind: 'address', device: 'br0', ip: Ip.parse('fd00::1'), prefixLength: 64, noDad: true }),
    add({
      kind: 'link',
      name: 'vx0',
      type: 'vxlan',
      up: true,
      addressGeneration: 'none',
      alias: 'weft:vxlan',
      mac: Mac.parse('02:00:00:00:00:02'),
      settings: { vni: 7, port: 8472, local: Ip.parse('10.1.0.1'), lower: 'br0', learning: false, ttl: 64 },
    }),
    add({
      kind: 'link',
      name: 'vx6',
      type: 'vxlan',
      settings: { vni: 8, port: 8473, local: Ip.parse('fd00::1'), gbp: true },
    }),
    add({ kind: 'link', name: 'mv0', type: 'macvlan', settings: { mode: 'bridge', lower: 'br0' } }),
    add({ kind: 'link', name: 'tun0', type: 'tun', up: true, mtuBytes: 1400, alias: 'weft:tun' }),
    add({ kind: 'link', name: 'ifb0', type: 'ifb', up: true, group: 12 }),
    add({
      kind: 'route',
      destination: Cidr.parse('10.244.1.0/24'),
      hops: [{ via: Ip.parse('10.244.1.0'), device: 'vx0', onlink: true }],
      protocol: 119,
    }),
    add({
      kind: 'route',
      destination: Cidr.parse('10.8.0.0/16'),
      mtuBytes: 1400,
      hops: [
        { via: Ip.parse('10.1.0.2'), device: 'br0', weight: 3 },
        { via: Ip.parse('10.1.0.3'), device: 'br0', weight: 1 },
      ],
    }),
    add({ kind: 'route', destination: Cidr.parse('10.9.0.0/16'), type: 'blackhole', hops: [], table: 1000, metric: 7 }),
    add({
      kind: 'route',
      destination: Cidr.parse('10.7.0.0/16'),
      hops: [{ via: Ip.parse('fd00::9'), device: 'br0' }],
      source: Ip.parse('10.1.0.1'),
    }),
    add({ kind: 'route', destination: Cidr.all(4), hops: [{ via: Ip.parse('10.1.0.254') }] }),
    add({
      kind: 'route',
      destination: Cidr.parse('fd01::/64'),
      hops: [{ via: Ip.parse('fd00::2'), device: 'br0' }],
      protocol: 119,
    }),
    add({ kind: 'neighbour', device: 'vx0', ip: Ip.parse('10.244.1.0'), mac: Mac.parse('02:00:00:00:00:09') }),
    add({ kind: 'neighbour', device: 'br0', ip: Ip.parse('10.1.0.77'), proxy: true }),
    add({ kind: 'fdb', device: 'vx0', mac: Mac.parse('02:00:00:00:00:09'), remote: Ip.parse('10.1.0.9') }),
    add({ kind: 'fdb', device: 'v0', mac: Mac.parse('02:00:00:00:00:0a'), table: 'master', state: 'static' }),
    add({ kind: 'rule', family: 4, priority: 100, mark: 0x4000, markMask: 0xf000, table: 1000, protocol: 119 }),
    add({ kind: 'rule', family: 6, priority: 98, from: Cidr.parse('fd00::/64'), action: 'unreachable' }),
    add({
      kind: 'rule',
      family: 4,
      priority: 99,
      from: Cidr.parse('10.0.0.0/8'),
      to: Cidr.parse('10.9.0.0/16'),
      inDevice: 'br0',
      table: 254,
      suppressPrefixLength: 0,
    }),
    add({
      kind: 'qdisc',
      device: 'v0',
      type: 'tbf',
      parent: 'root',
      handle: '1:',
      tbf: { rateBitsPerSecond: 8_000_000, burstBytes: 20_000, limitBytes: 50_000 },
    }),
    add({ kind: 'qdisc', device: 'v0', type: 'ingress', parent: 'ingress' }),
    add({ kind: 'filter', device: 'v0', parent: 'ingress', priority: 1, protocol: 3, action: { redirectTo: 'ifb0' } }),
  )
})

test('links read as ip -d link shows them', async () => {
  const shown: Json[] = here.json('ip -j -d link')
  const links = await read('link')
  assert.equal(links.length, shown.length)
  for (const ip of shown) {
    const link = links.find((one) => one.name === ip.ifname)!
    assert.equal(link.ifindex, ip.ifindex)
    assert.equal(link.mtuBytes, ip.mtu)
    assert.equal(link.up, ip.flags.includes('UP'))
    assert.equal(link.master ?? undefined, ip.master)
    assert.equal(link.alias, ip.ifalias)
    assert.equal(link.txQueueLength, ip.txqlen)
    assert.equal(link.operationalState, ip.operstate.toLowerCase())
    assert.equal(link.addressGeneration, ip.inet6_addr_gen_mode)
    assert.equal(link.group === 0 ? 'default' : `${link.group}`, ip.group)
    if (link.mac) assert.equal(`${link.mac}`, ip.address)
    assert.equal(link.type === 'foreign' ? undefined : link.type, ip.linkinfo?.info_kind)
  }
  const kindData = (name: string): Json => shown.find((one) => one.ifname === name).linkinfo
  const vx0 = links.find((one) => one.name === 'vx0') as Extract<Link, { type: 'vxlan' }>
  const data = kindData('vx0').info_data
  assert.deepEqual([vx0.settings!.vni, vx0.settings!.port, `${vx0.settings!.local}`], [data.id, data.port, data.local])
  assert.deepEqual(
    [vx0.settings!.lower, vx0.settings!.learning, vx0.settings!.ttl],
    [data.link, data.learning, data.ttl],
  )
  assert.equal(kindData('vx6').info_data.gbp, true)
  const port = kindData('v0').info_slave_data
  const v0 = links.find((one) => one.name === 'v0')!
  assert.deepEqual([v0.port!.hairpin, v0.port!.isolated, v0.port!.guard], [port.hairpin, port.isolated, port.guard])
  assert.equal((links.find((one) => one.name === 'mv0') as Extract<Link, { type: 'macvlan' }>).settings!.mode, 'bridge')
})

test('addresses read as ip address shows them', async () => {
  const text = (device: string, ip: string, length: number, scope: string, broadcast?: string) =>
    `${device} ${ip}/${length} ${scope} ${broadcast ?? ''}`
  const shown = here
    .json<Json[]>('ip -j address')
    .flatMap((link) => link.addr_info.map((a: Json) => text(link.ifname, a.local, a.prefixlen, a.scope, a.broadcast)))
  const own = (await read('address')).map((a) =>
    text(a.device, `${a.ip}`, a.prefixLength, a.scope!, a.broadcast && `${a.broadcast}`),
  )
  assert.deepEqual(own.sort(), shown.sort())
})

test('routes read as ip route shows them', async () => {
  const tables: Readonly<Record<string, number>> = { main: 254, local: 255, default: 253 }
  const protocols: Readonly<Record<string, number>> = { kernel: 2, boot: 3, static: 4, ra: 9 }
  const number = (names: Readonly<Record<string, number>>, name: string | undefined, fallback: number) =>
    name === undefined ? fallback : (names[name] ?? Number(name))
  const lines = (family: 4 | 6): string[] =>
    here
      .json<Json[]>(`ip -${family} -j -d route show table all`)
      .filter((r) => !['broadcast', 'multicast', 'anycast'].includes(r.type))
      .map((r) => {
        const hops = (r.nexthops ?? (r.dev || r.gateway || r.via ? [r] : []))
          .map(
            (h: Json) =>
              `${h.gateway ?? h.via?.host ?? ''}@${h.dev}${h.flags?.includes('onlink') ? '!' : ''}${h.weight ? `*${h.weight}` : ''}`,
          )
          .join(',')
        const all = family === 4 ? '0.0.0.0/0' : '::/0'
        const destination =
          r.dst === 'default' ? all : r.dst.includes('/') ? r.dst : `${r.dst}/${family === 4 ? 32 : 128}`
        // The kernel's blackhole of IPv6 stands on lo; IPv4's on nothing.
        return `${r.type} ${destination} ${number(tables, r.table, 254)} ${r.metric ?? 0} ${number(protocols, r.protocol, 3)} ${hops} ${r.prefsrc ?? ''} ${r.metrics?.[0]?.mtu ?? ''}`
      })
  const own = (await read('route')).map((r) => {
    const hops = r.hops
      .map((h) => `${h.via ?? ''}@${h.device}${h.onlink ? '!' : ''}${h.weight ? `*${h.weight}` : ''}`)
      .join(',')
    return `${r.type} ${r.destination} ${r.table} ${r.metric ?? 0} ${r.protocol} ${hops} ${r.source ?? ''} ${r.mtuBytes ?? ''}`
  })
  assert.deepEqual(own.sort(), [...lines(4), ...lines(6)].sort())
})

test('neighbours and FDB entries read as ip neighbour and bridge fdb show them', async () => {
  const shown = here
    .json<Json[]>('ip -j neighbour show nud all')
    .map((n) => `${n.dev} ${n.dst} ${n.lladdr ?? ''} ${n.state.join().toLowerCase()}`)
  const own = (await read('neighbour')).filter((n) => !n.proxy)
  assert.deepEqual(own.map((n) => `${n.device} ${n.ip} ${n.mac ?? ''} ${n.state}`).sort(), shown.sort())
  const proxies = here.json<Json[]>('ip -j neighbour show proxy').map((n) => `${n.dev} ${n.dst}`)
  assert.deepEqual(
    (await read('neighbour')).filter((n) => n.proxy).map((n) => `${n.device} ${n.ip}`),
    proxies,
  )
  const fdb = here
    .json<Json[]>('bridge -j fdb')
    .map(
      (e) =>
        `${e.ifname} ${e.mac} ${e.dst ?? ''} ${e.flags?.includes('self') ? 'self' : 'master'} ${e.state || 'dynamic'}`,
    )
  const entries = (await read('fdb')).map((e) => `${e.device} ${e.mac} ${e.remote ?? ''} ${e.table} ${e.state}`)
  assert.deepEqual(entries.sort(), fdb.sort())
  assert.ok(
    fdb.some((line) => line === 'vx0 02:00:00:00:00:09 10.1.0.9 self permanent'),
    fdb.join('\n'),
  )
  assert.ok(
    fdb.some((line) => line === 'v0 02:00:00:00:00:0a  master static'),
    fdb.join('\n'),
  )
})

test('rules read as ip rule shows them', async () => {
  const tables: Readonly<Record<string, number>> = { main: 254, local: 255, default: 253 }
  const lines = (family: 4 | 6): string[] =>
    here.json<Json[]>(`ip -${family} -j -d rule`).map((r) => {
      const from = r.src === 'all' ? '' : `${r.src}/${r.srclen}`
      const to = r.dst ? `${r.dst}/${r.dstlen}` : ''
      const mark = r.fwmark ? `${Number(r.fwmark)}/${Number(r.fwmask)}` : ''
      const table = r.table === undefined ? 0 : (tables[r.table] ?? Number(r.table))
      const suppress = r.suppress_prefixlength ?? r.suppress_prefixlen ?? ''
      return `${family} ${r.priority} ${from} ${to} ${r.iif ?? ''} ${mark} ${r.action ?? 'lookup'} ${table} ${suppress}`
    })
  const own = (await read('rule')).map(
    (r) =>
      `${r.family} ${r.priority} ${r.from ?? ''} ${r.to ?? ''} ${r.inDevice ?? ''} ${r.mark === undefined ? '' : `${r.mark}/${r.markMask}`} ${r.action} ${r.table} ${r.suppressPrefixLength ?? ''}`,
  )
  assert.deepEqual(own.sort(), [...lines(4), ...lines(6)].sort())
})

test('qdiscs and filters read as tc shows them', async () => {
  const shown: Json[] = here.json('tc -j qdisc')
  const own = await read('qdisc')
  const known = new Set(['tbf', 'htb', 'ingress', 'clsact', 'fq_codel', 'noqueue'])
  assert.deepEqual(
    own.map((q) => `${q.device} ${q.type} ${q.parent}`).sort(),
    shown
      .map(
        (q) =>
          `${q.dev} ${known.has(q.kind) ? q.kind : 'foreign'} ${q.root ? 'root' : q.kind === 'ingress' ? 'ingress' : q.parent}`,
      )
      .sort(),
  )
  const tbf = shown.find((q) => q.kind === 'tbf')
  const ours = own.find((q) => q.type === 'tbf')!.tbf!
  assert.deepEqual([ours.rateBitsPerSecond / 8, ours.burstBytes], [tbf.options.rate, tbf.options.burst])
  assert.equal(ours.limitBytes, 50_000)
  assert.deepEqual(await read('filter'), [
    { kind: 'filter', device: 'v0', parent: 'ingress', priority: 1, protocol: 3, action: { redirectTo: 'ifb0' } },
  ])
  assert.match(here.run('tc filter show dev v0 ingress'), /mirred \(Egress Redirect to device ifb0\) stolen/)
})

test('what was read can be deleted by what was read', async () => {
  // With modules for tunnels every namespace has their fallback devices, which cannot be deleted.
  using fresh = new TestNamespace()
  const born = (await fresh.kernel.read('link')).map((link) => link.name)
  const mine = (object: KernelObject): boolean =>
    (object.kind === 'route' && (object.protocol === 119 || object.protocol === 3)) ||
    (object.kind === 'rule' && object.priority >= 98 && object.priority <= 100) ||
    (object.kind === 'neighbour' && (object.state === 'permanent' || object.proxy === true)) ||
    (object.kind === 'fdb' && (object.remote !== undefined || object.state === 'static')) ||
    object.kind === 'filter' ||
    (object.kind === 'qdisc' && (object.type === 'tbf' || object.type === 'ingress')) ||
    (object.kind === 'link' && !born.includes(object.name))
  const all = await here.kernel.read('filter', 'qdisc', 'rule', 'fdb', 'neighbour', 'route', 'link')
  const ops = all.filter(mine).map((object): KernelOp => ({ verb: 'delete', object }))
  assert.ok(ops.length > 20)
  const refused = (await here.kernel.execute(ops)).filter((result) => result && result.code !== 'ENODEV')
  assert.deepEqual(refused, [])
  assert.deepEqual(
    (await here.kernel.read('link')).map((link) => link.name),
    born,
  )
  assert.equal(here.run('ip rule | wc -l').trim(), '3')
})

for (const link of [
  { kind: 'link', name: 't0', type: 'dummy' },
  {
    kind: 'link',
    name: 't0',
    type: 'geneve',
    settings: {
      vni: 9,
      port: 6081,
      remote: Ip.parse('10.0.0.9'),
      external: false,
      udpChecksum: false,
      udp6ZeroChecksumRx: true,
    },
  },
  {
    kind: 'link',
    name: 't0',
    type: 'ipip',
    settings: {
      local: Ip.parse('127.0.0.1'),
      remote: Ip.parse('10.0.0.9'),
      ttl: 9,
      pmtuDiscovery: true,
      encapsulation: null,
    },
  },
  {
    kind: 'link',
    name: 't0',
    type: 'ip6tnl',
    settings: {
      local: Ip.parse('::1'),
      remote: Ip.parse('fd00::9'),
      hopLimit: 9,
      mode: 'any',
      encapsulation: null,
      encapsulationLimit: 0,
    },
  },
  {
    kind: 'link',
    name: 't0',
    type: 'gre',
    settings: { local: Ip.parse('127.0.0.1'), remote: Ip.parse('10.0.0.9'), key: 5, ttl: 9 },
  },
  { kind: 'link', name: 't0', type: 'vlan', settings: { id: 100, lower: 'ifb0' } },
  { kind: 'link', name: 't0', type: 'ipvlan', settings: { mode: 'l3', lower: 'ifb0' } },
  { kind: 'link', name: 't0', type: 'vrf', settings: { table: 1000 } },
  { kind: 'link', name: 't0', type: 'macvlan', settings: { mode: 'private', lower: 'ifb0' } },
  { kind: 'link', name: 't0', type: 'tun', settings: { mode: 'tap', vnetHeader: true, persist: true } },
] as const satisfies readonly Link[])
  test(`a ${link.type} device reads back with its settings`, async (t) => {
    const needsLower = 'settings' in link && 'lower' in link.settings
    if (!needsLower && !(await canCreate(link))) return t.skip(`this kernel has no ${link.type} devices`)
    using space = new TestNamespace()
    const lower: KernelOp[] = needsLower ? [add({ kind: 'link', name: 'ifb0', type: 'ifb', up: true })] : []
    const results = await space.kernel.execute([...lower, add(link)])
    const last = results.at(-1)
    if (needsLower && last?.code === 'EOPNOTSUPP') return t.skip(`this kernel has no ${link.type} devices`)
    assert.equal(last, undefined)
    const found = (await space.kernel.read('link')).find((one) => one.name === 't0') as Link
    assert.equal(found.type, link.type)
    assert.deepEqual(found.settings, 'settings' in link ? link.settings : {})
  })
