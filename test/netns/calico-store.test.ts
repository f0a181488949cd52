import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { EtcdStore } from '../../src/cluster/calico/etcd-store.ts'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { etcdKeys } from '../../src/config/calico/store-names.ts'
import { newBlock } from '../../src/ipam/block.ts'
import { ConflictError, type IpamStore } from '../../src/ipam/stores/ipam-store.ts'
import { testIpamStore } from '../../src/ipam/stores/ipam-store-suite.ts'
import type { IpamBlock } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Relay } from '../kubernetes/relay.ts'
import { clear, define, GROUP, harnessOn, ipamResources, type LabApi, put, send, startLabApi } from './calico-api.ts'
import { EtcdServer } from './etcd-server.ts'

let lab: LabApi
let etcd: EtcdServer

before(async () => {
  lab = await startLabApi()
  await define(lab.admin)
  etcd = await EtcdServer.start()
})
after(async () => {
  await lab.close()
  await etcd.stop()
})

testIpamStore("the lab's API", () => harnessOn(lab))

testIpamStore('etcd', async () => {
  etcd.ctl('del', '--prefix', '/calico/')
  const endpoint = await etcd.openLine()
  const opened: { readonly store: IpamStore; readonly client: EtcdClient }[] = []
  return {
    open: async () => {
      const client = new EtcdClient({ endpoints: [endpoint] })
      const store = new EtcdStore({ client })
      opened.push({ store, client })
      return store
    },
    setUp: async (up) => {
      if (up) await etcd.openLine()
      else etcd.cutLine()
    },
    close: async () => {
      for (const { store, client } of opened) {
        await store.close()
        client.close()
      }
      etcd.cutLine()
    },
  }
})

const cidr = Cidr.parse('172.26.40.128/30')
const owner = { type: 'host', name: 'n1' } as const
const block: IpamBlock = newBlock({
  cidr,
  owner,
  at: '2026-11-21T10:00:00Z',
  sequenceNumber: 1_763_000_000_123_456_789n,
})

/** What Calico writes of it, in either store. */
const calicoSpec = {
  cidr: `${cidr}`,
  affinity: 'host:n1',
  allocations: [null, null, null, null],
  unallocated: [0, 1, 2, 3],
  attributes: [],
  deleted: false,
  sequenceNumber: 5,
  sequenceNumberForAllocation: {},
  strictAffinity: false,
}

const withStore = async (
  open: () => Promise<{ open(): Promise<IpamStore>; close(): Promise<void> }>,
  run: (store: IpamStore) => Promise<void>,
) => {
  const harness = await open()
  try {
    await run(await harness.open())
  } finally {
    await harness.close()
  }
}

test("the lab's API: names, labels and fields are Calico's", () =>
  withStore(
    () => harnessOn(lab),
    async (store) => {
      await store.blocks.create(block)
      await store.affinities.create({ owner, cidr, state: 'pending', deleted: false })
      await store.handles.create({ handleId: 'k8s-pod-network.AB', blocks: { [`${cidr}`]: 1 }, deleted: false })
      const { spec } = await send(lab.admin, 'GET', `/apis/${GROUP}/ipamblocks/172-26-40-128-30`)
      assert.deepEqual(spec, {
        ...calicoSpec,
        affinityClaimTime: '2026-11-21T10:00:00Z',
        sequenceNumber: 1_763_000_000_123_456_789n,
      })
      const affinity = await send(lab.admin, 'GET', `/apis/${GROUP}/blockaffinities/n1-172-26-40-128-30`)
      assert.deepEqual(affinity.spec, {
        cidr: `${cidr}`,
        deleted: 'false',
        node: 'n1',
        state: 'pending',
        type: 'host',
      })
      assert.deepEqual(affinity.metadata.labels, {
        'projectcalico.org/affinity-type': 'host',
        'projectcalico.org/hostname-hash': 'DM7EHBDU4L3ELKRER4A46T6QMKAGARQI4CVWBO26S4I2IDAAW6CA',
        'projectcalico.org/ip-version': '4',
      })
      const handle = await send(lab.admin, 'GET', `/apis/${GROUP}/ipamhandles/k8s-pod-network.ab`)
      assert.deepEqual(handle.spec, { handleID: 'k8s-pod-network.AB', block: { [`${cidr}`]: 1 }, deleted: false })
    },
  ))

test("the lab's API: a life that ended is not written over, nor removed with another", () =>
  withStore(
    () => harnessOn(lab),
    async ({ blocks }) => {
      const held = await blocks.create(block)
      await clear(lab.admin, ipamResources)
      const again = await blocks.create(block)
      assert.notEqual(held.revision, again.revision)
      await assert.rejects(blocks.replace(held, block), ConflictError)
      await assert.rejects(blocks.remove(held), ConflictError)
      assert.deepEqual(await blocks.read(cidr), again)
    },
  ))

