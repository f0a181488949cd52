/**
 * Random operations on the kernel and on its twin in memory: every answer and, after every step, every object must be
 * the same. `SEED=n` repeats a walk.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeKernel } from '../../src/kernel/fake/fake-kernel.ts'
import type { Kernel } from '../../src/kernel/kernel.ts'
import { formatOp } from '../../src/model/format.ts'
import { type KernelObject, keyOf } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { Mac } from '../../src/net/mac.ts'
import { TestNamespace } from './namespace.ts'

const STEPS = 400

/** A small generator of numbers, repeatable by its seed. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const bridges = ['br0', 'br1']
const devices = [...bridges, 'vx0']

function randomObject(next: (below: number) => number): KernelObject {
  const pick = <T>(of: readonly T[]): T => of[next(of.length)]!
  const device = pick(devices)
  const mac = new Mac(Uint8Array.of(2, 0, 0, 0, 0, next(2)))
  switch (next(6)) {
    case 0: {
      const common = {
        kind: 'link' as const,
        up: next(4) > 0,
        mtuBytes: 1400 + next(3),
        addressGeneration: 'none' as const,
      }
      return device === 'vx0'
        ? { ...common, name: 'vx0', type: 'vxlan', settings: { vni: 7, port: 8472, learning: false } }
        : { ...common, name: device, type: 'bridge' }
    }
    case 1: {
      const at = bridges.indexOf(device)
      const family = next(2)
      if (at < 0) return { kind: 'address', device, ip: Ip.parse('10.244.1.0'), prefixLength: 32 }
      return family
        ? { kind: 'address', device, ip: Ip.parse(`10.${at}.0.${1 + next(2)}`), prefixLength: 24 }
        : { kind: 'address', device, ip: Ip.parse(`fd0${at}::${1 + next(2)}`), prefixLength: 64, noDad: true }
    }
    case 2: {
      const onlink = next(3) === 0
      const at = next(2)
      const via = Ip.parse(`10.${at}.0.${9 + next(2)}`)
      const hop =
        device === 'vx0'
          ? { device, via: Ip.parse('10.244.9.0'), onlink: true }
          : { device, via, ...(onlink && { onlink }) }
      return { kind: 'route', destination: Cidr.parse(`20.${next(3)}.0.0/16`), hops: [hop], protocol: 119 }
    }
    case 3:
      return { kind: 'neighbour', device, ip: Ip.parse(`10.244.${next(2)}.0`), mac }
    case 4:
      return { kind: 'fdb', device: 'vx0', mac, remote: Ip.parse(`10.0.0.${8 + next(2)}`) }
    default:
      return {
        kind: 'rule',
        family: 4,
        priority: 100 + next(2),
        mark: 1 + next(2),
        markMask: 0xff,
        table: 1000,
        protocol: 119,
      }
  }
}

/** What both can know: nothing that the kernel adds of its own and the twin leaves out. */
async function stateOf(kernel: Kernel): Promise<string[]> {
  const lines: string[] = []
  for (const object of await kernel.read('link', 'address', 'route', 'neighbour', 'fdb', 'rule')) {
    const key = keyOf(object)
    if (object.kind === 'link' && object.name !== 'lo') lines.push(`${key} ${object.up} ${object.mtuBytes}`)
    else if (object.kind === 'address' && object.device !== 'lo' && !object.ip.isLinkLocal) lines.push(key)
    else if (object.kind === 'route' && (object.table ?? 254) === 254)
      lines.push(`${key} ${object.hops.map((hop) => `${hop.via ?? ''}@${hop.device}${hop.onlink ? '!' : ''}`)}`)
    else if (object.kind === 'neighbour' && `${object.ip}`.startsWith('10.244')) lines.push(`${key} ${object.mac}`)
    else if (object.kind === 'fdb' && object.remote) lines.push(`${key} ${object.remote}`)
    else if (object.kind === 'rule' && object.priority >= 100 && object.priority <= 101) lines.push(key)
  }
  return lines.sort()
}

test('the kernel and its twin agree on random operations and on what comes of them', async () => {
  const seed = Number(process.env.SEED ?? (Date.now() % 1e9) + 1)
  console.log(`seed ${seed}`)
  const next = random(seed)
  using space = new TestNamespace()
  const twin = FakeKernel.create()
  const trail: string[] = []
  for (let step = 0; step < STEPS; step++) {
    const object = randomObject(next)
    const verb = (['add', 'set', 'set', 'delete'] as const)[next(4)]!
    // Changing a rule needs to know what it was: rules are added and deleted.
    const op: KernelOp = { verb: object.kind === 'rule' && verb === 'set' ? 'add' : verb, object }
    const [real] = await space.kernel.execute([op])
    const [fake] = await twin.execute([op])
    trail.push(`${formatOp(op)} → ${real?.code ?? 'ok'}`)
    const told = () => `seed ${seed}, after\n${trail.slice(-12).join('\n')}\n${real?.message ?? ''}`
    assert.equal(fake?.code, real?.code, told())
    const [ours, theirs] = [await stateOf(twin), await stateOf(space.kernel)]
    const differences = [
      ...ours.filter((line) => !theirs.includes(line)).map((line) => `only the twin has ${line}`),
      ...theirs.filter((line) => !ours.includes(line)).map((line) => `only the kernel has ${line}`),
    ]
    assert.deepEqual(differences, [], told())
  }
})
