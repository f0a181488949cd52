/**
 * What `routes-10k` asks of a real agent: the bundled program in a node's namespace, the lab's API server with all the other
 * nodes and their blocks, and changes of one block at a time. A change is timed from the moment when the server, which is in
 * this process, tells its watches of it, until the kernel tells of the route (route-clock.ts); what it costs to send the event
 * is in it.
 */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { encodeBlock } from '../../src/config/calico/block.ts'
import { formatNodeAnnotations } from '../../src/config/calico/node-annotations.ts'
import { cidrName } from '../../src/config/calico/store-names.ts'
import type { IpamBlock } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { AgentCluster, type TestNode } from '../netns/agent-cluster.ts'
import { RouteClock } from './route-clock.ts'

const program = fileURLToPath(new URL('../../dist/weft.js', import.meta.url))

const BLOCKS = 'ipamblocks.crd.projectcalico.org'
const POOL = Ip.parse('20.0.0.0')
const NODES = Ip.parse('10.128.0.2')
const PATH = 'calico/vxlan/4096/4789'
/** Between two changes, so that each finds an agent that has nothing to do. */
const QUIET_MS = 20
const status = JSON.stringify({ accepts: [PATH], sends: [PATH] })

export interface AgentReading {
  /** From the start of the process to the last route. */
  readonly loadMs: number
  /** From an event to the kernel, one by one. */
  readonly changesMs: readonly number[]
  readonly heapMiB: number
  readonly residentMiB: number
}

const blockCidr = (i: number): Cidr => Cidr.of(POOL.plus(i * 64), 26)

const blockOf = (i: number, node: number): IpamBlock => ({
  cidr: blockCidr(i),
  owner: { type: 'host', name: `far-${node}` },
  allocations: Array.from({ length: 64 }, () => null),
  unallocated: Array.from({ length: 64 }, (_, ordinal) => ordinal),
  attributes: [],
  sequenceNumber: 0n,
  sequenceNumberForAllocation: {},
  deleted: false,
  strictAffinity: false,
})

async function fill({ client }: AgentCluster, nodes: number, blocks: number): Promise<void> {
  for (let n = 0; n < nodes; n++) {
    const words = { ipv4: { ip: NODES.plus(n), prefixLength: 16 }, ipv4VxlanTunnelAddr: blockCidr(n * blocks).base }
    const annotations = { ...formatNodeAnnotations(words), 'weft.dev/node-status': status }
    const said = Object.fromEntries(Object.entries(annotations).filter((entry) => typeof entry[1] === 'string'))
    await client.create('nodes', { metadata: { name: `far-${n}`, annotations: said as Record<string, string> } })
  }
  for (let i = 0; i < nodes * blocks; i++)
    await client.create(BLOCKS, {
      apiVersion: 'crd.projectcalico.org/v1',
      kind: 'IPAMBlock',
      metadata: { name: cidrName(blockCidr(i)) },
      spec: encodeBlock(blockOf(i, Math.floor(i / blocks)), 'kubernetes'),
    })
}

const countRoutes = (node: TestNode): number =>
  Number(node.namespace.run("ip -4 route show proto 119 | grep -c 'dev vxlan.calico' || true"))

async function readMemory(cluster: AgentCluster, node: TestNode): Promise<{ heapMiB: number; residentMiB: number }> {
  const { body } = await cluster.ask(node, '/metrics')
  const mebibytes = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(body)?.[1]) / 2 ** 20
  return { heapMiB: mebibytes('nodejs_heap_size_used_bytes'), residentMiB: mebibytes('process_resident_memory_bytes') }
}

/** Moves blocks one by one from node to node, and waits for each, and for so long after it. */
async function change(
  cluster: AgentCluster,
  node: TestNode,
  nodes: number,
  blocks: number,
  count: number,
  pauseMs: number,
) {
  const clock = await RouteClock.open(node.namespace)
  const toldAt = new Map<string, number>()
  const watch = cluster.client.watch(BLOCKS, {}, (event) => {
    if (event.type === 'MODIFIED') toldAt.set(event.object.metadata.name!, performance.now())
  })
  const took: number[] = []
  try {
    for (let i = 0; i < count; i++) {
      const at = (i * 7919) % (nodes * blocks)
      const heard = clock.next(`${blockCidr(at)}`)
      const to = (Math.floor(at / blocks) + 1 + i) % nodes
      const name = cidrName(blockCidr(at))
      await cluster.client.patch(BLOCKS, { name }, { spec: { affinity: `host:far-${to}` } })
      took.push((await heard) - toldAt.get(name)!)
      await sleep(pauseMs)
    }
  } finally {
    watch.close()
    await clock.close()
  }
  return took
}

export async function measureAgent(nodes: number, blocks: number, changes: number): Promise<AgentReading> {
  if (!existsSync(program)) throw new Error('dist/weft.js is missing: npm run build')
  const cluster = await AgentCluster.open(undefined)
  try {
    await cluster.defineCalico()
    await cluster.putPool('pool', { cidr: '20.0.0.0/8', blockSize: 26, vxlanMode: 'Always', ipipMode: 'Never' })
    await fill(cluster, nodes, blocks)
    const node = await cluster.addNode('n1', { podCidrs: false })
    const start = performance.now()
    cluster.startAgent(node, [], { program })
    await cluster.ready(node)
    await cluster.until('every block has its route', () => {
      const count = countRoutes(node)
      return count === nodes * blocks ? undefined : `${count} routes`
    })
    const loadMs = performance.now() - start
    const changesMs = await change(cluster, node, nodes, blocks, changes, QUIET_MS)
    return { loadMs, changesMs, ...(await readMemory(cluster, node)) }
  } finally {
    await cluster.close()
  }
}
