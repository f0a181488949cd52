/**
 * What every source of Calico's objects must do, as tests: run over the lab's API, a real API server and a real etcd.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, test } from 'node:test'
import type { CalicoEvent, CalicoSource } from '../../src/cluster/calico/calico-source.ts'
import { newBlock } from '../../src/ipam/block.ts'
import type { IpamStore } from '../../src/ipam/stores/ipam-store.ts'
import type { BlockAffinity, IpamBlock } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'

export type Resource = 'ippools' | 'ipreservations' | 'felixconfigurations' | 'ipamsettings'

/** One store, empty, as an administrator and a failure move it. */
export interface SourceHarness {
  source(): CalicoSource
  readonly store: IpamStore
  put(resource: Resource, name: string, spec: object): Promise<void>
  remove(resource: Resource, name: string): Promise<void>
  /** Something that is a block by its name and cannot be read. */
  putBadBlock(cidr: Cidr): Promise<void>
  setUp(up: boolean): Promise<void>
  /** Loses the history, so that a resumed watch must start over. */
  compact?(): Promise<void>
  close(): Promise<void>
}

export const quiet = { debug() {}, info() {}, warn() {}, error() {} }

/** Collects events and waits for one. */
export class CalicoRecorder {
  readonly events: CalicoEvent[] = []
  /** Every event, also those that were taken. */
  readonly all: CalicoEvent[] = []
  #wake: () => void = () => {}

  readonly listen = (event: CalicoEvent): void => {
    this.events.push(event)
    this.all.push(event)
    this.#wake()
  }

  /** Another event. */
  next(): Promise<void> {
    const deadline = AbortSignal.timeout(60_000)
    return new Promise<void>((resolve, reject) => {
      this.#wake = resolve
      deadline.onabort = () => reject(new Error(`Nothing came; there was ${textOf(this.all)}`))
    })
  }

  /** The first event that matches, now or later; events up to it are forgotten. */
  async until<T extends CalicoEvent['type']>(
    type: T,
    match: (event: Extract<CalicoEvent, { type: T }>) => boolean = () => true,
  ): Promise<Extract<CalicoEvent, { type: T }>> {
    const deadline = AbortSignal.timeout(60_000)
    for (;;) {
      const at = this.events.findIndex((event) => event.type === type && match(event as never))
      if (at >= 0) return this.events.splice(0, at + 1)[at] as Extract<CalicoEvent, { type: T }>
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve
        deadline.onabort = () => reject(new Error(`No ${type} came; there is ${textOf(this.events)}`))
      })
    }
  }
}

const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? `${each}` : each)).slice(0, 2000)

export const blockOf = (cidr: string, node = 'n1', sequenceNumber = 1n): IpamBlock =>
  newBlock({
    cidr: Cidr.parse(cidr),
    owner: { type: 'host', name: node },
    at: '2026-11-21T10:00:00Z',
    sequenceNumber,
  })

const pool = { cidr: '172.26.0.0/16', blockSize: 26, ipipMode: 'Always', natOutgoing: true, nodeSelector: 'all()' }

