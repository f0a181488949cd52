import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KubeObject, TokenUser } from '../interfaces.ts'
import type { Attempt } from './attempt.ts'
import { aggregatedRules, decideByRoles, missingPart, type PolicyRule, type RoleSource, ruleCovers } from './rbac.ts'

const attempt = (text: string, more: object = {}): Attempt => {
  const [verb, resource = ''] = text.split(' ')
  if (resource.startsWith('/')) return { verb: verb!, path: resource }
  const [, plural, group = '', subresource] = /^([^./]+)(?:\.([^/]+))?(?:\/(.+))?$/.exec(resource)!
  return { verb: verb!, group, plural: plural!, subresource, ...more }
}

test('a rule covers verbs, groups, resources, subresources, names and paths, each with its own star', () => {
  const cases: [PolicyRule, string, boolean, object?][] = [
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }, 'get pods', true],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }, 'list pods', false],
    [{ verbs: ['*'], apiGroups: [''], resources: ['pods'] }, 'deletecollection pods', true],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }, 'get pods/log', false],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods/log'] }, 'get pods/log', true],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods/log'] }, 'get pods', false],
    [{ verbs: ['get'], apiGroups: [''], resources: ['*'] }, 'get pods/log', true],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods/*'] }, 'get pods/log', false],
    [{ verbs: ['update'], apiGroups: ['*'], resources: ['*/scale'] }, 'update deployments.apps/scale', true],
    [{ verbs: ['update'], apiGroups: ['*'], resources: ['*/scale'] }, 'update deployments.apps', false],
    [{ verbs: ['get'], apiGroups: ['apps'], resources: ['deployments'] }, 'get deployments', false],
    [{ verbs: ['get'], apiGroups: ['*'], resources: ['deployments'] }, 'get deployments.apps', true],
    [{ verbs: ['get'], resources: ['pods'] }, 'get pods', false],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods'], resourceNames: ['a'] }, 'get pods', true, { name: 'a' }],
    [{ verbs: ['get'], apiGroups: [''], resources: ['pods'], resourceNames: ['a'] }, 'get pods', false, { name: 'b' }],
    [{ verbs: ['list'], apiGroups: [''], resources: ['pods'], resourceNames: ['a'] }, 'list pods', false],
    [{ verbs: ['list'], apiGroups: [''], resources: ['pods'], resourceNames: [] }, 'list pods', true],
    [{ verbs: ['get'], nonResourceURLs: ['/healthz'] }, 'get /healthz', true],
    [{ verbs: ['get'], nonResourceURLs: ['/healthz'] }, 'get /healthz/etcd', false],
    [{ verbs: ['get'], nonResourceURLs: ['/healthz/*'] }, 'get /healthz/etcd', true],
    [{ verbs: ['get'], nonResourceURLs: ['*'] }, 'get /metrics', true],
    [{ verbs: ['get'], nonResourceURLs: ['*'] }, 'get pods', false],
    [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }, 'get /metrics', false],
  ]
  for (const [rule, text, covered, more] of cases)
    assert.equal(ruleCovers(rule, attempt(text, more)), covered, `${JSON.stringify(rule)} ${text}`)
})

const role = (name: string, rules: object[], namespace?: string, more: object = {}): KubeObject => ({
  metadata: { name, ...(namespace && { namespace }) },
  rules,
  ...more,
})
const binding = (kind: string, name: string, subjects: object[], namespace?: string): KubeObject => ({
  metadata: { name: `${name}-binding`, ...(namespace && { namespace }) },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
  subjects,
})
const pods: PolicyRule = { verbs: ['get'], apiGroups: [''], resources: ['pods'] }
const nodes: PolicyRule = { verbs: ['get'], apiGroups: [''], resources: ['nodes'] }
const clusterRoles = [role('pods', [pods]), role('nodes', [nodes, { verbs: ['get'], nonResourceURLs: ['/metrics'] }])]
const roles = [role('pods', [pods], 'a')]
const clusterBindings = [
  binding('ClusterRole', 'nodes', [
    { kind: 'Group', name: 'ops' },
    { kind: 'User', name: 'eve' },
    { kind: 'ServiceAccount', name: 'bot', namespace: 'a' },
  ]),
  binding('ClusterRole', 'missing', [{ kind: 'User', name: 'eve' }]),
]
const bindings = [
  binding(
    'Role',
    'pods',
    [
      { kind: 'User', name: 'adam' },
      { kind: 'ServiceAccount', name: 'bot' },
    ],
    'a',
  ),
  binding('ClusterRole', 'nodes', [{ kind: 'User', name: 'adam' }], 'a'),
  binding('ClusterRole', 'pods', [{ kind: 'Group', name: 'system:serviceaccounts:a' }], 'b'),
  binding('Role', 'pods', [{ kind: 'User', name: 'adam' }], 'b'),
]
const source: RoleSource = {
  clusterRole: (name) => clusterRoles.find(({ metadata }) => metadata.name === name),
  role: (namespace, name) => roles.find((r) => r.metadata.name === name && r.metadata.namespace === namespace),
  clusterRoleBindings: () => clusterBindings,
  roleBindings: (namespace) => bindings.filter(({ metadata }) => metadata.namespace === namespace),
}
const allowed = (user: TokenUser, text: string, namespace?: string): boolean =>
  decideByRoles(source, user, attempt(text, { namespace })).allowed

