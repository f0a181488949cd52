import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { audit } from '../audit.ts'
import { allocationsOf, isInUse } from '../block.ts'
import { isSpare } from '../spares.ts'
import type { BlockIpam, BlockIpamOptions } from './block-ipam.ts'
import { type IpamStore, StoreAwayError } from './ipam-store.ts'
import { defaultSettings, ipamOf, poolOf } from './ipam-store-suite.ts'
import { MemoryStore } from './memory-store.ts'
import { NoAddressError } from './pool-addresses.ts'

const pool = poolOf('p', '172.26.0.0/16')
const HOUR = 3_600_000

/** A node whose pods get addresses that are kept ready, four of each pool. */
function node(
  store: IpamStore,
  name: string,
  pools: readonly IpPool[],
  further: Partial<BlockIpamOptions> = {},
  journal: readonly { ip: string; handleId: string; isLeaving?: boolean }[] = [],
  journalName = `journal-${name}`,
): BlockIpam {
  const ipam = ipamOf(store, name, pools, { spareAddresses: 4, wait: async () => {}, ...further })
  const held = journal.map(({ ip, handleId, isLeaving = false }) => ({
    ip: Ip.parse(ip),
    handleId,
    attributes: { pod: handleId },
    isLeaving,
  }))
  ipam.resume(journalName, held)
  ipam.expectPods(true)
  return ipam
}

const add = async (ipam: BlockIpam, handleId: string, ip?: string): Promise<string> => {
  const wanted = [{ family: 4 as const, ...(ip ? { ip: Ip.parse(ip) } : {}) }]
  const attributes = { node: 'n', pod: handleId }
  return `${(await ipam.assign({ handleId, attributes, use: 'Workload', wanted }))[0]!.ip}`
}

/** Addresses of pods and tunnels as the blocks say, with their handles. */
const given = (store: MemoryStore): Record<string, string> =>
  Object.fromEntries(
    store.blocks
      .all()
      .flatMap(({ value }) => [...allocationsOf(value)])
      .filter((each) => isInUse(each) && !isSpare(each.attribute))
      .map(({ ip, handleId }) => [`${ip}`, handleId!]),
  )

const spares = (store: MemoryStore, name?: string): string[] =>
  store.blocks
    .all()
    .flatMap(({ value }) => [...allocationsOf(value)])
    .filter(({ attribute }) => isSpare(attribute) && (!name || attribute!.secondary.node === name))
    .map(({ ip }) => `${ip}`)

/** Tells a node of all blocks, as a watch does. */
async function tell(store: MemoryStore, ...all: BlockIpam[]): Promise<void> {
  for (const ipam of all) for (const held of store.blocks.all()) ipam.news.noteBlock(held)
  for (const ipam of all) await ipam.idle()
}

type Replace = IpamStore['blocks']['replace']

/** A way to a store on which writes of blocks wait or fail as long as it is told so, or go as somebody says. */
class Way implements IpamStore {
  how: 'open' | 'held' | 'away' = 'open'
  readonly blocks: IpamStore['blocks']
  readonly affinities: IpamStore['affinities']
  readonly handles: IpamStore['handles']

  constructor(store: MemoryStore, replace: Replace = (held, value) => store.blocks.replace(held, value)) {
    this.affinities = store.affinities
    this.handles = store.handles
    const through = async <T>(operation: () => Promise<T>): Promise<T> => {
      if (this.how === 'away') throw new StoreAwayError('away')
      return this.how === 'held' ? new Promise(() => {}) : operation()
    }
    const { blocks } = store
    this.blocks = {
      read: (key) => through(() => blocks.read(key)),
      list: () => through(() => blocks.list()),
      create: (value) => through(() => blocks.create(value)),
      replace: (held, value) => through(() => replace(held, value)),
      remove: (held) => through(() => blocks.remove(held)),
    }
  }

  async close(): Promise<void> {}
}

