import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ip } from '../../net/ip.ts'
import { encodeAttributes } from '../../wire/bgp/attribute.ts'
import type { WireContext } from '../../wire/bgp/context.ts'
import { IPV4_UNICAST } from '../../wire/bgp/family.ts'
import { AttributeCache } from './attribute-cache.ts'

const context: WireContext = {
  fourOctetAs: true,
  peerType: 'internal',
  families: new Set([IPV4_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set(),
  messageBytesMax: 4096,
}

const block = (med: number): Uint8Array =>
  encodeAttributes({ origin: 0, asPath: [], nextHop: { address: Ip.parse('10.0.0.1') }, med }, IPV4_UNICAST, context)

test('equal bytes in sessions of one kind are one object', () => {
  const cache = new AttributeCache()
  const first = cache.decode(block(1), context)
  assert.equal(cache.decode(block(1), context), first)
  assert.equal(cache.decode(block(2), context).attributes.med, 2)
  assert.notEqual(cache.decode(block(1), { ...context, peerType: 'external' }), first)
  assert.equal(cache.size, 3)
})

test('it stays within its bounds whatever comes, and keeps what is asked for', () => {
  for (const cache of [new AttributeCache(100), new AttributeCache(1 << 18, block(0).length * 100)]) {
    const kept = cache.decode(block(0), context)
    for (let med = 1; med < 1000; med++) {
      assert.equal(cache.decode(block(med), context).attributes.med, med)
      assert.equal(cache.decode(block(0), context), kept)
      assert.ok(cache.size <= 100)
    }
  }
})
