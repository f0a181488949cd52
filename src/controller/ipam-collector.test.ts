import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import type { ClusterLog, NodeReport } from '../cluster/cluster.ts'
import { allocationsOf, isInUse } from '../ipam/block.ts'
import { defaultSettings, ipamOf, poolOf, quietLog } from '../ipam/stores/ipam-store-suite.ts'
import { MemoryStore } from '../ipam/stores/memory-store.ts'
import type { BlockAffinity, IpamSettings } from '../model/calico.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { type AddressSight, IpamCollector } from './ipam-collector.ts'
import { IpamMetrics } from './ipam-metrics.ts'

const pools = [poolOf('p4', '172.26.0.0/24', { blockSize: 29 }), poolOf('p6', 'fd00:26::/120', { blockSize: 125 })]
const log: ClusterLog = { ...quietLog, error: () => {} } as ClusterLog

/** A cluster in memory: nodes, pods, journals and blocks, each to be set as the test wants it. */
class Bed {
  readonly store = new MemoryStore()
  readonly nodes = new Set(['n1', 'n2'])
  /** Address → pod or node. */
  readonly uses = new Map<string, string>()
  readonly journals = new Map<string, Set<string>>([
    ['n1', new Set()],
    ['n2', new Set()],
  ])
  readonly reports: NodeReport[] = []
  readonly registry = new Registry()
  settings: IpamSettings = defaultSettings
  now = Date.parse('2026-11-21T10:00:00Z')
  leads = true
  /** Called while the collector looks, the second time in a collection. */
  meanwhile: (() => Promise<unknown>) | undefined
  readonly #metrics = new IpamMetrics(this.registry)
  #collector = this.#newCollector()

  async add(
    node: string,
    handleId: string,
    further: { type?: string; pod?: string } = { pod: handleId },
  ): Promise<Ip[]> {
    const ipam = ipamOf(this.store, node, pools, { now: () => this.now, settings: () => this.settings })
    const attributes = { node, namespace: 'default', ...further }
    const use = further.type ? 'Tunnel' : 'Workload'
    const got = await ipam.assign({ handleId, attributes, use, wanted: [{ family: 4 }, { family: 6 }] })
    ipam.close()
    return got.map(({ ip }) => ip)
  }

  async collect(times = 1): Promise<void> {
    for (let time = 0; time < times; time++) await this.#collector.collect()
  }

  /** The leader died: another one knows nothing of what it saw. */
  newLeader(): void {
    this.#collector = this.#newCollector()
  }

  get held(): string[] {
    return this.store.blocks
      .all()
      .flatMap(({ value }) => [...allocationsOf(value)].filter(isInUse).map(({ ip }) => `${ip}`))
      .sort()
  }

  get blocks(): string[] {
    return this.store.blocks.all().map(({ value: { cidr, owner } }) => `${cidr} ${owner?.name}`)
  }

  async metric(name: string): Promise<{ value: number; labels: object }[]> {
    const metric = this.registry.getSingleMetric(name)!
    return ((await metric.get()).values as { value: number; labels: object }[]).map(({ value, labels }) => ({
      value,
      labels,
    }))
  }

  #newCollector(): IpamCollector {
    let looks = 0
    return new IpamCollector({
      store: this.store,
      interval: 1000,
      log,
      events: { report: (report) => this.reports.push(report) },
      metrics: this.#metrics,
      signal: new AbortController().signal,
      readPools: async () => ({ pools, reservations: [], settings: this.settings }),
      look: async (): Promise<AddressSight> => {
        if (++looks > 1) await this.meanwhile?.()
        const uses = [...this.uses].map(([text, holder]) => ({ ip: Ip.parse(text), holder }))
        return { uses, nodes: new Set(this.nodes), journals: new Map(this.journals) }
      },
      now: () => this.now,
      mayWrite: () => this.leads,
    })
  }
}

const texts = (addresses: readonly Ip[]) => addresses.map(String).sort()