test('an address that is kept ready waits for no write; its block is told by one write for several', async () => {
  const store = new MemoryStore()
  const way = new Way(store)
  const ipam = node(way, 'n1', [pool])
  await add(ipam, 'first')
  assert.equal(spares(store).length, 4, 'with the write of the first address')
  const before = ipam.counts.writes
  way.how = 'held'
  const got = await Promise.all(['a', 'b', 'c'].map((handle) => add(ipam, handle)))
  assert.equal(new Set(got).size, 3)
  assert.deepEqual(Object.values(given(store)), ['first'])
  way.how = 'open'
  const other = node(
    store,
    'n1',
    [pool],
    {},
    got.map((ip, n) => ({ ip, handleId: 'abc'[n]! })),
  )
  await other.news.refresh()
  await other.idle()
  assert.deepEqual(Object.values(given(store)).sort(), ['a', 'b', 'c', 'first'], 'a life later')
  assert.equal(other.counts.writes, 1)
  assert.ok(ipam.counts.writes - before <= 1)
})

test('a thousand addresses, given and taken back, cost 1.1 writes each at most', async () => {
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [pool])
  for (let n = 0; n < 1000; n++) {
    await add(ipam, `c${n}`)
    await ipam.idle()
  }
  assert.ok(ipam.counts.writes <= 1100, `${ipam.counts.writes}`)
  assert.equal(Object.keys(given(store)).length, 1000)
})

test('what a pod had is released, also before its block knew of it', async () => {
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [pool])
  await add(ipam, 'first')
  await ipam.idle()
  const before = ipam.counts.writes
  await Promise.all([add(ipam, 'a'), add(ipam, 'b')])
  await Promise.all([ipam.release('a'), ipam.release('b')])
  await ipam.idle()
  assert.deepEqual(Object.values(given(store)), ['first'])
  assert.ok(ipam.counts.writes <= before + 2)
})

test('the last addresses of a small block are there for all: of the node, and of others', async () => {
  const small = poolOf('small', '172.26.0.0/29', { blockSize: 29 })
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [small])
  await add(ipam, 'a')
  assert.equal(spares(store).length, 3, 'no more than are free besides')
  const other = node(store, 'n2', [small])
  for (let n = 0; n < 7; n++) {
    await add(other, `borrowed${n}`).catch(async (error: unknown) => {
      assert.ok(error instanceof NoAddressError)
      await tell(store, ipam)
      await tell(store, other)
      await add(other, `borrowed${n}`)
    })
    await tell(store, ipam, other)
  }
  assert.equal(Object.keys(given(store)).length, 8)
  const alone = new MemoryStore()
  const one = node(alone, 'n1', [small])
  for (let n = 0; n < 8; n++) await add(one, `c${n}`)
  await one.idle()
  assert.deepEqual([Object.keys(given(alone)).length, spares(alone)], [8, []])
  await assert.rejects(add(one, 'ninth'), NoAddressError)
})

test('a block without pods has no spare address: another node may have it', async () => {
  let now = Date.now()
  const strict = { now: () => now, settings: () => ({ ...defaultSettings, strictAffinity: true }) }
  const small = poolOf('small', '172.26.0.0/29', { blockSize: 29 })
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [small], strict)
  await add(ipam, 'a')
  const before = ipam.counts.writes
  await ipam.release('a')
  await ipam.idle()
  assert.deepEqual([spares(store), ipam.counts.writes - before], [[], 1])
  now += 61_000
  assert.ok(await add(node(store, 'n2', [small], strict), 'b'))
})

