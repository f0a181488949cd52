/**
 * x-kubernetes-validations of custom resources: rules in CEL, each at a place of the schema, over the value there (`self`) and
 * what was there before (`oldSelf`).
 *
 * A rule that speaks of `oldSelf` is about changes: it holds where there is a value before and after. Members of objects
 * and maps are the same by their name, items of a list by its map keys; items of other lists are not the same ever. A value
 * that did not change is not judged again, so that a rule that came later leaves objects alone until they are changed.
 *
 * Sources: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", validation rules and
 * validation ratcheting; apiextensions.k8s.io/v1 ValidationRule.
 */
import { isDeepStrictEqual } from 'node:util'
import { type FieldProblem, problem } from '../api-error.ts'
import { celEnvironment } from './cel-environment.ts'
import { isObject, type Schema, type ValidationRule } from './schema.ts'

const MAX_DEPTH = 64
const MAX_PROBLEMS = 100

type EvaluateFunction = ReturnType<typeof celEnvironment.parse>

interface Rule {
  readonly given: ValidationRule
  readonly run: EvaluateFunction
  readonly message: EvaluateFunction | undefined
  readonly ofChanges: boolean
}

/** undefined for a rule that does not compile: `ruleFaults` told so when the definition was written. */
const compiled = new WeakMap<ValidationRule, Rule | undefined>()

function compile(given: ValidationRule): Rule | undefined {
  if (!compiled.has(given)) compiled.set(given, faultOf(given) === undefined ? compileSound(given) : undefined)
  return compiled.get(given)
}

const compileSound = (given: ValidationRule): Rule => ({
  given,
  run: celEnvironment.parse(given.rule),
  message: given.messageExpression === undefined ? undefined : celEnvironment.parse(given.messageExpression),
  ofChanges: /\boldSelf\b/.test(given.rule),
})

export interface RuleFault {
  /** `spec.properties[cidr].x-kubernetes-validations[0].rule`, below the schema. */
  readonly path: string
  readonly text: string
  readonly detail: string
  /** It is not CEL at all; else it uses what this server does not have. */
  readonly isSyntax: boolean
}

function faultOf({ rule, messageExpression }: ValidationRule): Omit<RuleFault, 'path'> | undefined {
  for (const text of [rule, messageExpression ?? 'true']) {
    const { valid, error } = typeof text === 'string' ? celEnvironment.check(text) : { valid: false, error: undefined }
    if (!valid)
      return {
        text: String(text),
        detail: error?.message.split('\n')[0] ?? 'is not text',
        isSyntax: !error || error.name === 'ParseError',
      }
  }
  return undefined
}

/** Every rule of a schema that does not compile. */
export function ruleFaults(schema: unknown): readonly RuleFault[] {
  const faults: RuleFault[] = []
  findFaults(schema, '', faults, 0)
  return faults
}

function findFaults(schema: unknown, path: string, faults: RuleFault[], depth: number): void {
  if (!isObject(schema) || depth > MAX_DEPTH) return
  const at = (part: string) => (path ? `${path}.${part}` : part)
  const rules = schema['x-kubernetes-validations']
  if (Array.isArray(rules))
    for (const [n, rule] of (rules as ValidationRule[]).entries()) {
      const fault = faultOf(rule)
      if (fault) faults.push({ ...fault, path: at(`x-kubernetes-validations[${n}].rule`) })
    }
  if (isObject(schema.properties))
    for (const [name, member] of Object.entries(schema.properties))
      findFaults(member, at(`properties[${name}]`), faults, depth + 1)
  for (const key of ['items', 'additionalProperties']) findFaults(schema[key], at(key), faults, depth + 1)
}

/** What the rules of a schema say against `value`, which was `old` (undefined: it is new). */
export function ruleProblems(schema: Schema, value: unknown, old: unknown): FieldProblem[] {
  const problems: FieldProblem[] = []
  judge(schema, value, old, '', problems, 0)
  return problems
}

