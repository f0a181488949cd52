import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { EtcdCalicoSource } from '../../src/cluster/calico/etcd-source.ts'
import { EtcdStore } from '../../src/cluster/calico/etcd-store.ts'
import { KubernetesCalicoSource } from '../../src/cluster/calico/kubernetes-source.ts'
import { KubernetesStore } from '../../src/cluster/calico/kubernetes-store.ts'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { encodeBlock } from '../../src/config/calico/block.ts'
import { etcdKeys, etcdPrefixes } from '../../src/config/calico/store-names.ts'
import { Cidr } from '../../src/net/cidr.ts'
import {
  define,
  type LabApi,
  laterDefinitions,
  put,
  send,
  sourceHarnessOn,
  startLabApi,
  undefine,
  until,
} from './calico-api.ts'
import { blockOf, CalicoRecorder, quiet, testCalicoSource } from './calico-source-suite.ts'
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

testCalicoSource("the lab's API", () => sourceHarnessOn(lab))

const prefixOf = {
  ippools: etcdPrefixes.pools,
  ipreservations: etcdPrefixes.reservations,
  felixconfigurations: etcdPrefixes.felix,
} as const

testCalicoSource('etcd', async () => {
  etcd.ctl('del', '--prefix', '/calico/')
  const endpoint = await etcd.openLine()
  const clients: EtcdClient[] = []
  const client = (at: string): EtcdClient => {
    const made = new EtcdClient({ endpoints: [at] })
    clients.push(made)
    return made
  }
  const keyOf = (resource: keyof typeof prefixOf | 'ipamsettings', name: string): string =>
    resource === 'ipamsettings' ? etcdKeys.ipamConfig : `${prefixOf[resource]}${name}`
  return {
    source: () =>
      new EtcdCalicoSource({ client: client(endpoint), nodeName: 'n1', log: quiet, backoff: { first: 5, cap: 50 } }),
    store: new EtcdStore({ client: client(etcd.url) }),
    put: async (resource, name, spec) => {
      const { strictAffinity, autoAllocateBlocks, ...others } = spec as Record<string, unknown>
      const value =
        resource === 'ipamsettings'
          ? { strict_affinity: strictAffinity, auto_allocate_blocks: autoAllocateBlocks, ...others }
          : { kind: 'x', apiVersion: 'projectcalico.org/v3', metadata: { name }, spec }
      etcd.ctl('put', keyOf(resource, name), JSON.stringify(value))
    },
    remove: async (resource, name) => void etcd.ctl('del', keyOf(resource, name)),
    putBadBlock: async (cidr) =>
      void etcd.ctl('put', etcdKeys.block(cidr), JSON.stringify({ cidr, allocations: [null] })),
    setUp: async (up) => {
      if (up) await etcd.openLine()
      else etcd.cutLine()
    },
    compact: async () => {
      const status = JSON.parse(etcd.ctl('endpoint', 'status', '-w', 'json'))
      etcd.ctl('put', '/elsewhere', 'x')
      etcd.ctl('compact', String(status[0].Status.header.revision + 1))
    },
    close: async () => {
      for (const made of clients) made.close()
      etcd.cutLine()
    },
  }
})

const begin = (options: { readonly nodeName?: string } = {}) => {
  const client = lab.open()
  const source = new KubernetesCalicoSource({
    client,
    nodeName: 'n1',
    log: quiet,
    tuning: { backoff: { first: 5, cap: 50 }, absencePatienceMs: 100 },
    ...options,
  })
  const recorder = new CalicoRecorder()
  source.start(recorder.listen)
  const close = async () => {
    await source.close()
    client.close()
  }
  return { source, recorder, close }
}

test("the lab's API: a cluster without the definitions is told at once; they come, go and come again", async () => {
  await undefine(lab.admin)
  const { recorder, close } = begin()
  await recorder.until('synced')
  await define(lab.admin)
  await put(lab.admin, 'ippools', 'pool-a', { cidr: '172.26.0.0/16' })
  assert.equal(`${(await recorder.until('pool')).pool?.cidr}`, '172.26.0.0/16')
  await put(lab.admin, 'ipamblocks', '172-26-4-0-26', encodeBlock(blockOf('172.26.4.0/26'), 'kubernetes'))
  await recorder.until('block')
  const before = recorder.all.length
  await undefine(lab.admin)
  const types = () => recorder.all.slice(before).map(({ type }) => type)
  while (!types().includes('pool-gone') || !types().includes('block-gone')) await recorder.next()
  await define(lab.admin)
  await put(lab.admin, 'ippools', 'pool-b', { cidr: '172.27.0.0/16' })
  await recorder.until('pool', ({ name }) => name === 'pool-b')
  assert.equal(recorder.all.filter(({ type }) => type === 'synced').length, 1)
  await close()
})

