import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ip } from '../net/ip.ts'
import { type CniResult, decodeResult, encodeResult } from './result.ts'
import { supportedVersions } from './version.ts'

const result: CniResult = {
  interfaces: [
    { name: 'cni0', mac: '0a:58:0a:01:00:01' },
    { name: 'eth0', mac: '0a:58:0a:01:00:02', sandbox: '/run/netns/x', mtuBytes: 1450 },
  ],
  ips: [
    { ip: Ip.parse('10.1.0.2'), prefixLength: 24, gateway: Ip.parse('10.1.0.1'), interface: 1 },
    { ip: Ip.parse('fd00::2'), prefixLength: 64, interface: 1 },
  ],
  routes: [
    { destination: '0.0.0.0/0', via: Ip.parse('10.1.0.1') },
    { destination: 'fd00:1::/32', mtuBytes: 1400, priority: 7, table: 100, scope: 253, advertisedMssBytes: 1360 },
  ],
  dns: { nameservers: ['10.96.0.10'], search: ['svc'] },
}

test('each version prints its own shape', () => {
  assert.deepEqual(encodeResult(result, '0.2.0'), {
    cniVersion: '0.2.0',
    ip4: { ip: '10.1.0.2/24', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }] },
    ip6: { ip: 'fd00::2/64', routes: [{ dst: 'fd00:1::/32' }] },
    dns: result.dns,
  })
  assert.deepEqual(encodeResult(result, '0.4.0'), {
    cniVersion: '0.4.0',
    interfaces: [
      { name: 'cni0', mac: '0a:58:0a:01:00:01' },
      { name: 'eth0', mac: '0a:58:0a:01:00:02', sandbox: '/run/netns/x' },
    ],
    ips: [
      { version: '4', interface: 1, address: '10.1.0.2/24', gateway: '10.1.0.1' },
      { version: '6', interface: 1, address: 'fd00::2/64' },
    ],
    routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: 'fd00:1::/32' }],
    dns: result.dns,
  })
  assert.deepEqual(encodeResult(result, '1.1.0').routes, [
    { dst: '0.0.0.0/0', gw: '10.1.0.1' },
    { dst: 'fd00:1::/32', mtu: 1400, advmss: 1360, priority: 7, table: 100, scope: 253 },
  ])
})

test('every version reads back what it printed, as much as it can say', () => {
  for (const version of supportedVersions) {
    const printed = JSON.parse(JSON.stringify(encodeResult(result, version)))
    const read = decodeResult(printed, '1.1.0')
    assert.deepEqual(JSON.parse(JSON.stringify(encodeResult(read, version))), printed, version)
  }
  assert.deepEqual(decodeResult(JSON.parse(JSON.stringify(encodeResult(result, '1.1.0'))), '0.1.0'), result)
})

test('a prevResult that makes no sense is refused by key', () => {
  const refuse = (value: unknown, code: number, message: RegExp) =>
    assert.throws(
      () => decodeResult(value, '1.0.0'),
      (error: Error & { code: number }) => error.code === code && message.test(error.message),
    )
  refuse([], 6, /prevResult: must be an object/)
  refuse({ cniVersion: '7.0.0' }, 1, /7\.0\.0/)
  refuse({ ips: [{ address: '10.0.0.1' }] }, 7, /prevResult\.ips\[0\]\.address/)
  refuse({ ips: [{ address: '10.0.0.1/24', interface: 3 }] }, 7, /prevResult\.ips\[0\]\.interface: there are 0/)
  refuse({ ips: new Array(300).fill({}) }, 7, /prevResult\.ips: has more than 256/)
  refuse({ routes: [{ dst: '10.0.0.0/99' }] }, 7, /prevResult\.routes\[0\]\.dst/)
  refuse({ interfaces: [{ name: 7 }] }, 7, /prevResult\.interfaces\[0\]\.name: must be a string/)
})
