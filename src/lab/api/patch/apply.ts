/**
 * Server-side apply: merges an applied configuration into the live object, finds conflicts with other managers,
 * and removes what its manager applied before and no longer does.
 * Sources: Kubernetes documentation, "Server-Side Apply".
 */
import { isDeepStrictEqual } from 'node:util'
import { ApiError, type FieldProblem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Kind } from '../kinds/kind.ts'
import { childOf, isObject, type Schema, type SchemaSource } from '../schema/schema.ts'
import {
  type FieldSet,
  fieldsOf,
  formatFieldPath,
  isEmpty,
  itemKey,
  merged,
  ownershipOf,
  sharedLeaves,
  subtract,
  union,
  valueKey,
} from './fields.ts'
import { type Author, entriesOf, isApplier, type ManagedEntry, ownedPart, trackApply } from './managed-fields.ts'

/** What the live object becomes. Throws ApiError 409 naming every conflict and its manager. */
export function applyConfiguration(
  source: SchemaSource,
  kind: Kind,
  live: KubeObject,
  config: KubeObject,
  author: Author,
  force: boolean,
): KubeObject {
  const applied = fieldsOf(source, kind.schema, ownedPart(config))
  const entries = entriesOf(live)
  const before = entries.find((entry) => isApplier(entry, author))
  const others = entries.filter((entry) => entry !== before)
  const remaining = settleConflicts(source, kind, live, config, applied, others, force)
  const next = mergeValue(source, kind.schema, live, config) as KubeObject
  next.metadata = {
    ...live.metadata,
    ...(mergeValue(source, childOf(source, kind.schema, 'metadata'), live.metadata, config.metadata) as object),
  }
  if (before) {
    const kept = remaining.reduce((all, entry) => union(all, entry.fieldsV1), applied)
    const gone = subtract(before.fieldsV1, kept)
    if (!isEmpty(gone)) removeFields(source, kind.schema, next as unknown as Record<string, unknown>, gone, kept)
  }
  trackApply(kind, next, remaining, author, applied)
  return next
}

/** The other managers' entries, without what was forced from them. */
function settleConflicts(
  source: SchemaSource,
  kind: Kind,
  live: KubeObject,
  config: KubeObject,
  applied: FieldSet,
  others: readonly ManagedEntry[],
  force: boolean,
): ManagedEntry[] {
  const causes: FieldProblem[] = []
  const remaining = others.map((entry) => {
    let fields = entry.fieldsV1
    for (const path of sharedLeaves(applied, entry.fieldsV1)) {
      const have = valueAt(source, kind.schema, live, path)
      const want = valueAt(source, kind.schema, config, path)
      if (isDeepStrictEqual(have, want)) continue
      if (force) fields = subtract(fields, treeOf(path))
      else {
        const through = entry.subresource ? ` with subresource "${entry.subresource}"` : ''
        causes.push({
          reason: 'FieldManagerConflict',
          field: formatFieldPath(path),
          message: `conflict with "${entry.manager}"${through} using ${entry.apiVersion}`,
        })
      }
    }
    return fields === entry.fieldsV1 ? entry : { ...entry, fieldsV1: fields }
  })
  if (causes.length) {
    const lines = causes.map((cause) => `${cause.message}: ${cause.field}`)
    const text = lines.length === 1 ? lines[0] : `conflicts:\n- ${lines.join('\n- ')}`
    throw new ApiError(
      409,
      'Conflict',
      `Apply failed with ${causes.length} conflict${causes.length > 1 ? 's' : ''}: ${text}`,
      {
        causes,
      },
    )
  }
  return remaining
}

const treeOf = (path: readonly string[]): FieldSet => path.reduceRight<FieldSet>((inner, key) => ({ [key]: inner }), {})