test("the lab's API: Calico's later group, where it is served alone", async () => {
  await undefine(lab.admin)
  await define(lab.admin, laterDefinitions)
  const { recorder, close } = begin()
  const send3 = (resource: string, kind: string, name: string, spec: object) =>
    send(lab.admin, 'POST', `/apis/projectcalico.org/v3/${resource}`, {
      apiVersion: 'projectcalico.org/v3',
      kind,
      metadata: { name },
      spec,
    })
  await send3('ippools', 'IPPool', 'pool-a', { cidr: '172.26.0.0/16' })
  await send3('ipamconfigurations', 'IPAMConfiguration', 'default', { strictAffinity: true, autoAllocateBlocks: true })
  await recorder.until('ipam-settings', ({ settings }) => settings?.strictAffinity === true)
  assert.ok(recorder.all.some((event) => event.type === 'pool' && event.name === 'pool-a'))
  const store = new KubernetesStore({ client: lab.admin })
  const affinity = { owner: { type: 'host', name: 'n1' }, cidr: Cidr.parse('172.26.4.0/26'), deleted: false } as const
  const held = await store.affinities.create({ ...affinity, state: 'pending' })
  const { spec } = await send(lab.admin, 'GET', '/apis/projectcalico.org/v3/blockaffinities/n1-172-26-4-0-26')
  assert.equal(spec.deleted, false)
  await store.affinities.replace(held, { ...affinity, state: 'confirmed' })
  const block = await store.blocks.create(blockOf('172.26.4.0/26'))
  assert.deepEqual((await recorder.until('block')).held, block)
  await close()
  await undefine(lab.admin, laterDefinitions)
  await define(lab.admin)
  // Who learnt of the one group finds the other when the first is gone.
  await assert.rejects(store.blocks.list(), { name: 'StoreAwayError' })
  assert.deepEqual((await store.blocks.list()).objects, [])
  await store.close()
})

test("the lab's API: annotations that Calico's tools keep inside of one count", async () => {
  const { recorder, close } = begin()
  const inner = { name: 'pool-g', annotations: { 'weft.dev/geneve-mode': 'CrossSubnet' } }
  await put(
    lab.admin,
    'ippools',
    'pool-g',
    { cidr: '172.28.0.0/16' },
    { 'projectcalico.org/metadata': JSON.stringify(inner) },
  )
  const { pool } = await recorder.until('pool', ({ name }) => name === 'pool-g')
  assert.equal(pool?.geneveMode, 'CrossSubnet')
  await close()
})

test("the lab's API: pods of the own node and their namespaces; what is written on them", async () => {
  const { source, recorder, close } = begin()
  await recorder.until('synced')
  const space = {
    metadata: { name: 'shop', labels: { team: 'a' }, annotations: { 'cni.projectcalico.org/ipv4pools': '["pool-a"]' } },
  }
  await send(lab.admin, 'POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', ...space })
  const make = (name: string, annotations = {}) =>
    send(lab.admin, 'POST', '/api/v1/namespaces/shop/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, labels: { app: name }, annotations },
      spec: { nodeName: 'n1', containers: [{ name: 'c', image: 'x' }] },
    })
  const first = await make('cart-0', { 'cni.projectcalico.org/hwAddr': '1c:0c:0a:c0:ff:ee', other: 'x'.repeat(10_000) })
  const { uid } = first.metadata
  assert.deepEqual(await source.pods.find('shop', 'cart-0', uid), {
    uid,
    labels: { app: 'cart-0' },
    annotations: { 'cni.projectcalico.org/hwAddr': '1c:0c:0a:c0:ff:ee' },
    namespaceLabels: { 'kubernetes.io/metadata.name': 'shop', team: 'a' },
    namespaceAnnotations: { 'cni.projectcalico.org/ipv4pools': '["pool-a"]' },
  })
  assert.equal(await source.pods.find('shop', 'nobody'), undefined)
  const written = { 'cni.projectcalico.org/podIP': '172.26.0.5/32' }
  source.pods.annotate('shop', 'cart-0', { 'cni.projectcalico.org/podIP': 'wrong' }, 'another-life')
  source.pods.annotate('shop', 'nobody', written)
  source.pods.annotate('shop', 'cart-0', written, uid)
  const annotations = () =>
    send(lab.admin, 'GET', '/api/v1/namespaces/shop/pods/cart-0').then(({ metadata }) => metadata.annotations)
  await until('podIP', async () =>
    (await annotations())['cni.projectcalico.org/podIP'] === '172.26.0.5/32' ? true : undefined,
  )
  const versions = () =>
    send(lab.admin, 'GET', '/api/v1/namespaces/shop/pods/cart-0').then(({ metadata }) => metadata.resourceVersion)
  await until('the watch', async () => {
    const found = await source.pods.find('shop', 'cart-0')
    return found?.annotations['cni.projectcalico.org/podIP'] ? true : undefined
  })
  const version = await versions()
  source.pods.annotate('shop', 'cart-0', written)
  await make('cart-1')
  source.pods.annotate('shop', 'cart-1', written)
  await until('the next one', async () =>
    (await source.pods.find('shop', 'cart-1'))?.annotations['cni.projectcalico.org/podIP'] ? true : undefined,
  )
  assert.equal(await versions(), version, 'what a pod says already is not written')
  await send(lab.admin, 'DELETE', '/api/v1/namespaces/shop/pods/cart-0?gracePeriodSeconds=0')
  const second = await make('cart-0')
  assert.equal((await source.pods.find('shop', 'cart-0', second.metadata.uid))?.uid, second.metadata.uid)
  await lab.setUp(false)
  source.pods.annotate('shop', 'cart-0', written, second.metadata.uid)
  await assert.rejects(source.pods.find('shop', 'unknown'))
  assert.equal((await source.pods.find('shop', 'cart-1'))?.labels.app, 'cart-1')
  await lab.setUp(true)
  await until('written after all', async () =>
    (await annotations())?.['cni.projectcalico.org/podIP'] ? true : undefined,
  )
  await close()
})