export function testCalicoSource(kind: string, open: () => Promise<SourceHarness>): void {
  describe(kind, () => {
    let store: SourceHarness
    const sources: CalicoSource[] = []
    const begin = (): CalicoRecorder => {
      const source = store.source()
      const recorder = new CalicoRecorder()
      sources.push(source)
      source.start(recorder.listen)
      return recorder
    }
    beforeEach(async () => {
      store = await open()
    })
    afterEach(async () => {
      for (const source of sources.splice(0)) await source.close()
      await store.close()
    })

    test('tells what there is, then that it has told everything, then changes', async () => {
      await store.put('ippools', 'pool-a', pool)
      await store.put('ipreservations', 'gateways', { reservedCIDRs: ['172.26.0.0/30', '172.26.9.9/32'] })
      await store.put('felixconfigurations', 'default', { vxlanVNI: 4097 })
      await store.put('felixconfigurations', 'node.other', { vxlanVNI: 1 })
      await store.put('ipamsettings', 'default', {
        strictAffinity: true,
        autoAllocateBlocks: true,
        maxBlocksPerHost: 4,
      })
      const block = await store.store.blocks.create(blockOf('172.26.4.0/26'))
      const affinity: BlockAffinity = {
        owner: { type: 'host', name: 'n1' },
        cidr: Cidr.parse('172.26.4.0/26'),
        state: 'pending',
        deleted: false,
      }
      const held = await store.store.affinities.create(affinity)
      const recorder = begin()
      const told = new Map<string, CalicoEvent>()
      await recorder.until('synced', () => {
        for (const event of recorder.events) told.set(event.type, event)
        return true
      })
      const poolEvent = told.get('pool') as Extract<CalicoEvent, { type: 'pool' }>
      assert.equal(poolEvent.name, 'pool-a')
      assert.equal(`${poolEvent.pool?.cidr} ${poolEvent.pool?.ipipMode}`, '172.26.0.0/16 Always')
      const reserved = told.get('reservation') as Extract<CalicoEvent, { type: 'reservation' }>
      assert.deepEqual(reserved.reservation?.cidrs.map(String), ['172.26.0.0/30', '172.26.9.9/32'])
      assert.deepEqual(told.get('felix'), { type: 'felix', name: 'default', spec: { vxlanVNI: 4097 } })
      assert.deepEqual(told.get('ipam-settings'), {
        type: 'ipam-settings',
        settings: { strictAffinity: true, autoAllocateBlocks: true, maxBlocksPerHost: 4, ipCooldownSeconds: 0 },
      })
      assert.deepEqual(told.get('block'), { type: 'block', held: block })
      assert.deepEqual(told.get('affinity'), { type: 'affinity', held })
      const replaced = await store.store.blocks.replace(block, blockOf('172.26.4.0/26', 'n2', 2n))
      assert.deepEqual((await recorder.until('block')).held, replaced)
      const confirmed = await store.store.affinities.replace(held, { ...affinity, state: 'confirmed' })
      assert.deepEqual((await recorder.until('affinity')).held, confirmed)
      await store.store.affinities.remove(confirmed)
      assert.equal(`${(await recorder.until('affinity-gone')).affinity.cidr}`, '172.26.4.0/26')
      await store.store.blocks.remove(replaced)
      assert.equal(`${(await recorder.until('block-gone')).cidr}`, '172.26.4.0/26')
      await store.remove('ipreservations', 'gateways')
      assert.equal((await recorder.until('reservation-gone')).name, 'gateways')
      await store.remove('felixconfigurations', 'default')
      assert.deepEqual(await recorder.until('felix'), { type: 'felix', name: 'default', spec: undefined })
      await store.remove('ipamsettings', 'default')
      assert.equal((await recorder.until('ipam-settings')).settings, undefined)
      await store.remove('ippools', 'pool-a')
      assert.equal((await recorder.until('pool-gone')).name, 'pool-a')
    })

    test('what cannot be read is told, and troubles nothing else', async () => {
      const recorder = begin()
      await recorder.until('synced')
      await store.putBadBlock(Cidr.parse('172.26.8.0/26'))
      const { object, problem, head } = await recorder.until('corrupt')
      assert.equal(`${head?.cidr}`, '172.26.8.0/26')
      assert.match(`${object} ${problem}`, /172[.-]26[.-]8[.-]0-26.*allocations: has 1 entries for 64 addresses/)
      await store.store.blocks.create(blockOf('172.26.4.0/26'))
      await recorder.until('block')
    })

    test('while the store is away nothing is forgotten; back again, differences alone are told', async () => {
      await store.put('ippools', 'pool-a', pool)
      const held = await store.store.blocks.create(blockOf('172.26.4.0/26'))
      await store.store.blocks.create(blockOf('172.26.4.64/26'))
      const recorder = begin()
      await recorder.until('synced')
      await store.setUp(false)
      await recorder.until('connection', ({ up }) => !up)
      const before = recorder.all.length
      await store.setUp(true)
      const gone = await store.store.blocks.read(held.value.cidr)
      await store.store.blocks.remove(gone!)
      await store.store.blocks.create(blockOf('172.26.5.0/26'))
      await store.compact?.()
      const came = (type: CalicoEvent['type']) => recorder.all.slice(before).some((event) => event.type === type)
      while (!came('block') || !came('block-gone')) await recorder.next()
      const events = recorder.all.slice(before)
      const blocks = new Set(events.flatMap((event) => (event.type === 'block' ? `${event.held.value.cidr}` : [])))
      assert.deepEqual([...blocks], ['172.26.5.0/26'])
      const gones = events.flatMap((event) => (event.type === 'block-gone' ? `${event.cidr}` : []))
      assert.deepEqual(gones, [`${held.value.cidr}`])
      assert.ok(!events.some(({ type }) => type === 'pool' || type === 'pool-gone' || type === 'synced'))
    })

    test('of more blocks than a page has every one is told', async () => {
      const wanted = Array.from({ length: 60 }, (_, i) => blockOf(`172.26.${i}.0/28`))
      await Promise.all(wanted.map((block) => store.store.blocks.create(block)))
      const recorder = begin()
      const told = new Set<string>()
      await recorder.until('synced', () => {
        for (const event of recorder.events) if (event.type === 'block') told.add(`${event.held.value.cidr}`)
        return true
      })
      assert.deepEqual(told, new Set(wanted.map(({ cidr }) => `${cidr}`)))
    })
  })
}