function valueAt(source: SchemaSource, given: Schema | undefined, root: unknown, path: readonly string[]): unknown {
  let value = root
  let schema = merged(source, given)
  for (const key of path) {
    if (key.startsWith('f:')) {
      if (!isObject(value)) return undefined
      value = value[key.slice(2)]
      schema = merged(source, childOf(source, schema, key.slice(2)))
    } else if (!Array.isArray(value)) return undefined
    else {
      const list = schema
      value = key.startsWith('v:')
        ? value.find((item) => valueKey(item) === key)
        : value.find((item) => isObject(item) && itemKey(list, item) === key)
      schema = merged(source, schema?.items)
    }
  }
  return value
}

/** Live value with the configuration laid over it. */
function mergeValue(source: SchemaSource, given: Schema | undefined, live: unknown, config: unknown): unknown {
  if (config === undefined) return live
  const schema = merged(source, given)
  const ownership = ownershipOf(schema, config)
  if (live === undefined || ownership === 'whole' || ownership !== ownershipOf(schema, live))
    return structuredClone(config)
  if (ownership === 'fields') {
    const result: Record<string, unknown> = { ...(live as object) }
    for (const [key, value] of Object.entries(config as object))
      result[key] = mergeValue(source, childOf(source, schema, key), result[key], value)
    return result
  }
  const keyOf = (item: unknown) =>
    ownership === 'set' ? valueKey(item) : itemKey(schema, item as Record<string, unknown>)
  const result = [...(live as unknown[])]
  const index = new Map(result.map((item, n) => [keyOf(item), n]))
  for (const item of config as unknown[]) {
    const at = index.get(keyOf(item))
    if (at === undefined) result.push(structuredClone(item))
    else result[at] = mergeValue(source, schema?.items, result[at], item)
  }
  return inAppliedOrder(result, (config as unknown[]).map(keyOf), keyOf)
}

/** Applied items follow the order of the configuration; others keep their places. */
function inAppliedOrder(list: unknown[], order: readonly string[], keyOf: (item: unknown) => string): unknown[] {
  const place = new Map(order.map((key, n) => [key, n]))
  const named = list
    .filter((item) => place.has(keyOf(item)))
    .sort((a, b) => place.get(keyOf(a))! - place.get(keyOf(b))!)
  let next = 0
  return list.map((item) => (place.has(keyOf(item)) ? named[next++] : item))
}

/** Removes what `gone` names, except what `kept` still owns. Containers are copied before they change. */
function removeFields(
  source: SchemaSource,
  given: Schema | undefined,
  object: Record<string, unknown>,
  gone: FieldSet,
  kept: FieldSet,
): void {
  const schema = merged(source, given)
  for (const [key, part] of Object.entries(gone)) {
    if (!key.startsWith('f:')) continue
    const name = key.slice(2)
    const value = object[name]
    if (value === undefined) continue
    const child = merged(source, childOf(source, schema, name))
    if (isEmpty(part)) {
      if (!kept[key]) delete object[name]
    } else if (isObject(value)) {
      const copy = { ...value }
      removeFields(source, child, copy, part, kept[key] ?? {})
      if (Object.keys(copy).length === 0 && !kept[key]) delete object[name]
      else object[name] = copy
    } else if (Array.isArray(value)) {
      const list = removeItems(source, child, value, part, kept[key] ?? {})
      if (list.length === 0 && !kept[key]) delete object[name]
      else object[name] = list
    }
  }
}

function removeItems(
  source: SchemaSource,
  schema: Schema | undefined,
  list: unknown[],
  gone: FieldSet,
  kept: FieldSet,
): unknown[] {
  return list.flatMap((item) => {
    const key = isObject(item) && schema?.['x-kubernetes-list-type'] === 'map' ? itemKey(schema, item) : valueKey(item)
    const part = gone[key]
    if (!part) return [item]
    if (!kept[key]) return []
    if (!isObject(item)) return [item]
    const copy = { ...item }
    removeFields(source, schema?.items, copy, part, kept[key])
    return [copy]
  })
}
