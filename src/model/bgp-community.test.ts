import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatCommunity, formatExtendedCommunity, parseCommunity } from './bgp-community.ts'

test('communities go from text to numbers and back', () => {
  const cases: readonly [string, ReturnType<typeof parseCommunity>][] = [
    ['65000:100', { kind: 'standard', value: 0xfde80064 }],
    ['0:0', { kind: 'standard', value: 0 }],
    ['no-export', { kind: 'standard', value: 0xffffff01 }],
    ['graceful-shutdown', { kind: 'standard', value: 0xffff0000 }],
    ['4200000000:1:4294967295', { kind: 'large', value: [4200000000, 1, 4294967295] }],
    ['rt:65000:4294967295', { kind: 'extended', value: 0x0002fde8ffffffffn }],
    ['ro:192.0.2.255:5', { kind: 'extended', value: 0x0103c00002ff0005n }],
    ['rt:4200000000:7', { kind: 'extended', value: 0x0202fa56ea000007n }],
  ]
  for (const [text, community] of cases) {
    assert.deepEqual(parseCommunity(text), community, text)
    assert.equal(formatCommunity(community!), text)
  }
  assert.deepEqual(parseCommunity('4259840100'), { kind: 'standard', value: 0xfde80064 }, 'one number is all 32 bits')
  assert.equal(formatExtendedCommunity(0x43000000000003e8n), '0x43000000000003e8')
})

test('what is no community is refused', () => {
  const none = [
    '',
    ':',
    '1:',
    '65536:1',
    '1:65536',
    '1:2:3:4',
    '01:1',
    '-1:1',
    '1:4294967296:1',
    '4294967296',
    'no-such',
  ]
  for (const text of [
    ...none,
    'rt:',
    'rt:1',
    'rt:1:2:3',
    'rt:4200000000:65536',
    'ro:::1:1',
    '__proto__',
    '1'.repeat(50),
  ])
    assert.equal(parseCommunity(text), undefined, text)
})
