/**
 * CustomResourceDefinitions, and the kinds that they make. A definition is served as soon as it is written.
 * Sources: Kubernetes API reference, apiextensions.k8s.io/v1.
 */
import { type FieldProblem, problem } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import { evaluateJsonPath, type JsonPath, parseJsonPath } from '../json-path.ts'
import { withMetadata } from '../schema/check.ts'
import { ruleFaults } from '../schema/rules.ts'
import type { Schema } from '../schema/schema.ts'
import { ageColumn, ageOf, type Cell, type Column, createdColumn, defineKind, type Kind, resourceName } from './kind.ts'
import { labelPattern, labelText, namePattern, nameText } from './names.ts'

// biome-ignore lint/suspicious/noExplicitAny: shape is checked against the schema before it comes here
type Json = any

export const definitionStorage = 'customresourcedefinitions.apiextensions.k8s.io'

function defaultDefinition({ spec }: KubeObject): void {
  if (!spec?.names) return
  spec.names.singular ||= String(spec.names.kind ?? '').toLowerCase()
  spec.names.listKind ||= `${spec.names.kind}List`
  spec.conversion ??= { strategy: 'None' }
}

function establishDefinition(definition: KubeObject, old: KubeObject | undefined): void {
  const { spec } = definition
  if (!spec?.names) return
  const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
  const kept = old?.status?.conditions
  definition.status = {
    ...definition.status,
    conditions: kept ?? [
      {
        type: 'NamesAccepted',
        status: 'True',
        reason: 'NoConflicts',
        message: 'no conflicts found',
        lastTransitionTime: now,
      },
      {
        type: 'Established',
        status: 'True',
        reason: 'InitialNamesAccepted',
        message: 'the initial names have been accepted',
        lastTransitionTime: now,
      },
    ],
    acceptedNames: structuredClone(spec.names),
    storedVersions: [
      ...new Set([
        ...(old?.status?.storedVersions ?? []),
        ...(spec.versions ?? []).filter((v: Json) => v.storage).map((v: Json) => v.name),
      ]),
    ],
  }
}

function validateDefinition(definition: KubeObject, old: KubeObject | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  const { spec, metadata } = definition
  const names = spec?.names ?? {}
  if (!spec?.group || !namePattern.test(spec.group))
    problems.push(problem.invalid('spec.group', spec?.group ?? '', nameText))
  for (const key of ['plural', 'singular'])
    if (!labelPattern.test(names[key] ?? ''))
      problems.push(problem.invalid(`spec.names.${key}`, names[key] ?? '', labelText))
  if (!/^[A-Za-z][A-Za-z0-9]{0,62}$/.test(names.kind ?? ''))
    problems.push(problem.invalid('spec.names.kind', names.kind ?? '', 'must be a CamelCase name'))
  if (metadata.name !== `${names.plural}.${spec?.group}`)
    problems.push(problem.invalid('metadata.name', metadata.name, 'must be spec.names.plural+"."+spec.group'))
  if (!['Cluster', 'Namespaced'].includes(spec?.scope))
    problems.push(problem.unsupported('spec.scope', spec?.scope ?? '', ['Cluster', 'Namespaced']))
  if (old && old.spec?.scope !== spec?.scope)
    problems.push(problem.invalid('spec.scope', spec?.scope, 'field is immutable'))
  const versions: Json[] = spec?.versions ?? []
  if (versions.filter((version) => version.storage).length !== 1)
    problems.push(
      problem.invalid(
        'spec.versions',
        versions.map((v) => v.name),
        'must have exactly one version marked as storage version',
      ),
    )
  for (const [n, version] of versions.entries()) {
    const at = `spec.versions[${n}]`
    if (!labelPattern.test(version.name ?? ''))
      problems.push(problem.invalid(`${at}.name`, version.name ?? '', labelText))
    if (!version.schema?.openAPIV3Schema)
      problems.push(problem.required(`${at}.schema.openAPIV3Schema`, 'schemas are required'))
    else if (version.schema.openAPIV3Schema.type !== 'object')
      problems.push(
        problem.invalid(
          `${at}.schema.openAPIV3Schema.type`,
          version.schema.openAPIV3Schema.type,
          'must be object at the root',
        ),
      )
    for (const { path, text, detail, isSyntax } of ruleFaults(version.schema?.openAPIV3Schema))
      if (isSyntax)
        problems.push(
          problem.invalid(`${at}.schema.openAPIV3Schema.${path}`, text, `compilation failed: ERROR: ${detail}`),
        )
    for (const [m, column] of (version.additionalPrinterColumns ?? []).entries())
      try {
        parseJsonPath(column.jsonPath ?? '')
      } catch (error) {
        problems.push(
          problem.invalid(`${at}.additionalPrinterColumns[${m}].jsonPath`, column.jsonPath, (error as Error).message),
        )
      }
  }
  return problems
}

