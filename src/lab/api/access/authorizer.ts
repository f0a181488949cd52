/**
 * The server's answer to "may this user do that": administrators everything, nodes what nodes may, everybody what RBAC
 * gives them. And what a user may not write although they may write the object: a node its taints, anybody a role with
 * more rights than their own.
 * Sources: Kubernetes documentation, "Authorization", "Using RBAC Authorization" (privilege escalation prevention).
 */
import type { ObjectStore } from '../../../cluster/embedded/store.ts'
import { forbidden } from '../api-error.ts'
import type { KubeObject, TokenUser } from '../interfaces.ts'
import type { Kind } from '../kinds/kind.ts'
import { type Attempt, type Decision, yes } from './attempt.ts'
import { decideForNode, type NodeView, nodeNameExtra, nodeOf, nodeRestriction } from './node.ts'
import { decideByRoles, grantsOf, missingPart, type PolicyRule, type RoleSource } from './rbac.ts'

export const administrators = 'system:masters'
const rbacGroup = 'rbac.authorization.k8s.io'
const storageOf = (plural: string): string => `${plural}.${rbacGroup}`

/** Roles and bindings as they are in the store now. */
export function storedRoles(store: ObjectStore): RoleSource {
  const get = (plural: string, namespace: string, name: string) =>
    store.get(storageOf(plural), namespace, name) as KubeObject | undefined
  return {
    clusterRole: (name) => get('clusterroles', '', name),
    role: (namespace, name) => get('roles', namespace, name),
    clusterRoleBindings: () => store.list(storageOf('clusterrolebindings')) as KubeObject[],
    roleBindings: (namespace) => store.list(storageOf('rolebindings'), namespace) as KubeObject[],
  }
}

const storedPods = (store: ObjectStore): NodeView => ({
  pod: (namespace, name) => store.get('pods', namespace, name) as KubeObject | undefined,
  podsOn: (node) => (store.list('pods') as KubeObject[]).filter((pod) => pod.spec?.nodeName === node),
})

/** Looks at an object about to be written, beside the stored one. Throws 403. */
export type WriteGuard = (kind: Kind, next: KubeObject, old: KubeObject | undefined) => void

export class Authorizer {
  readonly #roles: RoleSource
  readonly #pods: NodeView

  constructor(store: ObjectStore) {
    this.#roles = storedRoles(store)
    this.#pods = storedPods(store)
  }

  decide(user: TokenUser, attempt: Attempt): Decision {
    if (user.groups.includes(administrators)) return yes('')
    const node = nodeOf(user)
    const own = node !== undefined && !('path' in attempt) ? decideForNode(node, attempt, this.#pods) : undefined
    if (own?.allowed) return own
    const granted = decideByRoles(this.#roles, user, attempt)
    return granted.allowed || !own ? granted : own
  }

  /** Every rule that holds for the user in a namespace. */
  rulesOf(user: TokenUser, namespace: string): PolicyRule[] {
    if (user.groups.includes(administrators))
      return [
        { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
        { verbs: ['*'], nonResourceURLs: ['*'] },
      ]
    return [...grantsOf(this.#roles, user, namespace)].flatMap(({ rules }) => rules)
  }

  /** What to look at when the user writes; undefined when they may write anything. */
  guard(user: TokenUser): WriteGuard | undefined {
    if (user.groups.includes(administrators)) return undefined
    return (kind, next, old) => {
      const node = nodeOf(user)
      const bound = node ?? (kind.storage === 'nodes' ? user.extra?.[nodeNameExtra]?.[0] : undefined)
      const why = bound === undefined ? undefined : nodeRestriction(bound, kind.storage, next, old)
      if (why) throw forbidden({ ...kind, name: next.metadata.name! }, user.user, old ? 'update' : 'create', why)
      if (kind.group === rbacGroup) this.#checkEscalation(user, kind, next, old)
    }
  }

  /** Nobody gives away what they do not have, unless told that they may. */
  #checkEscalation(user: TokenUser, kind: Kind, next: KubeObject, old: KubeObject | undefined): void {
    const { namespace = '', name = '' } = next.metadata
    const held = this.rulesOf(user, namespace)
    const binding = kind.plural.endsWith('bindings')
    const about = binding
      ? { plural: next.roleRef?.kind === 'Role' ? 'roles' : 'clusterroles', name: String(next.roleRef?.name ?? '') }
      : { plural: kind.plural, name }
    const attempt = { verb: binding ? 'bind' : 'escalate', group: rbacGroup, namespace, ...about }
    if (this.decide(user, attempt).allowed) return
    const role = binding
      ? about.plural === 'roles'
        ? this.#roles.role(namespace, about.name)
        : this.#roles.clusterRole(about.name)
      : next
    const lacking = missingPart(held, (role?.rules ?? []) as PolicyRule[])
    if (!lacking) return
    throw forbidden(
      { ...kind, name },
      user.user,
      old ? 'update' : 'create',
      `user "${user.user}" is attempting to grant RBAC permissions not currently held: ${JSON.stringify(lacking)}`,
    )
  }
}
