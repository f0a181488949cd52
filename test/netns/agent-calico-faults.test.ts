/**
 * Address pools when something is wrong with them, or with what they are kept in: real agents, pods by the plugin, blocks on the
 * lab's API server. Each test has a pool of its own; those of the tests before are disabled, and their pods gone.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, afterEach, before, test } from 'node:test'
import type { KubeObject } from '../../src/lab/api/interfaces.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { AgentCluster, type TestNode, type TestPod } from './agent-cluster.ts'
import { SteadyPing } from './steady-ping.ts'

const POOLS = 'ippools.crd.projectcalico.org'
const BLOCKS = 'ipamblocks.crd.projectcalico.org'

let cluster: AgentCluster
let n1: TestNode
let n2: TestNode
const pods = new Set<TestPod>()

before(async () => {
  cluster = await AgentCluster.open({ Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } })
  await cluster.defineCalico()
  n1 = await cluster.addNode('n1')
  n2 = await cluster.addNode('n2')
  for (const node of [n1, n2]) cluster.startAgent(node)
  await Promise.all([cluster.ready(n1), cluster.ready(n2)])
})
afterEach(async () => {
  for (const pod of pods) await leave(pod)
})
after(async () => {
  await cluster?.close()
})

async function join(node: TestNode): Promise<TestPod> {
  const pod = await cluster.joinPod(node)
  pods.add(pod)
  return pod
}

async function leave(pod: TestPod): Promise<void> {
  pods.delete(pod)
  await cluster.leavePod(pod)
}

async function joinMany(node: TestNode, count: number): Promise<TestPod[]> {
  const all: TestPod[] = []
  while (all.length < count) all.push(await join(node))
  return all
}

/** As a runtime does: a node that keeps addresses ready withdraws when others need them, and whoever got none asks again. */
async function joinAgain(node: TestNode): Promise<TestPod> {
  const made: TestPod[] = []
  await cluster.until('an address is left', async () => {
    try {
      made.push(await join(node))
    } catch (error) {
      if (!/No address/.test((error as Error).message)) throw error
      return (error as Error).message
    }
    return undefined
  })
  return made[0]!
}

const reaches = (from: TestPod, to: TestPod): Promise<void> =>
  cluster.until(`${from.address} reaches ${to.address}`, () =>
    from.namespace.succeeds(`ping -c 1 -W 1 ${to.address}`)
      ? undefined
      : `${from.node.namespace.run('ip route')}\n${to.node.namespace.run('ip route')}`,
  )

async function talk(one: TestPod, other: TestPod): Promise<void> {
  await reaches(one, other)
  await reaches(other, one)
}

async function restart(node: TestNode): Promise<void> {
  await cluster.stopAgent(node, 'SIGKILL')
  cluster.startAgent(node)
  await cluster.ready(node)
}

const stateOf = async (node: TestNode) => JSON.parse((await cluster.ask(node, '/state')).body)

const wired = (node: TestNode, wiring: string): Promise<void> =>
  cluster.until(`${node.name} is ${wiring}`, async () => {
    const state = await stateOf(node)
    return state.wiring === wiring && state.settled ? undefined : JSON.stringify(state)
  })

/** Waits until these nodes go by this pool and no other. */
async function heard(name: string, nodes: readonly TestNode[], blockSize?: number): Promise<void> {
  for (const node of nodes)
    await cluster.until(`${node.name} goes by ${name}`, async () => {
      const state = await stateOf(node)
      const known = (state.calico?.pools ?? []) as { name: string; disabled: boolean; blockSize: number }[]
      const live = known.filter(({ disabled }) => !disabled)
      const isRight =
        live.length === 1 && live[0]!.name === name && (blockSize ?? live[0]!.blockSize) === live[0]!.blockSize
      return isRight && state.wiring === 'routed' && state.settled ? undefined : JSON.stringify(state)
    })
}

