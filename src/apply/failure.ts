/**
 * Which refusals of the kernel mean that the work is done already.
 */
import type { KernelError } from '../model/errors.ts'

const codes: Readonly<Record<'gone' | 'exists', ReadonlySet<string>>> = {
  gone: new Set(['ENOENT', 'ESRCH', 'ENODEV', 'ENXIO', 'EADDRNOTAVAIL']),
  exists: new Set(['EEXIST']),
}

/** `gone`: what the operation was about is not there. `exists`: it is there already. */
export const errorCodeMeans = (error: KernelError, meaning: 'gone' | 'exists'): boolean =>
  codes[meaning].has(error.code)
