/**
 * What happens to nodes: each gets its part of the pod network, and is found out when it goes silent.
 *
 * Sources: Kubernetes documentation, "Nodes" (heartbeats, node.kubernetes.io taints), node.spec.podCIDRs.
 */
import { Cidr } from '../../net/cidr.ts'
import type { KubeObject } from '../api/interfaces.ts'
import { nameOf } from '../informer.ts'
import { type LabSpec, POD_CIDR_LENGTHS, POD_CIDRS } from '../layout.ts'
import { isTerminating, nowText, remove, type Shared } from './shared.ts'

/** A node that has not renewed its Lease for this long is taken for dead. */
const SILENCE_MS = 8000
const LOOK_EVERY_MS = 1000
/** How long pods stay bound to a node that cannot be reached. */
const EVICT_AFTER_MS = 300_000

interface Taint {
  readonly key: string
  readonly effect: string
  readonly timeAdded?: string
}

/** The lowest free block of a length within `pool`. Throws when it is full. */
function freeBlock(pool: Cidr, length: number, taken: readonly Cidr[]): Cidr {
  const step = 1n << BigInt((pool.family === 4 ? 32 : 128) - length)
  const count = 1n << BigInt(length - pool.length)
  for (let i = 0n; i < count; i++) {
    const block = Cidr.of(pool.base.plus(i * step), length)
    if (!taken.some((each) => each.family === block.family && each.overlaps(block))) return block
  }
  throw new Error(`CIDR ${pool} has no free /${length} for another node`)
}

const cidrsOf = (node: KubeObject): Cidr[] =>
  ((node.spec?.podCIDRs ?? []) as string[]).flatMap((text) => Cidr.tryParse(text) ?? [])

/** Gives every node a block of each family, once. */
export function startPodCidrs(shared: Shared, spec: LabSpec): void {
  const queue = shared.queue('pod-cidrs', async (key) => {
    const node = shared.nodes.get(key)
    if (!node || cidrsOf(node).length > 0 || isTerminating(node)) return
    const taken = [...shared.nodes.values()].flatMap(cidrsOf)
    const blocks = [freeBlock(POD_CIDRS.v4, POD_CIDR_LENGTHS.v4, taken)]
    if (spec.ipv6) blocks.push(freeBlock(POD_CIDRS.v6, POD_CIDR_LENGTHS.v6, taken))
    const podCIDRs = blocks.map(String)
    await shared.client.patch('nodes', nameOf(node), { spec: { podCIDR: podCIDRs[0], podCIDRs } })
  })
  shared.nodes.onChange((node) => queue.add(node.metadata.name!))
}

const READY_TAINTS: Readonly<Record<string, string>> = {
  False: 'node.kubernetes.io/not-ready',
  Unknown: 'node.kubernetes.io/unreachable',
}
const MANAGED_TAINTS = new Set([
  ...Object.values(READY_TAINTS),
  'node.kubernetes.io/network-unavailable',
  'node.kubernetes.io/unschedulable',
])

/** Watches heartbeats; keeps conditions and taints in step; takes readiness from pods of silent nodes; evicts late. */
export function startNodeLifecycle(shared: Shared): void {
  const { client, nodes, pods } = shared
  const leases = shared.informer('leases.coordination.k8s.io')
  const seen = new Map<string, { renewed: string; at: number }>()

  const queue = shared.queue('node-lifecycle', async (key) => {
    const node = nodes.get(key)
    if (!node) {
      seen.delete(key)
      for (const pod of pods.values())
        if (pod.spec.nodeName === key)
          await client.delete('pods', nameOf(pod), { gracePeriodSeconds: 0 }).catch(() => {})
      return
    }
    queue.addAfter(key, LOOK_EVERY_MS)
    const renewed = String(leases.get(`kube-node-lease/${key}`)?.spec?.renewTime ?? '')
    const known = seen.get(key)
    if (!known || known.renewed !== renewed) seen.set(key, { renewed, at: performance.now() })
    const silentMs = performance.now() - seen.get(key)!.at
    if (silentMs > SILENCE_MS) await markSilent(node)
    await keepTaints(nodes.get(key) ?? node)
    if (silentMs > EVICT_AFTER_MS)
      for (const pod of pods.values())
        if (pod.spec.nodeName === key && !isTerminating(pod) && !toleratesForever(pod))
          await remove(client, 'pods', pod)
  })

  async function markSilent(node: KubeObject): Promise<void> {
    const conditions = (node.status?.conditions ?? []) as { type: string; status: string }[]
    if (conditions.find(({ type }) => type === 'Ready')?.status === 'Unknown') return
    const now = nowText()
    const next = conditions.map((each) =>
      each.type === 'Ready' || each.type.endsWith('Pressure')
        ? {
            ...each,
            status: 'Unknown',
            reason: 'NodeStatusUnknown',
            message: 'Kubelet stopped posting node status.',
            lastTransitionTime: now,
          }
        : each,
    )
    await client.patch('nodes', nameOf(node), { status: { conditions: next } }, { subresource: 'status' })
    for (const pod of pods.values()) {
      if (pod.spec.nodeName !== node.metadata.name) continue
      const changed = (pod.status?.conditions ?? []).map((each) =>
        each.type === 'Ready' ? { ...each, status: 'False', reason: 'NodeNotReady', lastTransitionTime: now } : each,
      )
      await client
        .patch('pods', nameOf(pod), { status: { conditions: changed } }, { subresource: 'status' })
        .catch(() => {})
    }
  }

  async function keepTaints(node: KubeObject): Promise<void> {
    const conditions = (node.status?.conditions ?? []) as { type: string; status: string }[]
    const status = (type: string) => conditions.find((each) => each.type === type)?.status
    const wanted: Taint[] = []
    const ready = READY_TAINTS[status('Ready') ?? 'False']
    if (ready) {
      wanted.push({ key: ready, effect: 'NoSchedule' })
      wanted.push({ key: ready, effect: 'NoExecute' })
    }
    if (status('NetworkUnavailable') === 'True')
      wanted.push({ key: 'node.kubernetes.io/network-unavailable', effect: 'NoSchedule' })
    if (node.spec?.unschedulable) wanted.push({ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' })
    const have = (node.spec?.taints ?? []) as Taint[]
    const id = (taint: Taint) => `${taint.key}:${taint.effect}`
    const managed = have.filter((taint) => MANAGED_TAINTS.has(taint.key)).map(id)
    if (managed.sort().join() === wanted.map(id).sort().join()) return
    const now = nowText()
    const taints = [
      ...have.filter((taint) => !MANAGED_TAINTS.has(taint.key)),
      ...wanted.map((taint) => have.find((each) => id(each) === id(taint)) ?? { ...taint, timeAdded: now }),
    ]
    const { resourceVersion } = node.metadata
    await client.patch('nodes', nameOf(node), { metadata: { resourceVersion }, spec: { taints } })
  }

  nodes.onChange((node) => queue.add(node.metadata.name!))
}

/** Pods of a DaemonSet stay on a node that is not there for a while. */
function toleratesForever(pod: KubeObject): boolean {
  const tolerations = (pod.spec?.tolerations ?? []) as { key?: string; operator?: string; tolerationSeconds?: number }[]
  return tolerations.some(
    ({ key, operator, tolerationSeconds }) =>
      tolerationSeconds === undefined &&
      operator === 'Exists' &&
      (key === undefined || key === 'node.kubernetes.io/unreachable'),
  )
}
