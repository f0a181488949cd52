/**
 * Role-based access control: whether any rule of any role that is bound to a user covers an attempt. Pure over the
 * roles and bindings that it is given; nothing is remembered, so a changed binding holds for the next request.
 * Sources: Kubernetes documentation, "Using RBAC Authorization"; API reference, rbac.authorization.k8s.io/v1.
 */
import type { KubeObject, TokenUser } from '../interfaces.ts'
import { matchesSelector } from '../selectors.ts'
import { type Attempt, type Decision, no, yes } from './attempt.ts'

type LabelSelector = NonNullable<Parameters<typeof matchesSelector>[0]>

export interface PolicyRule {
  readonly verbs: readonly string[]
  readonly apiGroups?: readonly string[]
  readonly resources?: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly nonResourceURLs?: readonly string[]
}

interface Subject {
  readonly kind: string
  readonly name: string
  readonly namespace?: string
}

/** Where roles and bindings come from; absent roles are undefined. */
export interface RoleSource {
  clusterRole(name: string): KubeObject | undefined
  role(namespace: string, name: string): KubeObject | undefined
  clusterRoleBindings(): readonly KubeObject[]
  roleBindings(namespace: string): readonly KubeObject[]
}

/** The user name of a service account. */
export const serviceAccountUser = (namespace: string, name: string): string =>
  `system:serviceaccount:${namespace}:${name}`

/** Groups that every service account of a namespace is in. */
export const serviceAccountGroups = (namespace: string): string[] => [
  'system:serviceaccounts',
  `system:serviceaccounts:${namespace}`,
]

const covers = (list: readonly string[] | undefined, wanted: string): boolean =>
  list !== undefined && (list.includes('*') || list.includes(wanted))

/** `/healthz`, or `/healthz/*` for everything that begins with `/healthz/`. */
const coversPath = (patterns: readonly string[] | undefined, path: string): boolean =>
  patterns?.some(
    (pattern) =>
      pattern === '*' || pattern === path || (pattern.endsWith('*') && path.startsWith(pattern.slice(0, -1))),
  ) ?? false

/** `pods`, `pods/log`, `*` for everything, or a star before the slash for a subresource of everything. */
function coversResource(resources: readonly string[] | undefined, plural: string, subresource: string | undefined) {
  if (!resources) return false
  const whole = subresource ? `${plural}/${subresource}` : plural
  return resources.some(
    (each) => each === '*' || each === whole || (subresource !== undefined && each === `*/${subresource}`),
  )
}

/** Whether one rule covers an attempt. */
export function ruleCovers(rule: PolicyRule, attempt: Attempt): boolean {
  if (!covers(rule.verbs, attempt.verb)) return false
  if ('path' in attempt) return coversPath(rule.nonResourceURLs, attempt.path)
  const { group, plural, subresource, name } = attempt
  if (!covers(rule.apiGroups, group) || !coversResource(rule.resources, plural, subresource)) return false
  const { resourceNames } = rule
  return !resourceNames?.length || (name !== undefined && resourceNames.includes(name))
}

function isSubject(subject: Subject, user: TokenUser, bindingNamespace: string): boolean {
  if (subject.kind === 'User') return subject.name === user.user
  if (subject.kind === 'Group') return user.groups.includes(subject.name)
  const namespace = subject.namespace || bindingNamespace
  return subject.kind === 'ServiceAccount' && serviceAccountUser(namespace, subject.name) === user.user
}

const rulesOf = (role: KubeObject | undefined): readonly PolicyRule[] => (role?.rules ?? []) as PolicyRule[]

/** A binding that names the user, and the rules that it gives; `namespace` is undefined for those of the whole cluster. */
export interface Grant {
  readonly binding: KubeObject
  readonly namespace: string | undefined
  readonly rules: readonly PolicyRule[]
}