/** New pods of these nodes get addresses of this pool alone. */
async function usePool(name: string, spec: object, nodes: readonly TestNode[] = [n1, n2]): Promise<void> {
  for (const { metadata } of (await cluster.client.list(POOLS)).items)
    await cluster.putPool(metadata.name!, { disabled: true })
  await cluster.putPool(name, { vxlanMode: 'Never', ipipMode: 'Never', natOutgoing: true, ...spec })
  await heard(name, nodes)
}

interface BlockSpec {
  readonly cidr: string
  readonly affinity?: string
  readonly allocations: readonly (number | null)[]
  readonly attributes: readonly { readonly handle_id?: string }[]
}

const specOf = (block: KubeObject): BlockSpec => block.spec as BlockSpec

async function blocks(): Promise<readonly KubeObject[]> {
  return (await cluster.client.list(BLOCKS)).items
}

/** The block that has an address. */
async function blockOf({ address }: TestPod): Promise<KubeObject> {
  const found = (await blocks()).find((block) => Cidr.parse(specOf(block).cidr).contains(Ip.parse(address)))
  assert.ok(found, `a block has ${address}`)
  return found
}

const handleOf = ({ containerId }: TestPod): string => `k8s-pod-network.${containerId}`

/** Waits until no block knows a pod any more. */
const givenBack = (pod: TestPod): Promise<void> =>
  cluster.until(`${pod.address} is given back`, async () => {
    const handles = (await blocks()).flatMap((block) => specOf(block).attributes.map(({ handle_id }) => handle_id))
    return handles.includes(handleOf(pod)) ? handles.join('\n') : undefined
  })

const distinct = (all: readonly TestPod[]): void =>
  assert.equal(new Set(all.map(({ address }) => address)).size, all.length, all.map(({ address }) => address).join())

test('a node whose pods are bridged again gives addresses of pools back, also after a restart', async () => {
  await usePool('returned', { cidr: '172.26.0.0/24', blockSize: 29 })
  const [routed, another] = [await join(n1), await join(n1)]
  for (const pod of [routed, another]) assert.match(pod.address, /^172\.26\.0\./)
  await cluster.client.patch('nodes', { name: 'n1' }, { metadata: { annotations: { 'weft.dev/wiring': 'bridge' } } })
  await wired(n1, 'bridge')
  const bridged = await join(n1)
  assert.match(bridged.address, /^10\.244\.1\./)
  await talk(bridged, routed)
  await leave(another)
  await givenBack(another)
  await restart(n1)
  await wired(n1, 'bridge')
  await talk(bridged, routed)
  await leave(routed)
  await givenBack(routed)
  await cluster.client.patch('nodes', { name: 'n1' }, { metadata: { annotations: { 'weft.dev/wiring': null } } })
  await wired(n1, 'routed')
})

test('a block of a node that is gone: no way leads there, and its addresses in use are given to nobody', async () => {
  const n3 = await cluster.addNode('n3')
  // What a dead node kept ready is the collector's to free, and there is none here.
  cluster.startAgent(n3, ['--spare-addresses', '0'])
  await cluster.ready(n3)
  await usePool('orphaned', { cidr: '172.26.1.0/27', blockSize: 30 }, [n1, n2, n3])
  const gone = await cluster.joinPod(n3)
  const [first, far] = [await join(n1), await join(n2)]
  await talk(first, gone)
  const orphan = await blockOf(gone)
  const { cidr } = specOf(orphan)
  await cluster.stopAgent(n3, 'SIGKILL')
  await cluster.client.delete('nodes', { name: 'n3' })
  const routes = () => n1.namespace.run('ip route')
  await cluster.until(`nothing leads to ${cidr}`, () => (routes().includes(cidr) ? routes() : undefined))
  // Others of nodes that never were, full: they leave one to claim.
  const taken = new Set((await blocks()).map((block) => specOf(block).cidr))
  const places = [0, 4, 8, 12, 16, 20, 24, 28].map((last) => Cidr.parse(`172.26.1.${last}/30`))
  const open = places.filter((each) => !taken.has(`${each}`))
  for (const each of open.slice(1)) await putGhost(orphan, each)
  await talk(first, far)
  // A block of four, another one of four, and what is free of the others' in the pool: three each.
  const all = [first, ...(await joinMany(n1, 9))]
  while (all.length < 14) all.push(await joinAgain(n1))
  distinct([...all, gone, far])
  assert.ok(all.every(({ address }) => !open.slice(1).some((each) => each.contains(Ip.parse(address)))))
  const own = (await blocks())
    .map(specOf)
    .filter(({ affinity }) => affinity === 'host:n1')
    .map((each) => each.cidr)
  assert.ok(own.includes(`${open[0]}`), `${own} has ${open[0]}`)
  await assert.rejects(cluster.joinPod(n1), /No address in orphaned \(172\.26\.1\.0\/27\)/)
  const borrowed = all.filter(({ address }) => Cidr.parse(cidr).contains(Ip.parse(address)))
  assert.equal(borrowed.length, 3)
  for (const pod of borrowed) await talk(pod, far)
  assert.match((await cluster.ask(n1, '/readyz')).body, /^ok$/m)
  await restart(n1)
  await talk(borrowed[0]!, far)
  assert.ok(!new RegExp(`${cidr} via`).test(routes()), routes())
})

