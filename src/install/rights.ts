/**
 * Who weft is in a cluster and what it may do there: an account of the agents and one of the controller, and a rule with its
 * reason for every request that they make. deploy/agent-rbac.yaml and deploy/controller-rbac.yaml are this and nothing else.
 *
 * Sources: Kubernetes documentation "Using RBAC Authorization", "Validating Admission Policy", "Managing Service Accounts"
 * (claim authentication.kubernetes.io/node-name).
 */
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import type { KubeObject } from './kube-object.ts'

export const netConfMap = 'kube-flannel-cfg'
/** The Secret with passwords of BGP peers that agents may read; Calico's documentation names it so. */
export const bgpSecret = 'bgp-secrets'
/** Where the controller keeps which pod CIDRs it has promised. */
export const ledgerMap = 'weft-pod-cidrs'
export const controllerLease = 'weft-controller'
export const controllerName = 'weft-controller'

export interface Rule {
  readonly why: string
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly verbs: readonly string[]
}

/** An account with what it may do in the whole cluster, in its own namespace, and in `default`, where Events on nodes are. */
export interface Account {
  readonly name: string
  readonly everywhere: readonly Rule[]
  readonly here: readonly Rule[]
  readonly inDefault: readonly Rule[]
}

const core = ['']
/** Calico's objects by definitions of their own, and under the name that its API server uses. */
const calico = ['crd.projectcalico.org', 'projectcalico.org']

const calicoSettingsRule: Rule = {
  why: "Calico's pools, reservations and settings, where there are any: one list, then one watch each.",
  apiGroups: calico,
  resources: ['ippools', 'ipreservations', 'ipamconfigs', 'ipamconfigurations', 'felixconfigurations'],
  verbs: ['list', 'watch'],
}
const calicoBgpRule: Rule = {
  why: "Calico's objects of BGP, where there are any: one list, then one watch each.",
  apiGroups: calico,
  resources: ['bgpconfigurations', 'bgppeers', 'bgpfilters'],
  verbs: ['list', 'watch'],
}
const calicoDefinitionsRule: Rule = {
  why: "Whether the cluster has Calico's objects at all, and when they come.",
  apiGroups: ['apiextensions.k8s.io'],
  resources: ['customresourcedefinitions'],
  resourceNames: calico.map((group) => `ippools.${group}`),
  verbs: ['get', 'list', 'watch'],
}
const calicoBlocksRule: Rule = {
  why: 'Blocks of addresses and who has which: every node takes, gives and routes them. There is no smaller right.',
  apiGroups: calico,
  resources: ['ipamblocks', 'blockaffinities', 'ipamhandles'],
  verbs: ['get', 'list', 'watch', 'create', 'update', 'delete'],
}
/** What it takes to say what pools give out, to look through them now and then, and to put right what is wrong. */
const calicoCollectorRules: readonly Rule[] = [
  { ...calicoDefinitionsRule, verbs: ['list', 'watch'] },
  {
    why: "Calico's pools, where there are any: one list, then one watch.",
    apiGroups: calico,
    resources: ['ippools'],
    verbs: ['list', 'watch'],
  },
  {
    why: 'The condition Allocatable of pools. Not ippools: their spec stays out of reach.',
    apiGroups: calico,
    resources: ['ippools/status'],
    verbs: ['patch'],
  },
  {
    why: "Calico's reservations and settings, where there are any. Not watched: a list every now and then.",
    apiGroups: calico,
    resources: ['ipreservations', 'ipamconfigs', 'ipamconfigurations'],
    verbs: ['list'],
  },
  {
    why: 'Blocks of nodes that are gone, addresses and handles that nobody has any more: they are given back.',
    apiGroups: calico,
    resources: ['ipamblocks', 'blockaffinities', 'ipamhandles'],
    verbs: ['get', 'list', 'update', 'delete'],
  },
  {
    why: "A block whose node's claim was lost gets one again.",
    apiGroups: calico,
    resources: ['blockaffinities'],
    verbs: ['create'],
  },
]

