import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultFelixSettings } from '../../config/calico/felix.ts'
import type { CalicoNode } from '../../model/calico.ts'
import { Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { planPoolPath } from './pool-devices.ts'

const ipv4 = { ip: Ip.parse('172.30.0.1'), prefixLength: 24 }
const ipv6 = { ip: Ip.parse('fd00:172:30::1'), prefixLength: 64 }
const tunnels = {
  ipv4IpipTunnelAddr: Ip.parse('172.26.1.1'),
  ipv4VxlanTunnelAddr: Ip.parse('172.26.1.0'),
  ipv6VxlanTunnelAddr: Ip.parse('fd00:26::'),
}

/** The addresses of a path's device. */
function addressesOf(path: string, words: CalicoNode): string[] {
  const external = { device: 'eth0', mtuBytes: 1500, addresses: [ipv4, ipv6] }
  const context = { name: 'n1', podCidrs: [], external, calico: words }
  const node = { context, words, settings: defaultFelixSettings, macOf: () => Mac.parse('66:00:00:00:00:01') }
  return planPoolPath(path, node).objects.flatMap((object) =>
    object.kind === 'address' ? `${object.device} ${object.ip}/${object.prefixLength}` : [],
  )
}

test('every device that takes IPv4 in has an address of it: without one the kernel drops what comes by it in a switch', () => {
  const words = { ipv4, ipv6, ...tunnels }
  assert.deepEqual(addressesOf('calico/ipip', words), ['tunl0 172.26.1.1/32'])
  assert.deepEqual(addressesOf('calico/ipip', { ipv4 }), ['tunl0 172.30.0.1/32'])
  assert.deepEqual(addressesOf('calico/vxlan/4096/4789', words), ['vxlan.calico 172.26.1.0/32'])
  assert.deepEqual(addressesOf('calico/vxlan/4096/4789', { ipv4 }), ['vxlan.calico 172.30.0.1/32'])
  assert.deepEqual(addressesOf('calico/geneve/4096/6081', words), ['geneve.weft 172.30.0.1/32'])
  assert.deepEqual(addressesOf('calico/geneve/4096/6081', { ipv6 }), [])
  assert.deepEqual(addressesOf('calico/vxlan-v6/4096/4789', words), ['vxlan-v6.calico fd00:26::/128'])
  assert.deepEqual(addressesOf('calico/vxlan-v6/4096/4789', { ipv4, ipv6 }), [])
  assert.deepEqual(addressesOf('calico/plain', words), [])
})
