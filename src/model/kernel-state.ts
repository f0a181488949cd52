/**
 * What a kernel has and what weft does to it.
 */
import type { KernelKey, KernelObject } from './kernel-object.ts'

/** A reading of the kernel (or a want): objects by identity. */
export type KernelState = ReadonlyMap<KernelKey, KernelObject>

/**
 * One change. `add` fails when the key exists, `set` brings an existing object to the given fields (for a route, a
 * neighbour or an FDB entry: an atomic replace that also creates), `delete` removes what the key names.
 * Prints as the line that an operator would type (formatOp).
 */
export interface KernelOp {
  readonly verb: 'add' | 'set' | 'delete'
  readonly object: KernelObject
  /** For `set`: what was there, when known; tells which fields differ. */
  readonly was?: KernelObject
}

/** What one source object (a node, a pod, a service, …) wants: plain frozen data. */
export interface Fragment {
  /** `node/n2`, `pod/default/web-0`, `self`, … */
  readonly source: string
  readonly objects: readonly KernelObject[]
}