/** A block of a node that nobody has: a full one. */
async function putGhost(
  like: KubeObject,
  cidr: Cidr,
  allocations: readonly null[] | readonly 0[] = Array(Number(cidr.size)).fill(0),
): Promise<void> {
  const name = `${cidr}`.replaceAll(/[./]/g, '-')
  const spec = {
    ...specOf(like),
    cidr: `${cidr}`,
    affinity: 'host:ghost',
    allocations,
    unallocated: [],
    sequenceNumberForAllocation: {},
  }
  await cluster.client.create(BLOCKS, { apiVersion: like.apiVersion!, kind: like.kind!, metadata: { name }, spec })
}

/** Waits for an Event of a node that speaks of this. */
const told = (node: TestNode, words: RegExp): Promise<void> =>
  cluster.until(`an Event of ${node.name} says ${words}`, async () => {
    const { items } = await cluster.client.list('events')
    const messages = items
      .filter((event) => (event.involvedObject as { name?: string }).name === node.name)
      .map(({ message }) => String(message))
    return messages.some((message) => words.test(message)) ? undefined : messages.join('\n')
  })

/** Cuts a block's allocations short, and says how it was. */
async function corrupt(block: KubeObject): Promise<BlockSpec> {
  await cluster.client.patch(BLOCKS, { name: block.metadata.name! }, { spec: { allocations: [null] } })
  return specOf(block)
}

test('a block that nobody can read: its pods go on, others get addresses elsewhere, an Event names it', async () => {
  await usePool('broken', { cidr: '172.26.2.0/24', blockSize: 29 })
  const [one, two] = [await join(n1), await join(n2)]
  await talk(one, two)
  const block = await blockOf(two)
  const { name } = block.metadata
  const { cidr, allocations } = await corrupt(block)
  const words = new RegExp(`IPAMBlock ${name}: .*allocations: has 1 entries for 8 addresses`)
  for (const node of [n1, n2]) await told(node, words)
  await talk(one, two)
  // Another node's for n1, its own for n2.
  const isInside = ({ address }: TestPod) => Cidr.parse(cidr).contains(Ip.parse(address))
  for (const node of [n1, n2]) {
    const pod = await join(node)
    assert.ok(!isInside(pod), `${pod.address} is not of ${cidr}`)
    await talk(pod, one)
    await talk(pod, two)
  }
  for (const node of [n1, n2]) {
    await restart(node)
    await talk(one, two)
    const pod = await join(node)
    assert.ok(!isInside(pod), `${pod.address} is not of ${cidr}`)
    await talk(pod, two)
    await leave(pod)
  }
  const untouched = specOf(await blockOf(two))
  assert.deepEqual(untouched.allocations, [null], 'nobody writes what nobody understands')
  // Put right by hand, it counts again.
  await cluster.client.patch(BLOCKS, { name: name! }, { spec: { allocations } })
  await cluster.until('its addresses are given again', async () => {
    const pod = await join(n2)
    await talk(pod, one)
    return isInside(pod) ? undefined : pod.address
  })
  await leave(two)
  await givenBack(two)
})

