import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import { type Family, Ip } from '../net/ip.ts'
import { parseAddressChoice, parseAddressMethod } from './address-methods.ts'
import { detectAddresses, type NodeKnown } from './calico-addresses.ts'
import { detectExternal, type InterfaceReading } from './external-interface.ts'

const link = (name: string, mtuBytes = 1500) => ({ kind: 'link', name, type: 'foreign', mtuBytes }) as const
const address = (device: string, text: string) => {
  const { ip, length } = parsePrefixed(text)
  return { kind: 'address', device, ip, prefixLength: length } as const
}
const route = (destination: string, device: string, via?: string) =>
  ({
    kind: 'route',
    destination: Cidr.parse(destination),
    hops: [{ device, ...(via ? { via: Ip.parse(via) } : {}) }],
  }) as const

const reading: InterfaceReading = {
  links: ['lo', 'eth0', 'eth1', 'ens9', 'docker0', 'cali12345678901', 'tunl0'].map((name) => link(name)),
  addresses: [
    address('lo', '127.0.0.1/8'),
    address('eth0', '172.30.0.11/24'),
    address('eth0', 'fe80::1/64'),
    address('eth0', 'fd00:172:30::11/64'),
    address('eth1', '192.0.2.5/24'),
    address('eth1', '198.51.100.5/25'),
    address('ens9', 'fe80::9/64'),
    address('docker0', '172.17.0.1/16'),
    address('tunl0', '172.26.0.1/32'),
  ],
  routes: [
    route('0.0.0.0/0', 'eth0', '172.30.0.1'),
    route('::/0', 'eth0', 'fd00:172:30::1'),
    route('203.0.113.0/24', 'eth1', '198.51.100.1'),
    { ...route('203.0.113.128/25', 'eth1'), source: Ip.parse('192.0.2.5') },
  ],
}
const external = detectExternal(reading, { names: [], patterns: [] }, { addresses: [], wishes: {} })

function detect(method: string, { ip = 'autodetect', family = 4 as Family, known = {} as Partial<NodeKnown> } = {}) {
  const choice = parseAddressChoice(ip, parseAddressMethod(method, family), family)
  const none = { type: 'none' } as const
  const options = family === 4 ? { v4: choice, v6: none } : { v4: none, v6: choice }
  const found = detectAddresses(reading, options, external, { addresses: [], ...known })
  const { v4, v6 } = found
  const node = v4 ?? v6
  return `${node ? `${node.ip}/${node.prefixLength} ${node.device}` : 'none'} by ${found.external.device}${found.problems.map((problem) => `: ${problem}`)}`
}

test('without a method the address of the external interface counts, with the length of its subnet', () => {
  assert.equal(detect(''), '172.30.0.11/24 eth0 by eth0')
  assert.equal(detect('', { family: 6 }), 'fd00:172:30::11/64 eth0 by eth0')
})

test('first-found takes the newest interface that is no overlay’s', () => {
  assert.equal(detect('first-found'), '192.0.2.5/24 eth1 by eth1')
  assert.equal(detect('first-found', { family: 6 }), 'fd00:172:30::11/64 eth0 by eth0')
})

test('interface= and skip-interface= take patterns, separated by commas', () => {
  assert.equal(detect('interface=eth0'), '172.30.0.11/24 eth0 by eth0')
  assert.equal(detect('interface=wlan.* , docker'), '172.17.0.1/16 docker0 by docker0')
  assert.equal(detect('skip-interface=eth1,ens.*'), '172.30.0.11/24 eth0 by eth0')
})

test('cidr= takes the first address inside', () => {
  assert.equal(detect('cidr=198.51.100.0/24'), '198.51.100.5/25 eth1 by eth1')
  assert.equal(detect('cidr=10.0.0.0/8,172.16.0.0/12'), '172.17.0.1/16 docker0 by docker0')
})

test('can-reach= takes the address that packets would leave with', () => {
  assert.equal(detect('can-reach=8.8.8.8'), '172.30.0.11/24 eth0 by eth0')
  assert.equal(detect('can-reach=203.0.113.7'), '198.51.100.5/25 eth1 by eth1', 'on the subnet of the router')
  assert.equal(detect('can-reach=203.0.113.200'), '192.0.2.5/24 eth1 by eth1', 'what the route says')
  const resolved = new Map([['gateway.example', [Ip.parse('2001:db8::1'), Ip.parse('203.0.113.7')]]])
  assert.equal(detect('can-reach=gateway.example', { known: { resolved } }), '198.51.100.5/25 eth1 by eth1')
  assert.match(
    detect('can-reach=gateway.example'),
    /^none by eth0: --ip-autodetection-method can-reach=gateway.example/,
  )
})

test('kubernetes-internal-ip takes the first InternalIP of the family', () => {
  const known = { addresses: ['fd00:172:30::11', '192.0.2.5'].map(Ip.parse) }
  assert.equal(detect('kubernetes-internal-ip', { known }), '192.0.2.5/24 eth1 by eth1')
  assert.equal(detect('kubernetes-internal-ip', { known, family: 6 }), 'fd00:172:30::11/64 eth0 by eth0')
})

test('an address that is given needs no device; its length is the device’s unless it is given', () => {
  assert.equal(detect('', { ip: '192.0.2.5' }), '192.0.2.5/24 eth1 by eth1')
  assert.equal(detect('', { ip: '192.0.2.5/20' }), '192.0.2.5/20 eth1 by eth1')
  assert.equal(detect('', { ip: '203.0.113.99' }), '203.0.113.99/32 undefined by eth0')
})

test('what is not found, and none, leave what the store has', () => {
  const known = { calico: { ipv4: { ip: Ip.parse('198.51.100.5'), prefixLength: 25 } } }
  assert.equal(detect('', { ip: 'none', known }), '198.51.100.5/25 eth1 by eth1')
  assert.equal(detect('', { ip: 'none' }), 'none by eth0')
  assert.match(detect('interface=wlan0', { known }), /^198.51.100.5\/25 eth1 by eth1: .*wlan0 finds no IPv4/)
})

test('what is no method and no address is refused', () => {
  for (const method of [
    'fastest',
    'interface=',
    'cidr=eth0',
    'cidr=fd00::/8',
    'interface=(',
    'can-reach=a b',
    'First-Found',
  ])
    assert.throws(() => parseAddressMethod(method, 4), Error, method)
  for (const ip of ['auto', '1.2.3', 'fd00::1', '1.2.3.4/33'])
    assert.throws(() => parseAddressChoice(ip, { type: 'external' }, 4), Error, ip)
})
