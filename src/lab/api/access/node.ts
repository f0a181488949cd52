/**
 * What a node's own credentials may do: read what its pods need, write its own Node, the pods bound to it, its Lease,
 * and Events. Anything beyond comes from RBAC. The second half holds for what a node writes whoever allowed it:
 * its labels and taints are not all its own to choose.
 * Sources: Kubernetes documentation, "Using Node Authorization", "NodeRestriction" admission plugin,
 * "Well-Known Labels, Annotations and Taints".
 */
import { isDeepStrictEqual } from 'node:util'
import type { KubeObject, TokenUser } from '../interfaces.ts'
import { type Decision, no, type ResourceAttempt, yes } from './attempt.ts'

export const nodesGroup = 'system:nodes'
/** Credentials that are not a node's, but bound to one: those of agents. */
export const nodeNameExtra = 'authentication.kubernetes.io/node-name'

/** What a decision needs to know of the store. */
export interface NodeView {
  pod(namespace: string, name: string): KubeObject | undefined
  podsOn(node: string): readonly KubeObject[]
}

/** The node that the user is, or undefined. */
export const nodeOf = (user: TokenUser): string | undefined =>
  user.groups.includes(nodesGroup) ? /^system:node:(.+)$/.exec(user.user)?.[1] : undefined

const reading = new Set(['get', 'list', 'watch'])
const writing = new Set(['create', 'update', 'patch'])
/** Kinds that every node reads whole, as `plural.group`. */
const open = new Set(['nodes', 'pods', 'services', 'runtimeclasses.node.k8s.io', 'csidrivers.storage.k8s.io'])
const reviewed = new Set([
  'tokenreviews.authentication.k8s.io',
  'subjectaccessreviews.authorization.k8s.io',
  'localsubjectaccessreviews.authorization.k8s.io',
])

/** The decision for a node; whatever it does not allow, RBAC may. */
export function decideForNode(node: string, attempt: ResourceAttempt, view: NodeView): Decision {
  const { verb, group, plural, subresource, namespace, name } = attempt
  const resource = group ? `${plural}.${group}` : plural
  if (reading.has(verb) && !subresource && open.has(resource)) return yes('nodes read it')
  if (verb === 'create' && reviewed.has(resource)) return yes('nodes ask it')
  switch (resource) {
    case 'events':
    case 'events.events.k8s.io':
      return writing.has(verb) ? yes('nodes report events') : no()
    case 'leases.coordination.k8s.io':
      return decideLease(node, attempt)
    case 'nodes':
      return decideNode(node, attempt)
    case 'pods':
      return decidePod(node, attempt, view)
    case 'configmaps':
    case 'secrets':
      if (reading.has(verb) && namespace && name && refersTo(view.podsOn(node), plural, namespace, name))
        return yes(`a pod of ${node} refers to it`)
      return no(`no relationship found between node '${node}' and this object`)
    case 'serviceaccounts':
      if (verb === 'create' && subresource === 'token' && runsAs(view.podsOn(node), namespace, name))
        return yes(`a pod of ${node} runs as it`)
      return no(`no relationship found between node '${node}' and this object`)
    default:
      return no()
  }
}

function decideLease(node: string, { verb, namespace, name }: ResourceAttempt): Decision {
  const known = verb === 'get' || verb === 'delete' || writing.has(verb)
  if (known && namespace === 'kube-node-lease' && (name === node || verb === 'create')) return yes('own lease')
  return no(`can only access node lease with the same name as the requesting node`)
}

function decideNode(node: string, { verb, subresource, name }: ResourceAttempt): Decision {
  const part = !subresource || subresource === 'status'
  if (writing.has(verb) && part && (verb === 'create' ? !subresource : name === node)) return yes('own node')
  return no(`node "${node}" is not allowed to ${verb} node "${name ?? ''}"`)
}

