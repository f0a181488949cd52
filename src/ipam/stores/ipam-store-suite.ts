/**
 * What every store of blocks, affinities and handles must do, as tests: run over the one in memory, over Kubernetes' API and over
 * etcd. At the end addresses are given through it as agents do.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlockAffinity, BlockOwner, IpamBlock, IpamHandle, IpamSettings, IpPool } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'
import { newBlock } from '../block.ts'
import { BlockIpam, type BlockIpamOptions } from './block-ipam.ts'
import { ConflictError, type IpamStore, type Kept, StoreAwayError } from './ipam-store.ts'

export interface StoreHarness {
  /** A client of its own on the one store of the harness. */
  open(): Promise<IpamStore>
  /** Makes the store unreachable, or reachable again. Left out where that cannot be. */
  setUp?(up: boolean): void | Promise<void>
  close(): Promise<void>
}

export const quietLog = { debug: () => {}, info: () => {}, warn: () => {} }

export const defaultSettings: IpamSettings = {
  strictAffinity: false,
  maxBlocksPerHost: 0,
  autoAllocateBlocks: true,
  ipCooldownSeconds: 0,
}

export const poolOf = (name: string, cidr: string, further: Partial<IpPool> = {}): IpPool => ({
  name,
  cidr: Cidr.parse(cidr),
  blockSize: cidr.includes(':') ? 122 : 26,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: true,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload', 'Tunnel'],
  assignmentMode: 'Automatic',
  ...further,
})

export const ipamOf = (
  store: IpamStore,
  node: string,
  pools: readonly IpPool[],
  further: Partial<BlockIpamOptions> = {},
): BlockIpam =>
  new BlockIpam({
    store,
    node: { name: node, labels: () => ({}) },
    log: quietLog,
    pools: () => pools,
    reservations: () => [],
    settings: () => defaultSettings,
    selects: () => true,
    now: () => Date.now(),
    ...further,
  })

const host = (name: string): BlockOwner => ({ type: 'host', name })

const blockOf = (cidr: string, further: Partial<IpamBlock> = {}): IpamBlock => ({
  ...newBlock({
    cidr: Cidr.parse(cidr),
    owner: host('n1'),
    at: '2026-11-21T10:00:00Z',
    // More than a double holds.
    sequenceNumber: 1_763_000_000_123_456_789n,
  }),
  ...further,
})

const inUse = blockOf('172.26.4.0/30', {
  allocations: [0, null, 1, 2],
  unallocated: [1],
  attributes: [
    {
      handleId: 'k8s-pod-network.4f7c',
      secondary: { namespace: 'shop', node: 'n1', pod: 'cart-0', timestamp: '2026-11-21 10:00:00 +0000 UTC' },
    },
    { handleId: 'ipip-tunnel-addr-n1.example.com', secondary: { node: 'n1', type: 'ipipTunnelAddress' } },
    { secondary: {}, releasedAt: '2026-11-21T10:00:05Z' },
  ],
  sequenceNumberForAllocation: { '0': 1_763_000_000_123_456_789n, '2': 1_763_000_000_123_456_790n },
})

interface KeptCase<K, T> {
  readonly kept: (store: IpamStore) => Kept<K, T>
  readonly keyOf: (value: T) => K
  /** Of different keys, but for the second, which replaces the first. */
  readonly values: readonly [T, T, ...T[]]
}

const blockCase: KeptCase<Cidr, IpamBlock> = {
  kept: ({ blocks }) => blocks,
  keyOf: ({ cidr }) => cidr,
  values: [
    blockOf('172.26.4.0/30'),
    inUse,
    blockOf('172.26.8.0/26', { owner: { type: 'virtual', name: 'load-balancer' } }),
    blockOf('fd00:26::40/122'),
  ],
}

const { owner: _owner, ownedSince: _since, ...nobodys } = blockOf('172.26.9.0/26')

const affinityOf = (cidr: string, state: BlockAffinity['state'], owner = host('n1')): BlockAffinity => ({
  owner,
  cidr: Cidr.parse(cidr),
  state,
  deleted: false,
})

const affinityCase: KeptCase<{ readonly owner: BlockOwner; readonly cidr: Cidr }, BlockAffinity> = {
  kept: ({ affinities }) => affinities,
  keyOf: ({ owner, cidr }) => ({ owner, cidr }),
  values: [
    affinityOf('172.26.4.0/30', 'pending'),
    affinityOf('172.26.4.0/30', 'confirmed'),
    affinityOf('172.26.4.0/30', 'pendingDeletion', host('n2.example.com')),
    affinityOf('172.26.8.0/26', 'confirmed', { type: 'virtual', name: 'load-balancer' }),
    affinityOf('fd00:26::40/122', 'confirmed'),
  ],
}

const handleCase: KeptCase<string, IpamHandle> = {
  kept: ({ handles }) => handles,
  keyOf: ({ handleId }) => handleId,
  values: [
    { handleId: 'k8s-pod-network.4f7c', blocks: { '172.26.4.0/30': 1 }, deleted: false },
    { handleId: 'k8s-pod-network.4f7c', blocks: { '172.26.4.0/30': 1, 'fd00:26::40/122': 2 }, deleted: false },
    { handleId: 'vxlan-tunnel-addr-n2.example.com', blocks: { '172.26.8.0/26': 1 }, deleted: false },
  ],
}

const conflict = (error: unknown): boolean => error instanceof ConflictError

