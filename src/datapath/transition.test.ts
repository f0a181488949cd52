import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NodeInfo, WeftNodeStatus } from '../model/cluster.ts'
import { Ip } from '../net/ip.ts'
import { detourOf, exclude, flannelPaths } from './path.ts'
import { poolPaths } from './pools/pool-path.ts'
import { type Flow, type PeerView, pathsOf, planTransition, type SendMode, viewPeer } from './transition.ts'

/**
 * A cluster in miniature. The store is a log; each node has read a prefix of it. Kernel operations and writes to the store
 * wait in queues and happen one at a time, in any interleaving; a crash loses the queues and keeps kernel and store.
 * Each node sends every other one or several flows, for which it may want different modes.
 */
const modes: readonly SendMode[] = [
  { path: 'host-gw', direct: false },
  { path: 'vxlan/1/8472', direct: false },
  { path: 'vxlan/1/8472', direct: true },
  { path: 'vxlan/7/8472', direct: false },
  { path: 'udp/8285', direct: false },
  // None of these can stand beside another of VNI 1.
  { path: 'vxlan/1/4789', direct: false },
  { path: 'vxlan/1/4790', direct: true },
  { path: 'vxlan/1/4791/gbp', direct: false },
]
const mtuOf = (path: string): number =>
  path === 'host-gw' || path === 'calico/plain' ? 1500 : path.startsWith('udp/') ? 1472 : 1450

const poolModes: readonly SendMode[] = [
  'calico/plain',
  'calico/ipip',
  'calico/vxlan/4096/4789',
  'calico/vxlan-v6/4096/4789',
  'calico/geneve/4096/6081',
  // None of these can stand beside the first VXLAN.
  'calico/vxlan/4096/4790',
  'calico/vxlan/7/4789',
].map((path) => ({ path, direct: false }))

/** What there is to choose from, and who knows what it means. */
const dialects = [
  { words: flannelPaths, modes },
  { words: poolPaths, modes: poolModes },
] as const
type Dialect = (typeof dialects)[number]

type Op = { local: string; up: boolean } | { flow: string; mode: SendMode | undefined } | { mtu: number }

const flowName = (peer: string, kind: number): string => `${peer} ${kind}`
const peerOf = (flow: string): string => flow.split(' ')[0]!

interface SimNode {
  readonly name: string
  /** By kind of flow. */
  wanted: SendMode[]
  locals: Set<string>
  toward: Map<string, SendMode>
  mtu: number | undefined
  ops: Op[]
  decided: Map<string, SendMode>
  paths: Set<string>
  writes: WeftNodeStatus[]
  seen: number
  /** Until the first pass after a start, what the kernel sends by is unknown. */
  unsure: boolean
}

class Cluster {
  readonly log: { node: string; status: WeftNodeStatus }[] = []
  readonly nodes: SimNode[]
  readonly kinds: number
  readonly random: (n: number) => number
  readonly dialect: Dialect

  constructor(count: number, random: (n: number) => number, kinds = 1, dialect: Dialect = dialects[0]) {
    this.random = random
    this.dialect = dialect
    this.kinds = kinds
    this.nodes = Array.from({ length: count }, (_, i) => ({
      name: `n${i}`,
      wanted: this.anyModes(),
      locals: new Set(),
      toward: new Map(),
      mtu: undefined,
      ops: [],
      decided: new Map(),
      paths: new Set(),
      writes: [],
      seen: 0,
      unsure: true,
    }))
  }

  anyMode(): SendMode {
    return this.dialect.modes[this.random(this.dialect.modes.length)]!
  }

  anyModes(): SendMode[] {
    return Array.from({ length: this.kinds }, () => this.anyMode())
  }

  /** Modes that can stand side by side: a configuration names no others. */
  agreedModes(): SendMode[] {
    for (;;) {
      const chosen = this.anyModes()
      const paths = chosen.flatMap(pathsOf)
      if (!paths.some((path) => paths.some((other) => this.dialect.words.exclude(path, other)))) return chosen
    }
  }

  statusesAt(revision: number): Map<string, WeftNodeStatus> {
    return new Map(this.log.slice(0, revision).map(({ node, status }) => [node, status]))
  }

