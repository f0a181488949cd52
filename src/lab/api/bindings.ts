/**
 * Subresources of pods that are actions: binding to a node, eviction.
 * Sources: Kubernetes API reference, Binding v1 core, Eviction v1 policy.
 */
import { badRequest, conflict } from './api-error.ts'
import type { DeleteOptions, KubeObject } from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'
import { type Resources, timestamp, type WriteContext } from './resources.ts'

/** Sets a pod's node, once. */
export function bindPod(
  resources: Resources,
  pods: Kind,
  namespace: string,
  name: string,
  binding: KubeObject,
  context: WriteContext = {},
): void {
  const node: unknown = binding.target?.name
  if (typeof node !== 'string' || node === '') throw badRequest('Binding: target.name: the name of a node is required')
  const pod = resources.get(pods, namespace, name)
  if (pod.metadata.deletionTimestamp)
    throw conflict(pods, name, `pod ${name} is being deleted, cannot be assigned to a host`)
  if (pod.spec.nodeName)
    throw conflict(pods, name, `pod ${name} is already assigned to node ${JSON.stringify(pod.spec.nodeName)}`)
  if (context.dryRun) return
  const condition = { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime: timestamp() }
  const others = (pod.status?.conditions ?? []).filter((c: { type: string }) => c.type !== 'PodScheduled')
  const bound: KubeObject = {
    ...pod,
    metadata: {
      ...pod.metadata,
      ...(binding.metadata?.annotations && {
        annotations: { ...pod.metadata.annotations, ...binding.metadata.annotations },
      }),
    },
    spec: { ...pod.spec, nodeName: node },
    status: { ...pod.status, conditions: [...others, condition] },
  }
  resources.store.put('pods', namespace, name, bound, Number(pod.metadata.resourceVersion))
}

/** Deletes a pod as `kubectl drain` asks for it. */
export function evictPod(
  resources: Resources,
  pods: Kind,
  namespace: string,
  name: string,
  eviction: KubeObject,
  context: WriteContext = {},
): void {
  resources.delete(pods, namespace, name, (eviction.deleteOptions ?? {}) as DeleteOptions, context)
}
