/**
 * The three patches that need no memory of who owns what: JSON patch, merge patch, strategic merge patch.
 * Sources: RFC 6902, RFC 7386; Kubernetes documentation, "Update API Objects in Place Using kubectl patch".
 */
import { applyPatch, type Operation } from 'rfc6902'
import { ApiError, badRequest, unsupportedMedia } from '../api-error.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Kind } from '../kinds/kind.ts'
import { isObject, type SchemaSource } from '../schema/schema.ts'
import { mergePatch, strategicMerge } from './merge.ts'

export type PatchType = 'json' | 'merge' | 'strategic' | 'apply'

/** Operations that one JSON patch may have. */
const operationLimit = 10_000

/** The object after the patch; the old one is left as it was. Throws ApiError 400, 415 or 422. */
export function patchObject(
  source: SchemaSource,
  kind: Kind,
  old: KubeObject,
  type: Exclude<PatchType, 'apply'>,
  patch: unknown,
): unknown {
  if (type === 'json') return jsonPatch(old, patch)
  if (!isObject(patch)) throw badRequest('the patch must be a JSON object')
  if (type === 'merge') return mergePatch(old, patch)
  if (kind.custom)
    throw unsupportedMedia(
      'the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml',
    )
  return strategicMerge(source, kind.schema, old, patch)
}

function jsonPatch(old: KubeObject, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw badRequest('a JSON patch must be an array of operations')
  if (patch.length > operationLimit)
    throw badRequest(`The allowed maximum operations in a JSON patch is ${operationLimit}, got ${patch.length}`)
  for (const operation of patch)
    if (!isObject(operation) || typeof operation.op !== 'string' || typeof operation.path !== 'string')
      throw badRequest('each operation of a JSON patch needs op and path')
  const next: unknown = structuredClone(old)
  let failures: (Error | null)[]
  try {
    failures = applyPatch(next, patch as Operation[])
  } catch (error) {
    throw badRequest(`the JSON patch cannot be applied: ${(error as Error).message}`, error)
  }
  const failed = failures.findIndex((failure) => failure !== null)
  if (failed !== -1)
    throw new ApiError(
      422,
      'Invalid',
      `the server rejected our request due to an error in our request: operation ${failed} (${(patch[failed] as Operation).op} ${(patch[failed] as { path: string }).path}): ${failures[failed]!.message}`,
    )
  return next
}
