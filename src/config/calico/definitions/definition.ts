/**
 * CustomResourceDefinitions as data: what Calico's objects of crd.projectcalico.org/v1 have in common, and short words for
 * their schemas.
 *
 * Sources: Kubernetes API reference, apiextensions.k8s.io/v1; Calico libcalico-go/config/crd and api/config/crd (names,
 * short names, printed columns).
 */

export interface PropertySchema {
  readonly [key: string]: unknown
}

export interface DefinitionObject {
  readonly apiVersion: 'apiextensions.k8s.io/v1'
  readonly kind: 'CustomResourceDefinition'
  readonly metadata: { readonly name: string; readonly [field: string]: unknown }
  readonly spec: { readonly [field: string]: unknown }
}

interface Column {
  readonly name: string
  readonly type: 'string' | 'integer' | 'boolean' | 'date'
  readonly jsonPath: string
  readonly description?: string
}

interface Names {
  readonly kind: string
  readonly plural: string
  readonly shortNames?: readonly string[]
}

interface Shape {
  readonly description: string
  readonly spec: PropertySchema
  /** Present: the kind has the subresource. */
  readonly status?: PropertySchema
  readonly columns?: readonly Column[]
  /** Rules over the whole object. */
  readonly rules?: readonly Rule[]
}

/** A rule in CEL, and what is said when it is false. */
export interface Rule {
  readonly rule: string
  readonly message: string
  readonly reason?: 'FieldValueInvalid' | 'FieldValueForbidden'
  /** The field that is named, below the one that has the rule. */
  readonly fieldPath?: string
}

export const CALICO_GROUP = 'crd.projectcalico.org'

export const define = ({ kind, plural, shortNames }: Names, shape: Shape): DefinitionObject => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${plural}.${CALICO_GROUP}` },
  spec: {
    group: CALICO_GROUP,
    names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase(), ...(shortNames && { shortNames }) },
    scope: 'Cluster',
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        ...(shape.columns && { additionalPrinterColumns: shape.columns }),
        schema: {
          openAPIV3Schema: {
            type: 'object',
            description: shape.description,
            required: ['spec'],
            properties: {
              apiVersion: { type: 'string' },
              kind: { type: 'string' },
              metadata: { type: 'object' },
              spec: shape.spec,
              ...(shape.status && { status: shape.status }),
            },
            ...rulesOf(shape.rules),
          },
        },
        ...(shape.status && { subresources: { status: {} } }),
      },
    ],
  },
})

export const rulesOf = (rules: readonly Rule[] | undefined): PropertySchema =>
  rules ? { 'x-kubernetes-validations': rules.map((rule) => ({ reason: 'FieldValueInvalid', ...rule })) } : {}

export const ageColumn: Column = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' }

const typed =
  (type: string) =>
  (description: string, more: PropertySchema = {}): PropertySchema => ({ type, description, ...more })

export const text = typed('string')
export const integer = typed('integer')
export const flag = typed('boolean')
export const oneOf = (choices: readonly string[], description: string, more: PropertySchema = {}): PropertySchema =>
  text(description, { enum: choices, ...more })
export const listOf = (items: PropertySchema, description: string, more: PropertySchema = {}): PropertySchema => ({
  type: 'array',
  description,
  items,
  ...more,
})
export const mapOf = (values: PropertySchema, description: string): PropertySchema => ({
  type: 'object',
  description,
  additionalProperties: values,
})
export const object = (
  description: string,
  properties: Readonly<Record<string, PropertySchema>>,
  more: PropertySchema = {},
): PropertySchema => ({ type: 'object', description, properties, ...more })
