/**
 * The one form of schema that everything works on: OpenAPI v3 as CustomResourceDefinitions write it, with
 * Kubernetes' extensions. Built-in kinds are brought into it by models.ts; their references name components.
 * Sources: Kubernetes API reference, JSONSchemaProps (apiextensions.k8s.io/v1).
 */

/** A rule over the value at its place of a schema, in CEL. */
export interface ValidationRule {
  rule: string
  message?: string
  messageExpression?: string
  reason?: 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldValueRequired' | 'FieldValueDuplicate'
  /** Which field is named, below the rule's place: `.blockSize`. */
  fieldPath?: string
  optionalOldSelf?: boolean
}

export interface Schema {
  $ref?: string
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean'
  format?: string
  description?: string
  properties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  items?: Schema
  required?: string[]
  default?: unknown
  nullable?: boolean
  enum?: unknown[]
  minimum?: number
  maximum?: number
  exclusiveMinimum?: boolean
  exclusiveMaximum?: boolean
  multipleOf?: number
  minLength?: number
  maxLength?: number
  pattern?: string
  minItems?: number
  maxItems?: number
  uniqueItems?: boolean
  minProperties?: number
  maxProperties?: number
  allOf?: Schema[]
  anyOf?: Schema[]
  oneOf?: Schema[]
  not?: Schema
  'x-kubernetes-int-or-string'?: boolean
  'x-kubernetes-preserve-unknown-fields'?: boolean
  'x-kubernetes-embedded-resource'?: boolean
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map'
  'x-kubernetes-list-map-keys'?: string[]
  'x-kubernetes-map-type'?: 'atomic' | 'granular'
  'x-kubernetes-patch-merge-key'?: string
  'x-kubernetes-patch-strategy'?: string
  'x-kubernetes-validations'?: ValidationRule[]
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[]
}

/** Component name → schema; fills itself on demand. */
export interface SchemaSource {
  component(name: string): Schema | undefined
}

export const refPrefix = '#/components/schemas/'

/** Follows `$ref` (also inside the one-element `allOf` that carries a description beside it). */
export function resolve(source: SchemaSource, schema: Schema | undefined): Schema | undefined {
  let found = schema
  for (let depth = 0; found && depth < 8; depth++) {
    const ref = found.$ref ?? (found.allOf?.length === 1 && !found.properties ? found.allOf[0]?.$ref : undefined)
    if (!ref) return found
    found = source.component(ref.slice(refPrefix.length))
  }
  return found
}

/** The schema of a property or map entry of an object, without following its reference. */
export function childOf(source: SchemaSource, schema: Schema | undefined, key: string): Schema | undefined {
  const parent = resolve(source, schema)
  const property = parent?.properties?.[key]
  if (property) return property
  return typeof parent?.additionalProperties === 'object' ? parent.additionalProperties : undefined
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
