import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import type { Kernel, KernelEvent } from '../kernel/kernel.ts'
import { formatOp } from '../model/format.ts'
import { type KernelObject, keyOf } from '../model/kernel-object.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { NftRule } from '../model/nft.ts'
import { WEFT_ROUTE_PROTOCOL } from '../model/route.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { Applier, type ApplierOptions, type ApplyReport } from './applier.ts'
import { DesiredConflict } from './desired.ts'
import type { Clock } from './schedule.ts'

/** Time that moves when told; timers fire in their order. */
class TestClock implements Clock {
  #now = 0
  readonly #timers: { at: number; call: () => void }[] = []

  now(): number {
    return this.#now
  }

  after(ms: number, call: () => void): () => void {
    const timer = { at: this.#now + ms, call }
    this.#timers.push(timer)
    return () => {
      const at = this.#timers.indexOf(timer)
      if (at >= 0) this.#timers.splice(at, 1)
    }
  }

  advance(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const next = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.#timers.splice(this.#timers.indexOf(next), 1)
      this.#now = Math.max(this.#now, next.at)
      next.call()
    }
    this.#now = end
  }
}

const device = 'flannel.1'
const vtep: KernelObject = {
  kind: 'link',
  name: device,
  type: 'vxlan',
  settings: { vni: 1, port: 8472, learning: false },
  mac: Mac.parse('02:00:00:00:00:01'),
  mtuBytes: 1450,
  up: true,
  alias: 'weft:vxlan',
}
const local: Fragment = {
  source: 'path/vxlan',
  objects: [vtep, { kind: 'address', device, ip: Ip.parse('10.244.0.0'), prefixLength: 32 }],
}
const peer = (n: number, remote = `172.30.0.${n}`): Fragment => {
  const via = Ip.parse(`10.244.${n}.0`)
  const mac = Mac.local(Uint8Array.of(0, 0, 0, 0, n >> 8, n))
  return {
    source: `node/n${n}`,
    objects: [
      {
        kind: 'route',
        destination: Cidr.of(via, 24),
        hops: [{ via, device, onlink: true }],
        protocol: WEFT_ROUTE_PROTOCOL,
      },
      { kind: 'neighbour', device, ip: via, mac, state: 'permanent' },
      { kind: 'fdb', device, mac, remote: Ip.parse(remote), table: 'self', state: 'permanent' },
    ],
  }
}

async function started(kernel: FakeKernel, options: ApplierOptions = {}, ...fragments: Fragment[]) {
  const reports: ApplyReport[] = []
  const clock = new TestClock()
  const applier = new Applier(kernel, { clock, onReport: (report) => reports.push(report), ...options })
  applier.set(...fragments)
  await applier.start()
  await applier.settle()
  return { applier, clock, reports }
}

const ops = (kernel: FakeKernel, from = 0): string[] => kernel.history.slice(from).map(({ op }) => formatOp(op))

test('a node that joins costs its own objects, whatever the cluster holds', async () => {
  const kernel = FakeKernel.create()
  const peers = Array.from({ length: 200 }, (_, i) => peer(i + 1))
  const { applier } = await started(kernel, {}, local, ...peers)
  applier.markComplete()
  await applier.settle()
  const before = kernel.history.length
  applier.set(peer(250))
  await applier.settle()
  assert.equal(kernel.history.length - before, 3)
  applier.set(peer(250, '172.30.9.9'))
  await applier.settle()
  assert.equal(kernel.history.length - before, 4)
  applier.remove('node/n250')
  await applier.settle()
  assert.equal(kernel.history.length - before, 7)
  applier.set(peer(3))
  await applier.settle()
  assert.equal(kernel.history.length - before, 7, 'a fragment that says the same again costs nothing')
  await applier.close()
})

test('links come before what hangs on them, and deleting a link is one operation', async () => {
  const kernel = FakeKernel.create()
  const { applier } = await started(kernel, {}, peer(1), local)
  applier.markComplete()
  await applier.settle()
  const kinds = kernel.history.map(({ op }) => op.object.kind)
  assert.deepEqual(kinds, ['link', 'address', 'fdb', 'neighbour', 'route'])
  const before = kernel.history.length
  applier.change([], ['path/vxlan', 'node/n1'])
  await applier.settle()
  assert.deepEqual(ops(kernel, before), ['ip link delete flannel.1'])
  await applier.close()
})