test('bindings: users, groups and service accounts, of the cluster and of a namespace alone', () => {
  const adam: TokenUser = { user: 'adam', groups: [] }
  const eve: TokenUser = { user: 'eve', groups: [] }
  const ops: TokenUser = { user: 'x', groups: ['ops'] }
  const bot: TokenUser = { user: 'system:serviceaccount:a:bot', groups: ['system:serviceaccounts:a'] }
  assert.ok(allowed(adam, 'get pods', 'a'))
  assert.ok(!allowed(adam, 'get pods', 'b'), 'the role of the other namespace is not there')
  assert.ok(!allowed(adam, 'get pods'), 'not across all namespaces')
  assert.ok(allowed(adam, 'get nodes', 'a'))
  assert.ok(!allowed(adam, 'get nodes'), 'a RoleBinding gives nothing cluster-wide')
  assert.ok(!allowed(adam, 'get /metrics'), 'nor paths')
  for (const user of [eve, ops, bot]) assert.ok(allowed(user, 'get nodes'), user.user)
  for (const user of [eve, ops, bot]) assert.ok(allowed(user, 'get /metrics'), user.user)
  assert.ok(allowed(bot, 'get pods', 'a'), 'the namespace of a subject is that of its binding when left out')
  assert.ok(allowed(bot, 'get pods', 'b'), 'by the group of its namespace')
  assert.ok(!allowed({ user: 'system:serviceaccount:b:bot', groups: [] }, 'get nodes'))
  assert.ok(!allowed({ user: 'ops', groups: ['eve'] }, 'get nodes'), 'a user is no group')
  assert.match(decideByRoles(source, eve, attempt('get nodes')).reason, /ClusterRoleBinding "nodes-binding"/)
})

test('aggregation: rules of labelled roles, once each, in the order of names', () => {
  const labelled = (name: string, rules: object[]) => ({ metadata: { name, labels: { part: 'yes' } }, rules })
  const whole = role('whole', [], undefined, {
    aggregationRule: { clusterRoleSelectors: [{ matchLabels: { part: 'yes' } }] },
  })
  const all = [whole, labelled('z', [nodes]), labelled('b', [pods, nodes]), role('other', [{ ...pods, verbs: ['*'] }])]
  assert.deepEqual(aggregatedRules(whole, all), [pods, nodes])
  assert.equal(aggregatedRules(all[3]!, all), undefined)
})

test('nobody gives away what they lack', () => {
  const held: PolicyRule[] = [
    { verbs: ['get', 'list'], apiGroups: [''], resources: ['pods', 'configmaps'] },
    { verbs: ['get'], nonResourceURLs: ['/healthz/*'] },
  ]
  const missing = (rule: PolicyRule) => missingPart(held, [rule])
  assert.equal(missing({ verbs: ['list'], apiGroups: [''], resources: ['configmaps', 'pods'] }), undefined)
  assert.equal(missing({ verbs: ['get'], apiGroups: [''], resources: ['pods'], resourceNames: ['a'] }), undefined)
  assert.equal(missing({ verbs: ['get'], nonResourceURLs: ['/healthz/x'] }), undefined)
  assert.deepEqual(missing({ verbs: ['get', 'watch'], apiGroups: [''], resources: ['pods'] })?.verbs, ['watch'])
  assert.ok(missing({ verbs: ['*'], apiGroups: [''], resources: ['pods'] }))
  assert.ok(missing({ verbs: ['get'], apiGroups: [''], resources: ['*'] }))
  assert.ok(missing({ verbs: ['get'], apiGroups: [''], resources: ['pods/log'] }))
})