  /** One step of a node's agent: what it sees in, queues out. True when anything came of it. */
  think(node: SimNode): boolean {
    const statuses = this.statusesAt(node.seen)
    const announced = statuses.get(node.name)
    const peers = new Map<string, PeerView>()
    for (const [name, status] of statuses) if (name !== node.name) peers.set(name, status)
    const sending = new Set(node.unsure ? (announced?.sends ?? []) : [])
    for (const mode of [...node.toward.values(), ...node.decided.values()])
      for (const path of pathsOf(mode)) sending.add(path)
    for (const op of node.ops) if ('flow' in op && op.mode) for (const path of pathsOf(op.mode)) sending.add(path)
    const leaving = new Set(node.ops.flatMap((op) => ('local' in op && !op.up ? [op.local] : [])))
    const flows = new Map<string, Flow>()
    for (const [peer, { accepts }] of peers)
      for (const [kind, wanted] of node.wanted.entries()) {
        const name = flowName(peer, kind)
        flows.set(name, { wanted, accepts, current: node.decided.get(name) })
      }
    const plan = planTransition({
      words: this.dialect.words,
      wanted: node.wanted,
      inPlace: new Set([...node.locals].filter((path) => !leaving.has(path))),
      sending,
      announced,
      pending: node.writes,
      peers: peers.values(),
      flows,
      ...(node.mtu !== undefined && { podMtuBytes: node.mtu }),
      mtuOf,
    })
    const before = node.ops.length + node.writes.length
    // As the applier does: what cannot stand beside a new device goes first.
    const replaced = [...node.paths].filter((path) =>
      plan.paths.some((other) => this.dialect.words.exclude(path, other)),
    )
    for (const path of replaced) node.ops.push({ local: path, up: false })
    for (const path of plan.paths) if (!node.paths.has(path)) node.ops.push({ local: path, up: true })
    for (const [name, mode] of plan.toward) {
      const was = node.decided.get(name)
      if (was?.path !== mode.path || was.direct !== mode.direct) node.ops.push({ flow: name, mode })
    }
    for (const name of node.decided.keys()) if (!plan.toward.has(name)) node.ops.push({ flow: name, mode: undefined })
    for (const path of node.paths)
      if (!plan.paths.includes(path) && !replaced.includes(path)) node.ops.push({ local: path, up: false })
    if (plan.mtuBytes !== undefined && plan.mtuBytes !== this.lastMtu(node)) node.ops.push({ mtu: plan.mtuBytes })
    node.decided = new Map(plan.toward)
    node.paths = new Set(plan.paths)
    node.unsure = false
    const latest = node.writes.at(-1) ?? announced
    const word = (status: WeftNodeStatus | undefined) => JSON.stringify([status?.accepts, status?.sends])
    if (word(latest) !== word(plan.status)) node.writes.push(plan.status)
    return node.ops.length + node.writes.length > before
  }

  lastMtu(node: SimNode): number | undefined {
    const op = node.ops.findLast((op) => 'mtu' in op)
    return op && 'mtu' in op ? op.mtu : node.mtu
  }

  perform(node: SimNode): boolean {
    const op = node.ops.shift()
    if (!op) return false
    if ('mtu' in op) node.mtu = op.mtu
    else if ('local' in op) op.up ? node.locals.add(op.local) : node.locals.delete(op.local)
    else if (op.mode) node.toward.set(op.flow, op.mode)
    else node.toward.delete(op.flow)
    return true
  }

  /** A write reaches the store; the writer still waits for it to come back. */
  write(node: SimNode): boolean {
    const landed = this.log.filter((entry) => entry.node === node.name).map((entry) => entry.status)
    const next = node.writes.find((status) => !landed.includes(status))
    if (!next) return false
    this.log.push({ node: node.name, status: next })
    return true
  }

  watch(node: SimNode): boolean {
    const entry = this.log[node.seen]
    if (!entry) return false
    node.seen++
    if (entry.node === node.name) node.writes = node.writes.filter((status) => status !== entry.status)
    return true
  }

  crash(node: SimNode): void {
    node.ops = []
    node.writes = []
    node.decided = new Map()
    node.paths = new Set(node.locals)
    node.seen = this.log.length
    node.unsure = true
    node.decided = new Map(node.toward)
  }