test('an agent that starts while the API server is away: pods talk, drift is healed, an ADD says try again', async () => {
  await usePool('away', { cidr: '172.26.3.0/24', blockSize: 29 })
  const [one, two] = [await join(n1), await join(n2)]
  await talk(one, two)
  const { cidr } = specOf(await blockOf(two))
  await cluster.until('n1 remembers', () => {
    const [peers, pools] = ['cluster-view', 'calico-view'].map((name) =>
      readFileSync(`${n1.folder}/run/${name}`, 'utf8'),
    )
    return peers!.includes('"written":[]') && pools!.includes(cidr) ? undefined : `${peers}\n${pools}`
  })
  await cluster.stopApi()
  await restart(n1)
  assert.match((await cluster.ask(n1, '/readyz')).body, /^working from the cache of \d{4}-\d\d-\d\dT/)
  await talk(one, two)
  const routes = () => n1.namespace.run('ip route')
  for (const way of [cidr, one.address]) {
    assert.ok(routes().includes(way), routes())
    n1.namespace.run(`ip route del ${way}`)
    await cluster.until(`the way to ${way} is back`, () => (routes().includes(way) ? undefined : routes()))
  }
  await talk(one, two)
  await assert.rejects(join(n1), /"code": 11/)
  const leaving = await leave(one).then(
    () => 'gone',
    (error: Error) => error.message,
  )
  assert.equal(leaving, 'gone', 'a pod goes whether or not the store can be asked')
  await cluster.startApi()
  await cluster.until('a pod joins', async () => {
    const pod = await join(n1).catch((error: Error) => error)
    if (pod instanceof Error) return pod.message
    await talk(pod, two)
    return undefined
  })
  await givenBack(one)
  await cluster.until('n1 works from the store', async () => {
    const { body } = await cluster.ask(n1, '/readyz')
    return /^ok$/m.test(body) ? undefined : body
  })
})

/** A stream between two pods while `work` is done; not one message may be lost. */
async function keeping(from: TestPod, to: TestPod, work: () => Promise<void>): Promise<void> {
  const stream = await SteadyPing.start(from.namespace, to.address, '--icmp')
  try {
    await work()
    const counts = await stream.stop()
    assert.equal(counts.lost, 0, `${JSON.stringify(counts)}\n${cluster.log(n1).slice(-3000)}`)
  } finally {
    stream.kill()
  }
}

async function assertNoOverlap(): Promise<void> {
  const cidrs = (await blocks()).map((block) => Cidr.parse(specOf(block).cidr))
  const pairs = cidrs.flatMap((one, i) => cidrs.slice(i + 1).map((other) => [one, other] as const))
  assert.deepEqual(
    pairs.filter(([one, other]) => one.overlaps(other)).map((pair) => pair.join()),
    [],
  )
}

test('another blockSize, by a pool deleted and made again over living blocks: none overlaps, pods go on', async () => {
  const network = '172.26.4.0/25'
  const remake = async (blockSize: number) => {
    await cluster.client.delete(POOLS, { name: 'resized' })
    for (const node of [n1, n2])
      await cluster.until(`${node.name} knows no such pool`, async () => {
        const state = await stateOf(node)
        const isThere = (state.calico.pools as { name: string }[]).some(({ name }) => name === 'resized')
        return isThere || !state.settled ? JSON.stringify(state) : undefined
      })
    await talk(all[0]!, all[1]!)
    await usePool('resized', { cidr: network, blockSize })
  }
  await usePool('resized', { cidr: network, blockSize: 30 })
  const all = [await join(n1), await join(n2), ...(await joinMany(n1, 4))]
  const [one, two] = all as [TestPod, TestPod]
  await talk(one, two)
  for (const blockSize of [29, 28])
    await keeping(one, two, async () => {
      await remake(blockSize)
      for (const node of [n1, n2]) all.push(...(await joinMany(node, 6)))
      const sizes = new Set(
        (await blocks()).map((block) => specOf(block).cidr).filter((each) => each.startsWith('172.26.4.')),
      )
      assert.ok(
        [...sizes].some((each) => each.endsWith(`/${blockSize}`)),
        [...sizes].join(),
      )
      distinct(all)
      await assertNoOverlap()
      for (const pod of all) if (pod !== one) await talk(one, pod)
    })
})

