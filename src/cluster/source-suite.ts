/**
 * What every cluster source must do, as tests: run over the fake, over Kubernetes, and over a real etcd.
 * Two nodes share one store; the harness moves the store as an administrator (or a failure) would.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import type { ClusterEvent, ClusterSource, LeaseAnnouncement } from './cluster.ts'

/** One store of a kind, with nodes `n1` and `n2` that announced nothing yet. */
export interface StoreHarness {
  source(nodeName: string): ClusterSource
  putNetwork(text: string): void | Promise<void>
  /** Another node's announcement that cannot be read; left out where the store has no such thing. */
  putGarbage?(nodeName: string): void | Promise<void>
  removeNode(nodeName: string): void | Promise<void>
  /** Makes the store unreachable, or reachable again. */
  setUp(up: boolean): void | Promise<void>
  /** Loses the history, so that a resumed watch must start over. */
  compact?(): void | Promise<void>
  close(): void | Promise<void>
}

/** Collects events and waits for one. */
export class Recorder {
  readonly events: ClusterEvent[] = []
  #wake: () => void = () => {}

  readonly listen = (event: ClusterEvent): void => {
    this.events.push(event)
    this.#wake()
  }

  /** Another event. */
  async next(): Promise<void> {
    const deadline = AbortSignal.timeout(30_000)
    await new Promise<void>((resolve, reject) => {
      this.#wake = resolve
      deadline.onabort = () => reject(new Error(`Nothing came; there is ${JSON.stringify(this.events).slice(0, 2000)}`))
    })
  }

  /** The first event that matches, now or later; events up to it are forgotten. */
  async until<T extends ClusterEvent['type']>(
    type: T,
    match: (event: Extract<ClusterEvent, { type: T }>) => boolean = () => true,
  ): Promise<Extract<ClusterEvent, { type: T }>> {
    const deadline = AbortSignal.timeout(30_000)
    for (;;) {
      const at = this.events.findIndex((event) => event.type === type && match(event as never))
      if (at >= 0) return this.events.splice(0, at + 1)[at] as Extract<ClusterEvent, { type: T }>
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve
        deadline.onabort = () =>
          reject(new Error(`No ${type} came; there is ${JSON.stringify(this.events).slice(0, 2000)}`))
      })
    }
  }
}

export const announcementOf = (publicIp: string, backendType = 'host-gw'): LeaseAnnouncement => ({
  lease: { backendType, publicIp: Ip.parse(publicIp), ...(backendType === 'vxlan' ? { backendData: { VNI: 1 } } : {}) },
  weft: { accepts: [backendType], sends: [backendType] },
})

export interface SuiteOptions {
  /** The store has a place for Calico's words. */
  readonly hasCalico?: boolean
}

