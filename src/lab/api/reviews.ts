/**
 * Kinds that are questions, not objects: posted, answered, not stored.
 * Sources: Kubernetes API reference, authentication.k8s.io/v1 and authorization.k8s.io/v1.
 */
import type { Attempt } from './access/attempt.ts'
import type { Authenticator } from './access/authenticator.ts'
import type { Authorizer } from './access/authorizer.ts'
import { badRequest } from './api-error.ts'
import type { TokenUser } from './interfaces.ts'
import { isObject } from './schema/schema.ts'

/** Who answers. */
export interface Access {
  readonly authenticator: Authenticator
  readonly authorizer: Authorizer
}

type Spec = Record<string, unknown>

export interface Review {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly namespaced: boolean
  /** The status. `namespace` is the path's, when there is one. */
  answer(spec: Spec, asker: TokenUser, access: Access, namespace: string | undefined): unknown
}

const textOf = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

function attemptOf({ nonResourceAttributes: path, resourceAttributes: resource }: Spec): Attempt {
  if (isObject(path)) return { verb: textOf(path.verb) ?? '', path: textOf(path.path) ?? '' }
  if (!isObject(resource))
    throw badRequest('spec: exactly one of nonResourceAttributes or resourceAttributes must be specified')
  return {
    verb: textOf(resource.verb) ?? '',
    group: textOf(resource.group) ?? '',
    plural: textOf(resource.resource) ?? '',
    subresource: textOf(resource.subresource),
    namespace: textOf(resource.namespace),
    name: textOf(resource.name),
  }
}

function accessOf(spec: Spec, user: TokenUser, { authorizer }: Access): unknown {
  const { allowed, reason } = authorizer.decide(user, attemptOf(spec))
  return { allowed, ...(reason && { reason }) }
}

function subjectOf(spec: Spec): TokenUser {
  const groups = Array.isArray(spec.groups) ? spec.groups.map(String) : []
  const user = textOf(spec.user) ?? ''
  if (user === '' && groups.length === 0) throw badRequest('spec: at least one of user or group must be specified')
  return { user, groups }
}

const userInfo = ({ user, uid, groups, extra }: TokenUser) => ({
  username: user,
  ...(uid && { uid }),
  groups,
  ...(extra && { extra }),
})

function rulesOf(user: TokenUser, namespace: string, { authorizer }: Access): unknown {
  const rules = authorizer.rulesOf(user, namespace)
  return {
    resourceRules: rules.filter((rule) => rule.resources?.length),
    nonResourceRules: rules
      .filter((rule) => rule.nonResourceURLs?.length)
      .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
    incomplete: false,
  }
}

const authentication = { group: 'authentication.k8s.io', version: 'v1', namespaced: false }
const authorization = { group: 'authorization.k8s.io', version: 'v1', namespaced: false }

export const reviews: readonly Review[] = [
  {
    ...authentication,
    kind: 'TokenReview',
    plural: 'tokenreviews',
    answer: (spec, _asker, { authenticator }) => {
      const audiences = Array.isArray(spec.audiences) && spec.audiences.length ? spec.audiences.map(String) : undefined
      const user = typeof spec.token === 'string' ? authenticator.userOfToken(spec.token, audiences) : undefined
      return user
        ? { authenticated: true, user: userInfo(user), ...(audiences && { audiences }) }
        : { user: {}, error: 'invalid bearer token' }
    },
  },
  {
    ...authentication,
    kind: 'SelfSubjectReview',
    plural: 'selfsubjectreviews',
    answer: (_spec, asker) => ({ userInfo: userInfo(asker) }),
  },
  {
    ...authorization,
    kind: 'SelfSubjectAccessReview',
    plural: 'selfsubjectaccessreviews',
    answer: accessOf,
  },
  {
    ...authorization,
    kind: 'SubjectAccessReview',
    plural: 'subjectaccessreviews',
    answer: (spec, _asker, access) => accessOf(spec, subjectOf(spec), access),
  },
  {
    ...authorization,
    kind: 'LocalSubjectAccessReview',
    plural: 'localsubjectaccessreviews',
    namespaced: true,
    answer: (spec, _asker, access, namespace) => {
      const attempt = attemptOf(spec)
      if ('path' in attempt || attempt.namespace !== namespace)
        throw badRequest(`spec.resourceAttributes.namespace must match metadata.namespace`)
      return accessOf(spec, subjectOf(spec), access)
    },
  },
  {
    ...authorization,
    kind: 'SelfSubjectRulesReview',
    plural: 'selfsubjectrulesreviews',
    answer: (spec, asker, access) => rulesOf(asker, textOf(spec.namespace) ?? '', access),
  },
]