test('the place of a block that nobody can read stays free of larger ones, until it is gone', async () => {
  await usePool('former', { cidr: '172.26.5.0/28', blockSize: 30 })
  const pod = await join(n2)
  const like = await blockOf(pod)
  await leave(pod)
  await cluster.client.delete(POOLS, { name: 'former' })
  for (const block of await blocks())
    if (specOf(block).cidr.startsWith('172.26.5.')) await cluster.client.delete(BLOCKS, { name: block.metadata.name! })
  const name = '172-26-5-4-30'
  await putGhost(like, Cidr.parse('172.26.5.4/30'), [null])
  await told(n1, new RegExp(`IPAMBlock ${name}: `))
  await usePool('latter', { cidr: '172.26.5.0/28', blockSize: 29 })
  const all = await joinMany(n1, 8)
  distinct(all)
  await assertNoOverlap()
  await assert.rejects(join(n1), /No address in latter/)
  await cluster.client.delete(BLOCKS, { name })
  await cluster.until('a pod joins', async () => {
    const last = await join(n1).catch((error: Error) => error)
    return last instanceof Error ? last.message : undefined
  })
})

test('a reservation over a living address: its pod keeps it over a restart, and nobody gets it afterwards', async () => {
  await usePool('reserved', { cidr: '172.26.6.0/28', blockSize: 29 })
  const [one, two] = [await join(n1), await join(n2)]
  await talk(one, two)
  // Of the own block all but the last address, whichever that is.
  const { cidr } = specOf(await blockOf(one))
  const network = Cidr.parse(cidr)
  const ordinals = Array.from({ length: 8 }, (_, n) => `${network.base.plus(BigInt(n))}`)
  const left = ordinals.findLast((ip) => ip !== one.address)!
  const reservedCIDRs = ordinals.filter((ip) => ip !== left).map((ip) => `${ip}/32`)
  await cluster.client.create('ipreservations.crd.projectcalico.org', {
    apiVersion: 'crd.projectcalico.org/v1',
    kind: 'IPReservation',
    metadata: { name: 'living' },
    spec: { reservedCIDRs },
  })
  const fill = async () => {
    const all: TestPod[] = []
    for (;;) {
      const pod = await join(n1).catch((error: Error) => error)
      if (!(pod instanceof Error)) all.push(pod)
      else {
        assert.match(pod.message, /No address in reserved/)
        return all
      }
    }
  }
  // Heard of when the only addresses that are given are the one left and those of the other node's block.
  await cluster.until('the reservation is heard of', async () => {
    const all = await fill()
    const outside = all.filter(({ address }) => !reservedCIDRs.includes(`${address}/32`))
    const isHeard = outside.length === all.length
    if (isHeard)
      assert.ok(
        all.some(({ address }) => address === left),
        'what is not reserved is given',
      )
    for (const pod of all) await leave(pod)
    for (const pod of all) await givenBack(pod)
    return isHeard ? undefined : all.map(({ address }) => address).join()
  })
  await talk(one, two)
  await restart(n1)
  await talk(one, two)
  await leave(one)
  await givenBack(one)
  const all = await fill()
  assert.ok(!all.some(({ address }) => address === one.address), all.map(({ address }) => address).join())
  await cluster.client.delete('ipreservations.crd.projectcalico.org', { name: 'living' })
  await cluster.until('its address is given again', async () => {
    const pod = await join(n1).catch((error: Error) => error)
    return pod instanceof Error ? pod.message : undefined
  })
})
