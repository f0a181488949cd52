/**
 * Binds pods to nodes: those that fit (nodeSelector, required node affinity by label, taints, cordon, pod count, free
 * host ports), and of them the one with the fewest pods of the same owner, then the fewest pods.
 */
import type { KubeObject } from '../api/interfaces.ts'
import { keyOfObject, nameOf } from '../informer.ts'
import { recordPodEvent } from '../kubelet/events.ts'
import type { Pod } from '../kubelet/pod-spec.ts'
import { controllerOf, isFinished, isTerminating, matches, nowText, type Selector, type Shared } from './shared.ts'

interface Toleration {
  readonly key?: string
  readonly operator?: string
  readonly value?: string
  readonly effect?: string
}
interface Taint {
  readonly key: string
  readonly value?: string
  readonly effect: string
}

export const tolerates = (tolerations: readonly Toleration[], taint: Taint): boolean =>
  tolerations.some(
    (each) =>
      (each.effect === undefined || each.effect === '' || each.effect === taint.effect) &&
      (each.key === undefined || each.key === '' || each.key === taint.key) &&
      (each.operator === 'Exists' || (each.value ?? '') === (taint.value ?? '')),
  )

/** Why a pod cannot run on a node, in the scheduler's usual words; undefined when it can. */
export function misfit(pod: Pod, node: KubeObject, onNode: readonly Pod[]): string | undefined {
  const labels = node.metadata.labels ?? {}
  const selector = (pod.spec as { nodeSelector?: Record<string, string> }).nodeSelector
  const terms = (pod.spec as unknown as KubeObject).affinity?.nodeAffinity
    ?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms as Selector[] | undefined
  if (selector && !matches({ matchLabels: selector }, labels)) return "didn't match Pod's node affinity/selector"
  if (terms && !terms.some((term) => matches({ matchExpressions: term.matchExpressions ?? [] }, labels)))
    return "didn't match Pod's node affinity/selector"
  const tolerations = ((pod.spec as unknown as KubeObject).tolerations ?? []) as Toleration[]
  for (const taint of (node.spec?.taints ?? []) as Taint[])
    if (taint.effect !== 'PreferNoSchedule' && !tolerates(tolerations, taint))
      return `had untolerated taint {${taint.key}: ${taint.value ?? ''}}`
  if (onNode.length >= Number(node.status?.allocatable?.pods ?? 110)) return 'Too many pods'
  const wanted = hostPorts(pod)
  if (wanted.length > 0 && onNode.some((other) => hostPorts(other).some((port) => wanted.includes(port))))
    return "didn't have free ports for the requested pod ports"
  return undefined
}

const hostPorts = (pod: Pod): string[] =>
  pod.spec.containers.flatMap((container) =>
    (container.ports ?? []).filter((port) => port.hostPort).map((port) => `${port.protocol ?? 'TCP'}/${port.hostPort}`),
  )

export function startScheduler(shared: Shared): void {
  const { client, nodes, pods } = shared
  /** Bindings just made and not yet seen in the live copy. */
  const assumed = new Map<string, string>()

  const queue = shared.queue('scheduler', async (key) => {
    const pod = pods.get(key)
    if (!pod || pod.spec.nodeName || isTerminating(pod) || isFinished(pod)) return
    const byNode = new Map<string, Pod[]>()
    for (const other of pods.values()) {
      const name = other.spec.nodeName ?? assumed.get(other.metadata.uid!)
      if (name && !isFinished(other)) byNode.set(name, [...(byNode.get(name) ?? []), other])
    }
    const owner = controllerOf(pod)?.uid
    const reasons = new Map<string, number>()
    let best: { name: string; score: number } | undefined
    for (const node of nodes.values()) {
      const onNode = byNode.get(node.metadata.name!) ?? []
      const why = misfit(pod, node, onNode)
      if (why) {
        reasons.set(why, (reasons.get(why) ?? 0) + 1)
        continue
      }
      const siblings = owner ? onNode.filter((other) => controllerOf(other)?.uid === owner).length : 0
      const score = siblings * 1000 + onNode.length
      if (!best || score < best.score || (score === best.score && node.metadata.name! < best.name))
        best = { name: node.metadata.name!, score }
    }
    if (!best) return unschedulable(pod, reasons)
    assumed.set(pod.metadata.uid!, best.name)
    await client.create(
      'pods',
      {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name: pod.metadata.name!, namespace: pod.metadata.namespace! },
        target: { apiVersion: 'v1', kind: 'Node', name: best.name },
      },
      { subresource: 'binding', name: pod.metadata.name! },
    )
    await recordPodEvent(
      client,
      pod,
      { component: 'default-scheduler' },
      'Normal',
      'Scheduled',
      `Successfully assigned ${key} to ${best.name}`,
    )
  })

  async function unschedulable(pod: Pod, reasons: ReadonlyMap<string, number>): Promise<void> {
    const total = [...nodes.values()].length
    const list = [...reasons].map(([why, count]) => `${count} node(s) ${why}`).join(', ')
    const message = `0/${total} nodes are available${list ? `: ${list}` : ''}.`
    const old = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled')
    queue.addAfter(keyOfObject(pod), 5000)
    if (old?.message === message) return
    const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== 'PodScheduled')
    const condition = {
      type: 'PodScheduled',
      status: 'False',
      reason: 'Unschedulable',
      message,
      lastTransitionTime: nowText(),
    }
    await client.patch(
      'pods',
      nameOf(pod),
      { status: { conditions: [...others, condition] } },
      { subresource: 'status' },
    )
  }

  pods.onChange((pod, gone) => {
    if (gone || pod.spec.nodeName) assumed.delete(pod.metadata.uid!)
    if (!gone && !pod.spec.nodeName) queue.add(keyOfObject(pod))
  })
  nodes.onChange(() => {
    for (const pod of pods.values()) if (!pod.spec.nodeName) queue.add(keyOfObject(pod))
  })
}
