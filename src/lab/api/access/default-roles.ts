/**
 * The roles and bindings that every cluster has: for administrators, for discovery, and the three that users of a
 * namespace are given. `admin`, `edit` and `view` are put together from roles labelled for them, so that a custom kind's
 * author adds to them by a label.
 * Sources: Kubernetes documentation, "Using RBAC Authorization", "Default roles and role bindings".
 */
import type { KubeObject } from '../interfaces.ts'
import type { PolicyRule } from './rbac.ts'

const group = 'rbac.authorization.k8s.io'
const reading = ['get', 'list', 'watch']
const writing = ['create', 'delete', 'deletecollection', 'patch', 'update']
const labels = { 'kubernetes.io/bootstrapping': 'rbac-defaults' }
const partOf = (role: string) => ({ [`rbac.authorization.k8s.io/aggregate-to-${role}`]: 'true' })

const core = [
  'configmaps',
  'endpoints',
  'persistentvolumeclaims',
  'pods',
  'replicationcontrollers',
  'serviceaccounts',
  'services',
]
const apps = ['daemonsets', 'deployments', 'replicasets', 'statefulsets']

const rule = (apiGroups: string[], resources: string[], verbs: string[]): PolicyRule => ({
  apiGroups,
  resources,
  verbs,
})

const viewed: PolicyRule[] = [
  rule(
    [''],
    [...core, 'bindings', 'events', 'limitranges', 'namespaces', 'pods/log', 'pods/status', 'resourcequotas'],
    reading,
  ),
  rule(['apps'], [...apps, 'deployments/scale', 'replicasets/scale'], reading),
  rule(['networking.k8s.io'], ['ingresses', 'networkpolicies'], reading),
  rule(['discovery.k8s.io'], ['endpointslices'], reading),
]
const edited: PolicyRule[] = [
  rule([''], ['pods/attach', 'pods/exec', 'pods/portforward', 'services/proxy', 'secrets'], reading),
  rule([''], [...core, 'secrets', 'pods/attach', 'pods/exec', 'pods/portforward'], writing),
  rule([''], ['pods/eviction', 'serviceaccounts/token', 'events'], ['create']),
  rule(['apps'], [...apps, 'deployments/scale', 'replicasets/scale'], writing),
  rule(['networking.k8s.io'], ['ingresses', 'networkpolicies'], writing),
  rule(['coordination.k8s.io'], ['leases'], [...reading, ...writing]),
]
const administered: PolicyRule[] = [
  rule([group], ['rolebindings', 'roles'], [...reading, ...writing]),
  rule(['authorization.k8s.io'], ['localsubjectaccessreviews'], ['create']),
]

const clusterRole = (name: string, rules: PolicyRule[], more: Record<string, string> = {}): KubeObject => ({
  metadata: { name, labels: { ...labels, ...more } },
  rules,
})
const aggregated = (name: string, more: Record<string, string> = {}): KubeObject => ({
  ...clusterRole(name, [], more),
  aggregationRule: { clusterRoleSelectors: [{ matchLabels: partOf(name) }] },
})
const binding = (name: string, role: string, ...groups: string[]): KubeObject => ({
  metadata: { name, labels },
  roleRef: { apiGroup: group, kind: 'ClusterRole', name: role },
  subjects: groups.map((each) => ({ apiGroup: group, kind: 'Group', name: each })),
})

const discovery = ['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*', '/version', '/version/']
const health = ['/healthz', '/livez', '/readyz', '/version', '/version/']

export const defaultClusterRoles: readonly KubeObject[] = [
  clusterRole('cluster-admin', [rule(['*'], ['*'], ['*']), { verbs: ['*'], nonResourceURLs: ['*'] }]),
  clusterRole('system:aggregate-to-view', viewed, partOf('view')),
  clusterRole('system:aggregate-to-edit', edited, partOf('edit')),
  clusterRole('system:aggregate-to-admin', administered, partOf('admin')),
  aggregated('view', partOf('edit')),
  aggregated('edit', partOf('admin')),
  aggregated('admin'),
  clusterRole('system:discovery', [{ verbs: ['get'], nonResourceURLs: [...discovery, ...health.slice(0, 3), '/'] }]),
  clusterRole('system:public-info-viewer', [{ verbs: ['get'], nonResourceURLs: health }]),
  clusterRole('system:basic-user', [
    rule(['authorization.k8s.io'], ['selfsubjectaccessreviews', 'selfsubjectrulesreviews'], ['create']),
    rule(['authentication.k8s.io'], ['selfsubjectreviews'], ['create']),
  ]),
]

const anybody = 'system:authenticated'

export const defaultClusterRoleBindings: readonly KubeObject[] = [
  binding('cluster-admin', 'cluster-admin', 'system:masters'),
  binding('system:discovery', 'system:discovery', anybody),
  binding('system:basic-user', 'system:basic-user', anybody),
  binding('system:public-info-viewer', 'system:public-info-viewer', anybody, 'system:unauthenticated'),
]
