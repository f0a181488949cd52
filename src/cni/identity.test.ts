import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ip } from '../net/ip.ts'
import { digestOf, hostDeviceOf, parsePodAlias, podAlias } from './identity.ts'

test('the device name is the same at every time, and a device name', () => {
  assert.equal(hostDeviceOf(digestOf('abc123', 'eth0')), 'veth6bdc4b0e')
  assert.notEqual(hostDeviceOf(digestOf('abc123', 'eth1')), 'veth6bdc4b0e')
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