/** Everything that the user was given: cluster-wide, and in the namespace when there is one. */
export function* grantsOf(source: RoleSource, user: TokenUser, namespace: string | undefined): Generator<Grant> {
  const named = (binding: KubeObject) =>
    ((binding.subjects ?? []) as Subject[]).some((subject) =>
      isSubject(subject, user, binding.metadata.namespace ?? ''),
    )
  for (const binding of source.clusterRoleBindings())
    if (named(binding))
      yield { binding, namespace: undefined, rules: rulesOf(source.clusterRole(binding.roleRef?.name ?? '')) }
  if (!namespace) return
  for (const binding of source.roleBindings(namespace)) {
    if (!named(binding)) continue
    const { kind, name = '' } = binding.roleRef ?? {}
    const role = kind === 'ClusterRole' ? source.clusterRole(name) : source.role(namespace, name)
    yield { binding, namespace, rules: rulesOf(role) }
  }
}

function describe({ binding, namespace }: Grant, user: TokenUser): string {
  const { kind, name } = binding.roleRef
  const subject = ((binding.subjects ?? []) as Subject[]).find((each) =>
    isSubject(each, user, binding.metadata.namespace ?? ''),
  )
  const of =
    namespace === undefined
      ? `ClusterRoleBinding "${binding.metadata.name}"`
      : `RoleBinding "${binding.metadata.name}/${namespace}"`
  const who =
    subject?.kind === 'ServiceAccount' ? `${subject.name}/${subject.namespace ?? namespace}` : (subject?.name ?? '')
  return `RBAC: allowed by ${of} of ${kind} "${name}" to ${subject?.kind} "${who}"`
}

/** Rules of a namespace's bindings do not reach paths that are no resource. */
export function decideByRoles(source: RoleSource, user: TokenUser, attempt: Attempt): Decision {
  const namespace = 'path' in attempt ? undefined : attempt.namespace
  for (const grant of grantsOf(source, user, namespace))
    if (grant.rules.some((rule) => ruleCovers(rule, attempt))) return yes(describe(grant, user))
  return no()
}

/** The simple attempts that a rule is the sum of; wildcards stay as they are. */
function* partsOf(rule: PolicyRule): Generator<PolicyRule> {
  for (const verb of rule.verbs) {
    for (const url of rule.nonResourceURLs ?? []) yield { verbs: [verb], nonResourceURLs: [url] }
    for (const group of rule.apiGroups ?? [])
      for (const resource of rule.resources ?? [])
        for (const name of rule.resourceNames?.length ? rule.resourceNames : [undefined])
          yield {
            verbs: [verb],
            apiGroups: [group],
            resources: [resource],
            ...(name !== undefined && { resourceNames: [name] }),
          }
  }
}

/** Whether somebody who holds `held` may give `wanted` away; a part that they lack, or undefined when there is none. */
export function missingPart(held: readonly PolicyRule[], wanted: readonly PolicyRule[]): PolicyRule | undefined {
  for (const rule of wanted)
    for (const part of partsOf(rule)) if (!held.some((own) => includesPart(own, part))) return part
  return undefined
}

function includesPart(own: PolicyRule, part: PolicyRule): boolean {
  const verb = part.verbs[0]!
  const url = part.nonResourceURLs?.[0]
  if (url !== undefined) return covers(own.verbs, verb) && coversPath(own.nonResourceURLs, url)
  const [plural = '', subresource] = (part.resources?.[0] ?? '').split('/')
  const name = part.resourceNames?.[0]
  return ruleCovers(own, { verb, group: part.apiGroups?.[0] ?? '', plural, subresource, name })
}

/**
 * The rules of a role that is put together from others by their labels, in the order of those roles' names; undefined
 * for a role with rules of its own.
 */
export function aggregatedRules(role: KubeObject, all: readonly KubeObject[]): PolicyRule[] | undefined {
  const selectors: LabelSelector[] | undefined = role.aggregationRule?.clusterRoleSelectors
  if (!selectors) return undefined
  const rules = new Map<string, PolicyRule>()
  const parts = all
    .filter(({ metadata }) => metadata.name !== role.metadata.name)
    .filter(({ metadata }) => selectors.some((selector) => matchesSelector(selector, metadata.labels)))
    .sort((a, b) => (a.metadata.name! < b.metadata.name! ? -1 : 1))
  for (const part of parts) for (const rule of rulesOf(part)) rules.set(JSON.stringify(rule), rule)
  return [...rules.values()]
}
