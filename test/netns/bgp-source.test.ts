/** BGP's objects as an agent hears of them: over the lab's API and a real etcd, with Secrets by their names. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { BgpObjectEvent, BgpSource } from '../../src/cluster/calico/bgp-source.ts'
import { EtcdBgpSource } from '../../src/cluster/calico/etcd-bgp-source.ts'
import { KubernetesBgpSource } from '../../src/cluster/calico/kubernetes-bgp-source.ts'
import { EtcdClient } from '../../src/cluster/etcd/client.ts'
import { etcdPrefixes } from '../../src/config/calico/store-names.ts'
import { clear, define, type LabApi, laterDefinitions, put, send, startLabApi, undefine } from './calico-api.ts'
import { quiet } from './calico-source-suite.ts'
import { EtcdServer } from './etcd-server.ts'

const NAMESPACE = 'default'
const resources = ['bgpconfigurations', 'bgppeers', 'bgpfilters']
const kindOf = { bgpconfigurations: 'BGPConfiguration', bgppeers: 'BGPPeer', bgpfilters: 'BGPFilter' } as const
type Resource = keyof typeof kindOf

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

class Recorder {
  readonly all: BgpObjectEvent[] = []
  #from = 0
  #wake: () => void = () => {}

  readonly listen = (event: BgpObjectEvent): void => {
    this.all.push(event)
    this.#wake()
  }

  /**
   * The first event that matches, now or later; those before it are done with. With `from` the first of that number or later, and
   * nothing is done with.
   */
  async until<T extends BgpObjectEvent['type']>(
    type: T,
    match: (event: Extract<BgpObjectEvent, { type: T }>) => boolean = () => true,
    from?: number,
  ): Promise<Extract<BgpObjectEvent, { type: T }>> {
    const deadline = AbortSignal.timeout(60_000)
    for (;;) {
      const at = this.all.findIndex(
        (event, index) => index >= (from ?? this.#from) && event.type === type && match(event as never),
      )
      if (at >= 0) {
        if (from === undefined) this.#from = at + 1
        return this.all[at] as Extract<BgpObjectEvent, { type: T }>
      }
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve
        deadline.onabort = () => reject(new Error(`no ${type} came; there was ${JSON.stringify(this.all)}`))
      })
    }
  }
}

interface Harness {
  source(): BgpSource
  put(resource: Resource, name: string, spec: object): Promise<void>
  /** The same object with another spec. */
  replace(resource: Resource, name: string, spec: object): Promise<void>
  remove(resource: Resource, name: string): Promise<void>
  setUp(up: boolean): Promise<void>
  close(): Promise<void>
}

const tuning = { pageSize: 25, backoff: { first: 5, cap: 50 }, absencePatienceMs: 200 }

async function labHarness(): Promise<Harness> {
  await clear(lab.admin, resources)
  const clients: { close(): void }[] = []
  const path = (resource: Resource, name: string) => `/apis/crd.projectcalico.org/v1/${resource}/${name}`
  return {
    source: () => {
      const client = lab.open()
      clients.push(client)
      return new KubernetesBgpSource({ client, namespace: NAMESPACE, log: quiet, tuning })
    },
    put: async (resource, name, spec) => void (await put(lab.admin, resource, name, spec)),
    replace: async (resource, name, spec) => {
      const now = await send(lab.admin, 'GET', path(resource, name))
      await send(lab.admin, 'PUT', path(resource, name), { ...now, spec })
    },
    remove: async (resource, name) => void (await send(lab.admin, 'DELETE', path(resource, name))),
    setUp: (up) => lab.setUp(up),
    close: async () => {
      for (const client of clients) client.close()
    },
  }
}

async function etcdHarness(): Promise<Harness> {
  etcd.ctl('del', '--prefix', '/calico/')
  const endpoint = await etcd.openLine()
  const clients: EtcdClient[] = []
  const write = async (resource: Resource, name: string, spec: object) => {
    const value = { kind: kindOf[resource], apiVersion: 'projectcalico.org/v3', metadata: { name }, spec }
    etcd.ctl('put', `${etcdPrefixes[kindOf[resource]]}${name}`, JSON.stringify(value))
  }
  return {
    source: () => {
      const client = new EtcdClient({ endpoints: [endpoint] })
      clients.push(client)
      const secrets = { client: lab.admin, namespace: NAMESPACE }
      return new EtcdBgpSource({ client, log: quiet, secrets, backoff: { first: 5, cap: 50 } })
    },
    put: write,
    replace: write,
    remove: async (resource, name) => void etcd.ctl('del', `${etcdPrefixes[kindOf[resource]]}${name}`),
    setUp: async (up) => {
      if (up) await etcd.openLine()
      else etcd.cutLine()
    },
    close: async () => {
      for (const client of clients) client.close()
      etcd.cutLine()
    },
  }
}

const secretPath = `/api/v1/namespaces/${NAMESPACE}/secrets`
const base64 = (text: string) => Buffer.from(text).toString('base64')

async function putSecret(name: string, data: Readonly<Record<string, string>>): Promise<void> {
  await send(lab.admin, 'DELETE', `${secretPath}/${name}`).catch(() => {})
  await send(lab.admin, 'POST', secretPath, { apiVersion: 'v1', kind: 'Secret', metadata: { name }, data })
}

