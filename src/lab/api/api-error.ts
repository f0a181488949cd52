/**
 * Errors as clients of the Kubernetes API know them: a Status object with code, reason, message and causes.
 * Sources: Kubernetes API conventions, "Response Status Kind"; meta/v1 Status.
 */
import { formatJson } from '../../bytes/json.ts'

/** One wrong field, as in Status.details.causes. */
export interface FieldProblem {
  readonly reason:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden'
    | 'FieldValueDuplicate'
    | 'FieldValueTypeInvalid'
    | 'FieldValueTooLong'
    | 'FieldManagerConflict'
  /** `spec.containers[0].name` */
  readonly field: string
  readonly message: string
}

export interface StatusDetails {
  readonly group?: string
  readonly kind?: string
  readonly name?: string
  readonly uid?: string
  readonly causes?: readonly FieldProblem[]
  readonly retryAfterSeconds?: number
}

export interface Status {
  readonly kind: 'Status'
  readonly apiVersion: 'v1'
  readonly metadata: Record<string, never>
  readonly status: 'Success' | 'Failure'
  readonly message?: string
  readonly reason?: string
  readonly details?: StatusDetails
  readonly code: number
}

/** The kind that an error is about: its resource name and group. */
export interface About {
  readonly group: string
  readonly plural: string
  readonly kind: string
}

export class ApiError extends Error {
  override readonly name = 'ApiError'
  /** HTTP status. */
  readonly code: number
  readonly reason: string
  readonly details: StatusDetails | undefined

  constructor(code: number, reason: string, message: string, details?: StatusDetails, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.reason = reason
    this.details = details
  }

  toStatus(): Status {
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: this.message,
      reason: this.reason,
      ...(this.details && { details: this.details }),
      code: this.code,
    }
  }
}

const qualified = (about: Omit<About, 'kind'>): string =>
  about.group ? `${about.plural}.${about.group}` : about.plural
const detailsOf = (about: Omit<About, 'kind'>, name: string): StatusDetails => ({
  name,
  ...(about.group && { group: about.group }),
  kind: about.plural,
})

export const badRequest = (message: string, cause?: unknown): ApiError =>
  new ApiError(400, 'BadRequest', message, undefined, cause === undefined ? undefined : { cause })

export const unauthorized = (): ApiError => new ApiError(401, 'Unauthorized', 'Unauthorized')

export const notFound = (about: About, name: string): ApiError =>
  new ApiError(404, 'NotFound', `${qualified(about)} "${name}" not found`, detailsOf(about, name))

export const noSuchResource = (): ApiError =>
  new ApiError(404, 'NotFound', 'the server could not find the requested resource')

export const alreadyExists = (about: About, name: string): ApiError =>
  new ApiError(409, 'AlreadyExists', `${qualified(about)} "${name}" already exists`, detailsOf(about, name))

export const conflict = (about: About, name: string, problem: string): ApiError =>
  new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(about)} "${name}": ${problem}`,
    detailsOf(about, name),
  )

export const modified = (about: About, name: string): ApiError =>
  conflict(about, name, 'the object has been modified; please apply your changes to the latest version and try again')

export const expired = (message: string): ApiError => new ApiError(410, 'Expired', message)

export const methodNotAllowed = (): ApiError =>
  new ApiError(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource')

export const unsupportedMedia = (problem: string): ApiError => new ApiError(415, 'UnsupportedMediaType', problem)

export const notAcceptable = (): ApiError =>
  new ApiError(406, 'NotAcceptable', 'only the following media types are accepted: application/json, application/yaml')

export const tooLarge = (limit: number): ApiError =>
  new ApiError(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${limit}`)

export const forbidden = (
  about: Omit<About, 'kind'> & { readonly name?: string },
  user: string,
  verb: string,
  why: string,
  namespace?: string,
): ApiError => {
  const where = namespace ? `in the namespace "${namespace}"` : 'at the cluster scope'
  return new ApiError(
    403,
    'Forbidden',
    `${qualified(about)}${about.name ? ` "${about.name}"` : ''} is forbidden: User "${user}" cannot ${verb} resource "${about.plural}" in API group "${about.group}" ${where}${why && `: ${why}`}`,
    detailsOf(about, about.name ?? ''),
  )
}

/** For a path that is no resource. */
export const forbiddenPath = (path: string, user: string, verb: string): ApiError =>
  new ApiError(403, 'Forbidden', `forbidden: User "${user}" cannot ${verb} path "${path}"`)

export const internal = (cause: unknown): ApiError =>
  new ApiError(
    500,
    'InternalError',
    `Internal error occurred: ${cause instanceof Error ? cause.message : cause}`,
    undefined,
    {
      cause,
    },
  )

/** 422 with every wrong field. */
export function invalid(about: About, name: string, problems: readonly FieldProblem[]): ApiError {
  const texts = problems.map((problem) => `${problem.field}: ${problem.message}`)
  const text = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`
  return new ApiError(
    422,
    'Invalid',
    `${about.kind}${about.group ? `.${about.group}` : ''} "${name}" is invalid: ${text}`,
    { name, ...(about.group && { group: about.group }), kind: about.kind, causes: problems },
  )
}

const shown = (value: unknown): string => (value === undefined ? 'null' : formatJson(value))

/** Problems in the words that kubectl's users know. */
export const problem = {
  required: (field: string, detail = ''): FieldProblem => ({
    reason: 'FieldValueRequired',
    field,
    message: detail ? `Required value: ${detail}` : 'Required value',
  }),
  invalid: (field: string, value: unknown, detail: string): FieldProblem => ({
    reason: 'FieldValueInvalid',
    field,
    message: `Invalid value: ${shown(value)}: ${detail}`,
  }),
  unsupported: (field: string, value: unknown, supported: readonly unknown[]): FieldProblem => ({
    reason: 'FieldValueNotSupported',
    field,
    message: `Unsupported value: ${shown(value)}: supported values: ${supported.map(shown).join(', ')}`,
  }),
  forbidden: (field: string, detail: string): FieldProblem => ({
    reason: 'FieldValueForbidden',
    field,
    message: `Forbidden: ${detail}`,
  }),
  duplicate: (field: string, value: unknown): FieldProblem => ({
    reason: 'FieldValueDuplicate',
    field,
    message: `Duplicate value: ${shown(value)}`,
  }),
  type: (field: string, value: unknown, detail: string): FieldProblem => ({
    reason: 'FieldValueTypeInvalid',
    field,
    message: `Invalid value: ${JSON.stringify(typeof value === 'object' ? (Array.isArray(value) ? 'array' : 'object') : typeof value)}: ${detail}`,
  }),
}