test('an address that nobody has is freed at the second look, and told', async () => {
  const bed = new Bed()
  const leaked = await bed.add('n1', 'k8s-pod-network.a')
  const used = await bed.add('n1', 'k8s-pod-network.b')
  for (const ip of used) bed.uses.set(`${ip}`, 'Workload(default/b)')
  await bed.collect()
  assert.deepEqual(bed.held, texts([...leaked, ...used]))
  assert.deepEqual(
    (await bed.metric('ipam_allocations_gc_candidates')).map(({ value }) => value),
    [1, 1],
  )
  await bed.collect()
  assert.deepEqual(bed.held, texts(used))
  assert.deepEqual(
    bed.reports.map(({ node, reason }) => [node, reason]),
    [['n1', 'AddressesFreed']],
  )
  assert.match(bed.reports[0]!.message, new RegExp(`${leaked[0]} \\(default/k8s-pod-network.a\\)`))
  assert.deepEqual(
    (await bed.metric('ipam_allocations_gc_reclamations')).map(({ value }) => value),
    [1, 1],
  )
  await bed.collect(3)
  assert.deepEqual(bed.held, texts(used))
})

test('what a journal holds, and what cannot be asked, is in use', async () => {
  const bed = new Bed()
  const [inJournal, silent, unnamed] = [
    await bed.add('n1', 'k8s-pod-network.a'),
    await bed.add('n2', 'k8s-pod-network.b'),
    await bed.add('n1', 'k8s-pod-network.c', {}),
  ]
  bed.journals.set('n1', new Set(inJournal.map(String)))
  bed.journals.delete('n2')
  await bed.collect(4)
  assert.deepEqual(bed.held, texts([...inJournal, ...silent, ...unnamed]))
  bed.journals.set('n1', new Set())
  bed.journals.set('n2', new Set())
  await bed.collect(2)
  assert.deepEqual(bed.held, texts(unnamed), 'an address that does not say whose it is stays')
})

test('all addresses of a handle, or none', async () => {
  const bed = new Bed()
  const addresses = await bed.add('n1', 'k8s-pod-network.a')
  bed.uses.set(`${addresses[1]}`, 'Workload(default/a)')
  await bed.collect(4)
  assert.deepEqual(bed.held, texts(addresses))
})

test('an address that is given anew between two looks is another one', async () => {
  const bed = new Bed()
  await bed.add('n1', 'k8s-pod-network.a')
  await bed.collect()
  const ipam = ipamOf(bed.store, 'n1', pools, { now: () => bed.now })
  await ipam.release('k8s-pod-network.a')
  // As many as the block has: the same address among them.
  await ipam.assign({
    handleId: 'k8s-pod-network.a',
    attributes: { node: 'n1', pod: 'a' },
    use: 'Workload',
    wanted: Array.from({ length: 8 }, () => ({ family: 4 as const })),
  })
  const held = bed.held
  await bed.collect()
  assert.deepEqual(bed.held, held)
  ipam.close()
})

test('what turns out to be used at the last look, or has changed at the write, stays', async () => {
  const bed = new Bed()
  const addresses = await bed.add('n1', 'k8s-pod-network.a')
  await bed.collect()
  bed.meanwhile = async () => bed.journals.set('n1', new Set(addresses.map(String)))
  await bed.collect()
  assert.deepEqual(bed.held, texts(addresses))
})

test('who leads no more, and who has just begun to, frees nothing', async () => {
  const bed = new Bed()
  const addresses = await bed.add('n1', 'k8s-pod-network.a')
  await bed.collect()
  bed.newLeader()
  await bed.collect()
  assert.deepEqual(bed.held, texts(addresses))
  bed.leads = false
  await bed.collect(3)
  assert.deepEqual(bed.held, texts(addresses))
})

test('of a node that is gone everything is given back', async () => {
  const bed = new Bed()
  await bed.add('n1', 'k8s-pod-network.a')
  await bed.add('n1', 'ipip-tunnel-addr-n1', { type: 'ipipTunnelAddress' })
  const kept = await bed.add('n2', 'ipip-tunnel-addr-n2', { type: 'ipipTunnelAddress' })
  await bed.collect(3)
  assert.equal(bed.held.length, 4, 'a tunnel lives as long as its node')
  assert.equal(bed.store.handles.all().length, 2)
  bed.nodes.delete('n1')
  bed.journals.delete('n1')
  await bed.collect(4)
  assert.deepEqual(bed.held, texts(kept))
  assert.deepEqual(
    bed.blocks.map((text) => text.split(' ')[1]),
    ['n2', 'n2'],
  )
  assert.deepEqual(new Set(bed.store.affinities.all().map(({ value }) => value.owner.name)), new Set(['n2']))
  assert.deepEqual(
    bed.store.handles.all().map(({ value }) => value.handleId),
    ['ipip-tunnel-addr-n2'],
  )
})

