/**
 * Value constraints of custom resources' schemas: required, enum, pattern, bounds, counts and the junctors.
 * Sources: apiextensions.k8s.io/v1 JSONSchemaProps; JSON Schema Validation, draft 4.
 */

import { isDeepStrictEqual } from 'node:util'
import { formatJson, parseJson } from '../../../bytes/json.ts'
import { parsePrefixed } from '../../../net/cidr.ts'
import { Ip } from '../../../net/ip.ts'
import { type FieldProblem, problem } from '../api-error.ts'
import { isObject, type Schema } from './schema.ts'

/** Longest text that a user's pattern is run on; beyond it a pattern could stall the server. */
const patternLimit = 16_384
const compiled = new Map<string, RegExp | undefined>()

function patternOf(text: string): RegExp | undefined {
  if (!compiled.has(text)) {
    let expression: RegExp | undefined
    try {
      expression = new RegExp(text, 'u')
    } catch {
      try {
        expression = new RegExp(text)
      } catch {
        expression = undefined
      }
    }
    if (compiled.size > 10_000) compiled.clear()
    compiled.set(text, expression)
  }
  return compiled.get(text)
}

const formats: Readonly<Record<string, (text: string) => boolean>> = {
  ipv4: (text) => Ip.tryParse(text)?.family === 4,
  ipv6: (text) => Ip.tryParse(text)?.family === 6,
  cidr: isPrefixed,
  'date-time': (text) => !Number.isNaN(Date.parse(text)),
  date: (text) => /^\d{4}-\d\d-\d\d$/.test(text),
  uuid: (text) => /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(text),
  uri: (text) => URL.canParse(text),
  byte: (text) => /^[A-Za-z0-9+/]*={0,2}$/.test(text) && text.length % 4 === 0,
  mac: (text) => /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text),
}

/** An address with a prefix length; host bits are no matter of the format. */
function isPrefixed(text: string): boolean {
  try {
    parsePrefixed(text)
    return true
  } catch {
    return false
  }
}

/** Every constraint that `value` breaks. */
export function constraintProblems(schema: Schema, value: unknown, path: string): FieldProblem[] {
  const problems: FieldProblem[] = []
  check(schema, value, path, problems, 0)
  return problems
}

const passes = (schema: Schema, value: unknown, path: string, depth: number): boolean => {
  const inner: FieldProblem[] = []
  check(schema, value, path, inner, depth)
  return inner.length === 0
}

function check(schema: Schema, value: unknown, path: string, problems: FieldProblem[], depth: number): void {
  if (depth > 64 || value === undefined || (value === null && schema.nullable)) return
  const at = path || '<root>'
  if (schema.enum && !schema.enum.some((allowed) => isDeepStrictEqual(allowed, value)))
    problems.push(problem.unsupported(at, value, schema.enum))
  if (typeof value === 'string') checkText(schema, value, at, problems)
  else if (typeof value === 'number' || typeof value === 'bigint') checkNumber(schema, value, at, problems)
  else if (Array.isArray(value)) checkArray(schema, value, path, problems, depth)
  else if (isObject(value)) checkMembers(schema, value, path, problems, depth)
  for (const part of schema.allOf ?? []) check(part, value, path, problems, depth + 1)
  if (schema.anyOf && !schema.anyOf.some((part) => passes(part, value, path, depth + 1)))
    problems.push(problem.invalid(at, value, `${at} in body must validate at least one schema (anyOf)`))
  if (schema.oneOf && schema.oneOf.filter((part) => passes(part, value, path, depth + 1)).length !== 1)
    problems.push(problem.invalid(at, value, `${at} in body must validate one and only one schema (oneOf)`))
  if (schema.not && passes(schema.not, value, path, depth + 1))
    problems.push(problem.invalid(at, value, `${at} in body must not validate the schema (not)`))
}

