/**
 * Schemas of the built-in kinds, read from the models that the Kubernetes client package ships (field names,
 * types, formats and documentation), each when it is first asked for. Nothing is retyped here, so the server
 * serves exactly the fields of the client's Kubernetes version; what the models leave out is in list-types.ts.
 * Sources: @kubernetes/client-node, dist/gen/models.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { atomicModels, mergeRules, quantityFields } from './list-types.ts'
import { refPrefix, type Schema, type SchemaSource } from './schema.ts'

const packageEntry = createRequire(import.meta.url).resolve('@kubernetes/client-node')
const modelFolder = join(dirname(packageEntry), 'gen', 'models')

const metaModels = /^(ObjectMeta|ListMeta|Status|StatusCause|StatusDetails|LabelSelector|DeleteOptions|OwnerReference)/
const groupWords: Readonly<Record<string, string>> = {
  Core: 'core',
  Discovery: 'discovery',
  Events: 'events',
  Rbac: 'rbac',
}

/** `V1PodSpec` → `PodSpec`. */
const shortName = (model: string): string =>
  model.replace(/^(?:Core|Discovery|Events|Rbac)?V\d+(?:(?:alpha|beta)\d+)?/, '')

/** `V1PodSpec` → `io.k8s.api.v1.PodSpec`: the last part is what `kubectl explain` prints. */
export function componentName(model: string): string {
  const [, group, version, name] = /^([A-Z][a-z]+)??V(\d+(?:(?:alpha|beta)\d+)?)(.*)$/.exec(model) ?? []
  if (!name) return `io.k8s.api.${model}`
  if (metaModels.test(name)) return `io.k8s.apimachinery.pkg.apis.meta.v${version}.${name}`
  const room = group ? `${groupWords[group] ?? group.toLowerCase()}.` : ''
  return `io.k8s.api.${room}v${version}.${name}`
}

interface Attribute {
  readonly name: string
  readonly baseName: string
  readonly type: string
  readonly format: string
}

const attributePattern = /"name": "([^"]+)",\s*"baseName": "([^"]+)",\s*"type": "([^"]+)",\s*"format": "([^"]*)"/g
const propertyPattern = /(?:\/\*\*\s*\n\s*\* ([^\n]*)\n\s*\*\/\s*)?'([\w$]+)'(\?)?:/g

const plain = (text: string): string => text.replace(/\\(['"`\\])/g, '$1')

export class ModelSchemas implements SchemaSource {
  readonly #components = new Map<string, Schema>()
  /** Component name → model name, learned as references are made. */
  readonly #models = new Map<string, string>()

  /** A reference to a model of the client package, such as `V1Pod`. Throws when there is none. */
  root(model: string): Schema {
    return this.#reference(model)
  }

  component(name: string): Schema | undefined {
    const known = this.#components.get(name)
    if (known) return known
    const model = this.#models.get(name)
    if (!model) return undefined
    const schema = this.#load(model)
    this.#components.set(name, schema)
    return schema
  }

  #reference(model: string): Schema {
    const name = componentName(model)
    if (!this.#models.has(name)) {
      if (!existsSync(join(modelFolder, `${model}.js`))) throw new Error(`The Kubernetes client has no model ${model}`)
      this.#models.set(name, model)
    }
    return { $ref: refPrefix + name }
  }

  #load(model: string): Schema {
    const code = readFileSync(join(modelFolder, `${model}.js`), 'utf8')
    const declaration = readFileSync(join(modelFolder, `${model}.d.ts`), 'utf8')
    const short = shortName(model)
    const facts = new Map<string, { description: string; optional: boolean }>()
    for (const [, description, name, mark] of declaration.matchAll(propertyPattern))
      facts.set(name!, { description: plain(description ?? ''), optional: mark === '?' })
    const properties: Record<string, Schema> = {}
    const required: string[] = []
    for (const [, name, baseName, type, format] of code.matchAll(attributePattern)) {
      const attribute: Attribute = { name: name!, baseName: baseName!, type: type!, format: format! }
      const fact = facts.get(attribute.name)
      properties[attribute.baseName] = this.#property(short, attribute, fact?.description ?? '')
      if (fact && !fact.optional) required.push(attribute.baseName)
    }
    const about = /\/\*\*\s*\n\s*\* ([^\n]*)\n\s*\*\/\s*\nexport declare class/.exec(declaration)?.[1]
    return {
      type: 'object',
      ...(about && { description: plain(about) }),
      ...(required.length && { required }),
      ...(Object.keys(properties).length ? { properties } : { 'x-kubernetes-preserve-unknown-fields': true }),
      ...(atomicModels.has(short) && { 'x-kubernetes-map-type': 'atomic' }),
    }
  }

  #property(owner: string, attribute: Attribute, description: string): Schema {
    const { baseName, type, format } = attribute
    const quantity = quantityFields.has(`${owner}.${baseName}`)
    const schema = this.#typed(type, format, quantity)
    if (schema.type === 'array') schema['x-kubernetes-list-type'] = 'atomic'
    const rules = mergeRules[owner]?.[baseName]
    if (schema.$ref) return { allOf: [{ $ref: schema.$ref }], ...(description && { description }), ...rules }
    return { ...schema, ...(description && { description }), ...rules }
  }

  #typed(type: string, format: string, quantity: boolean): Schema {
    const array = /^Array<(.+)>$/.exec(type)
    if (array) return { type: 'array', items: this.#typed(array[1]!, '', quantity) }
    const map = /^\{ \[key: string\]: (.+); \}$/.exec(type)
    if (map) return { type: 'object', additionalProperties: this.#typed(map[1]!, '', quantity) }
    switch (type) {
      case 'string':
        if (quantity) return { type: 'string', format: 'quantity' }
        return format ? { type: 'string', format } : { type: 'string' }
      case 'number':
        if (format === 'double' || format === 'float') return { type: 'number', format }
        return { type: 'integer', format: format || 'int32' }
      case 'boolean':
        return { type: 'boolean' }
      case 'Date':
        return { type: 'string', format: 'date-time' }
      case 'V1MicroTime':
        return { type: 'string', format: 'date-time' }
      case 'IntOrString':
        return { 'x-kubernetes-int-or-string': true }
      case 'any':
        return { 'x-kubernetes-preserve-unknown-fields': true }
      default:
        return this.#reference(type)
    }
  }
}
