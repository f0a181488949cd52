/**
 * Kinds that are questions, not objects: posted, answered, not stored.
 * Sources: Kubernetes API reference, authentication.k8s.io/v1 and authorization.k8s.io/v1.
 */
import { badRequest } from './api-error.ts'
import { administrators, authorize, userOfToken } from './auth.ts'
import type { TokenUser } from './interfaces.ts'
import { isObject } from './schema/schema.ts'

export interface Review {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly namespaced: boolean
  answer(spec: Record<string, unknown>, asker: TokenUser, tokens: ReadonlyMap<string, TokenUser>): unknown
}

interface Attributes {
  verb?: string
  group?: string
  resource?: string
  subresource?: string
  namespace?: string
  name?: string
}

function accessOf(spec: Record<string, unknown>, user: TokenUser): unknown {
  if (isObject(spec.nonResourceAttributes)) {
    const allowed = user.groups.includes(administrators) || spec.nonResourceAttributes.verb === 'get'
    return { allowed }
  }
  if (!isObject(spec.resourceAttributes))
    throw badRequest('spec: resourceAttributes or nonResourceAttributes is required')
  const { verb = '*', group = '', resource = '*', subresource, namespace, name } = spec.resourceAttributes as Attributes
  const { allowed, reason } = authorize(user, { verb, group, plural: resource, subresource, namespace, name })
  return { allowed, ...(reason && { reason }) }
}

const userInfo = ({ user, uid, groups }: TokenUser) => ({ username: user, ...(uid && { uid }), groups })

function rulesOf(user: TokenUser): unknown {
  const everything = user.groups.includes(administrators)
  return {
    resourceRules: [{ verbs: everything ? ['*'] : ['get', 'list', 'watch'], apiGroups: ['*'], resources: ['*'] }],
    nonResourceRules: [{ verbs: everything ? ['*'] : ['get'], nonResourceURLs: ['*'] }],
    incomplete: !everything,
  }
}

const authentication = { group: 'authentication.k8s.io', version: 'v1', namespaced: false }
const authorization = { group: 'authorization.k8s.io', version: 'v1', namespaced: false }

export const reviews: readonly Review[] = [
  {
    ...authentication,
    kind: 'TokenReview',
    plural: 'tokenreviews',
    answer: (spec, _asker, tokens) => {
      const user = typeof spec.token === 'string' ? userOfToken(spec.token, tokens) : undefined
      return user ? { authenticated: true, user: userInfo(user) } : { user: {}, error: 'invalid bearer token' }
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
    answer: (spec) => {
      const groups = Array.isArray(spec.groups) ? spec.groups.map(String) : []
      return accessOf(spec, { user: String(spec.user ?? ''), groups })
    },
  },
  {
    ...authorization,
    kind: 'SelfSubjectRulesReview',
    plural: 'selfsubjectrulesreviews',
    answer: (_spec, asker) => rulesOf(asker),
  },
]
