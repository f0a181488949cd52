/**
 * DaemonSet → one Pod on every node that fits; a changed template replaces pods one node at a time (RollingUpdate) or
 * only as they are deleted (OnDelete).
 */
import type { KubeObject } from '../api/interfaces.ts'
import { keyOfObject } from '../informer.ts'
import type { Pod } from '../kubelet/pod-spec.ts'
import { templateHash } from './replica-sets.ts'
import { misfit } from './scheduler.ts'
import {
  controllerOf,
  isFinished,
  isReady,
  isTerminating,
  podFrom,
  remove,
  type Shared,
  writeStatus,
} from './shared.ts'

const HASH_LABEL = 'controller-revision-hash'

/** What DaemonSet pods put up with on a node, beyond their own spec. */
const TOLERATIONS = [
  { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute' },
  { key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute' },
  { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/unschedulable', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/network-unavailable', operator: 'Exists', effect: 'NoSchedule' },
]

export function startDaemonSets(shared: Shared): void {
  const { client, nodes, pods } = shared
  const sets = shared.informer('daemonsets.apps')
  /** `set uid/node` of pods asked for and not yet seen. */
  const expected = new Set<string>()

  const queue = shared.queue(
    'daemon-sets',
    async (key) => {
      const set = sets.get(key)
      if (!set || isTerminating(set)) return
      const hash = templateHash(set.spec.template)
      const own = [...pods.values()].filter((pod) => controllerOf(pod)?.uid === set.metadata.uid)
      const fitting = [...nodes.values()].filter((node) => fits(set, node))
      const names = new Set(fitting.map((node) => node.metadata.name!))
      for (const pod of own)
        if (!isTerminating(pod) && (isFinished(pod) || !names.has(pod.spec.nodeName!)))
          await remove(client, 'pods', pod)
      const onNode = new Map(own.filter((pod) => !isFinished(pod)).map((pod) => [pod.spec.nodeName!, pod]))
      for (const name of names) {
        const mark = `${set.metadata.uid}/${name}`
        if (onNode.has(name) || expected.has(mark)) continue
        expected.add(mark)
        try {
          const extra = { labels: { [HASH_LABEL]: hash }, nodeName: name, tolerations: TOLERATIONS }
          await client.create('pods', podFrom(set, 'DaemonSet', set.spec.template, extra))
        } catch (error) {
          expected.delete(mark)
          throw error
        }
      }
      await update(set, hash, [...onNode.values()])
      await report(set, hash, names.size, [...onNode.values()])
    },
    4,
  )

  function fits(set: KubeObject, node: KubeObject): boolean {
    const probe = podFrom(set, 'DaemonSet', set.spec.template, { tolerations: TOLERATIONS })
    return !isTerminating(node) && misfit(probe, node, []) === undefined
  }

  async function update(set: KubeObject, hash: string, present: readonly Pod[]): Promise<void> {
    if (set.spec.updateStrategy?.type === 'OnDelete') return
    const stale = present.filter((pod) => pod.metadata.labels?.[HASH_LABEL] !== hash && !isTerminating(pod))
    const unavailable = present.filter((pod) => !isReady(pod) || isTerminating(pod)).length
    const allowed = Number(set.spec.updateStrategy?.rollingUpdate?.maxUnavailable ?? 1) || 1
    const broken = stale.filter((pod) => !isReady(pod))
    const healthy = stale.filter(isReady).slice(0, Math.max(0, allowed - unavailable))
    for (const pod of [...broken, ...healthy]) await remove(client, 'pods', pod)
  }

  async function report(set: KubeObject, hash: string, desired: number, present: readonly Pod[]): Promise<void> {
    const live = present.filter((pod) => !isTerminating(pod))
    const ready = live.filter(isReady).length
    await writeStatus(client, 'daemonsets.apps', set, {
      desiredNumberScheduled: desired,
      currentNumberScheduled: live.length,
      numberMisscheduled: 0,
      numberReady: ready,
      numberAvailable: ready,
      numberUnavailable: Math.max(0, desired - ready),
      updatedNumberScheduled: live.filter((pod) => pod.metadata.labels?.[HASH_LABEL] === hash).length,
      observedGeneration: set.metadata.generation ?? 1,
    })
  }

  const all = () => {
    for (const set of sets.values()) queue.add(keyOfObject(set))
  }
  sets.onChange((set) => queue.add(keyOfObject(set)))
  let names = ''
  nodes.onChange(() => {
    const now = JSON.stringify(
      [...nodes.values()].map((node) => [node.metadata.name, node.metadata.labels, node.spec?.taints]),
    )
    if (now !== names) all()
    names = now
  })
  pods.onChange((pod) => {
    const owner = controllerOf(pod)
    if (owner?.kind !== 'DaemonSet') return
    expected.delete(`${owner.uid}/${pod.spec.nodeName}`)
    queue.add(`${pod.metadata.namespace}/${owner.name}`)
  })
}