test('spare addresses go back when their pool is disabled or for other nodes, when they are reserved, when pods are bridged', async () => {
  for (const change of ['disabled', 'selector', 'use', 'manual', 'reserved', 'bridged', 'retired']) {
    const store = new MemoryStore()
    let [current, selected, reservations] = [pool, true, [] as { name: string; cidrs: Cidr[] }[]]
    const ipam = node(store, 'n1', [], {
      pools: () => [current],
      selects: () => selected,
      reservations: () => reservations,
    })
    await add(ipam, 'a')
    assert.equal(spares(store).length, 4)
    if (change === 'disabled') current = { ...pool, disabled: true }
    if (change === 'use') current = { ...pool, allowedUses: ['Tunnel'] }
    if (change === 'manual') current = { ...pool, assignmentMode: 'Manual' }
    if (change === 'selector') selected = false
    if (change === 'reserved') reservations = [{ name: 'r', cidrs: [Cidr.parse('172.26.0.0/30')] }]
    ipam.reviewSpares()
    if (change === 'bridged') ipam.expectPods(false)
    if (change === 'retired') await ipam.retire()
    await ipam.idle()
    const left = spares(store)
    if (change === 'reserved')
      assert.deepEqual([left.length, left.filter((ip) => reservations[0]!.cidrs[0]!.contains(Ip.parse(ip)))], [4, []])
    else assert.deepEqual(left, [], change)
    assert.equal(Object.keys(given(store)).length, 1)
  }
})

test('who asks for an address that is kept ready gets it: of its own node at once, of another when that has given it back', async () => {
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [pool])
  await add(ipam, 'first')
  const [mine, others] = spares(store) as [string, string]
  assert.equal(await add(ipam, 'a', mine), mine)
  const other = node(store, 'n2', [pool])
  await assert.rejects(add(other, 'b', others), (error: unknown) => {
    assert.ok(error instanceof StoreAwayError)
    assert.match(error.message, /is kept ready by n1, which was asked to give it back/)
    return true
  })
  await tell(store, ipam)
  assert.equal(await add(other, 'b', others), others)
  const [lent] = spares(store, 'n1') as [string]
  assert.equal(await add(ipam, 'c', lent), lent)
  await tell(store, ipam)
  await assert.rejects(add(other, 'd', lent), /is in use \(c\)/)
})

test('while the store is away pods get what is kept ready, then none; nothing is given twice or lost', async () => {
  const store = new MemoryStore()
  const way = new Way(store)
  let away = 0
  const ipam = node(way, 'n1', [pool], { wait: () => (++away > 20 ? new Promise(() => {}) : Promise.resolve()) })
  await add(ipam, 'first')
  way.how = 'away'
  const got = []
  for (const handle of ['a', 'b', 'c', 'd']) got.push(await add(ipam, handle))
  await assert.rejects(add(ipam, 'e'), StoreAwayError)
  await assert.rejects(ipam.release('a'), StoreAwayError)
  await assert.rejects(add(ipam, 'f'), StoreAwayError, 'what is being given back is nobody else’s yet')
  way.how = 'open'
  await ipam.release('a')
  await ipam.retire()
  const expected = Object.fromEntries([...got.slice(1).map((ip, n) => [ip, 'bcd'[n]!]), ['172.26.0.0', 'first']])
  assert.deepEqual(Object.values(given(store)).sort(), Object.values(expected).sort())
  for (const [ip, handle] of Object.entries(expected)) if (handle !== 'first') assert.equal(given(store)[ip], handle)
})

