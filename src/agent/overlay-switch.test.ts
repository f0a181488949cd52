/**
 * Two nodes move among kube-router's overlay, ipip and VXLAN, each with the planner and applier of an agent over a kernel in
 * memory, and every change of either kernel is looked at: whoever sends must find the other open, and no route is ever missing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Applier } from '../apply/applier.ts'
import type { LeaseAnnouncement } from '../cluster/cluster.ts'
import { parseNetConf } from '../config/flannel/net-conf.ts'
import { tunnelName } from '../datapath/kube-router/tunnel-name.ts'
import { FakeKernel } from '../kernel/fake/fake-kernel.ts'
import type { NodeContext, NodeInfo } from '../model/cluster.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Planner } from './planner.ts'

const networkOf = (backend: object) =>
  parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend: backend })).config

class Node {
  readonly context: NodeContext
  readonly kernel = FakeKernel.create()
  readonly applier: Applier
  readonly planner: Planner
  #busy: Promise<void> = Promise.resolve()
  #written = ''
  readonly #write: (info: NodeInfo) => void

  constructor(n: number, write: (info: NodeInfo) => void) {
    this.#write = write
    const publicIp = Ip.parse(`172.30.${n}.1`)
    this.context = {
      name: `n${n}`,
      uid: `uid-${n}`,
      podCidrs: [Cidr.parse(`10.244.${n}.0/24`)],
      external: { device: 'eth0', mtuBytes: 1500, addresses: [{ ip: publicIp, prefixLength: 24 }] },
      publicIp,
    }
    this.applier = new Applier(this.kernel, { onReport: () => this.turn(), onFound: () => this.turn() })
    const settings = { masquerade: false, fullyRandom: false, blackhole: false }
    this.planner = new Planner(settings, (source) => this.applier.inPlace(source))
  }

  async start(): Promise<void> {
    const { publicIp, external } = this.context
    await this.kernel.execute([
      { verb: 'add', object: { kind: 'link', name: external.device, type: 'dummy', up: true } },
      { verb: 'add', object: { kind: 'address', device: external.device, ip: publicIp!, prefixLength: 24 } },
    ])
    await this.applier.start()
  }

  turn(): void {
    this.#busy = this.#busy.then(() => this.#step())
  }

  async idle(): Promise<void> {
    for (let before: Promise<void> | undefined; before !== this.#busy; ) {
      before = this.#busy
      await before
    }
  }

  async #step(): Promise<void> {
    const { planner, applier } = this
    const { set, removed } = planner.plan()
    if (set.length + removed.length > 0) applier.change(set, removed)
    if (planner.isComplete) applier.markComplete()
    await applier.settle()
    if (planner.draining.length > 0 || planner.waning.length > 0) {
      planner.noteSettled()
      planner.noteDry(planner.waning)
      setImmediate(() => this.turn())
    }
    if (planner.transition?.mtuBytes !== undefined) planner.setPodMtu(planner.transition.mtuBytes)
    const announcement = planner.announcement()
    if (!announcement || JSON.stringify(announcement) === this.#written) return
    this.#written = JSON.stringify(announcement)
    planner.addPending(announcement.weft)
    setImmediate(() => this.#write(this.#infoOf(announcement)))
  }

  #infoOf({ lease, weft }: LeaseAnnouncement): NodeInfo {
    const { name, uid, podCidrs, publicIp } = this.context
    return { name, uid: uid!, addresses: [publicIp!], podCidrs, lease, weft }
  }
}

const has = <K extends KernelObject['kind']>(objects: readonly KernelObject[], kind: K) =>
  objects.filter((object): object is Extract<KernelObject, { kind: K }> => object.kind === kind)

/** Why what `from` sends to `to` would be lost, by what both kernels hold; undefined when it arrives. */
function lossBetween(
  from: readonly KernelObject[],
  to: readonly KernelObject[],
  peer: NodeContext,
): string | undefined {
  const route = has(from, 'route').find(
    ({ destination, table }) => destination.equals(peer.podCidrs[0]!) && (table ?? 254) === 254,
  )
  const device = route?.hops[0]?.device
  const link = has(from, 'link').find(({ name }) => name === device)
  if (!route || !link?.up) return `there is no way to ${peer.name}`
  const listens = (name: string) => has(to, 'link').some((other) => other.name === name && other.up)
  if (link.type === 'vxlan') return listens(link.name) ? undefined : `nobody listens for ${link.name}`
  if (link.name === 'flannel.ipip')
    return listens('flannel.ipip') || listens('tun-in') ? undefined : 'nobody takes ipip'
  if (link.name !== tunnelName(peer.publicIp!) || link.type !== 'ipip') return undefined
  const wrapped = link.settings?.encapsulation
  if (wrapped && !has(to, 'fou').some(({ port, family }) => family === 4 && port === wrapped.destinationPort))
    return `nobody unwraps port ${wrapped.destinationPort}`
  return listens('tun-in') || listens('flannel.ipip') ? undefined : 'nobody takes what tunnels hold'
}