test('nothing is deleted before every source has spoken', async () => {
  const kernel = FakeKernel.create()
  const first = await started(kernel, {}, local, peer(1), peer(2))
  await first.applier.close()
  const before = kernel.history.length
  const { applier } = await started(kernel, {}, local, peer(1))
  applier.remove('node/n1')
  await applier.settle()
  assert.equal(kernel.history.length, before)
  applier.markComplete()
  await applier.settle()
  assert.equal(kernel.history.length - before, 6)
  assert.ok(kernel.history.slice(before).every(({ op }) => op.verb === 'delete'))
  await applier.close()
})

test('what another hand takes away or changes is put back; what it adds beside ours stays', async () => {
  const kernel = FakeKernel.create()
  const { applier, clock } = await started(kernel, {}, local, peer(1))
  applier.markComplete()
  const [route, neighbour] = peer(1).objects as [KernelObject, KernelObject]
  const foreign: KernelObject = {
    kind: 'route',
    destination: Cidr.parse('10.9.0.0/16'),
    hops: [{ device }],
    protocol: 3,
  }
  const hand = async (verb: 'add' | 'set' | 'delete', object: KernelObject) => {
    await kernel.execute([{ verb, object }])
    clock.advance(900)
    await applier.settle()
  }
  await hand('delete', route)
  assert.ok(kernel.objects.has(keyOf(route)))
  await hand('set', { ...neighbour, mac: Mac.parse('02:00:00:00:00:99') } as KernelObject)
  assert.deepEqual((kernel.objects.get(keyOf(neighbour)) as { mac: Mac }).mac.toString(), '02:00:00:00:00:01')
  await hand('add', foreign)
  assert.ok(kernel.objects.has(keyOf(foreign)))
  await hand('delete', vtep)
  for (const object of [...local.objects, ...peer(1).objects])
    assert.ok(kernel.objects.has(keyOf(object)), keyOf(object))
  assert.ok(!kernel.objects.has(keyOf(foreign)), 'the device took the foreign route along')
  await applier.close()
})

test('a device that must be made anew brings everything on it back', async () => {
  const kernel = FakeKernel.create()
  const { applier } = await started(kernel, {}, local, peer(1))
  applier.set({ ...local, objects: [{ ...vtep, settings: { vni: 1, port: 4789 } } as KernelObject, local.objects[1]!] })
  await applier.settle()
  for (const object of peer(1).objects) assert.ok(kernel.objects.has(keyOf(object)), keyOf(object))
  const link = kernel.objects.get(keyOf(vtep)) as { settings: { port: number } }
  assert.equal(link.settings.port, 4789)
  await applier.close()
})

test('what is announced of a device made anew counts, though it comes before the answer about the old one', async () => {
  const kernel = FakeKernel.create()
  let tell: (event: KernelEvent) => void = () => {}
  // The word of everything but devices comes before the answer, that of devices never.
  const hasty: Kernel = {
    read: (...kinds) => kernel.read(...kinds),
    watch: (_kinds, onEvent) => {
      tell = onEvent
      return { close() {} }
    },
    open: (path) => kernel.open(path),
    deleteGroup: (group) => kernel.deleteGroup(group),
    close: () => kernel.close(),
    execute: async (ops) => {
      const results = await kernel.execute(ops)
      for (const { object } of ops) if (object.kind !== 'link') tell({ type: 'new', key: keyOf(object), object })
      return results
    },
  }
  const applier = new Applier(hasty, { clock: new TestClock() })
  applier.set(local, peer(1))
  await applier.start()
  await applier.settle()
  assert.ok(applier.inPlace(local.source) && applier.inPlace('node/n1'))
  applier.set({ ...local, objects: [{ ...vtep, settings: { vni: 1, port: 4789 } } as KernelObject, local.objects[1]!] })
  await applier.settle()
  assert.ok(applier.inPlace(local.source), 'the device and its address')
  assert.ok(applier.inPlace('node/n1'), 'what goes by it')
  await applier.close()
})

