import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { parseNetConf } from './net-conf.ts'

const parse = (value: object) => parseNetConf(JSON.stringify({ Backend: { Type: 'vxlan' }, ...value }))
const refuse = (value: object | string, key: string, problem: RegExp) =>
  assert.throws(
    () => (typeof value === 'string' ? parseNetConf(value, 'ConfigMap x/y') : parse(value)),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError, String(error))
      assert.equal(error.key, key)
      assert.match(error.message, problem)
      return true
    },
    JSON.stringify(value),
  )

test("subnet lengths, first and last subnet default as flannel's", () => {
  for (const [network, length, min, max] of [
    ['10.0.0.0/8', 24, '10.0.1.0', '10.255.255.0'],
    ['10.244.0.0/16', 24, '10.244.1.0', '10.244.255.0'],
    ['10.244.0.0/22', 24, '10.244.1.0', '10.244.3.0'],
    ['10.244.0.0/23', 25, '10.244.0.128', '10.244.1.128'],
    ['10.244.0.0/28', 30, '10.244.0.4', '10.244.0.12'],
  ] as const) {
    const { v4 } = parse({ Network: network }).config
    assert.deepEqual([v4?.subnetLength, `${v4?.subnetMin}`, `${v4?.subnetMax}`], [length, min, max])
  }
  const { v6 } = parse({ EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00:10:244::/56' }).config
  assert.deepEqual(
    [v6?.subnetLength, `${v6?.subnetMin}`, `${v6?.subnetMax}`],
    [64, 'fd00:10:244:1::', 'fd00:10:244:ff::'],
  )
  assert.equal(parse({ EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00::/120' }).config.v6?.subnetLength, 122)
})

test('a network that flannel refuses is refused with its key', () => {
  refuse({}, 'Network', /missing/)
  refuse({ Network: '10.0.0.0/29' }, 'Network', /smallest useful network is a \/28/)
  refuse({ Network: '10.0.0.0' }, 'Network', /prefix length/)
  refuse({ Network: 'fd00::/48' }, 'Network', /not an IPv4/)
  refuse({ Network: 7 }, 'Network', /must be text/)
  refuse({ Network: '10.0.0.0/16', SubnetLen: 31 }, 'SubnetLen', /longest is 30/)
  refuse({ Network: '10.0.0.0/16', SubnetLen: 17 }, 'SubnetLen', /at least four subnets/)
  refuse({ Network: '10.0.0.0/16', SubnetLen: '24' }, 'SubnetLen', /whole number/)
  refuse({ Network: '10.0.0.0/16', SubnetMin: '10.0.5.1' }, 'SubnetMin', /not the beginning of a \/24/)
  refuse({ Network: '10.0.0.0/16', SubnetMax: '10.1.0.0' }, 'SubnetMax', /outside/)
  refuse({ Network: '10.0.0.0/16', SubnetMin: '10.0.9.0', SubnetMax: '10.0.8.0' }, 'SubnetMin', /behind/)
  refuse({ Network: '10.0.0.0/16', EnableIPv6: true }, 'IPv6Network', /missing/)
  refuse({ Network: '10.0.0.0/16', EnableIPv4: false }, 'EnableIPv4', /no network left/)
  refuse({ Network: '127.0.0.0/16' }, 'Network', /no network for pods/)
})

test('keys match without case as in Go; unknown and doubled ones are named', () => {
  const { backend } = parse({
    network: '10.0.0.0/16',
    BACKEND: undefined,
    Backend: { TYPE: 'vxlan', vni: 3, directrouting: true },
  }).config
  assert.deepEqual(backend, { type: 'vxlan', vni: 3, port: 8472, gbp: false, learning: false, directRouting: true })
  refuse({ Network: '10.0.0.0/16', network: '10.1.0.0/16' }, 'network', /same key as Network/)
  refuse({ Network: '10.0.0.0/16', Netwrok: 1 }, 'Netwrok', /is not a key/)
  refuse({ Network: '10.0.0.0/16', Backend: { Type: 'vxlan', VNID: 1 } }, 'Backend.VNID', /not a key of backend vxlan/)
  refuse(
    { Network: '10.0.0.0/16', Backend: { Type: 'host-gw', Port: 1 } },
    'Backend.Port',
    /not a key of backend host-gw/,
  )
})

test("backends have flannel's defaults and limits", () => {
  const of = (backend: object) => parse({ Network: '10.0.0.0/16', Backend: backend }).config.backend
  assert.deepEqual(of({ Type: 'host-gw' }), { type: 'host-gw' })
  assert.deepEqual(of({ Type: 'udp' }), { type: 'udp', port: 8285 })
  assert.deepEqual(of({ Type: 'udp', Port: 9000 }), { type: 'udp', port: 9000 })
  assert.deepEqual(of({ Type: 'vxlan', Port: 0, MTU: 0 }), {
    type: 'vxlan',
    vni: 1,
    port: 8472,
    gbp: false,
    learning: false,
    directRouting: false,
  })
  assert.deepEqual(of({ Type: 'vxlan', VNI: 4096, Port: 4789, MTU: 9000, GBP: true, Learning: true }), {
    type: 'vxlan',
    vni: 4096,
    port: 4789,
    mtuBytes: 9000,
    gbp: true,
    learning: true,
    directRouting: false,
  })
  const bad = (backend: unknown, key: string, problem: RegExp) =>
    refuse({ Network: '10.0.0.0/16', Backend: backend }, key, problem)
  bad({ Type: 'vxlan', VNI: 1 << 24 }, 'Backend.VNI', /16777215/)
  bad({ Type: 'vxlan', Port: 65536 }, 'Backend.Port', /65535/)
  bad({ Type: 'vxlan', MTU: 900 }, 'Backend.MTU', /1350/)
  bad({ Type: 'vxlan', GBP: 1 }, 'Backend.GBP', /true or false/)
  bad({ Type: 'vxlan', Directrouting: 'true' }, 'Backend.DirectRouting', /not "true"; write true without quotes/)
  bad({ Type: 'wireguard' }, 'Backend.Type', /does not have this backend/)
  bad({ Type: 'wireguard' }, 'Backend.Type', /not be encrypted/)
  bad({ Type: 'constructor' }, 'Backend.Type', /no such backend/)
  bad({}, 'Backend.Type', /missing/)
  bad([], 'Backend', /JSON object/)
  bad('vxlan', 'Backend', /JSON object/)
})

test('what can be understood is understood, with a warning', () => {
  const none = parseNetConf('{"Network":"10.0.0.0/16"}')
  assert.deepEqual(none.config.backend, { type: 'udp', port: 8285 })
  assert.match(none.warnings.join(), /Backend.*missing/)
  const host = parse({ Network: '10.0.7.0/16' })
  assert.equal(`${host.config.v4?.network}`, '10.0.0.0/16')
  assert.match(host.warnings.join(), /host bits/)
})

test('text that is not net-conf.json names the place and the reason, and is not echoed whole', () => {
  refuse('', '(whole)', /^ConfigMap x\/y: \(whole\): is not JSON/)
  refuse('{\n # "Type"\n}', '(whole)', /JSON has no comments/)
  refuse('[]', '(whole)', /JSON object, not \[\]/)
  refuse('null', '(whole)', /JSON object/)
  refuse(`"${'x'.repeat(70000)}"`, '(whole)', /longer than 65536/)
  refuse(
    JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, i]))),
    'k64',
    /more than 64 keys/,
  )
  refuse({ Network: 'y'.repeat(1000) }, 'Network', /longer than 256/)
  assert.throws(
    () => parse({ Network: '10.0.0.0/16', ['z'.repeat(5000)]: 1 }),
    (error: Error) => error.message.length < 400,
  )
})