for (const [name, harnessOf] of [
  ["the lab's API", labHarness],
  ['etcd', etcdHarness],
] as const)
  describe(`BGP's objects in ${name}`, () => {
    test('what is there, then every change, checked', async () => {
      const harness = await harnessOf()
      await harness.put('bgpconfigurations', 'default', { asNumber: 65009, nodeToNodeMeshEnabled: false })
      await harness.put('bgppeers', 'tor', { peerIP: '192.0.2.1', asNumber: 64567 })
      await harness.put('bgpfilters', 'f', { importV4: [{ action: 'Reject' }] })
      const source = harness.source()
      const recorder = new Recorder()
      source.start(recorder.listen)
      await recorder.until('synced')
      const told = recorder.all
        .filter((event) => event.type === 'object')
        .map(({ kind, name: own }) => `${kind} ${own}`)
      assert.deepEqual(told.sort(), ['BGPConfiguration default', 'BGPFilter f', 'BGPPeer tor'])
      await harness.replace('bgppeers', 'tor', { peerIP: '192.0.2.2', asNumber: 64567 })
      const changed = await recorder.until('object', ({ kind }) => kind === 'BGPPeer')
      assert.equal(`${changed.kind === 'BGPPeer' && changed.value?.peer?.address}`, '192.0.2.2')
      // Only the parser can judge the text of a selector.
      await harness.replace('bgppeers', 'tor', { peerIP: '192.0.2.2', nodeSelector: "rack = 'a'" })
      const { value, problem } = await recorder.until('object', ({ kind }) => kind === 'BGPPeer')
      assert.equal(value, undefined)
      assert.match(problem!.message, /BGPPeer tor: spec\.nodeSelector: "rack = 'a'" is no selector/)
      await harness.remove('bgpfilters', 'f')
      assert.deepEqual(await recorder.until('object-gone'), { type: 'object-gone', kind: 'BGPFilter', name: 'f' })
      await source.close()
      await harness.close()
    })

    test('the store goes away and comes back: nothing is forgotten, what changed is told', async () => {
      const harness = await harnessOf()
      await harness.put('bgppeers', 'a', { peerIP: '192.0.2.1' })
      await harness.put('bgppeers', 'b', { peerIP: '192.0.2.2' })
      const source = harness.source()
      const recorder = new Recorder()
      source.start(recorder.listen)
      await recorder.until('synced')
      await harness.setUp(false)
      await recorder.until('connection', ({ up }) => !up)
      await harness.remove('bgppeers', 'a')
      // Lists are read as their watches come back: either may be told first.
      const from = recorder.all.length
      await harness.setUp(true)
      await recorder.until('connection', ({ up }) => up, from)
      assert.equal((await recorder.until('object-gone', () => true, from)).name, 'a')
      assert.equal(recorder.all.filter((event) => event.type === 'object' && event.name === 'b').length, 1)
      await source.close()
      await harness.close()
    })

    test('Secrets are followed by their names, and by those alone', async () => {
      const harness = await harnessOf()
      const binary = Buffer.from([0xff, 0xfe]).toString('base64')
      await putSecret('bgp-secrets', { tor: base64('blue'), binary })
      await putSecret('other', { tor: base64('red') })
      const source = harness.source()
      const recorder = new Recorder()
      source.start(recorder.listen)
      source.want(new Set(['bgp-secrets', 'missing']))
      const texts = await recorder.until('secret', ({ name: own }) => own === 'bgp-secrets')
      assert.deepEqual(texts.values, { tor: 'blue' })
      await putSecret('bgp-secrets', { tor: base64('green') })
      await recorder.until('secret', ({ name: own, values }) => own === 'bgp-secrets' && values?.tor === 'green')
      source.want(new Set(['bgp-secrets', 'missing', 'late']))
      await putSecret('late', { a: base64('b') })
      await recorder.until('secret', ({ name: own, values }) => own === 'late' && values?.a === 'b')
      await send(lab.admin, 'DELETE', `${secretPath}/bgp-secrets`)
      await recorder.until('secret', ({ name: own, values }) => own === 'bgp-secrets' && values === undefined)
      assert.ok(recorder.all.some((event) => event.type === 'secret' && event.name === 'missing' && !event.values))
      assert.ok(!recorder.all.some((event) => event.type === 'secret' && event.name === 'other'))
      await source.close()
      await harness.close()
    })
  })

test("the lab's API: definitions that come, go, and come as Calico's later group", async () => {
  await undefine(lab.admin)
  const client = lab.open()
  const source = new KubernetesBgpSource({ client, namespace: NAMESPACE, log: quiet, tuning })
  const recorder = new Recorder()
  source.start(recorder.listen)
  await recorder.until('synced')
  await define(lab.admin)
  await put(lab.admin, 'bgppeers', 'a', { peerIP: '192.0.2.1' })
  await recorder.until('object', ({ name }) => name === 'a')
  await undefine(lab.admin)
  await recorder.until('object-gone', ({ name }) => name === 'a')
  await define(lab.admin, laterDefinitions)
  await send(lab.admin, 'POST', '/apis/projectcalico.org/v3/bgppeers', {
    apiVersion: 'projectcalico.org/v3',
    kind: 'BGPPeer',
    metadata: { name: 'b' },
    spec: { peerIP: '192.0.2.2' },
  })
  await recorder.until('object', ({ name }) => name === 'b')
  await source.close()
  client.close()
  await undefine(lab.admin, laterDefinitions)
  await define(lab.admin)
})
