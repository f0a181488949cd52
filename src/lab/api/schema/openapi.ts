/**
 * The OpenAPI documents that kubectl reads: v3 one per group and version, v2 one for all. They hold what clients
 * use: schemas, and for each resource its paths, its kind, and the query parameters of writes.
 * Sources: OpenAPI 3.0.3, OpenAPI 2.0; Kubernetes documentation, "The Kubernetes API", "OpenAPI interface definition".
 */
import { createHash } from 'node:crypto'
import type { Catalog } from '../catalog.ts'
import { apiVersionOf, type Kind } from '../kinds/kind.ts'
import { refPrefix, type Schema, type SchemaSource } from './schema.ts'

/** The Kubernetes version whose API is spoken; the client package's models are of this line or newer. */
export const kubernetesVersion = { major: '1', minor: '32', gitVersion: 'v1.32.0+weft' } as const

const info = { title: 'Kubernetes', version: kubernetesVersion.gitVersion }

const pathOf = (kind: Kind): string => {
  const root = kind.group ? `/apis/${kind.group}/${kind.version}` : `/api/${kind.version}`
  return `${root}${kind.namespaced ? '/namespaces/{namespace}' : ''}/${kind.plural}`
}

export const documentName = (group: string, version: string): string =>
  group ? `apis/${group}/${version}` : `api/${version}`

const writeParameters = ['dryRun', 'fieldManager', 'fieldValidation']

interface Operation {
  [key: string]: unknown
}

/** Component name of a kind's own schema. */
function rootName(kind: Kind): string {
  if (kind.schema.$ref) return kind.schema.$ref.slice(refPrefix.length)
  return `${kind.group.split('.').reverse().join('.')}.${kind.version}.${kind.kind}`
}

const marksOf = (kind: Kind): Schema['x-kubernetes-group-version-kind'] => [
  { group: kind.group, version: kind.version, kind: kind.kind },
]

/** Root schema with its kind written on it, as kubectl looks kinds up. */
function rootSchema(source: SchemaSource, kind: Kind): Schema {
  const schema = kind.schema.$ref ? source.component(rootName(kind))! : kind.schema
  return { ...schema, 'x-kubernetes-group-version-kind': marksOf(kind)! }
}

function* references(schema: Schema): Generator<string> {
  if (schema.$ref) yield schema.$ref.slice(refPrefix.length)
  for (const property of Object.values(schema.properties ?? {})) yield* references(property)
  if (schema.items) yield* references(schema.items)
  if (typeof schema.additionalProperties === 'object') yield* references(schema.additionalProperties)
  for (const part of [...(schema.allOf ?? []), ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])])
    yield* references(part)
}

/** All components that the kinds' schemas lead to. */
function componentsOf(source: SchemaSource, kinds: readonly Kind[]): Map<string, Schema> {
  const found = new Map<string, Schema>()
  const open: Schema[] = []
  for (const kind of kinds) {
    const schema = rootSchema(source, kind)
    found.set(rootName(kind), schema)
    open.push(schema)
  }
  for (let schema = open.pop(); schema; schema = open.pop())
    for (const name of references(schema)) {
      if (found.has(name)) continue
      const component = source.component(name)
      if (!component) continue
      found.set(name, component)
      open.push(component)
    }
  return found
}

/** Our schema as OpenAPI v3 clients read it. */
function toV3(schema: Schema): Schema {
  const { 'x-kubernetes-int-or-string': intOrString, ...rest } = schema
  if (intOrString) return { ...rest, format: 'int-or-string', oneOf: [{ type: 'integer' }, { type: 'string' }] }
  return { ...rest, ...mapChildren(rest, toV3) }
}

/** Our schema as OpenAPI v2 has it: no junctors, references beside their description. */
function toV2(schema: Schema): Schema {
  if (schema['x-kubernetes-int-or-string'])
    return { type: 'string', format: 'int-or-string', ...(schema.description && { description: schema.description }) }
  const { allOf, anyOf, oneOf, not, nullable, 'x-kubernetes-preserve-unknown-fields': _open, ...rest } = schema
  const ref = rest.$ref ?? allOf?.[0]?.$ref
  const result: Schema = { ...rest, ...mapChildren(rest, toV2) }
  if (ref) result.$ref = ref.replace(refPrefix, '#/definitions/')
  return result
}

function mapChildren(schema: Schema, change: (schema: Schema) => Schema): Partial<Schema> {
  const { properties, items, additionalProperties } = schema
  return {
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, change(value)])),
    }),
    ...(items && { items: change(items) }),
    ...(typeof additionalProperties === 'object' && { additionalProperties: change(additionalProperties) }),
  }
}

