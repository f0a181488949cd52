import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNetConf } from '../flannel/net-conf.ts'
import { type OverlayKey, parseOverlayFlags } from './overlay.ts'

const flags = (given: Partial<Record<OverlayKey, unknown>>) => parseOverlayFlags((key) => given[key])
const usual = { type: 'kube-router', overlay: 'subnet', encap: 'ipip', port: 5555, autoMtu: true }

test('flags have the defaults of kube-router, and none of them is no overlay', () => {
  assert.equal(flags({}), undefined)
  assert.deepEqual(flags({ 'enable-overlay': true }), usual)
  assert.deepEqual(flags({ 'overlay-type': 'full' }), { ...usual, overlay: 'full' })
  assert.deepEqual(flags({ 'overlay-encap': 'fou', 'overlay-encap-port': '5556', 'auto-mtu': 'false' }), {
    ...usual,
    encap: 'fou',
    port: 5556,
    autoMtu: false,
  })
  assert.deepEqual(flags({ 'enable-overlay': 'false', 'overlay-type': 'full' }), { type: 'host-gw' })
})

test('what kube-router refuses is refused, by the name of the flag', () => {
  for (const [key, value] of [
    ['overlay-type', 'none'],
    ['overlay-encap', 'gue'],
    ['overlay-encap-port', '1023'],
    ['overlay-encap-port', '65536'],
    ['overlay-encap-port', '0x15b3'],
    ['enable-overlay', 'yes'],
    ['auto-mtu', 'x'.repeat(10_000)],
  ] as const)
    assert.throws(
      () => flags({ [key]: value }),
      (error: Error) => error.message.includes(`--${key}`) && error.message.length < 200,
    )
})

test('a Backend object has the flags as keys; ipip has DirectRouting and carries IPv4 alone', () => {
  const backend = (Backend: object, rest: object = {}) =>
    parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend, ...rest })).config.backend
  assert.deepEqual(backend({ Type: 'kube-router', 'overlay-type': 'full' }), { ...usual, overlay: 'full' })
  assert.deepEqual(backend({ Type: 'kube-router', 'overlay-encap': 'fou', 'overlay-encap-port': 7777 }), {
    ...usual,
    encap: 'fou',
    port: 7777,
  })
  assert.throws(() => backend({ Type: 'kube-router', 'overlay-type': 'some' }), /Backend\.overlay-type: "some"/)
  assert.throws(() => backend({ Type: 'kube-router', Port: 1 }), /Backend\.Port/)
  assert.deepEqual(backend({ Type: 'ipip' }), { type: 'ipip', directRouting: false })
  assert.deepEqual(backend({ Type: 'ipip', DirectRouting: true }), { type: 'ipip', directRouting: true })
  assert.throws(
    () => backend({ Type: 'ipip' }, { EnableIPv6: true, IPv6Network: 'fd00:10:244::/56' }),
    /EnableIPv6.*ipip carries IPv4 alone/,
  )
})