for (const how of ['before', 'after'] as const)
  test(`an agent that dies ${how} any of its writes leaves no address twice and none behind`, async () => {
    for (let nth = 1; nth < 40; nth++) {
      const store = new MemoryStore()
      let [count, isDead] = [0, false]
      let late: (() => Promise<unknown>) | undefined
      const dying = new Way(store, async (held, value) => {
        if (isDead) return new Promise(() => {})
        if (++count < nth) return store.blocks.replace(held, value)
        isDead = true
        // A write that is on its way may still be done, at any time.
        if (how === 'after') await store.blocks.replace(held, value)
        else late = () => store.blocks.replace(held, value)
        return new Promise(() => {})
      })
      const ipam = node(dying, 'n1', [pool])
      const journal: { ip: string; handleId: string; isLeaving: boolean }[] = []
      const life = async () => {
        for (let n = 0; n < 9; n++) {
          journal.push({ ip: await add(ipam, `c${n}`), handleId: `c${n}`, isLeaving: false })
          if (n % 3 === 2) {
            const leaving = journal.find((each) => !each.isLeaving)!
            leaving.isLeaving = true
            await ipam.release(leaving.handleId)
            journal.splice(journal.indexOf(leaving), 1)
          }
        }
        return 'lived'
      }
      const outcome = await Promise.race([life(), new Promise((resolve) => setTimeout(resolve, 20, 'died'))])
      ipam.close()
      const next = node(store, 'n1', [pool], {}, journal)
      await next.news.refresh()
      const fresh = []
      for (let n = 0; n < 6; n++) {
        fresh.push({ ip: await add(next, `next${n}`), handleId: `next${n}` })
        if (n === 1) await late?.().catch(() => {})
      }
      for (const { handleId, isLeaving } of journal) if (isLeaving) await next.release(handleId)
      await next.retire()
      const living = [...journal.filter(({ isLeaving }) => !isLeaving), ...fresh]
      assert.equal(new Set(living.map(({ ip }) => ip)).size, living.length, `write ${nth}`)
      for (const { ip, handleId } of living) assert.equal(given(store)[ip], handleId, `write ${nth}`)
      assert.deepEqual(spares(store), [], `write ${nth}`)
      // What was written for an ADD that was never answered is the collector's.
      assert.ok(Object.keys(given(store)).length <= living.length + 1, `write ${nth}`)
      if (outcome === 'lived') return
    }
    assert.fail('it never lived to the end')
  })

test('two agents under one name do not give each other’s; what a lost journal left is freed after an hour', async () => {
  const store = new MemoryStore()
  let uptime = 0
  const clock = { uptime: () => uptime }
  const one = node(store, 'n1', [pool], clock, [], 'one')
  const two = node(store, 'n1', [pool], clock, [], 'two')
  const all = []
  for (let n = 0; n < 12; n++) all.push(await add(n % 2 ? one : two, `c${n}`))
  await Promise.all([one.idle(), two.idle()])
  assert.equal(new Set(all).size, 12)
  const lost = spares(store).length
  assert.ok(lost > 4)
  for (const ipam of [one, two]) ipam.close()
  // The journal of both is gone; the device of one pod says which address it has.
  const [lent] = spares(store) as [string]
  const next = node(store, 'n1', [pool], clock, [{ ip: lent, handleId: 'survivor' }], 'three')
  await next.news.refresh()
  await next.idle()
  assert.equal(given(store)[lent], 'survivor')
  uptime += HOUR
  await add(next, 'a')
  await next.retire()
  assert.deepEqual(spares(store), [])
  assert.equal(Object.keys(given(store)).length, 14)
})

test('the audit knows them, and calls those of a node that is gone leaked', async () => {
  const store = new MemoryStore()
  const ipam = node(store, 'n1', [pool])
  const ip = await add(ipam, 'a')
  const kindsWith = (nodes: string[]) =>
    audit({
      pools: [pool],
      reservations: [],
      settings: defaultSettings,
      blocks: store.blocks.all(),
      affinities: store.affinities.all(),
      handles: [],
      nodes: new Set(nodes),
      inUse: [{ ip: Ip.parse(ip), holder: 'a' }],
      now: Date.now(),
    }).map(({ kind }) => kind)
  assert.deepEqual(kindsWith(['n1']), [...Array(4).fill('spare-address'), 'handle-missing'])
  assert.deepEqual(kindsWith([]), [...Array(4).fill('leaked-address'), 'handle-missing', 'node-gone'])
})

test('where every address is to have a handle, none is kept ready, and those that were are not given without one', async () => {
  const store = new MemoryStore()
  const before = node(store, 'n1', [pool])
  await add(before, 'a')
  await before.idle()
  assert.equal(spares(store).length, 4)
  before.close()
  const ipam = node(store, 'n1', [pool], { handles: 'all' })
  for (const handle of ['b', 'c']) {
    const ip = await add(ipam, handle)
    const held = await store.handles.read(handle)
    assert.deepEqual(held?.value.blocks, { [`${store.blocks.all()[0]!.value.cidr}`]: 1 }, `${handle} ${ip}`)
  }
  ipam.reviewSpares()
  await ipam.idle()
  assert.deepEqual(spares(store), [])
  ipam.close()
})
