import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { Applier } from '../../src/apply/applier.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import { TestNamespace } from './namespace.ts'

const node = new TestNamespace()
node.run('ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up')
after(() => node.delete())

const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value })
const paths = {
  'net/ipv4/ip_forward': '1',
  'net/ipv4/conf/eth0/rp_filter': '2',
  'net/ipv6/conf/all/forwarding': '1',
  // Nothing announces this one.
  'net/ipv4/conf/eth0/route_localnet': '1',
}

/** An applier that wants these, everything in place, and a way to wait for its next pass until something holds. */
async function applying(t: TestContext, objects: readonly KernelObject[]) {
  let wake = (): void => {}
  const applier = new Applier(node.kernel, { onReport: () => wake() })
  t.after(() => applier.close())
  applier.set({ source: 'test', objects })
  await applier.start()
  applier.markComplete()
  await applier.settle()
  assert.deepEqual(applier.failures(), [])
  return {
    applier,
    async until(holds: () => boolean): Promise<void> {
      const limit = AbortSignal.timeout(30_000)
      while (!holds()) {
        await new Promise<void>((resolve, reject) => {
          wake = resolve
          limit.addEventListener('abort', () => reject(new Error('waited in vain')), { once: true })
        })
      }
    },
  }
}

const read = (path: string): string => node.run(`cat /proc/sys/${path}`).trim()

test('variables that somebody changes are put back, announced by the kernel or not', async (t) => {
  const { applier, until } = await applying(
    t,
    Object.entries(paths).map(([path, value]) => sysctl(path, value)),
  )
  for (const [path, value] of Object.entries(paths)) {
    assert.equal(read(path), value)
    const seen = applier.counts.driftSeen
    node.run(`echo 0 > /proc/sys/${path}`)
    await until(() => applier.counts.driftSeen > seen && read(path) === value)
    await applier.settle()
    assert.ok(applier.inPlace('test'), path)
  }
})

test('what is announced is told at once, long before the next look', async (t) => {
  await node.kernel.execute([{ verb: 'set', object: sysctl('net/ipv4/ip_forward', '1') }])
  const heard: string[] = []
  let wake = (): void => {}
  const watch = node.kernel.watch(['sysctl'], (event) => {
    if (event.type !== 'resync' && event.object.kind === 'sysctl')
      heard.push(`${event.object.path} ${event.object.value}`)
    wake()
  })
  t.after(() => watch.close())
  // Each change is seen by itself: a look every few seconds would see the last one only.
  for (const value of ['0', '1', '0', '1']) {
    const before = heard.length
    node.run(`echo ${value} > /proc/sys/net/ipv4/ip_forward`)
    const limit = AbortSignal.timeout(20_000)
    while (!heard.slice(before).includes(`net/ipv4/ip_forward ${value}`))
      await new Promise<void>((resolve, reject) => {
        wake = resolve
        limit.addEventListener('abort', () => reject(new Error(`not told of ${value}`)), { once: true })
      })
  }
})

test('an offload that somebody turns on again is turned off', async (t) => {
  const off = { 'tx-checksum-ip-generic': false }
  const { applier, until } = await applying(t, [{ kind: 'offload', device: 'eth0', features: off }])
  const state = (): string => node.run('ethtool -k eth0 | grep tx-checksum-ip-generic').trim()
  assert.match(state(), /: off/)
  const seen = applier.counts.driftSeen
  node.run('ethtool -K eth0 tx-checksum-ip-generic on')
  await until(() => applier.counts.driftSeen > seen && /: off/.test(state()))
  await applier.settle()
  assert.ok(applier.inPlace('test'))
})