function decidePod(node: string, { verb, subresource, namespace, name }: ResourceAttempt, view: NodeView): Decision {
  if (verb === 'create' && !subresource) return no('nodes do not create pods')
  const pod = namespace && name ? view.pod(namespace, name) : undefined
  const known =
    subresource === 'status'
      ? writing.has(verb) && verb !== 'create'
      : subresource === 'eviction'
        ? verb === 'create'
        : !subresource && verb === 'delete'
  if (known && pod?.spec?.nodeName === node) return yes('own pod')
  return no(`node "${node}" can only write the status of pods with spec.nodeName set to itself, and delete them`)
}

/** Whether any of the pods mounts the object or reads its environment from it. */
function refersTo(pods: readonly KubeObject[], plural: string, namespace: string, name: string): boolean {
  const [volume, key, from, nameKey] =
    plural === 'secrets'
      ? (['secret', 'secretKeyRef', 'secretRef', 'secretName'] as const)
      : (['configMap', 'configMapKeyRef', 'configMapRef', 'name'] as const)
  // biome-ignore lint/suspicious/noExplicitAny: parts of a pod's spec, checked when it was written
  type Json = any
  return pods.some(({ metadata, spec }) => {
    if (metadata.namespace !== namespace) return false
    const volumes: Json[] = spec?.volumes ?? []
    const containers: Json[] = [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]
    return (
      volumes.some(
        (each) =>
          each[volume]?.[nameKey] === name ||
          each.projected?.sources?.some((source: Json) => source[volume]?.name === name),
      ) ||
      containers.some(
        (each) =>
          each.env?.some((variable: Json) => variable.valueFrom?.[key]?.name === name) ||
          each.envFrom?.some((source: Json) => source[from]?.name === name),
      ) ||
      (plural === 'secrets' && spec?.imagePullSecrets?.some((each: Json) => each.name === name))
    )
  })
}

const runsAs = (pods: readonly KubeObject[], namespace: string | undefined, name: string | undefined): boolean =>
  pods.some((pod) => pod.metadata.namespace === namespace && (pod.spec?.serviceAccountName ?? 'default') === name)

/** Labels of Kubernetes' own domains that a node may put on itself. */
const ownLabel =
  /^(kubernetes\.io\/(hostname|arch|os)|beta\.kubernetes\.io\/(arch|os|instance-type)|node\.kubernetes\.io\/instance-type|(failure-domain\.beta|topology)\.kubernetes\.io\/(region|zone)|([a-z0-9-]+\.)*(kubelet|node)\.kubernetes\.io\/.+)$/
const reserved = /(^|\.)(kubernetes|k8s)\.io\//

/**
 * Why a node may not write this, or undefined. `node` is who writes; the plain write of a Node object, or through its
 * status subresource. Rights to the object itself are decided before.
 */
export function nodeRestriction(
  node: string,
  resource: string,
  next: KubeObject,
  old: KubeObject | undefined,
): string | undefined {
  if (resource === 'leases.coordination.k8s.io')
    return next.metadata.namespace === 'kube-node-lease' && next.metadata.name !== node
      ? 'can only access node lease with the same name as the requesting node'
      : undefined
  if (resource !== 'nodes') return undefined
  if (next.metadata.name !== node) return `node "${node}" is not allowed to modify node "${next.metadata.name}"`
  const before = old?.metadata.labels ?? {}
  const after = next.metadata.labels ?? {}
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (before[key] === after[key] || !reserved.test(key) || ownLabel.test(key)) continue
    return `is not allowed to modify labels: ${key}`
  }
  if (old && !isDeepStrictEqual(old.spec?.taints ?? [], next.spec?.taints ?? []))
    return `node "${node}" is not allowed to modify taints`
  if (old && !isDeepStrictEqual(old.metadata.ownerReferences ?? [], next.metadata.ownerReferences ?? []))
    return `node "${node}" is not allowed to modify ownerReferences`
  return undefined
}