function definitionWarnings({ spec }: KubeObject): string[] {
  return (spec?.versions ?? []).flatMap((version: Json, n: number) =>
    ruleFaults(version.schema?.openAPIV3Schema).map(
      ({ path, detail }) =>
        `spec.versions[${n}].schema.openAPIV3Schema.${path}: this server does not evaluate the rule: ${detail}`,
    ),
  )
}

export const definitionKinds = (model: (name: string) => Schema): Kind[] => [
  defineKind({
    group: 'apiextensions.k8s.io',
    version: 'v1',
    kind: 'CustomResourceDefinition',
    plural: 'customresourcedefinitions',
    shortNames: ['crd', 'crds'],
    categories: ['api-extensions'],
    namespaced: false,
    status: true,
    schema: model('V1CustomResourceDefinition'),
    columns: [createdColumn],
    prepare: defaultDefinition,
    admit: establishDefinition,
    validate: validateDefinition,
    warnings: definitionWarnings,
  }),
]

function cellOf(path: JsonPath, type: string, object: KubeObject, now: number): Cell {
  const values = evaluateJsonPath(path, object)
  if (values.length === 0) return type === 'string' || type === 'date' ? '' : null
  const [value] = values
  if (type === 'date') return ageOf(value, now)
  if (values.length > 1 || typeof value === 'object')
    return values.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))).join(',')
  if (type === 'integer') return Number.isFinite(Number(value)) ? Math.trunc(Number(value)) : null
  if (type === 'number') return Number.isFinite(Number(value)) ? Number(value) : null
  if (type === 'boolean') return typeof value === 'boolean' ? value : null
  return String(value)
}

function columnOf(definition: Json): Column {
  const path = parseJsonPath(definition.jsonPath)
  return {
    name: definition.name,
    type: definition.type === 'date' ? 'string' : definition.type,
    ...(definition.format && { format: definition.format }),
    description:
      definition.description ?? `Custom resource definition column (in JSONPath format): ${definition.jsonPath}`,
    priority: definition.priority > 0 ? 1 : 0,
    cell: (object, now) => cellOf(path, definition.type, object, now),
  }
}

const withoutDot = (path: string): string => path.replace(/^\./, '')

/** The kinds of a definition, one per served version. `metadata`: the schema of ObjectMeta. */
export function customKinds(definition: KubeObject, metadata: Schema): Kind[] {
  const { group, names, scope, versions } = definition.spec
  const storageVersion = versions.find((version: Json) => version.storage).name
  return versions
    .filter((version: Json) => version.served)
    .map((version: Json) => {
      const apiVersion = `${group}/${version.name}`
      const raw: Schema = version.schema?.openAPIV3Schema ?? {
        type: 'object',
        'x-kubernetes-preserve-unknown-fields': true,
      }
      const scale = version.subresources?.scale
      const printed: Json[] | undefined = version.additionalPrinterColumns
      return defineKind({
        group,
        version: version.name,
        kind: names.kind,
        plural: names.plural,
        singular: names.singular,
        shortNames: names.shortNames ?? [],
        categories: names.categories ?? [],
        namespaced: scope === 'Namespaced',
        storage: resourceName(names.plural, group),
        schema: {
          ...withMetadata(raw, metadata),
          'x-kubernetes-group-version-kind': [{ group, version: version.name, kind: names.kind }],
        },
        status: version.subresources?.status !== undefined,
        selectable: (version.selectableFields ?? []).map((field: Json) => withoutDot(field.jsonPath ?? '')),
        columns: printed?.length ? printed.map(columnOf) : [ageColumn],
        custom: true,
        ...(scale && {
          scale: {
            specReplicas: withoutDot(scale.specReplicasPath),
            statusReplicas: withoutDot(scale.statusReplicasPath),
            ...(scale.labelSelectorPath && { selector: withoutDot(scale.labelSelectorPath) }),
          },
        }),
        toStorage: (object) => ({ ...object, apiVersion: `${group}/${storageVersion}` }),
        fromStorage: (object) => (object.apiVersion === apiVersion ? object : { ...object, apiVersion }),
      })
    })
}
