import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseServiceWords, parseSliceWords } from './service-object.ts'

test('text that is no address is left out, and nothing is thrown', () => {
  const odd = [undefined, null, 1, 'x', [], {}, { metadata: 1, spec: [], status: 'x' }, { spec: { clusterIPs: 'x' } }]
  for (const each of odd) {
    assert.deepEqual(parseServiceWords(each).clusterIps, [])
    assert.deepEqual(parseSliceWords(each, 'n'), { isReady: false, isReadyHere: false })
  }
  const words = parseServiceWords({
    metadata: {
      name: 'a',
      namespace: 'b',
      annotations: { 'kube-router.io/service.local': 'true', 'kube-router.io/x': 1 },
    },
    spec: { clusterIP: 'None', externalIPs: ['198.51.100.1', 'x', null], type: 'Odd', externalTrafficPolicy: 'local' },
    status: { loadBalancer: { ingress: [{ hostname: 'x' }, { ip: '2001:db8::1' }, null] } },
  })
  assert.deepEqual(JSON.parse(JSON.stringify(words)), {
    namespace: 'b',
    name: 'a',
    type: 'ClusterIP',
    clusterIps: [],
    externalIps: ['198.51.100.1'],
    loadBalancerIps: ['2001:db8::1'],
    externalTrafficPolicy: 'Cluster',
    internalTrafficPolicy: 'Cluster',
    annotations: { 'kube-router.io/service.local': 'true' },
  })
})

test('endpoints: what is not said of readiness means ready, and where is by the name of the node', () => {
  const of = (...endpoints: unknown[]) =>
    parseSliceWords({ metadata: { labels: { 'kubernetes.io/service-name': 's' } }, endpoints }, 'n')
  assert.deepEqual(of({ nodeName: 'n' }), { service: 's', isReady: true, isReadyHere: true })
  assert.deepEqual(of({ nodeName: 'm', conditions: {} }), { service: 's', isReady: true, isReadyHere: false })
  assert.deepEqual(of({ nodeName: 'n', conditions: { ready: false } }), {
    service: 's',
    isReady: false,
    isReadyHere: false,
  })
  assert.deepEqual(of(), { service: 's', isReady: false, isReadyHere: false })
})
