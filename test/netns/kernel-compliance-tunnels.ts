/**
 * Tunnels of IP in IP, their fallback devices and the ports of Foo over UDP, as tests of every Kernel. A kernel that lacks
 * the module says so by the first device or port, and the test is skipped there.
 */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { Kernel } from '../../src/kernel/kernel.ts'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import { type FouPort, givenBack, type Link, type LinkSettings } from '../../src/model/link.ts'
import {
  add,
  address,
  bridge,
  type Check,
  codes,
  ip,
  keys,
  Listener,
  remove,
  type Subject,
  set,
  succeed,
} from './kernel-compliance-subject.ts'

type TunnelType = 'ipip' | 'ip6tnl'
const tunnel = <T extends TunnelType>(type: T, name: string, settings: LinkSettings[T], rest: object = {}): Link =>
  ({ kind: 'link', name, type, settings, ...rest }) as Link

async function linkOf(kernel: Kernel, name: string): Promise<Link | undefined> {
  return (await kernel.read('link')).find((link) => link.name === name) as Link | undefined
}

/** Loads the module by making and deleting a device. False when there is none. */
async function hasTunnels(kernel: Kernel, type: TunnelType): Promise<boolean> {
  const [local, remote] = type === 'ipip' ? [ip('10.99.0.1'), ip('10.99.0.2')] : [ip('fd99::1'), ip('fd99::2')]
  const sample = tunnel(type, 'sample0', { local, remote })
  const [result] = await kernel.execute([add(sample)])
  if (result?.code === 'EOPNOTSUPP') return false
  if (result) throw result
  await succeed(kernel, remove(sample))
  return true
}

const gue: FouPort = { kind: 'fou', family: 4, port: 5555, type: 'gue', marked: true }
const gue6: FouPort = { ...gue, family: 6 }

/** False when the kernel has no FoU. */
async function hasFou(kernel: Kernel): Promise<boolean> {
  const sample: FouPort = { kind: 'fou', family: 4, port: 6999, type: 'gue' }
  const [result] = await kernel.execute([add(sample)])
  if (result?.code === 'EPROTONOSUPPORT') return false
  if (result) throw result
  await succeed(kernel, remove(sample))
  return true
}

/** A check of kernels that have what it needs. */
const where =
  (check: Check, has: (kernel: Kernel) => Promise<boolean>) =>
  (what: string, body: (subject: Subject) => Promise<void>): void =>
    check(what, async (subject, t: TestContext) => {
      if (await has(subject.kernel)) await body(subject)
      else t.skip('this kernel has no module for it')
    })

