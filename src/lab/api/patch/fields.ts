/**
 * Sets of fields, as managedFields keep them (FieldsV1): a tree whose keys are `f:name` for a field, `k:{…}` for
 * an item of a list map, `v:…` for an item of a set, and `.` for the thing itself.
 * Sources: Kubernetes documentation, "Server-Side Apply"; meta/v1 FieldsV1.
 */

import { isDeepStrictEqual } from 'node:util'
import { formatJson } from '../../../bytes/json.ts'
import { childOf, isObject, resolve, type Schema, type SchemaSource } from '../schema/schema.ts'

export interface FieldSet {
  [key: string]: FieldSet
}

/** How the value at a schema is owned: as a whole, or by its parts. */
export type Ownership = 'whole' | 'fields' | 'map' | 'set'

export function ownershipOf(schema: Schema | undefined, value: unknown): Ownership {
  if (isObject(value)) {
    if (schema?.['x-kubernetes-map-type'] === 'atomic' || schema?.['x-kubernetes-int-or-string']) return 'whole'
    return 'fields'
  }
  if (!Array.isArray(value)) return 'whole'
  const type = schema?.['x-kubernetes-list-type']
  if (type === 'set') return 'set'
  return type === 'map' && value.every(isObject) ? 'map' : 'whole'
}

/** Both the referring schema's own marks and those of what it refers to. */
export function merged(source: SchemaSource, schema: Schema | undefined): Schema | undefined {
  const target = resolve(source, schema)
  return target && schema && target !== schema ? { ...target, ...pickMarks(schema) } : target
}
const pickMarks = (schema: Schema): Partial<Schema> => {
  const { 'x-kubernetes-map-type': mapType, 'x-kubernetes-patch-strategy': strategy } = schema
  return {
    ...(mapType && { 'x-kubernetes-map-type': mapType }),
    ...(strategy && { 'x-kubernetes-patch-strategy': strategy }),
  }
}

/** `k:{"name":"web"}` of an item. Keys with defaults that are left out count with their default. */
export function itemKey(schema: Schema | undefined, item: Record<string, unknown>): string {
  const keys = [...(schema?.['x-kubernetes-list-map-keys'] ?? [])].sort()
  const entries = keys
    .map((key) => [key, item[key] ?? (key === 'protocol' ? 'TCP' : undefined)] as const)
    .filter(([, value]) => value !== undefined)
  return `k:${formatJson(Object.fromEntries(entries))}`
}

export const valueKey = (value: unknown): string => `v:${formatJson(value)}`

/** The fields of a value. `given`: its schema. */
export function fieldsOf(source: SchemaSource, given: Schema | undefined, value: unknown): FieldSet {
  const schema = merged(source, given)
  const set: FieldSet = {}
  switch (ownershipOf(schema, value)) {
    case 'fields':
      for (const [key, member] of Object.entries(value as object))
        if (member !== undefined) set[`f:${key}`] = fieldsOf(source, childOf(source, schema, key), member)
      break
    case 'map':
      for (const item of value as Record<string, unknown>[])
        set[itemKey(schema, item)] = { '.': {}, ...fieldsOf(source, schema?.items, item) }
      break
    case 'set':
      for (const item of value as unknown[]) set[valueKey(item)] = {}
      break
  }
  return set
}

/** The fields of `next` that `old` has differently or not at all. Undefined: none. */
export function changedFields(
  source: SchemaSource,
  given: Schema | undefined,
  old: unknown,
  next: unknown,
): FieldSet | undefined {
  if (old === undefined) return fieldsOf(source, given, next)
  if (isDeepStrictEqual(old, next)) return undefined
  const schema = merged(source, given)
  const ownership = ownershipOf(schema, next)
  if (ownership === 'whole' || ownership !== ownershipOf(schema, old)) return fieldsOf(source, given, next)
  const set: FieldSet = {}
  if (ownership === 'fields')
    for (const [key, member] of Object.entries(next as object)) {
      const part = changedFields(source, childOf(source, schema, key), (old as Record<string, unknown>)[key], member)
      if (part) set[`f:${key}`] = part
    }
  if (ownership === 'map') {
    const before = new Map((old as Record<string, unknown>[]).map((item) => [itemKey(schema, item), item]))
    for (const item of next as Record<string, unknown>[]) {
      const key = itemKey(schema, item)
      const previous = before.get(key)
      const part = changedFields(source, schema?.items, previous, item)
      if (part) set[key] = previous ? part : { '.': {}, ...part }
    }
  }
  if (ownership === 'set') {
    const before = new Set((old as unknown[]).map(valueKey))
    for (const item of next as unknown[]) if (!before.has(valueKey(item))) set[valueKey(item)] = {}
  }
  return Object.keys(set).length ? set : undefined
}

export const isEmpty = (set: FieldSet): boolean => Object.keys(set).length === 0

export function union(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = { ...a }
  for (const [key, part] of Object.entries(b)) result[key] = result[key] ? union(result[key], part) : part
  return result
}

/** `a` without what `b` owns. A leaf of `b` takes the whole subtree. */
export function subtract(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = {}
  for (const [key, part] of Object.entries(a)) {
    const other = b[key]
    if (!other) result[key] = part
    else if (!isEmpty(other) && !isEmpty(part)) {
      const rest = subtract(part, other)
      if (!isEmpty(rest)) result[key] = rest
    } else if (!isEmpty(other) && isEmpty(part)) result[key] = part
  }
  return result
}

/** Leaves that both have, as lists of keys. An empty map against one with fields shares nothing. */
export function sharedLeaves(a: FieldSet, b: FieldSet, path: readonly string[] = []): string[][] {
  const found: string[][] = []
  for (const [key, part] of Object.entries(a)) {
    const other = b[key]
    if (!other || key === '.') continue
    const at = [...path, key]
    if (isEmpty(part) && isEmpty(other)) found.push(at)
    else found.push(...sharedLeaves(part, other, at))
  }
  return found
}

/** Everything of `set` and the leaves below, as lists of keys. */
export function leavesOf(set: FieldSet, path: readonly string[] = []): string[][] {
  const keys = Object.keys(set)
  if (keys.length === 0) return path.length ? [[...path]] : []
  return keys.flatMap((key) => (key === '.' ? [[...path, '.']] : leavesOf(set[key]!, [...path, key])))
}

/** `.spec.template.spec.containers[name="web"].image`, as conflicts name it. */
export function formatFieldPath(path: readonly string[]): string {
  return path
    .map((key) => {
      if (key.startsWith('f:')) return `.${key.slice(2)}`
      if (key.startsWith('v:')) return `[=${key.slice(2)}]`
      if (!key.startsWith('k:')) return ''
      const entries = Object.entries(JSON.parse(key.slice(2)) as Record<string, unknown>)
      return `[${entries.map(([name, value]) => `${name}=${formatJson(value)}`).join(',')}]`
    })
    .join('')
}