export function testSource(name: string, open: () => Promise<StoreHarness>, options: SuiteOptions = {}): void {
  describe(name, () => {
    let store: StoreHarness
    const sources: ClusterSource[] = []
    const begin = (nodeName: string): { source: ClusterSource; recorder: Recorder } => {
      const source = store.source(nodeName)
      const recorder = new Recorder()
      sources.push(source)
      source.start(recorder.listen)
      return { source, recorder }
    }
    const announced = (publicIp: string) => (event: Extract<ClusterEvent, { type: 'node' }>) =>
      `${event.node.lease?.publicIp}` === publicIp

    beforeEach(async () => {
      store = await open()
    })
    afterEach(async () => {
      for (const source of sources.splice(0)) await source.close()
      await store.close()
    })

    test('tells the network and then that it has told everything', async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      const { recorder } = begin('n1')
      const network = await recorder.until('network')
      assert.equal(network.text, '{"Network":"10.244.0.0/16"}')
      await recorder.until('synced')
      await store.putNetwork('{"Network":"10.244.0.0/15"}')
      assert.equal((await recorder.until('network')).text, '{"Network":"10.244.0.0/15"}')
    })

    test('an announcement reaches the other node, whole, and its change too', async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      const [one, two] = [begin('n1'), begin('n2')]
      await Promise.all([one.recorder.until('synced'), two.recorder.until('synced')])
      await one.source.announce(announcementOf('192.0.2.1'))
      const { node } = await two.recorder.until('node', announced('192.0.2.1'))
      assert.equal(node.lease?.backendType, 'host-gw')
      assert.deepEqual(node.weft?.accepts, ['host-gw'])
      assert.equal(node.podCidrs.length, 1)
      await one.source.announce(announcementOf('192.0.2.9', 'vxlan'))
      const changed = await two.recorder.until('node', announced('192.0.2.9'))
      assert.deepEqual(changed.node.lease?.backendData, { VNI: 1 })
      assert.deepEqual(changed.node.podCidrs, node.podCidrs, 'the subnet stays')
      assert.equal(changed.node.name, node.name)
    })

    test('words that are not given stay, null takes them back', async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      const [one, two] = [begin('n1'), begin('n2')]
      await Promise.all([one.recorder.until('synced'), two.recorder.until('synced')])
      await one.source.announce(announcementOf('192.0.2.1'))
      await two.recorder.until('node', announced('192.0.2.1'))
      await one.source.announce({ weft: { accepts: ['host-gw', 'calico/plain'], sends: ['host-gw'] } })
      const { node } = await two.recorder.until('node', (event) => event.node.weft?.accepts.length === 2)
      assert.equal(node.lease?.backendType, 'host-gw')
      await one.source.announce({ lease: null, weft: { accepts: ['calico/plain'], sends: ['calico/plain'] } })
      for (;;) {
        const { events } = two.recorder
        const gone = events.some((event) => event.type === 'node-gone' && event.name === node.name)
        const bare = events.some((event) => event.type === 'node' && event.node.name === node.name && !event.node.lease)
        if (gone || bare) break
        await two.recorder.next()
      }
    })

    const calicoTest = options.hasCalico ? test : () => {}
    calicoTest("Calico's words reach the other node, and go when they are taken back", async () => {
      const [one, two] = [begin('n1'), begin('n2')]
      await Promise.all([one.recorder.until('synced'), two.recorder.until('synced')])
      const calico = {
        ipv4: { ip: Ip.parse('192.0.2.1'), prefixLength: 24 },
        ipv6: { ip: Ip.parse('2001:db8::1'), prefixLength: 64 },
        ipv4IpipTunnelAddr: Ip.parse('172.26.0.1'),
        ipv4VxlanTunnelAddr: Ip.parse('172.26.0.2'),
        ipv6VxlanTunnelAddr: Ip.parse('fd00:172:26::1'),
        vxlanTunnelMac: Mac.parse('66:00:00:00:00:01'),
        vxlanTunnelMacV6: Mac.parse('66:00:00:00:00:02'),
      }
      const weft = { accepts: ['calico/ipip'], sends: ['calico/ipip'] }
      await one.source.announce({ weft, calico })
      const { node } = await two.recorder.until('node', (event) => event.node.calico !== undefined)
      assert.equal(node.name, 'n1')
      assert.deepEqual(JSON.parse(JSON.stringify(node.calico)), JSON.parse(JSON.stringify(calico)))
      assert.deepEqual(node.weft, weft)
      await one.source.announce({ weft })
      await one.source.announce({ weft, calico: { ipv4: calico.ipv4 } })
      const less = await two.recorder.until('node', (event) => event.node.calico?.ipv6 === undefined)
      assert.deepEqual(Object.keys(less.node.calico ?? {}), ['ipv4'])
      await one.source.announce({ weft, calico: null })
      await two.recorder.until('node', (event) => event.node.calico === undefined)
    })

    test('while the store is away nothing is forgotten; back again, differences alone are told', async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      const [one, two] = [begin('n1'), begin('n2')]
      await Promise.all([one.recorder.until('synced'), two.recorder.until('synced')])
      await one.source.announce(announcementOf('192.0.2.1'))
      await two.recorder.until('node', announced('192.0.2.1'))
      await store.setUp(false)
      const pending = two.source.announce(announcementOf('192.0.2.2'))
      await one.recorder.until('connection', (event) => !event.up)
      await store.compact?.()
      await store.setUp(true)
      await pending
      await one.recorder.until('node', announced('192.0.2.2'))
      assert.ok(!two.recorder.events.some((event) => event.type === 'node-gone'))
      const repeated = two.recorder.events.filter((event) => event.type === 'node' && announced('192.0.2.1')(event))
      assert.deepEqual(repeated, [])
    })

    test('a node that leaves is told', async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      const [one, two] = [begin('n1'), begin('n2')]
      await Promise.all([one.recorder.until('synced'), two.recorder.until('synced')])
      await one.source.announce(announcementOf('192.0.2.1'))
      const { node } = await two.recorder.until('node', announced('192.0.2.1'))
      await store.removeNode('n1')
      assert.equal((await two.recorder.until('node-gone')).name, node.name)
    })

    test("what cannot be read is that node's problem", async () => {
      await store.putNetwork('{"Network":"10.244.0.0/16"}')
      if (!store.putGarbage) return
      const { recorder } = begin('n1')
      await recorder.until('synced')
      await store.putGarbage('n2')
      const { node, problems } = await recorder.until('node', (event) => event.problems.length > 0)
      assert.equal(node.lease, undefined)
      assert.match(problems[0]!.message, /public-ip|PublicIP/)
    })
  })
}