test('what somebody left half done is finished or undone', async () => {
  const bed = new Bed()
  const { store } = bed
  const affinity = (node: string, cidr: string, state: BlockAffinity['state']): BlockAffinity => ({
    owner: { type: 'host', name: node },
    cidr: Cidr.parse(cidr),
    state,
    deleted: false,
  })
  const addresses = await bed.add('n1', 'k8s-pod-network.a')
  for (const ip of addresses) bed.uses.set(`${ip}`, 'Workload(default/a)')
  const own = store.affinities.all()
  await store.affinities.replace(own[0]!, { ...own[0]!.value, state: 'pending' })
  await store.affinities.remove(own[1]!)
  await store.affinities.create(affinity('n2', '172.26.0.248/29', 'pending'))
  await store.affinities.create(affinity('n2', '172.26.0.240/29', 'confirmed'))
  await store.affinities.create(affinity('n2', `${own[0]!.value.cidr}`, 'confirmed'))
  await store.handles.create({ handleId: 'k8s-pod-network.gone', blocks: { '172.26.0.240/29': 1 }, deleted: false })
  await bed.collect()
  assert.equal(store.affinities.all().length, 4, 'once is not enough')
  await bed.collect()
  const left = store.affinities.all().map(({ value: { owner, cidr, state } }) => `${owner.name} ${cidr} ${state}`)
  assert.deepEqual(left.sort(), own.map(({ value: { cidr } }) => `n1 ${cidr} confirmed`).sort())
  assert.deepEqual(store.handles.all(), [])
  assert.deepEqual(bed.held, texts(addresses))
})

test('an empty block goes, unless it is the node’s only one; what has cooled down is freed', async () => {
  const bed = new Bed()
  bed.settings = { ...defaultSettings, ipCooldownSeconds: 60 }
  for (let n = 0; n < 12; n++) await bed.add('n1', `k8s-pod-network.${n}`)
  assert.equal(bed.blocks.length, 4)
  const ipam = ipamOf(bed.store, 'n1', pools, { now: () => bed.now, settings: () => bed.settings })
  for (let n = 0; n < 12; n++) await ipam.release(`k8s-pod-network.${n}`)
  ipam.close()
  await bed.collect(3)
  assert.equal(bed.blocks.length, 4, 'addresses cool down')
  bed.now += 62_000
  await bed.collect(3)
  assert.equal(bed.blocks.length, 2)
  assert.equal(bed.store.affinities.all().length, 2)
})

test('metrics are those of Calico', async () => {
  const bed = new Bed()
  const addresses = await bed.add('n1', 'k8s-pod-network.a')
  for (const ip of addresses) bed.uses.set(`${ip}`, 'Workload(default/a)')
  await bed.collect()
  const both = [
    { value: 1, labels: { ippool: 'p4', node: 'n1' } },
    { value: 1, labels: { ippool: 'p6', node: 'n1' } },
  ]
  assert.deepEqual(await bed.metric('ipam_allocations_in_use'), both)
  assert.deepEqual(await bed.metric('ipam_blocks'), both)
  assert.deepEqual(await bed.metric('ipam_allocations_per_node'), [{ value: 2, labels: { node: 'n1' } }])
  assert.deepEqual(
    (await bed.metric('ipam_ippool_size')).map(({ value }) => value),
    [256, 256],
  )
})

test('addresses that a node keeps ready stay as long as the node is there', async () => {
  const bed = new Bed()
  const ipam = ipamOf(bed.store, 'n1', pools, { now: () => bed.now, spareAddresses: 2, wait: async () => {} })
  ipam.resume('journal', [])
  ipam.expectPods(true)
  const attributes = { node: 'n1', namespace: 'default', pod: 'a' }
  const got = await ipam.assign({ handleId: 'a', attributes, use: 'Workload', wanted: [{ family: 4 }] })
  ipam.close()
  for (const { ip } of got) bed.uses.set(`${ip}`, 'Workload(default/a)')
  await bed.collect(4)
  assert.equal(bed.held.length, 3)
  bed.nodes.delete('n1')
  bed.journals.delete('n1')
  await bed.collect(4)
  assert.deepEqual(
    bed.held,
    got.map(({ ip }) => `${ip}`),
  )
})
