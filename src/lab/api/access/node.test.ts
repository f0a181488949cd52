import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KubeObject } from '../interfaces.ts'
import { decideForNode, type NodeView, nodeRestriction } from './node.ts'

const pods: KubeObject[] = [
  {
    metadata: { namespace: 'a', name: 'mine' },
    spec: {
      nodeName: 'n1',
      serviceAccountName: 'bot',
      volumes: [{ configMap: { name: 'mounted' } }, { projected: { sources: [{ secret: { name: 'projected' } }] } }],
      containers: [
        { env: [{ valueFrom: { secretKeyRef: { name: 'key' } } }], envFrom: [{ configMapRef: { name: 'env' } }] },
      ],
    },
  },
  {
    metadata: { namespace: 'a', name: 'theirs' },
    spec: { nodeName: 'n2', volumes: [{ secret: { secretName: 'far' } }] },
  },
]
const view: NodeView = {
  pod: (namespace, name) => pods.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name),
  podsOn: (node) => pods.filter(({ spec }) => spec.nodeName === node),
}
/** `verb resource[.group][/subresource] [namespace/]name` */
function may(text: string): boolean {
  const [verb, resource, place] = text.split(' ')
  const [, plural, group = '', subresource] = /^([^./]+)(?:\.([^/]+))?(?:\/(.+))?$/.exec(resource!)!
  const [name, namespace] = (place ?? '').split('/').reverse()
  const attempt = { verb: verb!, group, plural: plural!, subresource, namespace, name: name || undefined }
  return decideForNode('n1', attempt, view).allowed
}

test('a node reads what it needs and writes its own', () => {
  for (const text of [
    'list nodes',
    'watch pods',
    'get services a/x',
    'create nodes',
    'patch nodes n1',
    'patch nodes/status n1',
    'patch pods/status a/mine',
    'delete pods a/mine',
    'create pods/eviction a/mine',
    'create events default/',
    'patch events.events.k8s.io default/x',
    'update leases.coordination.k8s.io kube-node-lease/n1',
    'create leases.coordination.k8s.io kube-node-lease/',
    'get configmaps a/mounted',
    'get configmaps a/env',
    'get secrets a/key',
    'get secrets a/projected',
    'create serviceaccounts/token a/bot',
    'create tokenreviews.authentication.k8s.io',
  ])
    assert.ok(may(text), text)
  for (const text of [
    'patch nodes n2',
    'patch nodes/status n2',
    'delete nodes n1',
    'patch pods a/mine',
    'patch pods/status a/theirs',
    'delete pods a/theirs',
    'create pods a/new',
    'create pods/exec a/mine',
    'get pods/log a/mine',
    'update leases.coordination.k8s.io kube-node-lease/n2',
    'update leases.coordination.k8s.io default/n1',
    'list leases.coordination.k8s.io kube-node-lease/',
    'list configmaps a/',
    'get configmaps a/other',
    'get configmaps b/mounted',
    'get secrets a/far',
    'create serviceaccounts/token a/default',
    'list secrets',
    'get ipamblocks.crd.projectcalico.org x',
    'create pools.weft.dev a/x',
    'get deployments.apps a/x',
  ])
    assert.ok(!may(text), text)
})

test('what a node may not write into its Node', () => {
  const node = (labels: object, more: object = {}) => ({ metadata: { name: 'n1', labels }, ...more }) as KubeObject
  const old = node({ 'kubernetes.io/hostname': 'n1', role: 'x' }, { spec: { taints: [{ key: 'a' }] } })
  const spec = { spec: old.spec }
  const why = (next: KubeObject) => nodeRestriction('n1', 'nodes', next, old)
  assert.equal(why(node({ 'kubernetes.io/hostname': 'n2', role: 'y', 'example.com/z': '1' }, spec)), undefined)
  assert.equal(why(node({ ...old.metadata.labels, 'kubelet.kubernetes.io/x': '1' }, spec)), undefined)
  assert.match(why(node({ ...old.metadata.labels, 'node-restriction.kubernetes.io/x': '1' }, spec))!, /labels/)
  assert.match(why(node({ ...old.metadata.labels, 'node-role.kubernetes.io/master': '' }, spec))!, /labels/)
  assert.match(why(node(old.metadata.labels!, { spec: {} }))!, /taints/)
  assert.match(nodeRestriction('n2', 'nodes', old, old)!, /not allowed to modify node "n1"/)
  assert.equal(nodeRestriction('n2', 'configmaps', old, old), undefined)
})
