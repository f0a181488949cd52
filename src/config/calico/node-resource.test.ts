import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ip } from '../../net/ip.ts'
import { changeNodeResource, parseNodeResource } from './node-resource.ts'

/** As calico-node leaves it. */
const standing = {
  kind: 'Node',
  apiVersion: 'projectcalico.org/v3',
  metadata: { name: 'n1', uid: 'u', creationTimestamp: '2026-01-02T03:04:05Z', labels: { rack: 'a' } },
  spec: {
    bgp: { ipv4Address: '192.0.2.1/24', ipv4IPIPTunnelAddr: '172.26.0.1', asNumber: 64512 },
    ipv4VXLANTunnelAddr: '172.26.0.0',
    vxlanTunnelMACAddr: '66:2d:0e:00:00:01',
    orchRefs: [{ nodeName: 'n1', orchestrator: 'k8s' }],
  },
  status: { podCIDRs: ['10.244.1.0/24'] },
}
const made = { uid: 'new', creationTimestamp: '2026-11-21T10:00:00Z' }
const ip = Ip.parse('192.0.2.1')

test('a node is read out of the places that Calico has for it', () => {
  const { calico, labels, creationTimestamp } = parseNodeResource(standing, assert.fail)
  assert.deepEqual(JSON.parse(JSON.stringify(calico)), {
    ipv4: { ip: '192.0.2.1', prefixLength: 24 },
    asNumber: 64512,
    ipv4IpipTunnelAddr: '172.26.0.1',
    ipv4VxlanTunnelAddr: '172.26.0.0',
    vxlanTunnelMac: '66:2d:0e:00:00:01',
  })
  assert.deepEqual(labels, { rack: 'a' })
  assert.equal(creationTimestamp, '2026-01-02T03:04:05Z')
})

test('what is written is read; what others wrote stays', () => {
  const change = {
    calico: { ipv4: { ip, prefixLength: 25 }, ipv6VxlanTunnelAddr: Ip.parse('fd00::1') },
    annotations: { 'weft.dev/node-status': '{}', gone: null },
  }
  const changed = changeNodeResource('n1', standing, change, made)
  assert.deepEqual(changed, {
    ...standing,
    metadata: { ...standing.metadata, annotations: { 'weft.dev/node-status': '{}' } },
    spec: {
      bgp: { ipv4Address: '192.0.2.1/25', asNumber: 64512 },
      ipv6VXLANTunnelAddr: 'fd00::1',
      orchRefs: standing.spec.orchRefs,
    },
  })
  assert.deepEqual(parseNodeResource(changed, assert.fail).calico, { ...change.calico, asNumber: 64512 })
  const back = changeNodeResource('n1', changed, { calico: null, annotations: { 'weft.dev/node-status': null } }, made)
  assert.deepEqual(back, {
    ...standing,
    spec: { bgp: { asNumber: 64512 }, orchRefs: standing.spec.orchRefs },
  })
  assert.deepEqual(changeNodeResource('n1', standing, { annotations: {} }, made), standing)
})

test('a node that is not there is made; nonsense is no node', () => {
  const { metadata, spec } = changeNodeResource(
    'n2',
    undefined,
    { calico: { ipv4: { ip, prefixLength: 24 } }, annotations: {} },
    made,
  )
  assert.deepEqual(metadata, { name: 'n2', ...made })
  assert.deepEqual(spec, { bgp: { ipv4Address: '192.0.2.1/24' } })
  const told: string[] = []
  const read = parseNodeResource({ spec: { bgp: { ipv4Address: 'x' }, vxlanTunnelMACAddr: 7 } }, (key) =>
    told.push(key),
  )
  assert.deepEqual(told, ['spec.bgp.ipv4Address', 'spec.vxlanTunnelMACAddr'])
  assert.equal(read.calico, undefined)
  for (const nonsense of [undefined, null, 7, [], { metadata: [], spec: 'x' }])
    assert.deepEqual(parseNodeResource(nonsense, assert.fail), { labels: {}, annotations: {} })
})
