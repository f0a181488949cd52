import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpamSettings, IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { audit, notes } from '../audit.ts'
import { allocationsOf, isInUse } from '../block.ts'
import type { BlockIpam, BlockIpamOptions } from './block-ipam.ts'
import { CorruptObjectError, type IpamStore, type Kept, StoreAwayError } from './ipam-store.ts'
import { defaultSettings, ipamOf, poolOf } from './ipam-store-suite.ts'
import { MemoryStore } from './memory-store.ts'
import { mend } from './mend.ts'
import { type AddressRequest, NoAddressError } from './pool-addresses.ts'

const small = poolOf('small', '172.26.0.0/28', { blockSize: 30 })
const MINUTE = 60_000

type Wanted = AddressRequest['wanted'][number]

const request = (handleId: string, wanted: readonly Wanted[] = [{ family: 4 }]): AddressRequest => ({
  handleId,
  attributes: { node: 'n1', pod: handleId },
  use: 'Workload',
  wanted,
})

const one = async (ipam: BlockIpam, handleId: string, wanted?: Wanted): Promise<string> =>
  `${(await ipam.assign(request(handleId, wanted && [wanted])))[0]!.ip}`

const inUseOf = (store: MemoryStore): string[] =>
  store.blocks
    .all()
    .flatMap(({ value }) => [...allocationsOf(value)].filter(isInUse).map(({ ip }) => `${ip}`))
    .sort()

const refused = (words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof NoAddressError, String(error))
  assert.match(error.message, words)
  return true
}

/** Problems that the audit finds when exactly these addresses are used. */
const problemsOf = (store: MemoryStore, pools: readonly IpPool[], used: readonly string[], nodes = ['n1', 'n2']) =>
  audit({
    pools,
    reservations: [],
    settings: defaultSettings,
    blocks: store.blocks.all(),
    affinities: store.affinities.all(),
    handles: store.handles.all(),
    nodes: new Set(nodes),
    inUse: used.map((ip) => ({ ip: Ip.parse(ip), holder: ip })),
    now: Date.now(),
  }).filter(({ kind }) => !notes.has(kind))

test('an address of an own block costs one write and no read; those that wait share one', async () => {
  const ipam = ipamOf(new MemoryStore(), 'n1', [poolOf('p', '172.26.0.0/16')])
  await one(ipam, 'first')
  assert.deepEqual(ipam.counts, { reads: 2, writes: 4, conflicts: 0 }, 'listed; claimed in three writes')
  for (let n = 0; n < 20; n++) await one(ipam, `c${n}`)
  assert.deepEqual(ipam.counts, { reads: 2, writes: 24, conflicts: 0 })
  await Promise.all(Array.from({ length: 40 }, (_, n) => one(ipam, `d${n}`)))
  assert.deepEqual(ipam.counts, { reads: 2, writes: 25, conflicts: 0 })
  await Promise.all(Array.from({ length: 40 }, (_, n) => ipam.release(`d${n}`)))
  await ipam.idle()
  assert.deepEqual(ipam.counts, { reads: 2, writes: 26, conflicts: 0 }, 'no handle is looked for that was not written')
})

test('a thousand addresses one after the other cost 1.1 writes each at most', async () => {
  const ipam = ipamOf(new MemoryStore(), 'n1', [poolOf('p', '172.26.0.0/16')])
  for (let n = 0; n < 1000; n++) await one(ipam, `c${n}`)
  assert.ok(ipam.counts.writes <= 1100, `${ipam.counts.writes}`)
})

test('half a pool reserved costs no more than an empty pool', async () => {
  const counts = []
  for (const reserved of [[], ['172.26.0.0/17'], ['172.26.128.0/17', '172.26.3.0/24']]) {
    const reservations = [{ name: 'r', cidrs: reserved.map((text) => Cidr.parse(text)) }]
    const ipam = ipamOf(new MemoryStore(), 'n1', [poolOf('p', '172.26.0.0/16')], { reservations: () => reservations })
    for (let n = 0; n < 200; n++) {
      const ip = Ip.parse(await one(ipam, `c${n}`))
      assert.ok(!reservations[0]!.cidrs.some((cidr) => cidr.contains(ip)), `${ip}`)
    }
    counts.push(ipam.counts)
  }
  assert.deepEqual(counts[1], counts[0])
  assert.deepEqual(counts[2], counts[0])
})