  /** The promise: at no instant does anyone send by a path that the receiver does not take in, or with too large an MTU. */
  check(): void {
    for (const node of this.nodes) {
      const locals = [...node.locals]
      const clash = locals.find((path) => locals.some((other) => this.dialect.words.exclude(path, other)))
      assert.equal(clash, undefined, `${node.name} has ${locals}`)
    }
    for (const node of this.nodes)
      for (const [name, mode] of node.toward)
        for (const path of pathsOf(mode)) {
          const peer = this.nodes.find((other) => other.name === peerOf(name))!
          assert.ok(peer.locals.has(path), `${node.name} sends by ${path} to ${name}, which has ${[...peer.locals]}`)
          assert.ok(node.mtu === undefined || node.mtu <= mtuOf(path), `${node.name}: pods of ${node.mtu} on ${path}`)
        }
  }

  walk(steps: number): void {
    for (let i = 0; i < steps; i++) {
      const node = this.nodes[this.random(this.nodes.length)]!
      const dice = this.random(100)
      if (dice < 3) node.wanted[this.random(this.kinds)] = this.anyMode()
      else if (dice < 5) this.crash(node)
      else if (dice < 35) this.think(node)
      else if (dice < 60) this.perform(node)
      else if (dice < 75) this.write(node)
      else this.watch(node)
      this.check()
    }
  }

  /** Lets everything happen that waits, until nothing does. */
  settle(): void {
    for (let round = 0; round < 80; round++) {
      let busy = false
      for (const node of this.nodes) {
        while (this.watch(node)) busy = true
        busy = this.think(node) || busy
        while (this.perform(node)) busy = true
        while (this.write(node)) busy = true
        this.check()
      }
      if (!busy) return
    }
    assert.fail('the cluster does not come to rest')
  }
}

const generator = (seed: number) => {
  let state = seed >>> 0 || 1
  return (n: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % n
  }
}