test('a failed operation is reported with who wants it, tried again, and holds up nobody', async () => {
  const kernel = FakeKernel.create()
  const lost: Fragment = {
    source: 'node/lost',
    objects: [{ kind: 'route', destination: Cidr.parse('10.1.0.0/16'), hops: [{ device: 'eth9' }], protocol: 119 }],
  }
  const { applier, clock, reports } = await started(kernel, {}, lost, local)
  assert.ok(applier.inPlace('path/vxlan'))
  assert.ok(!applier.inPlace('node/lost'))
  const [failure] = reports[0]!.failures
  assert.deepEqual(failure?.sources, ['node/lost'])
  assert.equal(failure?.error.code, 'ENODEV')
  const before = kernel.history.length
  clock.advance(60_000)
  await applier.settle()
  assert.ok(kernel.history.length > before)
  // What the route waits for appears: it is tried at once, not at its next turn.
  await kernel.execute([{ verb: 'add', object: { kind: 'link', name: 'eth9', type: 'dummy', up: true } }])
  await applier.settle()
  assert.ok(applier.inPlace('node/lost'))
  assert.equal(applier.failures().length, 0)
  await applier.close()
})

test('two agents that want a thing differently do not spin', async () => {
  const kernel = FakeKernel.create()
  const other: Fragment = {
    source: 'x',
    objects: [{ ...peer(1).objects[0]!, hops: [{ device }] } as KernelObject],
  }
  const { applier: a, clock } = await started(kernel, {}, local, peer(1))
  const b = new Applier(kernel, { clock })
  b.set(other)
  await b.start()
  for (let i = 0; i < 600; i++) {
    clock.advance(100)
    await Promise.all([a.settle(), b.settle()])
  }
  const writes = kernel.history.filter(({ op }) => op.object.kind === 'route').length
  assert.ok(writes > 4 && writes < 60, `${writes} writes in a minute`)
  await a.close()
  await b.close()
})

test('lost multicast messages lead to a new reading', async () => {
  const kernel = FakeKernel.create()
  const { applier } = await started(kernel, {}, local, peer(1))
  applier.markComplete()
  await applier.settle()
  const readings = applier.counts.readings
  kernel.loseEvents()
  await applier.settle()
  assert.equal(applier.counts.readings, readings + 1)
  await applier.close()
})

test('an operation that takes long and is never echoed is in place when it has succeeded', async () => {
  const kernel = FakeKernel.create()
  let open: () => void = () => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  let ask: () => void = () => {}
  const asked = new Promise<void>((resolve) => {
    ask = resolve
  })
  const slow: Kernel = {
    read: (...kinds) => kernel.read(...kinds),
    watch: () => ({ close() {} }),
    open: (path) => kernel.open(path),
    deleteGroup: (group) => kernel.deleteGroup(group),
    close: () => kernel.close(),
    execute: async (ops) => {
      ask()
      await gate
      return kernel.execute(ops)
    },
  }
  const clock = new TestClock()
  const applier = new Applier(slow, { clock })
  applier.set(local)
  await applier.start()
  const settled = applier.settle()
  await asked
  clock.advance(5000)
  open()
  await settled
  await applier.settle()
  assert.ok(applier.inPlace(local.source))
  await applier.close()
})

test('what another hand puts in place is told, though it takes no operation and no report', async () => {
  const kernel = FakeKernel.create()
  let found = 0
  const { applier, reports, clock } = await started(kernel, { onFound: () => found++ }, local, peer(1))
  clock.advance(2000)
  await applier.settle()
  const [route] = peer(1).objects as [KernelObject]
  await kernel.execute([{ verb: 'delete', object: route }])
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(!applier.inPlace('node/n1'))
  const before = [found, reports.length] as const
  await kernel.execute([{ verb: 'add', object: route }])
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(applier.inPlace('node/n1'))
  assert.deepEqual([found, reports.length], [before[0] + 1, before[1]])
  kernel.loseEvents()
  await applier.settle()
  assert.deepEqual([found, reports.length], [before[0] + 2, before[1]], 'a reading')
  await applier.close()
})

