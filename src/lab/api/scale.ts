/**
 * The scale subresource: replicas of any kind that has them, in one shape.
 * Sources: Kubernetes API reference, Scale v1 autoscaling.
 */
import { invalid, notFound, problem } from './api-error.ts'
import type { KubeObject } from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'
import { formatSelector } from './selectors.ts'

const valueAt = (object: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], object)

export function scaleOf(kind: Kind, object: KubeObject): KubeObject {
  const { scale } = kind
  if (!scale) throw notFound(kind, `${object.metadata.name}/scale`)
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata
  const selector = scale.selector ? valueAt(object, scale.selector) : undefined
  const text = typeof selector === 'string' ? selector : selector ? formatSelector(selector as object) : undefined
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp } as KubeObject['metadata'],
    spec: { replicas: Number(valueAt(object, scale.specReplicas) ?? 0) },
    status: { replicas: Number(valueAt(object, scale.statusReplicas) ?? 0), ...(text && { selector: text }) },
  }
}

/** The merge patch that gives an object the replicas of a Scale. Throws 422. */
export function patchOfScale(kind: Kind, scale: KubeObject): Record<string, unknown> {
  const replicas: unknown = scale.spec?.replicas ?? 0
  const name = scale.metadata?.name ?? ''
  if (!Number.isInteger(replicas) || (replicas as number) < 0)
    throw invalid({ group: 'autoscaling', plural: 'scales', kind: 'Scale' }, name, [
      problem.invalid('spec.replicas', replicas, 'must be greater than or equal to 0'),
    ])
  const patch = kind
    .scale!.specReplicas.split('.')
    .reduceRight<unknown>((inner, key) => ({ [key]: inner }), replicas) as Record<string, unknown>
  const { resourceVersion } = scale.metadata ?? {}
  return resourceVersion ? { ...patch, metadata: { resourceVersion } } : patch
}