test('reserved addresses within a block are passed over, and given to who names them', async () => {
  const reservations = [{ name: 'r', cidrs: [Cidr.parse('172.26.0.0/31')] }]
  const pool = poolOf('p', '172.26.0.0/30', { blockSize: 30 })
  const ipam = ipamOf(new MemoryStore(), 'n1', [pool], { reservations: () => reservations })
  assert.deepEqual([await one(ipam, 'a'), await one(ipam, 'b')], ['172.26.0.2', '172.26.0.3'])
  await assert.rejects(one(ipam, 'c'), refused(/every block is taken/))
  assert.equal(await one(ipam, 'd', { family: 4, ip: Ip.parse('172.26.0.1') }), '172.26.0.1')
})

test('pools are chosen by name, selectors, use and mode', async () => {
  const pools = [
    poolOf('off', '10.1.0.0/24', { disabled: true }),
    poolOf('far', '10.2.0.0/24', { nodeSelector: "zone == 'far'" }),
    poolOf('shop', '10.3.0.0/24', { namespaceSelector: "team == 'shop'" }),
    poolOf('manual', '10.4.0.0/24', { assignmentMode: 'Manual' }),
    poolOf('tunnels', '10.5.0.0/24', { allowedUses: ['Tunnel'] }),
    poolOf('rest', '10.6.0.0/24'),
  ]
  const selects = (selector: string, labels: Readonly<Record<string, string>>) =>
    selector === 'all()' || Object.entries(labels).some(([key, value]) => selector === `${key} == '${value}'`)
  const newIpam = () => ipamOf(new MemoryStore(), 'n1', pools, { selects })
  const poolFor = async (further: Partial<AddressRequest>, named?: string) => {
    const wanted = [{ family: 4 as Family, ...(named ? { pools: [named] } : {}) }]
    return (await newIpam().assign({ ...request('a', wanted), ...further }))[0]!.pool
  }
  assert.equal(await poolFor({}), 'rest')
  assert.equal(await poolFor({ namespaceLabels: { team: 'shop' } }), 'shop')
  assert.equal(await poolFor({ use: 'Tunnel' }), 'tunnels')
  assert.equal(await poolFor({}, 'manual'), 'manual')
  assert.equal(await poolFor({}, '10.2.0.0/24'), 'far', 'who names a pool gets it, whatever it selects')
  await assert.rejects(poolFor({}, 'off'), refused(/pool "off" does not exist, is disabled/))
  await assert.rejects(poolFor({}, 'tunnels'), refused(/tunnels may not be used for Workload/))
  await assert.rejects(newIpam().assign(request('v6', [{ family: 6 }])), refused(/no enabled IPv6 pool/))
})

test('a node has as many blocks as it may, then it borrows nothing', async () => {
  const limited: IpamSettings = { ...defaultSettings, maxBlocksPerHost: 2 }
  const ipam = ipamOf(new MemoryStore(), 'n1', [small], { settings: () => limited })
  for (let n = 0; n < 8; n++) await one(ipam, `c${n}`)
  await assert.rejects(one(ipam, 'c8'), refused(/n1 has 2 blocks, and may have 2 \(maxBlocksPerHost\)/))
  const many = ipamOf(new MemoryStore(), 'n1', [poolOf('p', '172.26.0.0/24', { blockSize: 32 })])
  for (let n = 0; n < 20; n++) await one(many, `c${n}`)
  await assert.rejects(one(many, 'c20'), refused(/may have 20/))
  const none = ipamOf(new MemoryStore(), 'n1', [small], {
    settings: () => ({ ...limited, autoAllocateBlocks: false, strictAffinity: true }),
  })
  await assert.rejects(one(none, 'c'), refused(/autoAllocateBlocks is off/))
})

