/**
 * Brings what a client sent into the shape of its schema: wrong types are errors, unknown fields are dropped and
 * named, nulls are dropped, defaults are filled in. Built-in kinds and custom resources go the same way; the
 * value constraints of a CustomResourceDefinition (pattern, enum, …) are checked by constraints.ts.
 * Sources: Kubernetes API reference; apiextensions.k8s.io/v1, "structural schemas", "pruning", "defaulting".
 */
import { isObject, resolve, type Schema, type SchemaSource } from './schema.ts'

export interface ShapeReport {
  /** Paths of fields that the schema does not have: `spec.containers[0].imagee`. */
  readonly unknown: string[]
  /** Values of the wrong JSON type. */
  readonly mistyped: { readonly path: string; readonly expected: string; readonly value: unknown }[]
}

interface Walk {
  readonly source: SchemaSource
  readonly report: ShapeReport
  /** An applied configuration says only what its author said: nothing is filled in. */
  readonly defaults: boolean
  readonly depth: number
}

const quantityPattern = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?$/

/** A copy of `value` with the schema's shape. What does not fit is left out and reported. */
export function shape(
  source: SchemaSource,
  schema: Schema,
  value: unknown,
  report: ShapeReport,
  defaults = true,
): unknown {
  return shaped({ source, report, defaults, depth: 0 }, schema, value, '')
}

function shaped(walk: Walk, given: Schema | undefined, value: unknown, path: string): unknown {
  const schema = resolve(walk.source, given)
  if (!schema || walk.depth > 64) return own(value)
  if (value === null) {
    if (schema.nullable) return null
    return schema.default === undefined || !walk.defaults ? undefined : structuredClone(schema.default)
  }
  if (value === undefined) return undefined
  const wrong = (expected: string): undefined => {
    walk.report.mistyped.push({ path, expected, value })
    return undefined
  }
  if (schema['x-kubernetes-int-or-string'])
    return typeof value === 'string' || isInteger(value) ? value : wrong('integer or string')
  switch (schema.type) {
    case 'string':
      if (typeof value === 'string') {
        if (schema.format === 'quantity' && !quantityPattern.test(value)) return wrong('quantity')
        if (schema.format === 'date-time' && Number.isNaN(Date.parse(value))) return wrong('date-time')
        return value
      }
      return schema.format === 'quantity' && typeof value === 'number' ? String(value) : wrong('string')
    case 'integer':
      return isInteger(value) ? value : wrong('integer')
    case 'number':
      return typeof value === 'number' || typeof value === 'bigint' ? value : wrong('number')
    case 'boolean':
      return typeof value === 'boolean' ? value : wrong('boolean')
    case 'array': {
      if (!Array.isArray(value)) return wrong('array')
      const items: unknown[] = []
      const inner = { ...walk, depth: walk.depth + 1 }
      for (let n = 0; n < value.length; n++) {
        const item = shaped(inner, schema.items, value[n], `${path}[${n}]`)
        if (item !== undefined) items.push(item)
      }
      return items
    }
    default:
      if (schema.type === 'object' || schema.properties || schema.additionalProperties)
        return isObject(value) ? shapedObject(walk, schema, value, path) : wrong('object')
      return own(value)
  }
}

/** int64, as in Kubernetes: what a double cannot hold comes as a bigint. */
const isInteger = (value: unknown): boolean =>
  typeof value === 'bigint' ? BigInt.asIntN(64, value) === value : Number.isSafeInteger(value)

/** What is taken as it is must not stay shared with its sender. */
const own = (value: unknown): unknown => (typeof value === 'object' && value !== null ? structuredClone(value) : value)

function shapedObject(walk: Walk, schema: Schema, value: Record<string, unknown>, path: string): unknown {
  const inner = { ...walk, depth: walk.depth + 1 }
  const result: Record<string, unknown> = {}
  const extra = schema.additionalProperties
  const keepUnknown =
    schema['x-kubernetes-preserve-unknown-fields'] === true || extra === true || (!schema.properties && !extra)
  for (const [key, member] of Object.entries(value)) {
    const at = path ? `${path}.${key}` : key
    const known = schema.properties && Object.hasOwn(schema.properties, key) ? schema.properties[key] : undefined
    if (key === '__proto__') continue
    let kept: unknown
    if (known) kept = shaped(inner, known, member, at)
    else if (typeof extra === 'object') kept = shaped(inner, extra, member, at)
    else if (keepUnknown || isEmbeddedField(schema, key)) kept = own(member)
    else {
      walk.report.unknown.push(at)
      continue
    }
    if (kept !== undefined) result[key] = kept
  }
  if (walk.defaults) fillDefaults(inner, schema, result, path)
  return result
}

const isEmbeddedField = (schema: Schema, key: string): boolean =>
  schema['x-kubernetes-embedded-resource'] === true && (key === 'apiVersion' || key === 'kind' || key === 'metadata')

const defaulted = new WeakMap<Schema, readonly (readonly [string, Schema])[]>()

/** The properties of a schema that have a default. */
function defaultedOf(schema: Schema): readonly (readonly [string, Schema])[] {
  let found = defaulted.get(schema)
  if (!found) {
    found = Object.entries(schema.properties ?? {}).filter(([, property]) => property.default !== undefined)
    defaulted.set(schema, found)
  }
  return found
}

function fillDefaults(walk: Walk, schema: Schema, object: Record<string, unknown>, path: string): void {
  for (const [key, property] of defaultedOf(schema))
    if (!Object.hasOwn(object, key))
      object[key] = shaped(walk, property, structuredClone(property.default), path ? `${path}.${key}` : key)
}

/** The top level of every object is open for apiVersion, kind and metadata even if a schema leaves them out. */
export function withMetadata(schema: Schema, metadata: Schema): Schema {
  return {
    ...schema,
    type: 'object',
    properties: { ...schema.properties, apiVersion: { type: 'string' }, kind: { type: 'string' }, metadata },
  }
}
