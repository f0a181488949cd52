/**
 * Whether a node has come to a data path, by what its agent writes into the annotations of its Node object.
 */
import type { KubeObject } from './api/interfaces.ts'
import type { Wanted } from './spec.ts'

const annotation = (node: KubeObject, key: string): string => node.metadata.annotations?.[key] ?? ''

/** flannel's word for the backend that a node announces; empty when it announces none. */
export const backendOf = (node: KubeObject): string => annotation(node, 'flannel.alpha.coreos.com/backend-type')

interface Status {
  readonly accepts: readonly string[]
  readonly sends: readonly string[]
}

/** What a weft node says of itself; undefined where it says nothing that can be read. */
function statusOf(node: KubeObject): Status | undefined {
  try {
    const { accepts, sends } = JSON.parse(annotation(node, 'weft.dev/node-status')) as Status
    return { accepts: [...accepts], sends: [...sends] }
  } catch {
    return undefined
  }
}

const isCalico = (path: string): boolean => path.startsWith('calico/')
/** Without VNI and port, which FelixConfiguration may say otherwise for all nodes. */
const kindOf = (path: string): string => path.split('/', 2).join('/')
const sorted = (paths: readonly string[]): string => [...new Set(paths)].sort().join()

/** By what a node says that it sends: flannel's word, and Calico's ways as path ids without their numbers. */
export function sendsBy(node: KubeObject): string {
  const calico = (statusOf(node)?.sends ?? []).filter(isCalico).map(kindOf)
  return [...new Set([backendOf(node), ...calico])].filter(Boolean).join(',')
}

/** True when a node says of itself that it takes in and sends by the paths of each dialect and no other of that dialect. */
export function arrived(node: KubeObject, { flannel, calico }: Wanted): boolean {
  const status = statusOf(node)
  if (flannel) {
    if (backendOf(node) !== flannel.type) return false
    const of = (paths: readonly string[]) => sorted(paths.filter((path) => !isCalico(path)))
    // A node without a status is not weft's own: flannel's word is all that it says.
    if (status && (of(status.accepts) !== of(flannel.paths) || of(status.sends) !== of(flannel.paths))) return false
    if (!status && annotation(node, 'weft.dev/node-status')) return false
  }
  if (!calico) return true
  const of = (paths: readonly string[]) => sorted(paths.filter(isCalico).map(kindOf))
  return status !== undefined && of(status.accepts) === of(calico) && of(status.sends) === of(calico)
}
