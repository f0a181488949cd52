/**
 * Whether a node has come to a data path, by what its agent writes into the annotations of its Node object.
 */
import type { KubeObject } from './api/interfaces.ts'
import type { WantedPaths } from './spec.ts'

const annotation = (node: KubeObject, key: string): string => node.metadata.annotations?.[key] ?? ''

/** flannel's word for the backend that a node announces; empty when it announces none. */
export const backendOf = (node: KubeObject): string => annotation(node, 'flannel.alpha.coreos.com/backend-type')

/** True when a node says of itself that it announces the backend, and takes in and sends by its paths and no other. */
export function arrived(node: KubeObject, wanted: WantedPaths): boolean {
  if (backendOf(node) !== wanted.type) return false
  const text = annotation(node, 'weft.dev/node-status')
  if (!text) return true
  const paths = [...wanted.paths].sort().join()
  try {
    const { accepts, sends } = JSON.parse(text) as { accepts: string[]; sends: string[] }
    return [...accepts].sort().join() === paths && [...sends].sort().join() === paths
  } catch {
    return false
  }
}