export const agentAccount: Account = {
  name: 'weft-agent',
  everywhere: [
    {
      why: "Where the other nodes are and which pods' addresses are theirs: one list, then one watch.",
      apiGroups: core,
      resources: ['nodes'],
      verbs: ['list', 'watch'],
    },
    {
      why: 'Annotations that say how to reach this node, and the condition NetworkUnavailable. Not nodes: taints and spec stay out of reach.',
      apiGroups: core,
      resources: ['nodes/status'],
      verbs: ['patch'],
    },
    calicoDefinitionsRule,
    calicoSettingsRule,
    calicoBgpRule,
    {
      why: 'Addresses of Services that BGP tells, and whether they have ready endpoints: one list, then one watch each.',
      apiGroups: core,
      resources: ['services'],
      verbs: ['list', 'watch'],
    },
    {
      why: 'The endpoints, of which two bits a Service are kept.',
      apiGroups: ['discovery.k8s.io'],
      resources: ['endpointslices'],
      verbs: ['list', 'watch'],
    },
    calicoBlocksRule,
    {
      why: 'What pods of this node ask for by annotations: one list and one watch of its pods alone.',
      apiGroups: core,
      resources: ['pods'],
      verbs: ['get', 'list', 'watch'],
    },
    {
      why: 'Annotations that say which addresses a pod has. Not pods: their spec stays out of reach.',
      apiGroups: core,
      resources: ['pods/status'],
      verbs: ['patch'],
    },
    {
      why: "Labels and annotations of pods' namespaces, which choose pools.",
      apiGroups: core,
      resources: ['namespaces'],
      verbs: ['get', 'list', 'watch'],
    },
  ],
  here: [
    {
      why: 'net-conf.json, and its changes. No other ConfigMap, and none for writing.',
      apiGroups: core,
      resources: ['configmaps'],
      resourceNames: [netConfMap],
      verbs: ['list', 'watch'],
    },
    {
      why: 'Passwords of BGP peers. No other Secret: one with another name needs a Role of its own (docs/bgp-objects.md).',
      apiGroups: core,
      resources: ['secrets'],
      resourceNames: [bgpSecret],
      verbs: ['list', 'watch'],
    },
  ],
  inDefault: [
    {
      why: 'Events on a node whose words cannot be read, and on this one when its configuration cannot.',
      apiGroups: core,
      resources: ['events'],
      verbs: ['create'],
    },
  ],
}

export interface ControllerDuties {
  /** It gives pod CIDRs, which needs the right to write nodes; else it only speaks of their state. */
  readonly allocates: boolean
  /** It looks for leaked addresses, which needs those of all pods. */
  readonly findsLeaks: boolean
}

export const controllerAccount = ({ allocates, findsLeaks }: ControllerDuties): Account => ({
  name: controllerName,
  everywhere: [
    {
      why: 'What every node has, and whether its agent has spoken: one list, then one watch; one node again before it is written.',
      apiGroups: core,
      resources: ['nodes'],
      verbs: ['get', 'list', 'watch'],
    },
    {
      why: 'The condition NetworkUnavailable of nodes whose agent is gone, and the annotations of those that it does not come back to.',
      apiGroups: core,
      resources: ['nodes/status'],
      verbs: ['patch'],
    },
    ...(allocates
      ? [
          {
            why: 'spec.podCIDRs of nodes that have none. There is no smaller right for it: an admission policy keeps it from the rest.',
            apiGroups: core,
            resources: ['nodes'],
            verbs: ['patch'],
          },
        ]
      : []),
    ...(findsLeaks
      ? [
          {
            why: 'Addresses of pods, against those that nodes and blocks hold. Not watched: a list every now and then.',
            apiGroups: core,
            resources: ['pods'],
            verbs: ['list'],
          },
          ...calicoCollectorRules,
        ]
      : []),
  ],
  here: [
    {
      why: 'Which of the replicas leads. What is created cannot be named.',
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      verbs: ['create'],
    },
    {
      why: 'The Lease of the election itself.',
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      resourceNames: [controllerLease],
      verbs: ['get', 'patch'],
    },
    {
      why: "The agents' pods: which nodes have one that is ready.",
      apiGroups: core,
      resources: ['pods'],
      verbs: ['list', 'watch'],
    },
    ...(allocates ? allocationRules : []),
  ],
  inDefault: [
    {
      why: 'Events on nodes: no pod CIDR is free, two nodes have the same one, an agent is gone.',
      apiGroups: core,
      resources: ['events'],
      verbs: ['create'],
    },
  ],
})

const allocationRules: readonly Rule[] = [
  {
    why: 'The ledger of promised pod CIDRs, once. What is created cannot be named.',
    apiGroups: core,
    resources: ['configmaps'],
    verbs: ['create'],
  },
  {
    why: 'The ledger itself.',
    apiGroups: core,
    resources: ['configmaps'],
    resourceNames: [ledgerMap],
    verbs: ['get', 'patch'],
  },
  {
    why: 'net-conf.json, and its changes: the network that pod CIDRs are cut from.',
    apiGroups: core,
    resources: ['configmaps'],
    resourceNames: [netConfMap],
    verbs: ['list', 'watch'],
  },
]

