import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressesOf } from '../cluster/calico/address-uses.ts'
import { findLeaks, parseHeld } from './leaked-addresses.ts'

test('a sandbox is a pod’s when one of its addresses is', () => {
  const held = parseHeld('10.244.1.2 fd00:10:244:1::2\n10.244.1.3 fd00:10:244:1:0::3\n10.244.1.4\n')
  assert.deepEqual(findLeaks(held, new Set(['10.244.1.2', 'fd00:10:244:1::3'])), ['10.244.1.4'])
  assert.deepEqual(findLeaks(held, new Set()), [
    '10.244.1.2 fd00:10:244:1::2',
    '10.244.1.3 fd00:10:244:1::3',
    '10.244.1.4',
  ])
  assert.deepEqual(findLeaks(parseHeld(''), new Set()), [])
})

test('an answer that is none is refused', () => {
  for (const text of ['<html>', '10.244.1.2, 10.244.1.3', '10.244.1.256', '{}'])
    assert.throws(() => parseHeld(text), text)
})

test('a pod has what its status says, and what Multus says of it', () => {
  const networks = JSON.stringify([
    { name: 'weft', ips: ['10.244.1.2'] },
    { name: 'x', ips: ['10.9.0.7', 'fd00:0::7'] },
    null,
    3,
  ])
  const pod = (status: unknown, words: unknown) =>
    addressesOf({
      metadata: { name: 'p', annotations: { 'k8s.v1.cni.cncf.io/network-status': words } },
      status,
    } as never)
  assert.deepEqual(pod({ podIPs: [{ ip: '10.244.1.2' }, { ip: 'fd00:10:244:1:0::2' }] }, networks), [
    '10.244.1.2',
    'fd00:10:244:1::2',
    '10.244.1.2',
    '10.9.0.7',
    'fd00::7',
  ])
  for (const words of ['{', 'null', '[{"ips":5}]', 7])
    assert.deepEqual(pod({ podIPs: [null, { ip: 3 }, { ip: 'x' }] }, words), [])
  assert.deepEqual(addressesOf({} as never), [])
})
