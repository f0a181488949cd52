/**
 * What holds for a write of any kind: which parts a subresource touches, which fields are the cluster's own, what counts
 * as a change, how long a deletion waits. Pure.
 * Sources: Kubernetes API conventions (metadata.generation, status); documentation, "Termination of Pods".
 */
import type { KubeObject } from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'

export const hasGeneration = (kind: Kind): boolean =>
  kind.status || kind.custom === true || kind.storage === 'networkpolicies.networking.k8s.io'

export const holdsNamespace = (kind: Kind, object: KubeObject): boolean =>
  kind.storage === 'namespaces' && (object.spec?.finalizers?.length ?? 0) > 0

/** Seconds that a pod gets to end; 0 when nothing runs. */
export function graceOf(pod: KubeObject, requested: number | undefined): number {
  if (!pod.spec?.nodeName) return 0
  if (pod.status?.phase === 'Failed' || pod.status?.phase === 'Succeeded') return 0
  return Math.max(0, requested ?? pod.spec.terminationGracePeriodSeconds ?? 30)
}

/** What counts for metadata.generation. */
export function contentOf(kind: Kind, object: KubeObject): unknown {
  const { metadata, status, apiVersion, ...content } = object
  return kind.status ? content : { ...content, status }
}

export function withoutTimes(object: KubeObject): unknown {
  const managed = (object.metadata.managedFields ?? []) as { time?: string }[]
  return {
    ...object,
    metadata: { ...object.metadata, managedFields: managed.map(({ time, ...entry }) => entry) },
  }
}

/** A write through a subresource touches its part alone; a plain write leaves status alone. */
export function mergeForSubresource(
  kind: Kind,
  old: KubeObject,
  object: KubeObject,
  subresource: string | undefined,
): KubeObject {
  if (subresource === 'status') {
    const { metadata } = object
    const next: KubeObject = { ...old, metadata: { ...old.metadata } }
    // As in Kubernetes, node agents may label and annotate in the same write.
    if (kind.storage === 'nodes' || kind.storage === 'pods') {
      if (metadata.labels) next.metadata.labels = metadata.labels
      if (metadata.annotations) next.metadata.annotations = metadata.annotations
    }
    if (object.status === undefined) delete next.status
    else next.status = object.status
    return next
  }
  if (subresource === 'finalize') return { ...old, metadata: { ...old.metadata }, spec: object.spec ?? {} }
  const next: KubeObject = { ...object, metadata: { ...object.metadata } }
  if (kind.storage === 'namespaces' && old.spec) next.spec = old.spec
  if (kind.status) {
    if (old.status === undefined) delete next.status
    else next.status = old.status
  }
  return next
}

export function keepSystemFields(next: KubeObject, old: KubeObject): void {
  const metadata = next.metadata as Record<string, unknown>
  for (const key of [
    'uid',
    'resourceVersion',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'generation',
    'generateName',
  ] as const) {
    if (old.metadata[key] === undefined) delete metadata[key]
    else metadata[key] = old.metadata[key]
  }
  delete metadata.selfLink
  next.apiVersion = old.apiVersion!
  next.kind = old.kind!
}
