/**
 * From a request's body to an object of its kind: shape, unknown fields by fieldValidation, and the identity
 * that every object needs.
 * Sources: Kubernetes documentation, "Kubernetes API Concepts", "Field validation".
 */
import * as apiError from './api-error.ts'
import type { KubeObject } from './interfaces.ts'
import { apiVersionOf, type Kind } from './kinds/kind.ts'
import { type ShapeReport, shape } from './schema/check.ts'
import { isObject, type SchemaSource } from './schema/schema.ts'

export type FieldValidation = 'Strict' | 'Warn' | 'Ignore'

export interface DecodeOptions {
  readonly fieldValidation?: FieldValidation
  readonly warnings?: string[]
  /** False: only what the body says, nothing filled in. Default true. */
  readonly defaults?: boolean
}

const jsonType = (value: unknown): string => {
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'boolean') return 'bool'
  return value === null ? 'null' : typeof value
}

/** A fresh object in the kind's shape. Throws 400, or 422 for custom kinds. */
export function decodeObject(source: SchemaSource, kind: Kind, body: unknown, options: DecodeOptions = {}): KubeObject {
  if (!isObject(body)) throw apiError.badRequest(`the object provided is unrecognized (must be of type ${kind.kind})`)
  const apiVersion = apiVersionOf(kind)
  if ((body.kind ?? kind.kind) !== kind.kind || (body.apiVersion ?? apiVersion) !== apiVersion)
    throw apiError.badRequest(
      `${body.kind ?? kind.kind} in version ${JSON.stringify(body.apiVersion ?? apiVersion)} cannot be handled as a ${kind.kind} in version ${JSON.stringify(apiVersion)}: no kind is registered under that name here`,
    )
  const report: ShapeReport = { unknown: [], mistyped: [] }
  const object = shape(source, kind.schema, body, report, options.defaults) as KubeObject
  if (report.mistyped.length) throw mistyped(kind, body, report)
  if (report.unknown.length) {
    const fields = report.unknown.map((path) => `unknown field ${JSON.stringify(path)}`)
    if (options.fieldValidation === 'Strict')
      throw apiError.badRequest(
        `${kind.kind} in version ${JSON.stringify(kind.version)} cannot be handled as a ${kind.kind}: strict decoding error: ${fields.join(', ')}`,
      )
    if (options.fieldValidation === 'Warn') options.warnings?.push(...fields)
  }
  object.apiVersion = apiVersion
  object.kind = kind.kind
  if (!isObject(object.metadata)) object.metadata = {}
  const metadata = object.metadata as Record<string, unknown>
  for (const [key, value] of Object.entries(metadata)) if (value === '') delete metadata[key]
  return object
}

function mistyped(kind: Kind, body: Record<string, unknown>, report: ShapeReport): apiError.ApiError {
  if (kind.custom) {
    const name = isObject(body.metadata) ? String(body.metadata.name ?? '') : ''
    return apiError.invalid(
      kind,
      name,
      report.mistyped.map(({ path, expected, value }) =>
        apiError.problem.type(
          path,
          value,
          `${path} in body must be of type ${expected}: ${JSON.stringify(jsonType(value))}`,
        ),
      ),
    )
  }
  const [{ path, expected, value }] = report.mistyped as [ShapeReport['mistyped'][number]]
  const text =
    expected === 'quantity'
      ? `quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (${path})`
      : expected === 'date-time'
        ? `parsing time ${JSON.stringify(value)} as RFC 3339 (${path})`
        : `json: cannot unmarshal ${jsonType(value)} into Go struct field ${kind.kind}.${path} of type ${expected}`
  return apiError.badRequest(
    `${kind.kind} in version ${JSON.stringify(kind.version)} cannot be handled as a ${kind.kind}: ${text}`,
  )
}
