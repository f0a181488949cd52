/**
 * Who weft is in a cluster and what it may do there: the account of the agents, and a rule with its reason for every
 * request that they make. deploy/agent-rbac.yaml is this and nothing else; so is the start of deploy/weft.yaml.
 *
 * Sources: Kubernetes documentation "Using RBAC Authorization", "Validating Admission Policy", "Managing Service Accounts"
 * (claim authentication.kubernetes.io/node-name).
 */
import type { KubeObject } from './kube-object.ts'

export const agentAccount = 'weft-agent'
export const netConfMap = 'kube-flannel-cfg'

/** By this label weft knows its own objects; what lacks it is left alone. */
export const ownLabels = { 'app.kubernetes.io/name': 'weft', 'app.kubernetes.io/part-of': 'weft' } as const

export interface Rule {
  readonly why: string
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly verbs: readonly string[]
}

export const agentClusterRules: readonly Rule[] = [
  {
    why: "Where the other nodes are and which pods' addresses are theirs: one list, then one watch.",
    apiGroups: [''],
    resources: ['nodes'],
    verbs: ['get', 'list', 'watch'],
  },
  {
    why: 'Annotations that say how to reach this node, and the condition NetworkUnavailable. Not nodes: labels, taints and spec stay out of reach.',
    apiGroups: [''],
    resources: ['nodes/status'],
    verbs: ['patch'],
  },
  {
    why: 'Events on a node whose words cannot be read, and on this one when its configuration cannot.',
    apiGroups: [''],
    resources: ['events'],
    verbs: ['create'],
  },
]

export const agentRules: readonly Rule[] = [
  {
    why: 'net-conf.json, and its changes. No other ConfigMap, and none for writing.',
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: [netConfMap],
    verbs: ['get', 'list', 'watch'],
  },
]

const bare = ({ apiGroups, resources, resourceNames, verbs }: Rule): object => ({
  apiGroups,
  resources,
  ...(resourceNames ? { resourceNames } : {}),
  verbs,
})

/** The namespace, the account and its rights. */
export function accountObjects(namespace: string): KubeObject[] {
  const group = 'rbac.authorization.k8s.io'
  const apiVersion = `${group}/v1`
  const here = { name: agentAccount, namespace, labels: ownLabels }
  const everywhere = { name: agentAccount, labels: ownLabels }
  const subjects = [{ kind: 'ServiceAccount', name: agentAccount, namespace }]
  const roleRef = (kind: string) => ({ apiGroup: group, kind, name: agentAccount })
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { ...ownLabels, 'pod-security.kubernetes.io/enforce': 'privileged' } },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: here },
    { apiVersion, kind: 'ClusterRole', metadata: everywhere, rules: agentClusterRules.map(bare) },
    { apiVersion, kind: 'ClusterRoleBinding', metadata: everywhere, roleRef: roleRef('ClusterRole'), subjects },
    { apiVersion, kind: 'Role', metadata: here, rules: agentRules.map(bare) },
    { apiVersion, kind: 'RoleBinding', metadata: here, roleRef: roleRef('Role'), subjects },
  ]
}

/** RBAC cannot say "its own node"; the token of a pod names the node that the pod runs on, and this compares. */
export function nodeGuardObjects(namespace: string): KubeObject[] {
  const apiVersion = 'admissionregistration.k8s.io/v1'
  const metadata = { name: 'weft-agent-own-node', labels: ownLabels }
  const node = "'authentication.kubernetes.io/node-name'"
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata,
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: {
          resourceRules: [
            { apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources: ['nodes', 'nodes/status'] },
          ],
        },
        matchConditions: [
          {
            name: 'by-an-agent',
            expression: `request.userInfo.username == 'system:serviceaccount:${namespace}:${agentAccount}'`,
          },
        ],
        validations: [
          {
            expression: `${node} in request.userInfo.extra && request.userInfo.extra[${node}].exists(name, name == request.name)`,
            message: "a weft agent may write its own node's status only",
            reason: 'Forbidden',
          },
        ],
      },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: { policyName: metadata.name, validationActions: ['Deny'] },
    },
  ]
}
