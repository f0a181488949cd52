/**
 * Error numbers by name and in words, and KernelErrors made of them. Shared by the real kernel and its twin.
 */
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { KernelError } from '../model/errors.ts'

const codes = new Map<number, string>()
for (const [name, number] of Object.entries(constants.errno)) if (!codes.has(number)) codes.set(number, name)
codes.set(95, 'EOPNOTSUPP')
codes.set(11, 'EAGAIN')
codes.set(524, 'ENOTSUPP')

/** Symbolic name of a positive errno. */
export const errnoCode = (errno: number): string => codes.get(errno) ?? `E${errno}`

/** Positive errno of a symbolic name. */
export const errnoOf = (code: string): number => (constants.errno as Readonly<Record<string, number>>)[code] ?? 5

/** The errno in words. */
export const errnoText = (errno: number): string => getSystemErrorMap().get(-errno)?.[1] ?? `error ${errno}`

/** A KernelError for an operation (as an operator would type it) that failed with a positive errno. */
export function kernelError(
  op: string,
  errno: number,
  detail: { readonly extack?: string | undefined; readonly offset?: number | undefined } = {},
  options?: ErrorOptions,
): KernelError {
  return new KernelError(op, { errno, code: errnoCode(errno), text: errnoText(errno), ...detail }, options)
}