/** Declares the suite's tests. Each opens a store of its own, empty. `canBeAway`: its harness has `setUp`. */
export function testIpamStore(kind: string, open: () => Promise<StoreHarness>, { canBeAway = true } = {}): void {
  const storeTest = (title: string, run: (harness: StoreHarness) => Promise<void>) =>
    test(`${kind}: ${title}`, async () => {
      const harness = await open()
      try {
        await run(harness)
      } finally {
        await harness.close()
      }
    })

  testKept(storeTest, 'blocks', blockCase)
  testKept(storeTest, 'affinities', affinityCase)
  testKept(storeTest, 'handles', handleCase)

  storeTest('a block that is nobody’s has no owner', async (harness) => {
    const { blocks } = await harness.open()
    await blocks.create(nobodys)
    assert.deepEqual((await blocks.read(nobodys.cidr))!.value, nobodys)
  })

  storeTest('addresses are given once, whoever asks, and given back', async (harness) => {
    const pools = [poolOf('p4', '172.26.0.0/24', { blockSize: 29 }), poolOf('p6', 'fd00:26::/120', { blockSize: 125 })]
    const stores = [await harness.open(), await harness.open()]
    const clients = stores.map((store, i) => ipamOf(store, `n${i + 1}`, pools))
    const given = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        clients[i % 2]!.assign({
          handleId: `k8s-pod-network.c${i}`,
          attributes: { node: `n${(i % 2) + 1}` },
          use: 'Workload',
          wanted: [{ family: 4 }, { family: 6 }],
        }),
      ),
    )
    assert.equal(new Set(given.flat().map(({ ip }) => `${ip}`)).size, 120)
    await Promise.all(given.map((_, i) => clients[i % 2]!.release(`k8s-pod-network.c${i}`)))
    for (const client of clients) {
      await client.idle()
      client.close()
    }
    const { objects } = await stores[0]!.blocks.list()
    assert.ok(objects.length > 0)
    for (const { value } of objects) assert.ok(value.allocations.every((index) => index === null))
    const affinities = await stores[0]!.affinities.list()
    assert.deepEqual(new Set(affinities.objects.map(({ value }) => value.state)), new Set(['confirmed']))
  })

  if (!canBeAway) return
  storeTest('a store that is away says so', async ({ open: openClient, setUp }) => {
    const { blocks } = await openClient()
    const held = await blocks.create(inUse)
    await setUp!(false)
    const away = (error: unknown): boolean => error instanceof StoreAwayError
    await assert.rejects(blocks.read(inUse.cidr), away)
    await assert.rejects(blocks.list(), away)
    await assert.rejects(blocks.create(blockOf('172.26.12.0/26')), away)
    await assert.rejects(blocks.replace(held, inUse), away)
    await setUp!(true)
    assert.deepEqual((await blocks.read(inUse.cidr))!.value, inUse)
  })
}

type StoreTest = (title: string, run: (harness: StoreHarness) => Promise<void>) => void

function testKept<K, T>(storeTest: StoreTest, name: string, { kept, keyOf, values }: KeptCase<K, T>): void {
  const [first, second] = values

  storeTest(`${name} are read as they were written`, async (harness) => {
    const [ours, theirs] = [kept(await harness.open()), kept(await harness.open())]
    assert.equal(await ours.read(keyOf(first)), undefined)
    assert.deepEqual((await ours.list()).objects, [])
    for (const value of values.filter((each) => each !== second)) {
      const held = await ours.create(value)
      assert.deepEqual(held.value, value)
      assert.deepEqual(await theirs.read(keyOf(value)), held)
    }
    const replaced = await ours.replace((await theirs.read(keyOf(first)))!, second)
    assert.deepEqual(replaced.value, second)
    assert.deepEqual(await theirs.read(keyOf(second)), replaced)
    const { objects, problems } = await theirs.list()
    assert.deepEqual(problems, [])
    const byText = (a: T, b: T) => JSON.stringify(keyOf(a)).localeCompare(JSON.stringify(keyOf(b)))
    assert.deepEqual(objects.map(({ value }) => value).sort(byText), values.slice(1).sort(byText))
  })

  storeTest(`who is late with ${name} is told`, async (harness) => {
    const [ours, theirs] = [kept(await harness.open()), kept(await harness.open())]
    const held = await ours.create(first)
    await assert.rejects(theirs.create(first), conflict)
    const replaced = await theirs.replace(held, second)
    await assert.rejects(ours.replace(held, first), conflict)
    await assert.rejects(ours.remove(held), conflict)
    await theirs.remove(replaced)
    assert.equal(await ours.read(keyOf(first)), undefined)
    await assert.rejects(ours.replace(replaced, first), conflict)
    await assert.rejects(ours.remove(replaced), conflict)
    const again = await ours.create(first)
    await assert.rejects(theirs.replace(replaced, second), conflict)
    assert.deepEqual(await theirs.read(keyOf(first)), again)
  })

  storeTest(`of many writers of ${name} one is first`, async (harness) => {
    const stores = [kept(await harness.open()), kept(await harness.open()), kept(await harness.open())]
    const created = await Promise.allSettled(stores.map((each) => each.create(first)))
    assert.equal(created.filter(({ status }) => status === 'fulfilled').length, 1)
    const held = (await stores[0]!.read(keyOf(first)))!
    const replaced = await Promise.allSettled(stores.map((each) => each.replace(held, second)))
    assert.equal(replaced.filter(({ status }) => status === 'fulfilled').length, 1)
    const last = (await stores[0]!.read(keyOf(first)))!
    const removed = await Promise.allSettled(stores.map((each) => each.remove(last)))
    assert.equal(removed.filter(({ status }) => status === 'fulfilled').length, 1)
    for (const { reason } of [...created, ...replaced, ...removed].filter((each) => each.status === 'rejected'))
      assert.ok(conflict(reason), String(reason))
  })
}
