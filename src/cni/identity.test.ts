import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ip } from '../net/ip.ts'
import { digestOf, handleOf, hostDeviceOf, parsePodAlias, podAlias, routedDeviceOf } from './identity.ts'

test('the device name is the same at every time, and a device name', () => {
  assert.equal(hostDeviceOf(digestOf('abc123', 'eth0')), 'veth6bdc4b0e')
  assert.notEqual(hostDeviceOf(digestOf('abc123', 'eth1')), 'veth6bdc4b0e')
})

test("routed pods' devices are called as Calico calls them", () => {
  const seen = {
    'default.fileserver-7cb9d7d4d-mssdr': 'calie64b9fa939d',
    'default.fileserver-7cb9d7d4d-h99sp': 'calic40aae79714',
    'default.fileserver-595ccd77dd-hh8c7': 'cali5e8dd2e9d68',
    'default.fileserver-595ccd77dd-k9bzv': 'cali7b1def0e886',
  }
  for (const [pod, device] of Object.entries(seen)) assert.equal(routedDeviceOf('cali', pod), device)
  assert.equal(routedDeviceOf('eni', 'default.x').length, 14)
  assert.equal(routedDeviceOf('toolong', 'default.x').length, 15, 'a name that a device can have')
})

test("handles are Calico's; each interface has its own, of a bounded length", () => {
  assert.equal(handleOf('weft', 'abc', 'eth0'), 'k8s-pod-network.abc')
  assert.equal(handleOf('weft', 'abc', 'net1'), 'k8s-pod-network.abc.net1')
  assert.equal(handleOf('blue', 'abc', 'eth0'), 'blue.abc')
  const long = handleOf('weft', 'f'.repeat(256), 'eth0')
  assert.match(long, /^k8s-pod-network\.sha256-[0-9a-f]{64}$/)
  assert.notEqual(long, handleOf('weft', 'f'.repeat(255), 'eth0'))
})

test('an alias tells how the pod is wired', () => {
  const ips = [{ ip: Ip.parse('172.26.0.5') }]
  const alias = podAlias('c', 'eth0', ips, 'blue', 'pool')
  assert.equal(alias, 'weft-pod:c/eth0 172.26.0.5 net=blue routed=pool')
  assert.deepEqual(parsePodAlias(alias), {
    containerId: 'c',
    ifname: 'eth0',
    ips: [ips[0]!.ip],
    network: 'blue',
    routed: 'pool',
  })
  assert.equal(parsePodAlias(podAlias('c', 'eth0', [], 'weft', 'node'))?.routed, 'node')
  assert.equal('routed' in parsePodAlias(podAlias('c', 'eth0', ips))!, false)
  assert.equal(parsePodAlias('weft-pod:c/eth0 routed=elsewhere'), undefined)
})

test('an alias tells who and where, as much as fits in 254 bytes', () => {
  const ips = [{ ip: Ip.parse('10.244.1.7') }, { ip: Ip.parse('fd00:10:244:1::7') }]
  const containerId = 'f'.repeat(64)
  const read = parsePodAlias(podAlias(containerId, 'eth0', ips))!
  assert.deepEqual(
    [read.containerId, read.ifname, read.ips.map(String)],
    [containerId, 'eth0', ['10.244.1.7', 'fd00:10:244:1::7']],
  )
  assert.equal(read.network, 'weft')
  const named = podAlias('c', 'net1', ips, 'blue-2')
  assert.equal(named, 'weft-pod:c/net1 10.244.1.7 fd00:10:244:1::7 net=blue-2')
  assert.deepEqual([parsePodAlias(named)!.network, parsePodAlias(named)!.ips.length], ['blue-2', 2])
  const tight = podAlias('f'.repeat(220), 'eth0', [...ips, ...ips])
  assert.deepEqual(parsePodAlias(tight)!.ips, [])
  const cut = podAlias('f'.repeat(256), 'eth0', ips)
  assert.ok(cut.length <= 254)
  assert.equal(parsePodAlias(cut), undefined, 'a cut container id is nobody')
})

test('what somebody else wrote is not read', () => {
  for (const alias of [
    '',
    'weft:bridge',
    'weft-pod:',
    'weft-pod:a',
    'weft-pod:/eth0',
    'weft-pod:a/b c',
    'weft-pod:../x/eth0',
  ])
    assert.equal(parsePodAlias(alias), undefined, alias)
})