export function checkTunnels(check: Check): void {
  const withIpip = where(check, (kernel) => hasTunnels(kernel, 'ipip'))
  const withIp6 = where(check, (kernel) => hasTunnels(kernel, 'ip6tnl'))
  const withFou = where(check, async (kernel) => (await hasTunnels(kernel, 'ipip')) && (await hasFou(kernel)))
  const withFou6 = where(check, async (kernel) => (await hasTunnels(kernel, 'ip6tnl')) && (await hasFou(kernel)))

  withIpip('a tunnel between two ends is one of its kind', async ({ kernel }) => {
    const ends = { local: ip('10.0.0.1'), remote: ip('10.0.0.2') }
    await succeed(kernel, add(tunnel('ipip', 't0', { ...ends, ttl: 64, pmtuDiscovery: true }, { mtuBytes: 1400 })))
    const made = (await linkOf(kernel, 't0'))!
    const settings = made.settings as LinkSettings['ipip']
    assert.deepEqual(
      [made.mtuBytes, `${settings.local}`, `${settings.remote}`, settings.ttl, settings.encapsulation],
      [1400, '10.0.0.1', '10.0.0.2', 64, null],
    )
    assert.deepEqual(await codes(kernel, add(tunnel('ipip', 't1', ends))), ['EEXIST'])
    await succeed(kernel, add(tunnel('ipip', 't1', { local: ip('10.0.0.1') })))
    assert.equal(((await linkOf(kernel, 't1'))!.settings as LinkSettings['ipip']).remote, undefined)
  })

  withIpip('the fallback device is there, is not deleted, and is taken and given back', async ({ kernel, other }) => {
    for (const each of [kernel, other]) {
      const fallback = (await linkOf(each, 'tunl0'))!
      assert.deepEqual([fallback.type, fallback.up, fallback.alias], ['ipip', false, undefined])
    }
    const wanted: Link = { kind: 'link', type: 'ipip', name: 'tunl0', up: true, mtuBytes: 1430, alias: 'weft:ipip' }
    assert.deepEqual(await codes(kernel, add(wanted), remove(wanted)), ['EEXIST', undefined])
    const was = (await linkOf(kernel, 'tunl0'))!
    await succeed(kernel, { verb: 'set', object: wanted, was }, add(address('172.26.0.1', 32, 'tunl0')))
    const taken = (await linkOf(kernel, 'tunl0'))!
    assert.deepEqual([taken.up, taken.mtuBytes, taken.alias], [true, 1430, 'weft:ipip'])
    // Settings that it has are no reason to tell them.
    await succeed(kernel, { verb: 'set', object: { ...wanted, settings: { ttl: 0 } } as Link, was: taken })
    await succeed(kernel, remove(address('172.26.0.1', 32, 'tunl0')), {
      verb: 'set',
      object: givenBack(taken),
      was: taken,
    })
    const back = (await linkOf(kernel, 'tunl0'))!
    assert.deepEqual([back.up, back.alias], [false, undefined])
    assert.ok(!(await keys(kernel, 'address')).has('address tunl0 172.26.0.1/32'))
  })

  withIpip("a fallback device in another's use is refused, and says by what", async ({ kernel }) => {
    const wanted: Link = { kind: 'link', type: 'ipip', name: 'tunl0', up: true, alias: 'weft:ipip' }
    const fallback = (await linkOf(kernel, 'tunl0'))!
    const uses: [Partial<Link>, RegExp][] = [
      [{ alias: 'theirs' }, /tunl0 is there and another's: it has the alias "theirs"/],
      [{ settings: { local: ip('10.0.0.9') } } as Partial<Link>, /it goes from 10\.0\.0\.9 to any/],
      [{ settings: { external: true } } as Partial<Link>, /from routes/],
      [{ type: 'gre' } as Partial<Link>, /of kind gre/],
    ]
    for (const [use, message] of uses) {
      const was = { ...fallback, ...use } as Link
      const [result] = await kernel.execute([{ verb: 'set', object: wanted, was }])
      assert.equal(result?.code, 'EEXIST')
      assert.match(result!.message, message)
    }
    assert.deepEqual((await linkOf(kernel, 'tunl0'))!.up, false)
  })

  withIp6('IPv6 tunnels say what they carry and whether they carry the limit option', async ({ kernel }) => {
    const settings: LinkSettings['ip6tnl'] = {
      local: ip('fd00::1'),
      remote: ip('fd00::2'),
      hopLimit: 64,
      mode: 'ip6ip6',
      encapsulationLimit: null,
    }
    await succeed(kernel, add(tunnel('ip6tnl', 't6', settings)))
    const read = (await linkOf(kernel, 't6'))!.settings as LinkSettings['ip6tnl']
    assert.deepEqual(
      [`${read.local}`, `${read.remote}`, read.hopLimit, read.mode, read.encapsulationLimit, read.encapsulation],
      ['fd00::1', 'fd00::2', 64, 'ip6ip6', null, null],
    )
    assert.equal((await linkOf(kernel, 'ip6tnl0'))?.type, 'ip6tnl')
  })

  withFou('a tunnel is wrapped in UDP and unwrapped again while it stands', async ({ kernel }) => {
    const plain = { local: ip('10.0.0.1'), remote: ip('10.0.0.2'), ttl: 225, pmtuDiscovery: true, encapsulation: null }
    const wrapped = { ...plain, encapsulation: { type: 'gue', destinationPort: 5555 } } as const
    await succeed(kernel, add(tunnel('ipip', 't0', plain, { up: true })))
    const index = (await linkOf(kernel, 't0'))!.ifindex
    const step = async (settings: LinkSettings['ipip']) => {
      const was = (await linkOf(kernel, 't0'))!
      await succeed(kernel, { verb: 'set', object: tunnel('ipip', 't0', settings), was })
      const now = (await linkOf(kernel, 't0'))!
      assert.deepEqual([now.up, now.ifindex], [true, index])
      return now.settings as LinkSettings['ipip']
    }
    const { encapsulation, ttl, remote } = await step(wrapped)
    assert.deepEqual([encapsulation?.type, encapsulation?.destinationPort], ['gue', 5555])
    assert.deepEqual([ttl, `${remote}`], [225, '10.0.0.2'])
    assert.equal((await step(plain)).encapsulation, null)
  })

  withFou6('an IPv6 tunnel likewise', async ({ kernel }) => {
    const settings = (encapsulation: LinkSettings['ip6tnl']['encapsulation']): LinkSettings['ip6tnl'] => ({
      local: ip('fd00::1'),
      remote: ip('fd00::2'),
      hopLimit: 225,
      mode: 'ip6ip6',
      encapsulationLimit: null,
      ...(encapsulation !== undefined && { encapsulation }),
    })
    await succeed(kernel, add(tunnel('ip6tnl', 't6', settings({ type: 'gue', destinationPort: 5555 }))))
    const made = (await linkOf(kernel, 't6'))!
    assert.equal((made.settings as LinkSettings['ip6tnl']).encapsulation?.destinationPort, 5555)
    await succeed(kernel, { verb: 'set', object: tunnel('ip6tnl', 't6', settings(null)), was: made })
    const read = (await linkOf(kernel, 't6'))!.settings as LinkSettings['ip6tnl']
    assert.deepEqual([read.encapsulation, read.encapsulationLimit, read.mode], [null, null, 'ip6ip6'])
  })

  withFou('ports are opened once, read with their mark, and closed once', async ({ kernel, other }) => {
    const direct: FouPort = { kind: 'fou', family: 4, port: 5556, type: 'fou', protocol: 4 }
    await succeed(kernel, add(gue), add(gue6), add(direct))
    assert.deepEqual(await codes(kernel, add(gue)), ['EEXIST'])
    const byKey = (a: KernelObject, b: KernelObject) => JSON.stringify(a).localeCompare(JSON.stringify(b))
    assert.deepEqual((await kernel.read('fou')).sort(byKey), [gue, gue6, direct].sort(byKey))
    assert.deepEqual(await other.read('fou'), [])
    await succeed(kernel, remove(gue6))
    assert.deepEqual(await codes(kernel, remove(gue6)), ['ENOENT'])
    await succeed(kernel, set({ ...gue, type: 'fou', protocol: 4 }))
    assert.equal((await kernel.read('fou')).find(({ port }) => port === 5555)?.type, 'fou')
  })

  withFou('a watcher hears of ports', async ({ kernel }) => {
    const listener = new Listener()
    const watch = kernel.watch(['fou'], listener.listen)
    await succeed(kernel, add(gue), remove(gue))
    await listener.until('new fou 4 5555')
    await listener.until('delete fou 4 5555')
    watch.close()
  })

  check('an alias is taken away by an empty one', async ({ kernel }) => {
    await succeed(kernel, add(bridge('br0', { alias: 'weft:test' })), set(bridge('br0', { alias: '' })))
    assert.equal((await linkOf(kernel, 'br0'))!.alias, undefined)
  })
}