test('no interleaving of switches, crashes and delays sends what the receiver does not take; all end in the new mode', () => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed}`)
  const random = generator(seed)
  for (let round = 0; round < 80; round++) {
    const cluster = new Cluster(2 + random(4), random, 1 + (round % 3), dialects[round % 2])
    cluster.walk(400)
    const last = cluster.agreedModes()
    for (const node of cluster.nodes) node.wanted = [...last]
    cluster.settle()
    const paths = [...new Set(last.flatMap(pathsOf))]
    for (const node of cluster.nodes) {
      assert.deepEqual([...node.locals].sort(), paths.sort(), `${node.name} keeps old devices`)
      assert.equal(node.toward.size, (cluster.nodes.length - 1) * cluster.kinds)
      for (const [name, mode] of node.toward) assert.deepEqual(mode, last[Number(name.split(' ')[1])])
      assert.equal(node.mtu, Math.min(...paths.map(mtuOf)))
    }
  }
})

test('nodes that want different modes for good still reach each other', () => {
  const random = generator(11)
  const cluster = new Cluster(3, random)
  for (const [i, node] of cluster.nodes.entries()) node.wanted = [modes[[0, 1, 4][i]!]!]
  cluster.settle()
  for (const node of cluster.nodes) {
    assert.equal(node.toward.size, 2)
    for (const mode of node.toward.values()) assert.deepEqual(mode, node.wanted[0])
  }
})

const wanted = { path: 'vxlan/1/8472', direct: false }

/** One flow to each peer, all wanted alike. */
const toEach = (
  wanted: SendMode,
  peers: ReadonlyMap<string, PeerView>,
  current: ReadonlyMap<string, SendMode> = new Map(),
) => ({
  words: flannelPaths,
  wanted: [wanted],
  peers: [...peers.values()],
  flows: new Map(
    [...peers].map(([name, { accepts }]): [string, Flow] => [name, { wanted, accepts, current: current.get(name) }]),
  ),
})

test('a flannel node is judged by its backend-type alone', () => {
  const flannel = (backendType: string, backendData?: unknown): NodeInfo => ({
    name: 'f',
    addresses: [],
    podCidrs: [],
    lease: { publicIp: Ip.parse('10.0.0.9'), backendType, backendData },
  })
  const mac = '0e:00:00:00:00:01'
  assert.deepEqual(
    viewPeer(flannel('vxlan', { VNI: 1, VtepMAC: mac }), { path: 'vxlan/1/4789', direct: false }).accepts,
    ['vxlan/1/4789'],
  )
  assert.deepEqual(viewPeer(flannel('vxlan', { VNI: 5, VtepMAC: mac }), wanted).accepts, ['vxlan/5/8472'])
  assert.deepEqual(viewPeer(flannel('vxlan', { VNI: 1, VtepMAC: mac }), { ...wanted, direct: true }).sends, [
    'vxlan/1/8472',
    'host-gw',
  ])
  assert.deepEqual(viewPeer(flannel('host-gw'), wanted).accepts, ['host-gw'])
  assert.deepEqual(viewPeer(flannel('udp'), wanted).accepts, ['udp/8285'])
  assert.deepEqual(viewPeer(flannel('wireguard'), wanted), { accepts: [], sends: [], isForeign: true })
})

test('a node that wants another mode takes in and sends what a flannel neighbour does', () => {
  const peers = new Map([['f', { accepts: ['vxlan/1/8472'], sends: ['vxlan/1/8472'] }]])
  const base = {
    ...toEach(modes[0]!, peers),
    sending: new Set<string>(),
    pending: [],
    mtuOf,
  }
  const first = planTransition({ ...base, inPlace: new Set(), announced: undefined })
  assert.deepEqual(first.paths, ['host-gw', 'vxlan/1/8472'])
  assert.equal(first.mtuBytes, 1450)
  assert.equal(first.toward.size, 0)
  const both = { accepts: first.paths, sends: first.paths }
  const second = planTransition({ ...base, inPlace: new Set(first.paths), announced: both })
  assert.deepEqual(second.toward.get('f'), { path: 'vxlan/1/8472', direct: false })
})

test('a path that cannot stand beside the present one is reached by a way round, unless a peer would not understand', () => {
  const [old, goal] = ['vxlan/1/8472', 'vxlan/1/4789']
  const detour = detourOf(goal)!
  assert.ok(!exclude(detour, old) && !exclude(detour, goal))
  const planWith = (now: readonly string[], isForeign?: boolean) => {
    const status = { accepts: now, sends: now }
    const peers = new Map([['peer', { ...status, ...(isForeign && { isForeign }) }]])
    return planTransition({
      ...toEach({ path: goal, direct: false }, peers),
      inPlace: new Set(now),
      sending: new Set(),
      announced: status,
      pending: [],
      mtuOf,
    })
  }
  assert.deepEqual(planWith([old]).paths, [detour, old])
  assert.deepEqual(planWith([detour]).paths, [goal, detour])
  assert.deepEqual(planWith([goal]).paths, [goal])
  assert.equal(planWith([detour]).settled, false)
  assert.equal(planWith([goal]).settled, true)
  assert.deepEqual(planWith([old], true).paths, [goal])
  // One port has one set of flags: there is no way round.
  assert.deepEqual(planWith(['vxlan/1/4789/gbp']).paths, [goal])
})

test('a peer cannot make this node open ports that no configuration names', () => {
  const evil = viewPeer(
    {
      name: 'e',
      addresses: [],
      podCidrs: [],
      weft: { accepts: ['vxlan/9/53'], sends: ['vxlan/9/53', 'udp/53', 'x'.repeat(9), 'vxlan/1/8472'] },
    },
    wanted,
  )
  const plan = planTransition({
    ...toEach(modes[0]!, new Map([['e', evil]])),
    inPlace: new Set(['host-gw']),
    sending: new Set(),
    announced: undefined,
    pending: [],
    mtuOf: () => 1450,
  })
  assert.deepEqual(plan.paths, ['host-gw', 'vxlan/1/8472'])
})

test('a path in use whose MTU shrinks with the underlay stays in use, but nobody flips to it before pods are told', () => {
  const { path } = wanted
  const status = { accepts: [path], sends: [path] }
  const planWith = (current: ReadonlyMap<string, SendMode>, podMtuBytes: number) =>
    planTransition({
      ...toEach(wanted, new Map([['peer', status]]), current),
      inPlace: new Set([path]),
      sending: new Set([path]),
      announced: status,
      pending: [],
      podMtuBytes,
      mtuOf: () => 1350,
    })
  const shrunk = planWith(new Map([['peer', wanted]]), 1450)
  assert.deepEqual(shrunk.toward.get('peer'), wanted)
  assert.equal(shrunk.mtuBytes, 1350)
  assert.equal(planWith(new Map(), 1450).toward.get('peer'), undefined)
  assert.deepEqual(planWith(new Map(), 1350).toward.get('peer'), wanted)
})