test('an object stays while anyone wants it, and two that want it differently are told', async () => {
  const kernel = FakeKernel.create()
  const address = local.objects[1]!
  const { applier } = await started(kernel, {}, local, { source: 'also', objects: [address] })
  applier.markComplete()
  applier.remove('also')
  await applier.settle()
  assert.ok(kernel.objects.has(keyOf(address)))
  assert.throws(
    () => applier.set({ source: 'rival', objects: [{ ...vtep, mtuBytes: 1400 } as KernelObject] }),
    (error: unknown) => error instanceof DesiredConflict && error.sources.join() === 'path/vxlan,rival',
  )
  assert.ok(applier.inPlace('path/vxlan'))
  await applier.close()
})

test('a dry run prints the lines and touches nothing', async () => {
  const kernel = FakeKernel.create()
  const lines: string[] = []
  const { applier } = await started(kernel, { dryRun: (line) => lines.push(line) }, local, peer(1))
  assert.equal(kernel.history.length, 0)
  assert.ok(
    lines.some((line) => line.startsWith('ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink')),
    lines.join('\n'),
  )
  await applier.close()
})

test('an nft set of another type is made anew under the rules that use it', async () => {
  const kernel = FakeKernel.create()
  const table = { family: 'inet', table: 'weft' } as const
  const rules = [{ statements: [{ match: ['ip saddr' as const], right: '@s' }, { verdict: 'drop' as const }] }]
  const set = (interval: boolean): Fragment => ({
    source: 'set',
    objects: [{ kind: 'nft-set', ...table, name: 's', type: ['ipv4_addr'], ...(interval && { flags: ['interval'] }) }],
  })
  const { applier, clock } = await started(
    kernel,
    {},
    { source: 'table', objects: [{ kind: 'nft-table', family: 'inet', name: 'weft' }] },
    { source: 'chain', objects: [{ kind: 'nft-chain', ...table, name: 'c', rules }] },
    { source: 'element', objects: [{ kind: 'nft-element', ...table, set: 's', key: '10.0.0.1' }] },
    set(false),
  )
  applier.markComplete()
  applier.set(set(true), {
    source: 'block',
    objects: [{ kind: 'nft-element', ...table, set: 's', key: '10.1.0.0/16' }],
  })
  await applier.settle()
  clock.advance(1000)
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  const fresh = FakeKernel.create()
  const wants = [...applier.desired.state().values()]
  const { applier: second } = await started(fresh, {}, { source: 'all', objects: wants })
  assert.deepEqual(described(kernel).sort(), described(fresh).sort())
  assert.equal(described(kernel).filter((line) => line.includes('nft-element')).length, 2)
  await applier.close()
  await second.close()
})

test('a chain that nobody wants any more does not hold up an nft set of another type', async () => {
  for (const type of ['ipv4_addr', 'ether_addr'] as const) {
    const kernel = FakeKernel.create()
    const table = { family: 'inet', table: 'weft' } as const
    const fits = type === 'ipv4_addr'
    const match = { match: ['ip saddr' as const], right: '@s' }
    const drop = { verdict: 'drop' as const }
    const rules: NftRule[] = [
      { statements: [match, { verdict: 'accept' }] },
      { statements: [{ ...match, op: '!=' }, { counter: true }, drop], comment: 'strangers' },
      { statements: [{ verdict: 'return' }] },
    ]
    const old: KernelObject[] = [
      { kind: 'nft-table', family: 'inet', name: 'weft' },
      { kind: 'nft-set', ...table, name: 's', type: ['ipv4_addr'] },
      { kind: 'nft-chain', ...table, name: 'old', rules },
      { kind: 'nft-chain', ...table, name: 'unconcerned', rules: [{ statements: [drop] }] },
    ]
    assert.deepEqual(
      (await kernel.execute(old.map((object) => ({ verb: 'add', object })))).filter((result) => result),
      [],
    )
    const set: Fragment = {
      source: 'set',
      objects: [{ ...old[1]!, type: [type], flags: ['interval'] } as KernelObject],
    }
    const { applier } = await started(kernel, {}, { source: 'table', objects: [old[0]!] }, set)
    assert.deepEqual(applier.failures(), [])
    const chains = () =>
      [...kernel.objects.values()].flatMap((object) =>
        object.kind === 'nft-chain' ? [[object.name, object.rules]] : [],
      )
    assert.deepEqual(chains(), [
      ['old', fits ? rules : [{ statements: [{ counter: true }, drop], comment: 'strangers' }, rules[2]]],
      ['unconcerned', [{ statements: [drop] }]],
    ])
    applier.markComplete()
    await applier.settle()
    assert.deepEqual(chains(), [])
    await applier.close()
  }
})