test('when no block is left an address is borrowed, with a handle of its own, unless that is forbidden', async () => {
  const store = new MemoryStore()
  const pool = poolOf('p', '172.26.0.0/29', { blockSize: 30 })
  const lender = ipamOf(store, 'n2', [pool])
  for (let n = 0; n < 5; n++) await one(lender, `lent${n}`)
  const strict = ipamOf(store, 'n1', [pool], { settings: () => ({ ...defaultSettings, strictAffinity: true }) })
  await assert.rejects(one(strict, 'a'), refused(/strictAffinity forbids to borrow/))
  const ipam = ipamOf(store, 'n1', [pool])
  const ip = await one(ipam, 'a')
  const [block] = store.blocks.all().filter(({ value }) => value.cidr.contains(Ip.parse(ip)))
  assert.equal(block!.value.owner!.name, 'n2')
  assert.deepEqual(
    store.handles.all().map(({ value }) => value),
    [{ handleId: 'a', blocks: { [`${block!.value.cidr}`]: 1 }, deleted: false }],
  )
  await one(lender, 'lent5')
  assert.deepEqual(problemsOf(store, [pool], inUseOf(store)), [])
  await ipam.release('a')
  await ipam.idle()
  assert.equal(inUseOf(store).length, 6)
  assert.deepEqual(store.handles.all(), [])
})

test('a block of another node that is told of is written whole', async () => {
  const store = new MemoryStore()
  const pool = poolOf('p', '172.26.0.0/30', { blockSize: 30 })
  const lender = ipamOf(store, 'n2', [pool])
  for (const handle of ['a', 'b', 'c']) await one(lender, handle)
  const ipam = ipamOf(store, 'n1', [pool])
  for (const held of store.blocks.all()) ipam.news.noteBlock(held)
  ipam.news.noteListed()
  assert.equal(await one(ipam, 'd'), '172.26.0.3')
  for (const held of store.blocks.all()) ipam.news.noteBlock(held)
  await ipam.release('d')
  const { value } = store.blocks.all()[0]!
  assert.deepEqual(
    value.attributes.map(({ handleId }) => handleId),
    ['a', 'b', 'c'],
  )
  assert.equal(Object.keys(value.sequenceNumberForAllocation).length, 3)
})

test('an empty block of another node is taken when it has had it for a while', async () => {
  const store = new MemoryStore()
  let now = Date.now()
  const further: Partial<BlockIpamOptions> = {
    now: () => now,
    settings: () => ({ ...defaultSettings, strictAffinity: true }),
  }
  const pool = poolOf('p', '172.26.0.0/29', { blockSize: 30 })
  const before = ipamOf(store, 'n2', [pool], further)
  for (let n = 0; n < 8; n++) await one(before, `c${n}`)
  const ipam = ipamOf(store, 'n1', [pool], further)
  await assert.rejects(one(ipam, 'a'), NoAddressError)
  for (let n = 4; n < 8; n++) await before.release(`c${n}`)
  await ipam.news.refresh()
  await assert.rejects(one(ipam, 'a'), NoAddressError, 'not so soon')
  now += MINUTE + 1000
  assert.ok(await one(ipam, 'a'))
  assert.deepEqual(
    store.blocks
      .all()
      .map(({ value }) => value.owner!.name)
      .sort(),
    ['n1', 'n2'],
  )
  assert.deepEqual(problemsOf(store, [pool], inUseOf(store)), [])
})

