/**
 * Reading requests: the path into what it names, the query into options, the body into a value.
 * Sources: Kubernetes documentation, "Kubernetes API Concepts", "API terminology" and "Resource URIs".
 */

import type { IncomingMessage } from 'node:http'
import { gunzipSync } from 'node:zlib'
import { parseDocument } from 'yaml'
import { parseJson } from '../../../bytes/json.ts'
import type { WriteGuard } from '../access/authorizer.ts'
import { badRequest, tooLarge } from '../api-error.ts'
import type { FieldValidation } from '../decode.ts'
import type { WriteContext } from '../resources.ts'
import { decodeProtobuf } from './protobuf.ts'

/** Largest body: objects are at most 1.5 MiB, lists of patches a little more. */
const bodyLimit = 3 * 1024 * 1024
/** A body must have arrived within this time. */
const bodyTimeoutMilliseconds = 30_000

export interface ResourcePath {
  readonly group: string
  readonly version: string
  /** Undefined: across all namespaces, or cluster-wide. */
  readonly namespace?: string
  readonly plural: string
  readonly name?: string
  /** `status`, `scale`, `log`, … and what follows it. */
  readonly subresource?: string
  readonly rest: readonly string[]
}

/** `/api/v1/…` or `/apis/<group>/<version>/…` with at least a resource; undefined for anything else. */
export function parseResourcePath(path: string): ResourcePath | undefined {
  const parts = path.split('/').filter((part) => part !== '')
  let decoded: string[]
  try {
    decoded = parts.map(decodeURIComponent)
  } catch {
    return undefined
  }
  const core = decoded[0] === 'api'
  if (!core && decoded[0] !== 'apis') return undefined
  const group = core ? '' : (decoded[1] ?? '')
  const version = (core ? decoded[1] : decoded[2]) ?? ''
  const below = decoded.slice(core ? 2 : 3)
  if (below.length === 0 || version === '') return undefined
  // `watch/` before the resource is the old way to say ?watch=true; it is not served.
  if (below[0] === 'namespaces' && below.length >= 3 && !(core && ['status', 'finalize'].includes(below[2]!))) {
    const [, namespace, plural, name, subresource, ...rest] = below as [string, string, string, ...string[]]
    return { group, version, namespace, plural, ...(name && { name }), ...(subresource && { subresource }), rest }
  }
  const [plural, name, subresource, ...rest] = below as [string, ...string[]]
  return { group, version, plural, ...(name && { name }), ...(subresource && { subresource }), rest }
}

export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  const timer = setTimeout(() => request.destroy(new Error('the body did not arrive in time')), bodyTimeoutMilliseconds)
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > bodyLimit) throw tooLarge(bodyLimit)
      chunks.push(chunk)
    }
  } finally {
    clearTimeout(timer)
  }
  const body = Buffer.concat(chunks)
  if (request.headers['content-encoding'] !== 'gzip') return body
  try {
    return gunzipSync(body, { maxOutputLength: bodyLimit })
  } catch (error) {
    throw badRequest('the body is not valid gzip, or too large', error)
  }
}

export const mediaType = (request: IncomingMessage): string =>
  (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase()

function asJson(text: string): unknown {
  try {
    return parseJson(text)
  } catch {
    return undefined
  }
}

/** Body as a value. Throws 400 or 415. */
export function parseBody(body: Buffer, media: string): unknown {
  if (body.length === 0) return undefined
  if (media === 'application/vnd.kubernetes.protobuf') return decodeProtobuf(body)
  const text = body.toString('utf8')
  if (media.includes('yaml')) {
    // kubectl sends JSON as YAML, which it is; its large numbers keep their digits only as JSON.
    const json = text.startsWith('{') ? asJson(text) : undefined
    if (json !== undefined) return json
    const document = parseDocument(text, { merge: true, uniqueKeys: true })
    const [error] = document.errors
    if (error) throw badRequest(`error converting YAML to JSON: yaml: ${error.message.split('\n')[0]}`)
    try {
      return document.toJS({ maxAliasCount: 100 })
    } catch (cause) {
      throw badRequest(`error converting YAML to JSON: yaml: ${(cause as Error).message}`, cause)
    }
  }
  try {
    return parseJson(text)
  } catch (error) {
    throw badRequest(`couldn't parse the body as JSON: ${(error as Error).message}`, error)
  }
}

/** `User-Agent: kubectl/v1.32.4 (…)` → `kubectl`. */
const agentOf = (request: IncomingMessage): string =>
  ((request.headers['user-agent'] ?? '').split('/')[0] ?? '').slice(0, 128) || 'unknown'

export function writeContext(
  request: IncomingMessage,
  query: URLSearchParams,
  warnings: string[],
  guard: WriteGuard | undefined,
): WriteContext {
  const dryRun = query.getAll('dryRun')
  if (dryRun.some((value) => value !== 'All')) throw badRequest('invalid dryRun: only All is supported')
  const validation = query.get('fieldValidation') ?? 'Warn'
  if (!['Strict', 'Warn', 'Ignore'].includes(validation))
    throw badRequest(`invalid fieldValidation: ${validation}: supported values: Ignore, Warn, Strict`)
  const manager = query.get('fieldManager') ?? agentOf(request)
  if (manager.length > 128) throw badRequest('invalid fieldManager: may not be longer than 128')
  return {
    dryRun: dryRun.length > 0,
    fieldValidation: validation as FieldValidation,
    warnings,
    author: { manager },
    ...(guard && { guard }),
  }
}

export function integerOption(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name)
  if (text === null || text === '') return undefined
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0)
    throw badRequest(`invalid ${name}: ${JSON.stringify(text)}: must be a non-negative integer`)
  return value
}

export const flagOption = (query: URLSearchParams, name: string): boolean =>
  query.has(name) && !['false', '0'].includes(query.get(name)!)
