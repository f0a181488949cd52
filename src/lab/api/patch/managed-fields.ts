/**
 * Who owns which field: keeps metadata.managedFields in step with every write.
 * Sources: Kubernetes documentation, "Server-Side Apply", "Field management".
 */
import type { KubeObject } from '../interfaces.ts'
import { apiVersionOf, type Kind } from '../kinds/kind.ts'
import type { SchemaSource } from '../schema/schema.ts'
import { changedFields, type FieldSet, fieldsOf, isEmpty, subtract, union } from './fields.ts'

export interface ManagedEntry {
  manager: string
  operation: 'Apply' | 'Update'
  apiVersion: string
  time?: string
  fieldsType: 'FieldsV1'
  fieldsV1: FieldSet
  subresource?: string
}

/** Most Update entries that an object keeps; older ones are joined. */
const entryLimit = 10

/** The part of an object that fields are tracked of: without identity and what the server itself sets. */
export function ownedPart(object: KubeObject): Record<string, unknown> {
  const { apiVersion, kind, metadata, ...rest } = object
  const {
    name,
    namespace,
    uid,
    resourceVersion,
    generation,
    creationTimestamp,
    deletionTimestamp,
    deletionGracePeriodSeconds,
    managedFields,
    selfLink,
    ...kept
  } = metadata as Record<string, unknown>
  return Object.keys(kept).length ? { ...rest, metadata: kept } : rest
}

export const entriesOf = (object: KubeObject | undefined): ManagedEntry[] =>
  ((object?.metadata.managedFields ?? []) as ManagedEntry[]).filter((entry) => entry.fieldsV1)

const stamp = (): string => new Date().toISOString().replace(/\.\d+Z$/, 'Z')

export interface Author {
  readonly manager: string
  readonly subresource?: string | undefined
}

const isSame = (
  entry: ManagedEntry,
  author: Author,
  operation: ManagedEntry['operation'],
  apiVersion: string,
): boolean =>
  entry.manager === author.manager &&
  entry.operation === operation &&
  (entry.subresource ?? '') === (author.subresource ?? '') &&
  (operation === 'Apply' || entry.apiVersion === apiVersion)

function entryFor(kind: Kind, author: Author, operation: ManagedEntry['operation'], fields: FieldSet): ManagedEntry {
  return {
    manager: author.manager,
    operation,
    apiVersion: apiVersionOf(kind),
    time: stamp(),
    fieldsType: 'FieldsV1',
    fieldsV1: fields,
    ...(author.subresource && { subresource: author.subresource }),
  }
}

const withoutEmpty = (entries: readonly ManagedEntry[]): ManagedEntry[] =>
  entries.filter((entry) => !isEmpty(entry.fieldsV1))

/** After a create, update or patch: what changed is the author's, and nobody else's any more. */
export function trackUpdate(
  source: SchemaSource,
  kind: Kind,
  old: KubeObject | undefined,
  next: KubeObject,
  author: Author,
): void {
  const entries = entriesOf(old)
  const changed = changedFields(source, kind.schema, old ? ownedPart(old) : undefined, ownedPart(next))
  const present = fieldsOf(source, kind.schema, ownedPart(next))
  const kept = entries.map((entry) => ({
    ...entry,
    fieldsV1: intersect(changed ? subtract(entry.fieldsV1, changed) : entry.fieldsV1, present),
  }))
  if (changed) {
    const apiVersion = apiVersionOf(kind)
    const own = entries.findIndex((entry) => isSame(entry, author, 'Update', apiVersion))
    if (own === -1) kept.push(entryFor(kind, author, 'Update', changed))
    else kept[own] = entryFor(kind, author, 'Update', union(kept[own]!.fieldsV1, changed))
  }
  next.metadata.managedFields = capped(withoutEmpty(kept))
  if (next.metadata.managedFields.length === 0) delete next.metadata.managedFields
}

function capped(entries: ManagedEntry[]): ManagedEntry[] {
  const updates = entries.filter((entry) => entry.operation === 'Update' && !entry.subresource)
  if (updates.length <= entryLimit) return entries
  const [first, second] = updates as [ManagedEntry, ManagedEntry]
  const joined = { ...second, manager: 'ancient-changes', fieldsV1: union(first.fieldsV1, second.fieldsV1) }
  return entries.flatMap((entry) => (entry === first ? [] : entry === second ? [joined] : [entry]))
}

/** What of `owned` still exists. */
function intersect(owned: FieldSet, present: FieldSet): FieldSet {
  const result: FieldSet = {}
  for (const [key, part] of Object.entries(owned)) {
    if (key === '.') {
      result[key] = part
      continue
    }
    const there = present[key]
    if (!there) continue
    if (isEmpty(part) || isEmpty(there)) result[key] = part
    else {
      const rest = intersect(part, there)
      if (!isEmpty(rest)) result[key] = rest
    }
  }
  return result
}

/** After a server-side apply. `others`: the other entries, already without what was taken from them. */
export function trackApply(
  kind: Kind,
  next: KubeObject,
  others: readonly ManagedEntry[],
  author: Author,
  applied: FieldSet,
): void {
  const entries = withoutEmpty([...others, entryFor(kind, author, 'Apply', applied)])
  if (entries.length) next.metadata.managedFields = entries
  else delete next.metadata.managedFields
}

export const isApplier = (entry: ManagedEntry, author: Author): boolean => isSame(entry, author, 'Apply', '')