function checkText(schema: Schema, value: string, at: string, problems: FieldProblem[]): void {
  const length = schema.maxLength === undefined && schema.minLength === undefined ? 0 : [...value].length
  if (schema.maxLength !== undefined && length > schema.maxLength)
    problems.push({
      reason: 'FieldValueTooLong',
      field: at,
      message: `Too long: may not be more than ${schema.maxLength} bytes`,
    })
  if (schema.minLength !== undefined && length < schema.minLength)
    problems.push(problem.invalid(at, value, `${at} in body should be at least ${schema.minLength} chars long`))
  if (schema.pattern !== undefined && value.length <= patternLimit && patternOf(schema.pattern)?.test(value) === false)
    problems.push(problem.invalid(at, value, `${at} in body should match '${schema.pattern}'`))
  const format = schema.format === undefined ? undefined : formats[schema.format]
  if (format && !format(value))
    problems.push({
      ...problem.invalid(at, value, `${at} in body must be of type ${schema.format}: ${JSON.stringify(value)}`),
      reason: 'FieldValueTypeInvalid',
    })
}

function checkNumber(schema: Schema, value: number | bigint, at: string, problems: FieldProblem[]): void {
  const { minimum, maximum, multipleOf } = schema
  if (minimum !== undefined && (schema.exclusiveMinimum === true ? value <= minimum : value < minimum)) {
    const bound = schema.exclusiveMinimum === true ? 'greater than' : 'greater than or equal to'
    problems.push(problem.invalid(at, value, `${at} in body should be ${bound} ${minimum}`))
  }
  if (maximum !== undefined && (schema.exclusiveMaximum === true ? value >= maximum : value > maximum)) {
    const bound = schema.exclusiveMaximum === true ? 'less than' : 'less than or equal to'
    problems.push(problem.invalid(at, value, `${at} in body should be ${bound} ${maximum}`))
  }
  if (multipleOf !== undefined && multipleOf > 0 && !Number.isInteger(Number(value) / multipleOf))
    problems.push(problem.invalid(at, value, `${at} in body should be a multiple of ${multipleOf}`))
}

function checkArray(schema: Schema, value: unknown[], path: string, problems: FieldProblem[], depth: number): void {
  const at = path || '<root>'
  if (schema.maxItems !== undefined && value.length > schema.maxItems)
    problems.push(problem.invalid(at, value.length, `must have at most ${schema.maxItems} items`))
  if (schema.minItems !== undefined && value.length < schema.minItems)
    problems.push(problem.invalid(at, value.length, `${at} in body should have at least ${schema.minItems} items`))
  const keys = schema['x-kubernetes-list-map-keys']
  if (schema['x-kubernetes-list-type'] === 'set' || schema.uniqueItems || keys) {
    const seen = new Set<string>()
    for (const [n, item] of value.entries()) {
      const identity = formatJson(keys && isObject(item) ? keys.map((key) => item[key]) : item)
      if (seen.has(identity)) problems.push(problem.duplicate(`${path}[${n}]`, keys ? parseJson(identity) : item))
      seen.add(identity)
    }
  }
  const items = schema.items
  if (items) for (const [n, item] of value.entries()) check(items, item, `${path}[${n}]`, problems, depth + 1)
}

function checkMembers(
  schema: Schema,
  value: Record<string, unknown>,
  path: string,
  problems: FieldProblem[],
  depth: number,
): void {
  const join = (key: string) => (path ? `${path}.${key}` : key)
  for (const key of schema.required ?? []) if (value[key] === undefined) problems.push(problem.required(join(key)))
  const count = Object.keys(value).length
  if (schema.maxProperties !== undefined && count > schema.maxProperties)
    problems.push(problem.invalid(path, count, `must have at most ${schema.maxProperties} properties`))
  if (schema.minProperties !== undefined && count < schema.minProperties)
    problems.push(problem.invalid(path, count, `must have at least ${schema.minProperties} properties`))
  const extra = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined
  for (const [key, member] of Object.entries(value)) {
    const known = schema.properties?.[key] ?? extra
    if (known) check(known, member, join(key), problems, depth + 1)
  }
}