function judge(
  schema: Schema,
  value: unknown,
  old: unknown,
  path: string,
  problems: FieldProblem[],
  depth: number,
): void {
  if (value === undefined || value === null || depth > MAX_DEPTH || problems.length > MAX_PROBLEMS) return
  const isSame = old !== undefined && isDeepStrictEqual(old, value)
  for (const given of schema['x-kubernetes-validations'] ?? []) {
    const rule = compile(given)
    if (!rule || (rule.ofChanges ? old === undefined && !given.optionalOldSelf : isSame)) continue
    const failure = verdict(rule, schema, value, old, path)
    if (failure) problems.push(failure)
  }
  if (Array.isArray(value)) {
    const { items } = schema
    if (items)
      for (const [n, item] of value.entries())
        judge(items, item, counterpart(schema, item, old), `${path}[${n}]`, problems, depth + 1)
    return
  }
  if (!isObject(value)) return
  const extra = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined
  for (const [key, member] of Object.entries(value)) {
    const known = schema.properties?.[key] ?? extra
    const before = isObject(old) ? old[key] : undefined
    if (known) judge(known, member, before, path ? `${path}.${key}` : key, problems, depth + 1)
  }
}

/** The item that this one was, in lists whose items have keys. */
function counterpart(schema: Schema, item: unknown, old: unknown): unknown {
  const keys = schema['x-kubernetes-list-map-keys']
  if (schema['x-kubernetes-list-type'] !== 'map' || !keys || !Array.isArray(old) || !isObject(item)) return undefined
  return old.find((other) => isObject(other) && keys.every((key) => isDeepStrictEqual(other[key], item[key])))
}

function verdict(
  { given, run, message }: Rule,
  schema: Schema,
  value: unknown,
  old: unknown,
  path: string,
): FieldProblem | undefined {
  const field = given.fieldPath ? `${path}${given.fieldPath}`.replace(/^\./, '') : path || '<root>'
  const context = { self: celValue(schema, value), ...(old !== undefined && { oldSelf: celValue(schema, old) }) }
  try {
    const answer = run(context)
    if (answer === true) return undefined
    return told(field, given, messageOf(given, message, context), given.fieldPath ? undefined : value)
  } catch (error) {
    const detail = `${(error as Error).message.split('\n')[0]} evaluating rule: ${given.message ?? given.rule}`
    return told(field, { ...given, reason: 'FieldValueInvalid' }, detail, given.fieldPath ? undefined : value)
  }
}

function messageOf(given: ValidationRule, message: EvaluateFunction | undefined, context: object): string {
  const otherwise = given.message ?? `failed rule: ${given.rule.trim()}`
  if (!message) return otherwise
  try {
    const text = message(context)
    return typeof text === 'string' && text.trim() !== '' ? text : otherwise
  } catch {
    return otherwise
  }
}

/** Kubernetes shows the value of a field that is no object or list, and where the rule itself stands. */
function told(field: string, { reason }: ValidationRule, detail: string, value: unknown): FieldProblem {
  switch (reason) {
    case 'FieldValueForbidden':
      return problem.forbidden(field, detail)
    case 'FieldValueRequired':
      return problem.required(field, detail)
    case 'FieldValueDuplicate':
      return problem.duplicate(field, value)
    default:
      return value === undefined || typeof value === 'object'
        ? { reason: 'FieldValueInvalid', field, message: `Invalid value: ${detail}` }
        : problem.invalid(field, value, detail)
  }
}

const reserved = new Set(
  (
    'true false null in as break const continue else for function if import let loop package namespace return var ' +
    'void while'
  ).split(' '),
)
const escapes: readonly (readonly [string, string])[] = [
  ['__', '__underscores__'],
  ['.', '__dot__'],
  ['-', '__dash__'],
  ['/', '__slash__'],
]

/** How a rule names a property whose name is no identifier of CEL. */
function celName(name: string): string {
  if (reserved.has(name)) return `__${name}__`
  return escapes.reduce((text, [from, to]) => text.replaceAll(from, to), name)
}

/** A value in CEL's types, as its schema says: what is not in the schema is not visible. */
function celValue(schema: Schema, value: unknown, depth = 0): unknown {
  if (value === undefined || value === null || depth > MAX_DEPTH) return null
  if (schema['x-kubernetes-int-or-string'] || schema.type === 'integer')
    return typeof value === 'number' ? BigInt(Math.trunc(value)) : value
  if (schema.type === 'number') return Number(value)
  if (schema.type === 'string' && schema.format === 'date-time') return new Date(String(value))
  if (Array.isArray(value)) return value.map((item) => celValue(schema.items ?? {}, item, depth + 1))
  if (!isObject(value)) return value
  const { properties, additionalProperties: extra } = schema
  const members: Record<string, unknown> = {}
  for (const [key, member] of Object.entries(value)) {
    const known = properties?.[key]
    if (known) members[celName(key)] = celValue(known, member, depth + 1)
    else if (typeof extra === 'object') members[key] = celValue(extra, member, depth + 1)
  }
  return members
}
