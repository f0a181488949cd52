import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { detectExternal, type InterfaceReading, readingOf } from './external-interface.ts'
import type { InterfaceOptions } from './options.ts'

const link = (name: string, mtuBytes = 1500) => ({ kind: 'link', name, type: 'foreign', mtuBytes }) as const
const address = (device: string, text: string) => {
  const { ip, length } = parsePrefixed(text)
  return { kind: 'address', device, ip, prefixLength: length } as const
}
const route = (destination: string, device: string, metric = 0) =>
  ({ kind: 'route', destination: Cidr.parse(destination), metric, hops: [{ device }] }) as const

const reading: InterfaceReading = {
  links: [link('lo', 65536), link('eth0'), link('eth1', 9000)],
  addresses: [
    address('lo', '127.0.0.1/8'),
    address('eth0', '172.30.0.11/24'),
    address('eth0', '172.30.0.99/24'),
    address('eth0', 'fe80::1/64'),
    address('eth0', 'fd00:172:30::11/64'),
    address('eth1', '192.0.2.5/24'),
  ],
  routes: [route('0.0.0.0/0', 'eth0', 100), route('192.0.2.0/24', 'eth1'), route('172.30.0.0/24', 'eth0')],
}
const none: InterfaceOptions = { names: [], patterns: [] }
const node = (addresses: string[] = []) => ({ addresses: addresses.map(Ip.parse), wishes: {} })
const detect = (options: Partial<InterfaceOptions>, at = node()) => {
  const found = detectExternal(reading, { ...none, ...options }, at)
  return `${found.external.device} ${found.publicIp} ${found.publicIpv6} ${found.external.mtuBytes}`
}

test('the default route decides; the first usable addresses are public', () => {
  assert.equal(detect({}), 'eth0 172.30.0.11 fd00:172:30::11 1500')
  assert.equal(
    detect({}, node(['172.30.0.99'])),
    'eth0 172.30.0.99 fd00:172:30::11 1500',
    'the InternalIP is preferred',
  )
})

test('names, addresses, patterns and reachability decide in that order', () => {
  assert.equal(detect({ names: ['nope', 'eth1'] }), 'eth1 192.0.2.5 undefined 9000')
  assert.equal(detect({ names: ['172.30.0.99'] }), 'eth0 172.30.0.99 fd00:172:30::11 1500')
  assert.equal(detect({ patterns: [/^192\.0\.2\./] }), 'eth1 192.0.2.5 undefined 9000')
  assert.equal(detect({ names: ['nope'], patterns: [/eth1/] }), 'eth1 192.0.2.5 undefined 9000')
  assert.equal(detect({ canReach: Ip.parse('192.0.2.77') }), 'eth1 192.0.2.5 undefined 9000')
  assert.equal(detect({ canReach: Ip.parse('8.8.8.8') }), 'eth0 172.30.0.11 fd00:172:30::11 1500')
})

test('flags and wishes replace the public address', () => {
  const publicIp = Ip.parse('198.51.100.1')
  assert.match(detect({ publicIp }), /^eth0 198.51.100.1 /)
  const wishes = { publicIpOverwrite: Ip.parse('203.0.113.1') }
  assert.match(detect({ publicIp }, { addresses: [], wishes }), /^eth0 203.0.113.1 /)
  assert.match(detect({}, { addresses: [], wishes: { publicIp: Ip.parse('192.0.2.5') } }), /^eth1 192.0.2.5 /)
})

test('nothing to go by is said with the flag', () => {
  assert.throws(() => detect({ names: ['eth9'] }), /--iface: eth9/)
  assert.throws(() => detect({ patterns: [/wlan/] }), /--iface-regex: wlan/)
  const bare = { ...reading, routes: [] }
  assert.throws(() => detectExternal(bare, none, node()), /no default route/)
  assert.equal(detectExternal(bare, none, node(['192.0.2.5'])).external.device, 'eth1')
  assert.throws(
    () => detectExternal(bare, { ...none, canReach: Ip.parse('8.8.8.8') }, node()),
    /--iface-can-reach: 8.8.8.8/,
  )
})

test("an address that weft's own device has too leads to the other device", () => {
  const geneve = { kind: 'link', name: 'geneve.weft', type: 'foreign', alias: 'weft:geneve' } as const
  const objects = [
    geneve,
    ...reading.links,
    address('geneve.weft', '192.0.2.5/32'),
    ...reading.addresses,
    ...reading.routes,
  ]
  const found = detectExternal(readingOf(objects), none, {
    addresses: [],
    wishes: { publicIp: Ip.parse('192.0.2.5') },
  })
  assert.equal(found.external.device, 'eth1')
})
