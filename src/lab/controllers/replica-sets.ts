/**
 * ReplicaSet → Pods: as many as asked for, adopting what matches and has no owner; surplus goes unready and youngest first.
 */
import { createHash } from 'node:crypto'
import type { KubeObject } from '../api/interfaces.ts'
import { keyOfObject } from '../informer.ts'
import type { Pod } from '../kubelet/pod-spec.ts'
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

/** Pods made at once for one set. */
const BURST = 50

/** A short stable digest of a pod template, as in a ReplicaSet's name. */
export function templateHash(template: unknown): string {
  const digest = createHash('sha256').update(JSON.stringify(template)).digest()
  const letters = 'bcdfghjklmnpqrstvwxz2456789'
  return Array.from(digest.subarray(0, 9), (byte) => letters[byte % letters.length]).join('')
}

export function startReplicaSets(shared: Shared): ReturnType<Shared['informer']> {
  const { client, pods } = shared
  const sets = shared.informer('replicasets.apps')
  /** Pods asked for and not yet seen: keeps a second look from making them again. */
  const expected = new Map<string, number>()

  const queue = shared.queue(
    'replica-sets',
    async (key) => {
      const set = sets.get(key)
      if (!set || isTerminating(set)) return void expected.delete(key)
      const own = podsOf(set)
      const active = own.filter((pod) => !isTerminating(pod) && !isFinished(pod))
      const wanted = Number(set.spec?.replicas ?? 1)
      const missing = wanted - active.length
      if (missing > 0 && (expected.get(key) ?? 0) === 0) {
        const count = Math.min(missing, BURST)
        expected.set(key, count)
        for (let i = 0; i < count; i++) {
          try {
            await client.create('pods', podFrom(set, 'ReplicaSet', set.spec.template))
          } catch (error) {
            expected.set(key, 0)
            throw error
          }
        }
      }
      if (missing < 0) {
        const rank = (pod: Pod) => (isReady(pod) ? 2 : pod.spec.nodeName ? 1 : 0)
        const age = (pod: Pod) => pod.metadata.creationTimestamp ?? ''
        const order = [...active].sort((a, b) => rank(a) - rank(b) || age(b).localeCompare(age(a)))
        for (const pod of order.slice(0, -missing)) await remove(client, 'pods', pod)
      }
      const ready = active.filter(isReady).length
      await writeStatus(client, 'replicasets.apps', set, {
        replicas: active.length,
        fullyLabeledReplicas: active.length,
        readyReplicas: ready,
        availableReplicas: ready,
        observedGeneration: set.metadata.generation ?? 1,
      })
    },
    4,
  )

  const podsOf = (set: KubeObject): Pod[] =>
    [...pods.values()].filter((pod) => controllerOf(pod)?.uid === set.metadata.uid)

  sets.onChange((set) => queue.add(keyOfObject(set)))
  const counted = new Set<string>()
  pods.onChange((pod, gone) => {
    const owner = controllerOf(pod)
    if (owner?.kind !== 'ReplicaSet') return
    const key = `${pod.metadata.namespace}/${owner.name}`
    const uid = pod.metadata.uid!
    if (gone) counted.delete(uid)
    else if (!counted.has(uid)) {
      counted.add(uid)
      expected.set(key, Math.max(0, (expected.get(key) ?? 0) - 1))
    }
    queue.add(key)
  })
  return sets
}
