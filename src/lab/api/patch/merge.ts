/**
 * JSON merge patch, and Kubernetes' strategic merge patch with its directives.
 * Sources: RFC 7386; Kubernetes community, "strategic-merge-patch" ($patch, $retainKeys, $deleteFromPrimitiveList,
 * $setElementOrder).
 */
import { formatJson } from '../../../bytes/json.ts'
import { badRequest } from '../api-error.ts'
import { childOf, isObject, resolve, type Schema, type SchemaSource } from '../schema/schema.ts'

type Json = Record<string, unknown>

/** RFC 7386. Returns a new value; parts that do not change are shared. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const result: Json = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else if (key !== '__proto__') result[key] = mergePatch(result[key], value)
  }
  return result
}

const orderPrefix = '$setElementOrder/'
const removePrefix = '$deleteFromPrimitiveList/'

/** Strategic merge of an object. `given`: its schema, which says how lists merge. */
export function strategicMerge(
  source: SchemaSource,
  given: Schema | undefined,
  target: unknown,
  patch: unknown,
): unknown {
  if (!isObject(patch)) return patch
  if (patch.$patch === 'replace') return withoutDirectives(patch)
  if (patch.$patch === 'delete') return undefined
  if (patch.$patch !== undefined && patch.$patch !== 'merge')
    throw badRequest(`Unknown patch type: ${formatJson(patch.$patch)}`)
  const schema = resolve(source, given)
  const result: Json = isObject(target) ? { ...target } : {}
  if (Array.isArray(patch.$retainKeys)) {
    const kept = new Set(patch.$retainKeys)
    for (const key of Object.keys(result)) if (!kept.has(key)) delete result[key]
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key === '$patch' || key === '$retainKeys' || key === '__proto__' || key.startsWith(orderPrefix)) continue
    if (key.startsWith(removePrefix)) {
      const field = key.slice(removePrefix.length)
      const gone = new Set((value as unknown[]).map((item) => formatJson(item)))
      if (Array.isArray(result[field]))
        result[field] = (result[field] as unknown[]).filter((item) => !gone.has(formatJson(item)))
      continue
    }
    if (value === null) {
      delete result[key]
      continue
    }
    const child = childOf(source, schema, key)
    if (Array.isArray(value)) result[key] = mergeList(source, child, key, result[key], value, patch[orderPrefix + key])
    else {
      const next = strategicMerge(source, child, result[key], value)
      if (next === undefined) delete result[key]
      else result[key] = next
    }
  }
  // An order alone, for a list that the patch itself does not touch.
  for (const key of Object.keys(patch))
    if (key.startsWith(orderPrefix) && patch[key.slice(orderPrefix.length)] === undefined) {
      const field = key.slice(orderPrefix.length)
      const list = result[field]
      if (Array.isArray(list)) result[field] = ordered(list, patch[key], mergeKeyOf(childOf(source, schema, field)))
    }
  return result
}

const withoutDirectives = (patch: Json): Json =>
  Object.fromEntries(Object.entries(patch).filter(([key]) => !key.startsWith('$')))

const mergeKeyOf = (schema: Schema | undefined): string | undefined => schema?.['x-kubernetes-patch-merge-key']

function mergeList(
  source: SchemaSource,
  schema: Schema | undefined,
  key: string,
  target: unknown,
  patch: unknown[],
  order: unknown,
): unknown[] {
  const strategy = schema?.['x-kubernetes-patch-strategy'] ?? ''
  const current = Array.isArray(target) ? target : []
  if (!strategy.split(',').includes('merge')) return patch.filter((item) => !isDirective(item))
  const mergeKey = mergeKeyOf(schema)
  if (!mergeKey) {
    const seen = new Set(current.map((item) => formatJson(item)))
    return ordered([...current, ...patch.filter((item) => !seen.has(formatJson(item)))], order, undefined)
  }
  let result: Json[] = (current as Json[]).slice()
  const items = patch as Json[]
  if (items.some((item) => isObject(item) && item.$patch === 'replace'))
    return items.filter((item) => !isDirective(item))
  for (const item of items) {
    if (!isObject(item)) throw badRequest(`Cannot merge the list ${key}: its items must be objects`)
    const id = item[mergeKey]
    if (id === undefined) throw badRequest(`map: ${formatJson(item)} does not contain declared merge key: ${mergeKey}`)
    if (item.$patch === 'delete') {
      result = result.filter((existing) => existing[mergeKey] !== id)
      continue
    }
    const at = result.findIndex((existing) => existing[mergeKey] === id)
    const merged = strategicMerge(source, schema?.items, at === -1 ? undefined : result[at], item) as Json
    if (at === -1) result.push(merged)
    else result[at] = merged
  }
  return ordered(result, order, mergeKey)
}

const isDirective = (item: unknown): boolean =>
  isObject(item) && item.$patch !== undefined && Object.keys(item).length === 1

/** Items named in `order` come in that order; others keep their place relative to their neighbours. */
function ordered(list: unknown[], order: unknown, mergeKey: string | undefined): unknown[] {
  if (!Array.isArray(order)) return list
  const idOf = (item: unknown) => formatJson(mergeKey && isObject(item) ? item[mergeKey] : item)
  const place = new Map(order.map((item, n) => [idOf(item), n]))
  const named = list.filter((item) => place.has(idOf(item)))
  named.sort((a, b) => place.get(idOf(a))! - place.get(idOf(b))!)
  let next = 0
  return list.map((item) => (place.has(idOf(item)) ? named[next++] : item))
}