const bare = ({ apiGroups, resources, resourceNames, verbs }: Rule): object => ({
  apiGroups,
  resources,
  ...(resourceNames ? { resourceNames } : {}),
  verbs,
})

/** weft's pods use the node's network, and the agents its files. */
export const namespaceObject = (namespace: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: namespace, labels: { ...ownLabels, 'pod-security.kubernetes.io/enforce': 'privileged' } },
})

/** An account and its rights. */
export function accountObjects(namespace: string, { name, everywhere, here, inDefault }: Account): KubeObject[] {
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace, labels: ownLabels } },
    ...grant(undefined, name, everywhere, { name, namespace }),
    ...grant(namespace, name, here, { name, namespace }),
    ...grant('default', `${name}-events`, inDefault, { name, namespace }),
  ]
}

/** A role and its binding; of the whole cluster without a `place`. */
function grant(
  place: string | undefined,
  name: string,
  rules: readonly Rule[],
  account: { readonly name: string; readonly namespace: string },
): KubeObject[] {
  const group = 'rbac.authorization.k8s.io'
  const apiVersion = `${group}/v1`
  const kind = place === undefined ? 'ClusterRole' : 'Role'
  const metadata = { name, ...(place === undefined ? {} : { namespace: place }), labels: ownLabels }
  const roleRef = { apiGroup: group, kind, name }
  const subjects = [{ kind: 'ServiceAccount', ...account }]
  return [
    { apiVersion, kind, metadata, rules: rules.map(bare) },
    { apiVersion, kind: `${kind}Binding`, metadata, roleRef, subjects },
  ]
}

const orNone = (path: string, none: string) => (object: string) =>
  `(has(${object}.${path}) ? ${object}.${path} : ${none})`
/** CEL: a field is as it was, or was not there and is not. */
const unchanged = (path: string, none: string): string => {
  const of = orNone(path, none)
  return `${of('object')} == ${of('oldObject')}`
}

/**
 * What RBAC cannot say of an agent: "its own node" and "pods of its node", by the token of its pod, which names the node that
 * the pod runs on; and "no labels", which the right to write a node's status brings along.
 */
export function agentGuardObjects(namespace: string): KubeObject[] {
  const claim = "'authentication.kubernetes.io/node-name'"
  const node = (of: string) =>
    `${claim} in request.userInfo.extra && request.userInfo.extra[${claim}].exists(name, name == ${of})`
  return [
    ...guard(
      'weft-agent-own-node',
      namespace,
      agentAccount.name,
      ['nodes', 'nodes/status'],
      [
        [node('request.name'), "a weft agent may write its own node's status only"],
        [unchanged('metadata.labels', '{}'), 'a weft agent may not change labels of nodes'],
      ],
    ),
    ...guard(
      'weft-agent-own-pods',
      namespace,
      agentAccount.name,
      ['pods/status'],
      [
        [
          node("(has(object.spec.nodeName) ? object.spec.nodeName : '')"),
          'a weft agent may write on pods of its own node only',
        ],
        [unchanged('metadata.labels', '{}'), 'a weft agent may not change labels of pods'],
        ['object.status == oldObject.status', 'a weft agent may write annotations of pods, and nothing else'],
      ],
    ),
  ]
}

/** The right to give pod CIDRs is one to write all of a node: what else there is stays as it is. */
export function controllerGuardObjects(namespace: string): KubeObject[] {
  const spec = [unchanged('spec.taints', '[]'), unchanged('spec.unschedulable', 'false')]
  return guard(
    'weft-controller-pod-cidrs',
    namespace,
    controllerName,
    ['nodes', 'nodes/status'],
    [
      [unchanged('metadata.labels', '{}'), 'the weft controller may not change labels of nodes'],
      [spec.join(' && '), 'the weft controller may not change taints of nodes, nor whether pods are scheduled there'],
    ],
  )
}

/** An admission policy over what an account writes of `resources`: CEL expressions, each with what is said when it is false. */
function guard(
  name: string,
  namespace: string,
  account: string,
  resources: readonly string[],
  validations: readonly (readonly [expression: string, message: string])[],
): KubeObject[] {
  const apiVersion = 'admissionregistration.k8s.io/v1'
  const metadata = { name, labels: ownLabels }
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata,
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: {
          resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources }],
        },
        matchConditions: [
          {
            name: `by-${account}`,
            expression: `request.userInfo.username == 'system:serviceaccount:${namespace}:${account}'`,
          },
        ],
        validations: validations.map(([expression, message]) => ({ expression, message, reason: 'Forbidden' })),
      },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: { policyName: name, validationActions: ['Deny'] },
    },
  ]
}
