/**
 * How the kernel is talked to: from the right namespace, whole dumps, errors for the right operations, what a watcher hears,
 * whether the event loop stays free.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { NetlinkSocket } from '../../src/kernel/linux/netlink-socket.ts'
import { inNetns } from '../../src/kernel/linux/netns.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { NETLINK_ROUTE } from '../../src/wire/netlink/constants.gen.ts'
import { RTM_GETLINK } from '../../src/wire/rtnetlink/constants.gen.ts'
import { linkMessage, linkRequest } from '../../src/wire/rtnetlink/link.ts'
import { TestNamespace } from './namespace.ts'

let here: TestNamespace
before(() => {
  here = new TestNamespace()
})
after(() => {
  here.delete()
})

const add = (object: KernelObject): KernelOp => ({ verb: 'add', object })

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
