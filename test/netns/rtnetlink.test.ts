/**
 * What the kernel's own tools say beside what we read, and what they see of what we wrote; the sysctls of a namespace;
 * how soon a watcher hears; whether the event loop stays free.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { NetlinkSocket } from '../../src/kernel/linux/netlink-socket.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { KernelObject, ObjectKind, ObjectOf } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import type { Link } from '../../src/model/link.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'
import { NETLINK_ROUTE } from '../../src/wire/netlink/constants.gen.ts'
import { RTM_GETLINK } from '../../src/wire/rtnetlink/constants.gen.ts'
import { linkMessage, linkRequest } from '../../src/wire/rtnetlink/link.ts'
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
  const mine = (object: KernelObject): boolean =>
    (object.kind === 'route' && (object.protocol === 119 || object.protocol === 3)) ||
    (object.kind === 'rule' && object.priority >= 98 && object.priority <= 100) ||
    (object.kind === 'neighbour' && (object.state === 'permanent' || object.proxy === true)) ||
    (object.kind === 'fdb' && (object.remote !== undefined || object.state === 'static')) ||
    object.kind === 'filter' ||
    (object.kind === 'qdisc' && (object.type === 'tbf' || object.type === 'ingress')) ||
    (object.kind === 'link' && object.name !== 'lo')
  const all = await here.kernel.read('filter', 'qdisc', 'rule', 'fdb', 'neighbour', 'route', 'link')
  const ops = all.filter(mine).map((object): KernelOp => ({ verb: 'delete', object }))
  assert.ok(ops.length > 20)
  const refused = (await here.kernel.execute(ops)).filter((result) => result && result.code !== 'ENODEV')
  assert.deepEqual(refused, [])
  assert.deepEqual(
    (await here.kernel.read('link')).map((link) => link.name),
    ['lo'],
  )
  assert.equal(here.run('ip rule | wc -l').trim(), '3')
})

for (const link of [
  { kind: 'link', name: 't0', type: 'dummy' },
  {
    kind: 'link',
    name: 't0',
    type: 'geneve',
    settings: { vni: 9, port: 6081, remote: Ip.parse('10.0.0.9'), external: false },
  },
  {
    kind: 'link',
    name: 't0',
    type: 'ipip',
    settings: { local: Ip.parse('127.0.0.1'), remote: Ip.parse('10.0.0.9'), ttl: 9, pmtuDiscovery: true },
  },
  {
    kind: 'link',
    name: 't0',
    type: 'ip6tnl',
    settings: { local: Ip.parse('::1'), remote: Ip.parse('fd00::9'), hopLimit: 9 },
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

test('a sysctl is that of the namespace, and bad paths are refused', async () => {
  using space = new TestNamespace()
  const own = (path: string) => spawnSync('cat', [`/proc/sys/${path}`], { encoding: 'utf8' }).stdout
  const path = 'net/ipv4/conf/all/rp_filter'
  const before = own(path)
  const value = before.trim() === '2' ? '0' : '2'
  const sysctl = (where: string, what = value): KernelOp => ({
    verb: 'set',
    object: { kind: 'sysctl', path: where, value: what },
  })
  assert.deepEqual(await space.kernel.execute([sysctl(path)]), [undefined])
  assert.equal(space.run(`cat /proc/sys/${path}`).trim(), value)
  assert.equal(own(path), before)
  assert.deepEqual(await space.kernel.read('sysctl'), [{ kind: 'sysctl', path, value }])
  const refused = await space.kernel.execute([sysctl('net/ipv4/nope'), sysctl('../../etc/passwd'), sysctl(path, 'x')])
  assert.deepEqual(
    refused.map((result) => result?.code),
    ['ENOENT', 'EINVAL', 'EINVAL'],
  )
  assert.match(refused[0]!.message, /net\.ipv4\.nope.*ENOENT/)
})

test('a namespace entered from inside another leads back there', () => {
  using outer = new TestNamespace()
  using inner = new TestNamespace()
  const now = () => readlinkSync('/proc/thread-self/ns/net')
  const own = now()
  const seen: string[] = []
  inNetns(outer.path, () => {
    seen.push(now())
    inNetns(inner.path, () => seen.push(now()))
    seen.push(now())
    assert.throws(() =>
      inNetns(inner.path, () => {
        throw new Error('from inside')
      }),
    )
    seen.push(now())
  })
  assert.equal(now(), own)
  assert.equal(new Set([...seen, own]).size, 3)
  assert.deepEqual([seen[2], seen[3]], [seen[0], seen[0]])
})

test('a dump that a change interrupts starts again and is then whole', async () => {
  using space = new TestNamespace()
  // A kernel with tunnel modules puts their fallback devices into every namespace.
  const before = (await space.kernel.read('link')).length
  const bridges = Array.from({ length: 120 }, (_, i): KernelOp => add({ kind: 'link', name: `br${i}`, type: 'bridge' }))
  for (const result of await space.kernel.execute(bridges)) assert.equal(result, undefined)
  const socket = inNetns(space.path, () => new NetlinkSocket(NETLINK_ROUTE))
  const names = new Set<string>()
  let restarts = 0
  let seen = 0
  await socket.dump(
    'read link',
    RTM_GETLINK,
    (writer) => linkMessage.encode(writer, { header: linkRequest(0), attributes: {} }),
    (_header, payload) => {
      // The kernel has sent the first part; what comes is made when it is asked for, after this change.
      if (++seen === 1) space.run('ip link add late type bridge')
      names.add(linkMessage.decode(payload).attributes.name!)
    },
    () => {
      restarts++
      names.clear()
    },
  )
  socket.close()
  assert.equal(restarts, 1)
  assert.equal(names.size, before + 121)
  assert.ok(names.has('late'))
})

test('failures in a long list are told for the right operations', async () => {
  using space = new TestNamespace()
  const blackhole = (i: number): KernelObject => ({
    kind: 'route',
    destination: Cidr.of(Ip.parse('20.0.0.0').plus(i * 256), 24),
    type: 'blackhole',
    hops: [],
  })
  const taken = Array.from({ length: 5000 }, (_, i) => i).filter((i) => i % 7 === 3 || (i > 3000 && i < 3900))
  assert.ok((await space.kernel.execute(taken.map((i) => add(blackhole(i))))).every((result) => !result))
  const results = await space.kernel.execute(Array.from({ length: 5000 }, (_, i) => add(blackhole(i))))
  const refused = results.flatMap((result, i) => (result ? [i] : []))
  assert.deepEqual(refused, taken)
  assert.match(results[3]!.message, /^Cannot ip route add blackhole 20\.0\.3\.0\/24.*\(EEXIST\)$/)
})

test('the thread is back in its own namespace after every call into another', async () => {
  const own = spawnSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }).stdout
  using space = new TestNamespace()
  space.kernel.watch(['link'], () => {}).close()
  await assert.rejects(
    async () => {
      await space.kernel.read('link')
      space.kernel.open('/proc/self/ns/mnt')
    },
    { code: 'EINVAL' },
  )
  assert.equal(spawnSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }).stdout, own)
})

test('deleting forty veths at once does not stop the event loop, and their peers are gone too', async () => {
  using space = new TestNamespace()
  using pods = new TestNamespace()
  const veths = Array.from(
    { length: 40 },
    (_, i): KernelObject => ({
      kind: 'link',
      name: `v${i}`,
      type: 'veth',
      up: true,
      settings: { peer: { name: `e${i}`, netnsPath: pods.path } },
    }),
  )
  const before = (await pods.kernel.read('link')).length
  for (const result of await space.kernel.execute(veths.map(add))) assert.equal(result, undefined)
  const lag = monitorEventLoopDelay({ resolution: 1 })
  lag.enable()
  const start = performance.now()
  const results = await Promise.all(veths.map((object) => space.kernel.execute([{ verb: 'delete', object }])))
  const took = performance.now() - start
  lag.disable()
  console.log(`40 deletes: ${took.toFixed(1)} ms, loop delay max ${(lag.max / 1e6).toFixed(1)} ms`)
  assert.ok(results.flat().every((result) => result === undefined))
  assert.equal((await pods.kernel.read('link')).length, before)
})

test('a watcher hears of a change by another program', async () => {
  using space = new TestNamespace()
  const heard = new Promise<number>((resolve) => {
    const watch = space.kernel.watch(['route'], (event) => {
      if (event.type !== 'new' || event.key !== 'route 254 10.9.0.0/16 0') return
      watch.close()
      resolve(performance.now())
    })
  })
  const start = performance.now()
  space.run('ip route add blackhole 10.9.0.0/16')
  console.log(`heard ${((await heard) - start).toFixed(1)} ms after ip was started`)
})

test('lost multicast messages are told as a resync', async () => {
  using space = new TestNamespace()
  const routes = Array.from(
    { length: 60_000 },
    (_, i): KernelOp => ({
      verb: 'add',
      object: {
        kind: 'route',
        destination: Cidr.of(Ip.parse('20.0.0.0').plus(i * 16), 28),
        type: 'blackhole',
        hops: [],
      },
    }),
  )
  let events = 0
  const resync = new Promise<void>((resolve) => {
    const watch = space.kernel.watch(['route'], (event) => {
      events++
      if (event.type !== 'resync') return
      watch.close()
      resolve()
    })
  })
  // A synchronous child holds the event loop while the kernel announces more than the socket can hold.
  const lines = routes.map((op) => `route add blackhole ${(op.object as { destination: Cidr }).destination}`).join('\n')
  spawnSync('ip', ['-n', space.name, '-batch', '-'], { input: lines })
  await resync
  assert.ok(events < routes.length)
})

test('WEFT_NLDEBUG prints the conversation in both directions', () => {
  using space = new TestNamespace()
  const script = `
    import { LinuxKernel } from ${JSON.stringify(fileURLToPath(new URL('../../src/kernel/linux/linux-kernel.ts', import.meta.url)))}
    import { Cidr } from ${JSON.stringify(fileURLToPath(new URL('../../src/net/cidr.ts', import.meta.url)))}
    const kernel = LinuxKernel.openAt(${JSON.stringify(space.path)})
    await kernel.execute([{ verb: 'add', object: { kind: 'route', destination: Cidr.parse('10.9.0.0/16'), hops: [{ device: 'lo' }], protocol: 119, scope: 'global' } }, { verb: 'delete', object: { kind: 'route', destination: Cidr.parse('10.8.0.0/16'), hops: [] } }])
    await kernel.read('rule')
    kernel.close()`
  const run = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { ...process.env, WEFT_NLDEBUG: '1' },
  })
  const lines = run.stderr.split('\n').filter((line) => line.startsWith('nl '))
  const at = `nl ${space.path}`
  assert.ok(
    lines.some(
      (line) =>
        line.startsWith(`${at} > RTM_NEWROUTE {`) &&
        line.includes('destination=10.9.0.0') &&
        line.includes('excl|create'),
    ),
    run.stderr,
  )
  assert.ok(
    lines.some((line) => line.startsWith(`${at} < NLMSG_ERROR`) && line.includes('ESRCH')),
    run.stderr,
  )
  assert.ok(lines.some((line) => line.startsWith(`${at} > RTM_GETRULE`) && line.includes('dump')))
  assert.ok(lines.some((line) => line.startsWith(`${at} < RTM_NEWRULE`) && line.includes('table=254')))
  assert.ok(lines.some((line) => line.startsWith(`${at} < NLMSG_DONE`)))
})
