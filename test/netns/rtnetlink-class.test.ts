import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import type { KernelObject } from '../../src/model/kernel-object.ts'
import type { KernelOp } from '../../src/model/kernel-state.ts'
import { TestNamespace } from './namespace.ts'

const space = new TestNamespace()
space.run('ip link add v0 type veth peer name v1')
after(() => space.delete())

const canHtb = new TestNamespace()
canHtb.run('ip link add p0 type veth peer name p1')
const hasHtb = canHtb.succeeds('tc qdisc add dev p0 root handle 1: htb')
canHtb.delete()
const skip = hasHtb ? false : 'this kernel has no htb'

const Mbit = 1_000_000
const qdisc: KernelObject = {
  kind: 'qdisc',
  device: 'v0',
  type: 'htb',
  parent: 'root',
  handle: '1:',
  htb: { defaultClass: 0x30 },
}
const trafficClass = (handle: string, parent: string, rate: number, priority = 0): KernelObject => ({
  kind: 'class',
  device: 'v0',
  handle,
  parent,
  htb: {
    rateBitsPerSecond: rate,
    ceilBitsPerSecond: 2 * rate,
    burstBytes: 16_000,
    ceilBurstBytes: 3200,
    priority,
    quantumBytes: 3000,
  },
})
const wanted = [
  trafficClass('1:1', '1:', 10 * Mbit),
  trafficClass('1:30', '1:1', 4 * Mbit, 3),
  // Beyond 32 bits of bytes per second.
  trafficClass('1:a', '1:', 80_000 * Mbit),
]
const execute = async (verb: KernelOp['verb'], ...objects: KernelObject[]): Promise<(string | undefined)[]> =>
  (await space.kernel.execute(objects.map((object) => ({ verb, object })))).map((result) => result?.code)

/** What tc says of each class, by its handle; its JSON of classes is none. */
function shown(): Map<string, Record<string, string>> {
  const classes = new Map<string, Record<string, string>>()
  for (const line of space.run('tc -d class show dev v0').split('\n')) {
    const words = line.trim().split(/\s+/)
    if (words[0] !== 'class') continue
    const value = (name: string): string => words[words.indexOf(name) + 1] ?? ''
    const parent = words.includes('root') ? '1:' : value('parent')
    const fields = ['prio', 'quantum', 'rate', 'ceil', 'burst', 'cburst'].map((name) => [
      name,
      words.includes(name) ? value(name).replace(/\/.*/, '') : '',
    ])
    classes.set(words[2]!, { parent, ...Object.fromEntries(fields) })
  }
  return classes
}

const byHandle = (objects: readonly KernelObject[]): KernelObject[] =>
  [...objects].sort((a, b) => ('handle' in a && 'handle' in b ? (a.handle! < b.handle! ? -1 : 1) : 0))

test('htb classes are made, read, changed and deleted as tc sees them', { skip }, async (t: TestContext) => {
  const heard: string[] = []
  let wake = (): void => {}
  const watch = space.kernel.watch(['class'], (event) => {
    heard.push(event.type === 'resync' ? 'resync' : `${event.type} ${event.key}`)
    wake()
  })
  t.after(() => watch.close())
  assert.deepEqual(await execute('add', qdisc, ...wanted), [undefined, undefined, undefined, undefined])
  assert.deepEqual(await execute('add', wanted[0]!), ['EEXIST'])
  const [root] = await space.kernel.read('qdisc').then((all) => all.filter((one) => one.device === 'v0'))
  assert.deepEqual(root, qdisc)

  const read = await space.kernel.read('class')
  // A burst is kept as time: at a high rate it reads back a few bytes off.
  const rounded = (object: KernelObject): KernelObject =>
    object.kind === 'class' && object.handle === '1:a'
      ? { ...object, htb: { ...object.htb, burstBytes: 16_000, ceilBurstBytes: 3200 } }
      : object
  assert.deepEqual(byHandle(read.map(rounded)), byHandle(wanted))
  const mbit = (bits: number): string => (bits % 1e9 ? `${bits / Mbit}Mbit` : `${bits / 1e9}Gbit`)
  for (const { handle, parent, htb } of read) {
    const { rate, ceil, ...rest } = shown().get(handle)!
    assert.deepEqual([rate, ceil, rest.parent], [mbit(htb.rateBitsPerSecond), mbit(htb.ceilBitsPerSecond), parent])
  }
  assert.equal(shown().size, read.length)
  const { prio, quantum, burst, cburst } = shown().get('1:30')!
  assert.deepEqual([prio, quantum, burst, cburst], ['3', '3000', '16000b', '3200b'])

  assert.deepEqual(await execute('set', trafficClass('1:30', '1:1', 8 * Mbit, 5)), [undefined])
  const changed = shown().get('1:30')!
  assert.deepEqual([changed.rate, changed.prio], ['8Mbit', '5'])

  space.run('tc class add dev v0 parent 1:1 classid 1:40 htb rate 1mbit ceil 2mbit burst 15k cburst 2k prio 2')
  const theirs = (await space.kernel.read('class')).find(({ handle }) => handle === '1:40')!
  assert.deepEqual(
    [
      theirs.parent,
      theirs.htb.rateBitsPerSecond,
      theirs.htb.ceilBitsPerSecond,
      theirs.htb.burstBytes,
      theirs.htb.priority,
    ],
    ['1:1', Mbit, 2 * Mbit, 15 * 1024, 2],
  )
  assert.deepEqual(await execute('delete', theirs, wanted[1]!), [undefined, undefined])
  assert.deepEqual([...shown().keys()].sort(), ['1:1', '1:a'])
  const limit = AbortSignal.timeout(20_000)
  while (!heard.includes('new class v0 1:40') || !heard.includes('delete class v0 1:30'))
    await new Promise<void>((resolve, reject) => {
      wake = resolve
      limit.addEventListener('abort', () => reject(new Error(`heard only ${heard.join(', ')}`)), { once: true })
    })
})