test('one refused nft rule does not keep the others out', async () => {
  const kernel = FakeKernel.create()
  const table = { family: 'inet', table: 'weft' } as const
  const { applier } = await started(
    kernel,
    {},
    { source: 'table', objects: [{ kind: 'nft-table', family: 'inet', name: 'weft' }] },
    { source: 'set', objects: [{ kind: 'nft-set', ...table, name: 's', type: ['ipv4_addr'] }] },
    { source: 'good', objects: [{ kind: 'nft-element', ...table, set: 's', key: '10.0.0.1' }] },
    { source: 'bad', objects: [{ kind: 'nft-element', ...table, set: 'missing', key: '10.0.0.2' }] },
  )
  assert.ok(applier.inPlace('good') && applier.inPlace('set'))
  assert.deepEqual(
    applier.failures().map((failure) => failure.sources),
    [['bad']],
  )
  await applier.close()
})

test('what nobody wants any more is set again on a device that comes by the same name', async () => {
  const kernel = FakeKernel.create()
  const port: KernelObject = { kind: 'link', name: 'cali0', type: 'dummy', up: true }
  await kernel.execute([{ verb: 'add', object: port }])
  const strict: Fragment = {
    source: 'pod',
    objects: [{ kind: 'sysctl', path: 'net/ipv4/conf/cali0/rp_filter', value: '1' }],
  }
  const { applier } = await started(kernel, {}, strict)
  applier.markComplete()
  applier.remove('pod')
  await applier.settle()
  await kernel.execute([
    { verb: 'delete', object: port },
    { verb: 'add', object: port },
  ])
  const from = kernel.history.length
  applier.set(strict)
  await applier.settle()
  assert.deepEqual(ops(kernel, from), ['sysctl -w net.ipv4.conf.cali0.rp_filter=1'])
  await applier.close()
})

test('the kernel at the end depends on the last wants alone', async () => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed}`)
  let state = seed || 1
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  for (let round = 0; round < 30; round++) {
    const kernel = FakeKernel.create()
    const { applier, clock } = await started(kernel)
    applier.markComplete()
    const wants = new Map<string, Fragment>()
    const put = (fragment: Fragment) => {
      wants.set(fragment.source, fragment)
      applier.set(fragment)
    }
    for (let step = 0; step < 60; step++) {
      const n = 1 + random(8)
      const dice = random(10)
      if (dice < 3) put(peer(n, `172.30.${random(3)}.${n}`))
      else if (dice < 5) {
        wants.delete(`node/n${n}`)
        applier.remove(`node/n${n}`)
      } else if (dice === 5)
        put({ ...local, objects: [{ ...vtep, mtuBytes: 1400 + random(3) } as KernelObject, local.objects[1]!] })
      else if (dice === 6) {
        const objects = [...kernel.objects.values()].filter((object) => object.kind !== 'link' || object.name !== 'lo')
        const victim = objects[random(objects.length)]
        if (victim) await kernel.execute([{ verb: 'delete', object: victim }])
      } else if (dice === 7) kernel.loseEvents()
      else clock.advance(random(500))
      if (random(3) === 0) await applier.settle()
    }
    if (!wants.has('path/vxlan')) put(local)
    for (let i = 0; i < 10; i++) {
      clock.advance(60_000)
      await applier.settle()
    }
    const fresh = FakeKernel.create()
    const { applier: second } = await started(fresh, {}, ...wants.values())
    assert.deepEqual(applier.failures(), [])
    assert.deepEqual(described(kernel), described(fresh), `round ${round}`)
    await applier.close()
    await second.close()
  }
})

const described = (kernel: FakeKernel): string[] =>
  [...kernel.objects.values()].map((object) => JSON.stringify({ ...object, ifindex: undefined })).sort()