test('at no moment of a switch is there a packet that nobody takes', async () => {
  const infos = new Map<string, NodeInfo>()
  const nodes: Node[] = []
  const write = (info: NodeInfo): void => {
    infos.set(info.name, info)
    for (const node of nodes)
      setImmediate(() => {
        if (info.name === node.context.name) node.planner.setAnnounced(info.weft)
        else node.planner.setPeer(info)
        node.turn()
      })
  }
  nodes.push(new Node(1, write), new Node(2, write))
  const [first, second] = nodes as [Node, Node]
  const losses: string[] = []
  let looks = 0
  const look = async (): Promise<void> => {
    // Both are read at this very moment: nothing is awaited in between.
    const kinds = ['link', 'route', 'fou'] as const
    const [a, b] = await Promise.all([first.kernel.read(...kinds), second.kernel.read(...kinds)])
    looks++
    for (const loss of [lossBetween(a, b, second.context), lossBetween(b, a, first.context)])
      if (loss) losses.push(loss)
  }
  for (const node of nodes) await node.start()
  const move = async (backend: object, path: string): Promise<void> => {
    for (const { planner, context } of nodes) {
      const { lease, weft } = infos.get(context.name) ?? {}
      planner.setNode(networkOf(backend), { ...context, ...(lease && { lease }), ...(weft && { weft }) })
    }
    for (const node of nodes) node.turn()
    const isDone = () =>
      nodes.every(({ planner }) => planner.transition?.settled && [...planner.modes.values()][0]?.path === path)
    for (let turns = 0; !isDone(); turns++) {
      assert.ok(turns < 20_000, `${path}: ${JSON.stringify(nodes.map(({ planner }) => planner.transition))}`)
      await new Promise((resolve) => setImmediate(resolve))
      for (const node of nodes) await node.idle()
    }
  }
  await move({ Type: 'vxlan' }, 'vxlan/1/8472')
  const watches = nodes.map(({ kernel }) => kernel.watch(['link', 'route', 'fou'], () => void look()))
  const overlay = (rest: object) => ({ Type: 'kube-router', 'overlay-type': 'full', ...rest })
  const fou = (port: number) => overlay({ 'overlay-encap': 'fou', 'overlay-encap-port': port })
  for (const [backend, path] of [
    [overlay({}), 'tun/ipip'],
    [fou(5555), 'tun/fou/5555'],
    [fou(5556), 'tun/fou/5556'],
    [overlay({}), 'tun/ipip'],
    [{ Type: 'ipip' }, 'ipip'],
    [fou(5555), 'tun/fou/5555'],
    [{ Type: 'vxlan' }, 'vxlan/1/8472'],
  ] as const) {
    await move(backend, path)
    assert.deepEqual(losses, [], path)
  }
  assert.ok(looks > 50, `${looks} looks`)
  for (const watch of watches) watch.close()
  for (const { kernel, applier } of nodes) {
    const left = await kernel.read('link', 'fou', 'rule')
    assert.ok(!left.some((object) => object.kind !== 'link' || /^(tun-|flannel\.ipip)/.test(object.name)))
    await applier.close()
  }
})