test('one address that is asked for, and what stands in its way', async () => {
  const store = new MemoryStore()
  const pools = [small, poolOf('off', '10.9.0.0/24', { disabled: true })]
  const settings = { ...defaultSettings, ipCooldownSeconds: 60 }
  const ipam = ipamOf(store, 'n1', pools, { settings: () => settings })
  const other = ipamOf(store, 'n2', pools, { settings: () => ({ ...settings, strictAffinity: true }) })
  const ask = (who: BlockIpam, handleId: string, text: string, named?: readonly string[]) =>
    one(who, handleId, { family: 4, ip: Ip.parse(text), ...(named ? { pools: named } : {}) })
  assert.equal(await ask(ipam, 'a', '172.26.0.7'), '172.26.0.7')
  assert.equal(await ask(ipam, 'a', '172.26.0.7'), '172.26.0.7', 'the same handle again')
  await assert.rejects(ask(ipam, 'b', '172.26.0.7'), refused(/172\.26\.0\.7 cannot be given: it is in use \(a\)/))
  await assert.rejects(ask(other, 'b', '172.26.0.6'), refused(/another node's, and strictAffinity forbids/))
  await assert.rejects(ask(ipam, 'b', '10.0.0.1'), refused(/in no enabled pool/))
  await assert.rejects(ask(ipam, 'b', '10.9.0.1'), refused(/in no enabled pool/))
  await assert.rejects(ask(ipam, 'b', '172.26.0.6', ['off']), refused(/not in off/))
  await ipam.release('a')
  await assert.rejects(ask(ipam, 'b', '172.26.0.7'), refused(/was released at .* and cools down/))
  const held = ipamOf(store, 'n1', pools, { heldElsewhere: (ip) => `${ip}` === '172.26.0.6' })
  await assert.rejects(ask(held, 'b', '172.26.0.6'), refused(/in use on this node/))
  assert.equal(await one(held, 'c'), '172.26.0.4')
  assert.deepEqual(inUseOf(store), ['172.26.0.4'])
})

test('the same handle is given the same addresses; all that it wants or none', async () => {
  const store = new MemoryStore()
  const pools = [small, poolOf('six', 'fd00::/126', { blockSize: 126 })]
  const ipam = ipamOf(store, 'n1', pools)
  const both = [{ family: 4 as const }, { family: 6 as const }]
  const first = await ipam.assign(request('a', both))
  const again = ipamOf(store, 'n1', pools)
  assert.deepEqual(await again.assign(request('a', both)), first)
  for (const handle of ['b', 'c', 'd']) await ipam.assign(request(handle, both))
  await assert.rejects(ipam.assign(request('e', both)), NoAddressError)
  await ipam.idle()
  assert.equal(inUseOf(store).length, 8)
  const aborted = new AbortController()
  const call = ipam.assign({ ...request('f'), signal: aborted.signal })
  aborted.abort(new Error('given up'))
  await assert.rejects(call, /given up/)
  await ipam.idle()
  assert.equal(inUseOf(store).length, 8)
})

test('an object that Calico wrote for a handle goes with its last address', async () => {
  const store = new MemoryStore()
  const calico = ipamOf(store, 'n1', [small], { handles: 'all' })
  const ip = await one(calico, 'a')
  assert.equal(store.handles.all().length, 1)
  const ipam = ipamOf(store, 'n1', [small])
  await ipam.release('a')
  await ipam.idle()
  assert.deepEqual([inUseOf(store), store.handles.all()], [[], []], ip)
})

/** Lets the nth operation of a store be lost: not done, done and not answered, done two operations later; or lets who asked die over it. */
function losing(
  store: MemoryStore,
  nth: number,
  how: 'refused' | 'answerLost' | 'doneLater' | 'death',
): { store: IpamStore; count: () => number } {
  let count = 0
  let dead = false
  let late: (() => Promise<unknown>) | undefined
  const lose = async <R>(operation: () => Promise<R>): Promise<R> => {
    if (dead) return new Promise(() => {})
    if (++count === nth + 2) await late?.().catch(() => {})
    if (count !== nth) return operation()
    if (how === 'doneLater') late = operation
    else if (how !== 'refused') await operation()
    if (how !== 'death') throw new StoreAwayError(how)
    dead = true
    return new Promise(() => {})
  }
  const over = <K, T>(kept: Kept<K, T>): Kept<K, T> => ({
    read: (key) => lose(() => kept.read(key)),
    list: () => lose(() => kept.list()),
    create: (value) => lose(() => kept.create(value)),
    replace: (held, value) => lose(() => kept.replace(held, value)),
    remove: (held) => lose(() => kept.remove(held)),
  })
  const way: IpamStore = {
    blocks: over(store.blocks),
    affinities: over(store.affinities),
    handles: over(store.handles),
    close: async () => {},
  }
  return { store: way, count: () => count }
}

for (const how of ['refused', 'answerLost', 'doneLater'] as const)
  test(`the store is away at any operation of a first ADD (${how}): it fails, and nothing stays`, async () => {
    for (let nth = 1; ; nth++) {
      const store = new MemoryStore()
      const way = losing(store, nth, how)
      const ipam = ipamOf(way.store, 'n1', [small], { handles: 'all', wait: async () => {} })
      const ip = await one(ipam, 'a').catch((error: unknown) => {
        assert.ok(error instanceof StoreAwayError, String(error))
        return undefined
      })
      await ipam.idle()
      if (how === 'doneLater' && way.count() >= nth) {
        // What was done late is told by the watch.
        await ipam.news.refresh()
        await ipam.idle()
      }
      assert.deepEqual(inUseOf(store), ip === undefined ? [] : [ip], `operation ${nth}`)
      // An object of a handle that is written after all is nobody's, and the collector's to remove.
      const problems = problemsOf(store, [small], inUseOf(store)).filter(
        ({ kind }) => how !== 'doneLater' || kind !== 'handle-without-addresses',
      )
      assert.deepEqual(problems, [], `operation ${nth}`)
      if (way.count() < nth) break
      assert.ok(await one(ipam, 'a'), 'and it works the next time')
      assert.ok(nth < 100)
    }
  })

test('an agent that dies over any operation leaves what the next one, or anybody, finishes', async () => {
  for (let nth = 1; ; nth++) {
    const store = new MemoryStore()
    const way = losing(store, nth, 'death')
    const dying = ipamOf(way.store, 'n1', [small], { handles: 'all' })
    const died = await Promise.race([
      one(dying, 'a').then(() => false),
      new Promise((resolve) => setImmediate(resolve, true)),
    ])
    dying.close()
    if (!died) break
    const next = ipamOf(store, 'n1', [small], { handles: 'all' })
    const ip = await one(next, 'a')
    await next.idle()
    const context = { store, counts: { reads: 0, writes: 0, conflicts: 0 } }
    for (const finding of problemsOf(store, [small], [ip]))
      await mend(context, finding, { nowMilliseconds: Date.now(), seconds: 0 })
    assert.deepEqual(inUseOf(store), [ip], `operation ${nth}`)
    assert.deepEqual(problemsOf(store, [small], [ip]), [], `operation ${nth}`)
    assert.ok(nth < 100)
  }
})

test('two nodes with one name share blocks, and never an address', async () => {
  const store = new MemoryStore()
  const twins = [ipamOf(store, 'n1', [small]), ipamOf(store, 'n1', [small])]
  const all = await Promise.all(Array.from({ length: 16 }, (_, n) => one(twins[n % 2]!, `c${n}`)))
  assert.equal(new Set(all).size, 16)
  assert.deepEqual(problemsOf(store, [small], all), [])
  assert.ok(twins[0]!.counts.conflicts + twins[1]!.counts.conflicts > 0)
})

test('another blockSize, and pools over one another, make no blocks that overlap', async () => {
  const store = new MemoryStore()
  const [before, after, over] = [26, 28, 24].map((blockSize) => poolOf(`p${blockSize}`, '172.26.0.0/22', { blockSize }))
  const old = ipamOf(store, 'n2', [before!])
  for (let n = 0; n < 5; n++) await one(old, `old${n}`, n === 4 ? { family: 4, ip: Ip.parse('172.26.2.9') } : undefined)
  const ipam = ipamOf(store, 'n1', [after!, over!], {
    settings: () => ({ ...defaultSettings, maxBlocksPerHost: 100 }),
  })
  for (let n = 0; n < 300; n++) await one(ipam, `new${n}`)
  const found = problemsOf(store, [after!, over!], inUseOf(store)).filter(({ kind }) => kind !== 'overlapping-pools')
  assert.deepEqual(found, [])
  await assert.rejects(
    one(ipamOf(store, 'n3', [over!]), 'x', { family: 4, ip: Ip.parse('172.26.2.200') }),
    refused(/would overlap|another node|in use/),
  )
})

test('a block that nobody can read is left alone, and others serve', async () => {
  const store = new MemoryStore()
  const ipam = ipamOf(store, 'n1', [small])
  const first = await one(ipam, 'a')
  const [broken] = store.blocks.all()
  const corrupt: Kept<Cidr, never> = {
    ...store.blocks,
    read: async (cidr: Cidr) => {
      if (cidr.equals(broken!.value.cidr)) throw new CorruptObjectError(`IPAMBlock ${cidr}: allocations: is none`)
      return store.blocks.read(cidr)
    },
    list: async () => ({
      objects: store.blocks.all().filter(({ value }) => !value.cidr.equals(broken!.value.cidr)),
      problems: [new CorruptObjectError('IPAMBlock: allocations: is none')],
    }),
    create: (value: never) => store.blocks.create(value),
    replace: (held: never, value: never) => store.blocks.replace(held, value),
    remove: (held: never) => store.blocks.remove(held),
  } as never
  const way: IpamStore = {
    blocks: corrupt,
    affinities: store.affinities,
    handles: store.handles,
    close: async () => {},
  }
  const next = ipamOf(way, 'n1', [small])
  const others = await Promise.all(Array.from({ length: 12 }, (_, n) => one(next, `b${n}`)))
  assert.ok(others.every((ip) => !broken!.value.cidr.contains(Ip.parse(ip))))
  await assert.rejects(one(next, 'c'), NoAddressError)
  assert.ok(inUseOf(store).includes(first))
  // The process that has it in memory learns of it at its next write.
  await store.blocks.replace(broken!, { ...broken!.value })
  const late = ipamOf(way, 'n1', [small])
  late.news.noteBlock(broken!)
  late.news.noteListed()
  await assert.rejects(one(late, 'd'), NoAddressError)
  await late.release('a')
})

test('the place of a block that nobody can read is taken, whatever the size of new blocks; it is free when the block is gone', async () => {
  const large = poolOf('large', '172.26.0.0/28', { blockSize: 29 })
  const ipam = ipamOf(new MemoryStore(), 'n1', [large])
  ipam.news.noteUnreadable(Cidr.parse('172.26.0.4/30'))
  ipam.news.noteListed()
  const got = await Promise.all(Array.from({ length: 8 }, (_, n) => one(ipam, `a${n}`)))
  assert.ok(
    got.every((ip) => Cidr.parse('172.26.0.8/29').contains(Ip.parse(ip))),
    got.join(),
  )
  await assert.rejects(one(ipam, 'b'), NoAddressError)
  await assert.rejects(
    one(ipam, 'b', { family: 4, ip: Ip.parse('172.26.0.5') }),
    refused(/would overlap 172.26.0.4.30/),
  )
  ipam.news.noteBlockGone(Cidr.parse('172.26.0.4/30'))
  assert.ok(Cidr.parse('172.26.0.0/29').contains(Ip.parse(await one(ipam, 'b'))))
})

test('a clock that goes back makes no sequence number that was there before', async () => {
  const store = new MemoryStore()
  let now = Date.now()
  const pool = poolOf('p', '172.26.0.0/30', { blockSize: 30 })
  const ipam = ipamOf(store, 'n1', [pool], { now: () => now })
  const [first] = await ipam.assign(request('a'))
  await ipam.release('a')
  const [held] = store.blocks.all()
  await store.blocks.remove(held!)
  ipam.news.noteBlockGone(held!.value.cidr)
  now -= 86_400_000
  const [second] = await ipam.assign(request('b'))
  assert.equal(`${second!.ip}`, `${first!.ip}`)
  assert.ok(second!.sequenceNumber! > held!.value.sequenceNumber)
})