test("the lab's API: what Calico marked as deleted is gone for readers, and its name is free", () =>
  withStore(
    () => harnessOn(lab),
    async ({ blocks }) => {
      await put(lab.admin, 'ipamblocks', '172-26-40-128-30', { ...calicoSpec, deleted: true })
      assert.deepEqual((await blocks.list()).objects, [])
      assert.equal(await blocks.read(cidr), undefined)
      await blocks.create(block)
    },
  ))

test("the lab's API: an answer that is lost after the write is asked after", () =>
  withStore(
    () => harnessOn(lab),
    async ({ blocks }) => {
      const held = await blocks.create(block)
      lab.relay.cutAfter(0)
      const replaced = await blocks.replace(held, { ...block, sequenceNumber: 7n })
      assert.equal((await blocks.read(cidr))!.revision, replaced.revision)
      lab.relay.cutAfter(0)
      await blocks.remove(replaced)
      assert.equal(await blocks.read(cidr), undefined)
      lab.relay.cutAfter(0)
      const again = await blocks.create(block)
      assert.deepEqual(await blocks.read(cidr), again)
      lab.relay.cutAfter(0)
      await assert.rejects(blocks.replace(held, block), ConflictError)
    },
  ))

test("etcd: keys and values are Calico's; what cannot be read is told and troubles nobody else", async () => {
  etcd.ctl('del', '--prefix', '/calico/')
  const client = new EtcdClient({ endpoints: [etcd.url] })
  const store = new EtcdStore({ client })
  await store.blocks.create(block)
  await store.affinities.create({ owner, cidr, state: 'confirmed', deleted: false })
  await store.handles.create({ handleId: 'k8s-pod-network.AB', blocks: { [`${cidr}`]: 1 }, deleted: false })
  const lines = etcd.ctl('get', '--prefix', '/calico/').trim().split('\n')
  assert.deepEqual(lines, [
    '/calico/ipam/v2/assignment/ipv4/block/172.26.40.128-30',
    '{"cidr":"172.26.40.128/30","affinity":"host:n1","affinity_claim_time":"2026-11-21T10:00:00Z","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"sequenceNumber":1763000000123456789,"sequenceNumberForAllocation":{},"deleted":false,"strictAffinity":false,"attributes":[]}',
    '/calico/ipam/v2/handle/k8s-pod-network.AB',
    '{"block":{"172.26.40.128/30":1},"deleted":false}',
    '/calico/ipam/v2/host/n1/ipv4/block/172.26.40.128-30',
    '{"state":"confirmed","deleted":false}',
  ])
  const garbage = { ...calicoSpec, cidr: '172.26.40.132/30', allocations: [null] }
  etcd.ctl('put', etcdKeys.block(Cidr.parse('172.26.40.132/30')), JSON.stringify(garbage))
  etcd.ctl('put', etcdKeys.block(Cidr.parse('172.26.40.136/30')), '{')
  const { objects, problems } = await store.blocks.list()
  assert.equal(objects.length, 1)
  assert.deepEqual(
    problems.map(({ name }) => name),
    ['CorruptObjectError', 'CorruptObjectError'],
  )
  assert.match(problems[0]!.message, /172\.26\.40\.132-30: allocations: has 1 entries for 4 addresses/)
  await assert.rejects(store.blocks.read(Cidr.parse('172.26.40.136/30')), { name: 'CorruptObjectError' })
  await store.close()
  client.close()
})

test('etcd: an answer that is lost after the write is asked after', async () => {
  etcd.ctl('del', '--prefix', '/calico/')
  const relay = new Relay({ address: '127.0.0.1', port: Number(new URL(etcd.url).port) })
  await relay.listen()
  const client = new EtcdClient({ endpoints: [relay.url.replace('https', 'http')] })
  const { blocks } = new EtcdStore({ client })
  relay.cutAfter(0)
  const held = await blocks.create(block)
  assert.deepEqual(await blocks.read(cidr), held)
  relay.cutAfter(0)
  const replaced = await blocks.replace(held, { ...block, sequenceNumber: 7n })
  assert.deepEqual(await blocks.read(cidr), replaced)
  relay.cutAfter(0)
  await assert.rejects(blocks.replace(held, block), ConflictError)
  relay.cutAfter(0)
  await blocks.remove(replaced)
  assert.equal(await blocks.read(cidr), undefined)
  client.close()
  relay.close()
})

test('etcd: many blocks are listed in pages', async () => {
  etcd.ctl('del', '--prefix', '/calico/')
  const client = new EtcdClient({ endpoints: [etcd.url] })
  const store = new EtcdStore({ client })
  const wanted = Array.from({ length: 600 }, (_, i) => Cidr.parse(`10.${i >> 8}.${i & 255}.0/30`))
  await Promise.all(wanted.map((each) => store.blocks.create({ ...block, cidr: each })))
  const { objects } = await store.blocks.list()
  assert.deepEqual(new Set(objects.map(({ value }) => `${value.cidr}`)), new Set(wanted.map(String)))
  await store.close()
  client.close()
})
