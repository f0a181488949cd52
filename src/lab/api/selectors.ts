/**
 * Label and field selectors, as text (query parameters) and as objects (LabelSelector of specs).
 * Sources: Kubernetes documentation, "Labels and Selectors", "Field Selectors"; meta/v1 LabelSelector.
 */
import { badRequest } from './api-error.ts'
import type { KubeObject } from './interfaces.ts'

export type Labels = Readonly<Record<string, string>> | undefined

type Requirement = (labels: Record<string, string>) => boolean
export type Predicate = (object: KubeObject) => boolean

/** Splits at commas outside of parentheses. */
function splitRequirements(text: string): string[] {
  const parts: string[] = []
  let depth = 0
  let start = 0
  for (let n = 0; n < text.length; n++) {
    const c = text[n]
    if (c === '(') depth++
    else if (c === ')') depth--
    else if (c === ',' && depth === 0) {
      parts.push(text.slice(start, n))
      start = n + 1
    }
  }
  parts.push(text.slice(start))
  return parts.map((part) => part.trim()).filter((part) => part !== '')
}

const has = (labels: Record<string, string>, key: string): boolean => Object.hasOwn(labels, key)
const key = '([A-Za-z0-9./_-]+)'
const forms: readonly [RegExp, (key: string, rest: string) => Requirement][] = [
  [
    new RegExp(`^${key}\\s+in\\s+\\(([^)]*)\\)$`),
    (name, rest) => {
      const values = new Set(rest.split(',').map((value) => value.trim()))
      return (labels) => has(labels, name) && values.has(labels[name]!)
    },
  ],
  [
    new RegExp(`^${key}\\s+notin\\s+\\(([^)]*)\\)$`),
    (name, rest) => {
      const values = new Set(rest.split(',').map((value) => value.trim()))
      return (labels) => !has(labels, name) || !values.has(labels[name]!)
    },
  ],
  [
    new RegExp(`^${key}\\s*!=\\s*([A-Za-z0-9._-]*)$`),
    (name, value) => (labels) => !has(labels, name) || labels[name] !== value,
  ],
  [
    new RegExp(`^${key}\\s*==?\\s*([A-Za-z0-9._-]*)$`),
    (name, value) => (labels) => has(labels, name) && labels[name] === value,
  ],
  [
    new RegExp(`^${key}\\s*([<>])\\s*(-?\\d+)$`),
    (name, rest) => {
      const bound = Number(rest.slice(1))
      return (labels) => {
        const value = has(labels, name) ? Number(labels[name]) : Number.NaN
        return rest[0] === '<' ? value < bound : value > bound
      }
    },
  ],
  [new RegExp(`^!\\s*${key}$`), (name) => (labels) => !has(labels, name)],
  [new RegExp(`^${key}$`), (name) => (labels) => has(labels, name)],
]

/** `app=web,tier!=db,env in (a,b),!old` → predicate. Throws ApiError 400. */
export function parseLabelSelector(text: string): Requirement {
  const requirements = splitRequirements(text).map((part) => {
    for (const [form, make] of forms) {
      const match = form.exec(part)
      if (match) return make(match[1]!, match.slice(2).join(''))
    }
    throw badRequest(`unable to parse requirement: found '${part}', expected: a key, '!', '=', '==', '!=', in or notin`)
  })
  return (labels) => requirements.every((holds) => holds(labels))
}

/** A LabelSelector object as a predicate over labels. An empty one matches all, an absent one none. */
export function matchesSelector(
  selector:
    | {
        matchLabels?: Record<string, string>
        matchExpressions?: { key: string; operator: string; values?: string[] }[]
      }
    | undefined,
  labels: Labels,
): boolean {
  if (!selector) return false
  const have = labels ?? {}
  for (const [name, value] of Object.entries(selector.matchLabels ?? {})) if (have[name] !== value) return false
  for (const { key: name, operator, values = [] } of selector.matchExpressions ?? []) {
    const present = Object.hasOwn(have, name)
    if (operator === 'In' && !(present && values.includes(have[name]!))) return false
    if (operator === 'NotIn' && present && values.includes(have[name]!)) return false
    if (operator === 'Exists' && !present) return false
    if (operator === 'DoesNotExist' && present) return false
  }
  return true
}

/** A LabelSelector object as text, as `kubectl scale` and printer columns show it. */
export function formatSelector(
  selector:
    | {
        matchLabels?: Record<string, string>
        matchExpressions?: { key: string; operator: string; values?: string[] }[]
      }
    | undefined,
): string {
  if (!selector) return '<none>'
  const parts = Object.entries(selector.matchLabels ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .sort()
  for (const { key: name, operator, values = [] } of selector.matchExpressions ?? []) {
    if (operator === 'In') parts.push(`${name} in (${values.join(',')})`)
    else if (operator === 'NotIn') parts.push(`${name} notin (${values.join(',')})`)
    else parts.push(operator === 'Exists' ? name : `!${name}`)
  }
  return parts.join(',') || '<none>'
}

/** Value at a path, as text; absent is the empty string. */
function fieldText(object: KubeObject, path: readonly string[]): string {
  let value: unknown = object
  for (const part of path) {
    if (typeof value !== 'object' || value === null) return ''
    value = (value as Record<string, unknown>)[part]
  }
  return value === undefined || value === null ? '' : String(value)
}

/** `spec.nodeName=n1,status.phase!=Failed` → predicate. `allowed`: the fields that the kind can be selected by. */
export function parseFieldSelector(text: string, allowed: readonly string[]): Predicate {
  const terms = text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const match = /^([\w.[\]/-]+)\s*(!=|==|=)\s*(.*)$/.exec(part)
      if (!match)
        throw badRequest(`invalid field selector: '${part}' (wanted FIELD=VALUE, FIELD==VALUE or FIELD!=VALUE)`)
      const [, path, operator, value] = match as unknown as [string, string, string, string]
      if (!allowed.includes(path)) throw badRequest(`field label not supported: ${path}`)
      return { path: path.split('.'), equal: operator !== '!=', value: value.replace(/\\([\\,=])/g, '$1') }
    })
  return (object) => terms.every(({ path, equal, value }) => (fieldText(object, path) === value) === equal)
}

/** Both selectors as one predicate; undefined when everything matches. */
export function selectorPredicate(
  labelSelector: string | undefined,
  fieldSelector: string | undefined,
  selectableFields: readonly string[],
): Predicate | undefined {
  const byLabel = labelSelector ? parseLabelSelector(labelSelector) : undefined
  const byField = fieldSelector ? parseFieldSelector(fieldSelector, selectableFields) : undefined
  if (!byLabel) return byField
  if (!byField) return (object) => byLabel(object.metadata.labels ?? {})
  return (object) => byLabel(object.metadata.labels ?? {}) && byField(object)
}
