/**
 * Tables: what `kubectl get` prints.
 * Sources: Kubernetes documentation, "Kubernetes API Concepts", "Receiving resources as Tables"; meta/v1 Table.
 */
import type { KubeObject } from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'

export type IncludeObject = 'Metadata' | 'Object' | 'None'

export interface Table {
  readonly kind: 'Table'
  readonly apiVersion: string
  readonly metadata: Record<string, unknown>
  readonly columnDefinitions?: readonly unknown[]
  readonly rows: readonly unknown[]
}

const definitions = (kind: Kind): unknown[] => [
  {
    name: 'Name',
    type: 'string',
    format: 'name',
    description: 'Name of the object, unique in its namespace.',
    priority: 0,
  },
  ...kind.columns.map(({ name, type, format, description, priority }) => ({
    name,
    type,
    format: format ?? '',
    description,
    priority,
  })),
]

/** `version`: of meta.k8s.io, `v1` or `v1beta1`. `withColumns`: watches send the columns once. */
export function tableOf(
  kind: Kind,
  objects: readonly KubeObject[],
  metadata: Record<string, unknown>,
  version: string,
  include: IncludeObject,
  withColumns = true,
): Table {
  const now = Date.now()
  const rows = objects.map((object) => ({
    cells: [object.metadata.name ?? '', ...kind.columns.map((column) => column.cell(object, now))],
    ...(include !== 'None' && {
      object:
        include === 'Object'
          ? object
          : { kind: 'PartialObjectMetadata', apiVersion: `meta.k8s.io/${version}`, metadata: object.metadata },
    }),
  }))
  return {
    kind: 'Table',
    apiVersion: `meta.k8s.io/${version}`,
    metadata,
    ...(withColumns && { columnDefinitions: definitions(kind) }),
    rows,
  }
}