function operationsOf(
  kind: Kind,
  parameter: (name: string) => unknown,
  body: (ref: string) => Operation,
): Record<string, unknown> {
  const mark = { 'x-kubernetes-group-version-kind': marksOf(kind)![0] }
  const operation = (verb: string, action: string, writes: boolean): Operation => ({
    operationId: `${verb}${kind.version[0]!.toUpperCase()}${kind.version.slice(1)}${kind.kind}${kind.group.replace(/\W/g, '')}`,
    ...(writes && { parameters: writeParameters.map(parameter) }),
    ...body(rootName(kind)),
    'x-kubernetes-action': action,
    ...mark,
  })
  const collection = pathOf(kind)
  const paths: Record<string, unknown> = {
    [collection]: { get: operation('list', 'list', false), post: operation('create', 'post', true) },
    [`${collection}/{name}`]: {
      get: operation('read', 'get', false),
      put: operation('replace', 'put', true),
      patch: operation('patch', 'patch', true),
      delete: operation('delete', 'delete', true),
    },
  }
  return paths
}

const describe = (kind: Kind): { description: string } => ({ description: `${kind.kind} of ${apiVersionOf(kind)}` })

export interface OpenApiDocument {
  readonly json: string
  /** Changes with the content. */
  readonly hash: string
}

/** Of what a document is made from, so that the index need not make the documents. */
const hashOf = (kinds: readonly Kind[]): string =>
  createHash('sha256')
    .update(JSON.stringify([kubernetesVersion, kinds.map(({ plural, kind, schema }) => [plural, kind, schema])]))
    .digest('hex')
    .slice(0, 32)

/** Makes documents when they are asked for and keeps them until the served kinds change. */
export class OpenApi {
  readonly #catalog: Catalog
  readonly #documents = new Map<string, OpenApiDocument>()
  #v2: Record<string, unknown> | undefined
  #revision = -1

  constructor(catalog: Catalog) {
    this.#catalog = catalog
  }

  /** The v3 document of one group and version. */
  v3(group: string, version: string): OpenApiDocument | undefined {
    this.#refresh()
    const name = documentName(group, version)
    let document = this.#documents.get(name)
    if (document) return document
    const kinds = this.#kindsOf(group, version)
    if (kinds.length === 0) return undefined
    const schemas: Record<string, Schema> = {}
    for (const [key, schema] of componentsOf(this.#catalog.schemas, kinds)) schemas[key] = toV3(schema)
    const paths: Record<string, unknown> = {}
    for (const kind of kinds)
      Object.assign(
        paths,
        operationsOf(
          kind,
          (parameter) => ({ name: parameter, in: 'query', schema: { type: 'string', uniqueItems: true } }),
          (ref) => ({
            responses: {
              200: { ...describe(kind), content: { 'application/json': { schema: { $ref: refPrefix + ref } } } },
            },
          }),
        ),
      )
    const json = JSON.stringify({ openapi: '3.0.0', info, paths, components: { schemas } })
    document = { json, hash: hashOf(kinds) }
    this.#documents.set(name, document)
    return document
  }

  /** The index of the v3 documents: where each is, with its hash. */
  v3Index(): unknown {
    const paths: Record<string, unknown> = {}
    for (const [group, versions] of this.#catalog.groups())
      for (const version of versions) {
        const name = documentName(group, version)
        paths[name] = { serverRelativeURL: `/openapi/v3/${name}?hash=${hashOf(this.#kindsOf(group, version))}` }
      }
    return { paths }
  }

  /** The v2 document as an object. */
  v2(): Record<string, unknown> {
    this.#refresh()
    if (this.#v2) return this.#v2
    const kinds = this.#catalog.all()
    const definitions: Record<string, Schema> = {}
    for (const [name, schema] of componentsOf(this.#catalog.schemas, kinds)) definitions[name] = toV2(schema)
    const paths: Record<string, unknown> = {}
    for (const kind of kinds)
      Object.assign(
        paths,
        operationsOf(
          kind,
          (parameter) => ({ name: parameter, in: 'query', type: 'string', uniqueItems: true }),
          (ref) => ({ responses: { 200: { ...describe(kind), schema: { $ref: `#/definitions/${ref}` } } } }),
        ),
      )
    this.#v2 = { swagger: '2.0', info, paths, definitions }
    return this.#v2
  }

  #kindsOf(group: string, version: string): Kind[] {
    return this.#catalog.all().filter((kind) => kind.group === group && kind.version === version)
  }

  #refresh(): void {
    if (this.#revision === this.#catalog.revision) return
    this.#revision = this.#catalog.revision
    this.#documents.clear()
    this.#v2 = undefined
  }
}
