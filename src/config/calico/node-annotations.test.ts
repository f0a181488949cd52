import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CalicoNode } from '../../model/calico.ts'
import { formatNodeAnnotations, nodeAnnotationKeys, parseAsNumber, parseNodeAnnotations } from './node-annotations.ts'

const all = {
  'projectcalico.org/IPv4Address': '192.0.2.1/24',
  'projectcalico.org/IPv6Address': '2001:db8::1/64',
  'projectcalico.org/ASNumber': '64512',
  'projectcalico.org/RouteReflectorClusterID': '244.0.0.1',
  'projectcalico.org/IPv4IPIPTunnelAddr': '172.26.0.1',
  'projectcalico.org/IPv4VXLANTunnelAddr': '172.26.0.0',
  'projectcalico.org/IPv6VXLANTunnelAddr': 'fd00:172:26::',
  'projectcalico.org/VXLANTunnelMACAddr': '66:2d:0e:00:00:01',
  'projectcalico.org/VXLANTunnelMACAddrV6': '66:2d:0e:00:00:02',
}

test('a node is read as it is written, every word', () => {
  const node = parseNodeAnnotations({ ...all, 'projectcalico.org/kube-labels': '{}' }, assert.fail)
  assert.ok(node)
  assert.deepEqual(formatNodeAnnotations(node), all)
  assert.deepEqual([...nodeAnnotationKeys].sort(), Object.keys(all).sort())
  assert.deepEqual(JSON.parse(JSON.stringify(node)), {
    ipv4: { ip: '192.0.2.1', prefixLength: 24 },
    ipv6: { ip: '2001:db8::1', prefixLength: 64 },
    asNumber: 64512,
    routeReflectorClusterId: '244.0.0.1',
    ipv4IpipTunnelAddr: '172.26.0.1',
    ipv4VxlanTunnelAddr: '172.26.0.0',
    ipv6VxlanTunnelAddr: 'fd00:172:26::',
    vxlanTunnelMac: '66:2d:0e:00:00:01',
    vxlanTunnelMacV6: '66:2d:0e:00:00:02',
  })
})

test("what is not said is taken back, but never an administrator's words", () => {
  const { ipv4 } = parseNodeAnnotations(all) as CalicoNode
  const written = formatNodeAnnotations({ ipv4: ipv4! })
  assert.equal(written['projectcalico.org/IPv4Address'], '192.0.2.1/24')
  assert.equal(written['projectcalico.org/IPv4IPIPTunnelAddr'], null)
  for (const node of [{ ipv4: ipv4! }, null])
    for (const key of ['ASNumber', 'RouteReflectorClusterID'])
      assert.ok(!(`projectcalico.org/${key}` in formatNodeAnnotations(node)), key)
  assert.equal(formatNodeAnnotations(null)['projectcalico.org/IPv4Address'], null)
})

test('a wrong word is left out and told; the rest stands', () => {
  for (const [key, text] of [
    ['IPv4Address', '2001:db8::1/64'],
    ['IPv4Address', '192.0.2.1/33'],
    ['IPv4Address', '192.0.2.1/24/1'],
    ['IPv4Address', '127.0.0.1/8'],
    ['IPv6Address', '::'],
    ['IPv4IPIPTunnelAddr', '172.26.0.1/32'],
    ['IPv6VXLANTunnelAddr', '172.26.0.1'],
    ['VXLANTunnelMACAddr', '01:00:5e:00:00:01'],
    ['VXLANTunnelMACAddrV6', 'x'.repeat(1000)],
    ['ASNumber', '65536.1'],
    ['ASNumber', '4294967296'],
  ] as const) {
    const told: string[] = []
    const node = parseNodeAnnotations({ ...all, [`projectcalico.org/${key}`]: text }, (of) => told.push(of))
    assert.deepEqual(told, [`projectcalico.org/${key}`], text)
    assert.equal(Object.keys(node!).length, Object.keys(all).length - 1)
  }
  assert.equal(parseNodeAnnotations({ 'projectcalico.org/IPv4Address': '' }), undefined)
})

test('an address without a length is a host; AS numbers may be dotted', () => {
  assert.equal(parseNodeAnnotations({ 'projectcalico.org/IPv4Address': '192.0.2.1' })?.ipv4?.prefixLength, 32)
  assert.equal(parseAsNumber('1.10'), 65546)
})
