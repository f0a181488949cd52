import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EncodeError } from '../../bytes/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { asPathLength, formatAsPath } from './as-path.ts'
import { decodeAttributes, encodeAttributes } from './attribute.ts'
import type { AsPathSegment, Attributes } from './attributes.ts'
import type { WireContext } from './context.ts'
import { IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from './family.ts'
import { prefixAt, runOf } from './nlri.ts'
import { decodeUpdate } from './update.ts'
import { encodeEndOfRib, encodeUpdate, packReach, packUnreach } from './update-packing.ts'

const wide: WireContext = {
  fourOctetAs: true,
  peerType: 'internal',
  families: new Set([IPV4_UNICAST, IPV6_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set([IPV4_UNICAST]),
  messageBytesMax: 4096,
}
const narrow: WireContext = { ...wide, fourOctetAs: false }

const sequence = (...asns: number[]): AsPathSegment => ({ kind: 'sequence', asns })
const full: Attributes = {
  origin: 2,
  asPath: [
    { kind: 'confed-sequence', asns: [64600] },
    { kind: 'confed-set', asns: [64601, 64602] },
    sequence(65001, 4200000001),
    { kind: 'set', asns: [65020, 4200000002] },
  ],
  nextHop: { address: Ip.parse('10.0.0.1') },
  med: 4294967295,
  localPreference: 0,
  atomicAggregate: true,
  aggregator: { asn: 4200000001, identifier: 0xffffffff },
  communities: [0xffffff01, 0],
  originatorId: 0xc0000201,
  clusterList: [1, 0xffffffff],
  extendedCommunities: [0x0002fde800000001n, 0xffffffffffffffffn],
  aigp: 0xffffffffffffffffn,
  largeCommunities: [[4200000001, 0, 4294967295]],
  onlyToCustomer: 65001,
  unknown: [
    { type: 11, flags: 0xe0, value: Uint8Array.of(1) },
    { type: 40, flags: 0xe0, value: new Uint8Array(300).fill(7) },
    { type: 254, flags: 0xe0, value: new Uint8Array(0) },
  ],
}

function roundTrip(attributes: Attributes, family: RouteFamily, context: WireContext): Attributes {
  const decoded = decodeAttributes(encodeAttributes(attributes, family, context), context)
  assert.deepEqual(decoded.faults, [])
  return decoded.attributes
}

test('every attribute comes back, between speakers of four octets and of two', () => {
  assert.deepEqual(roundTrip(full, IPV4_UNICAST, wide), full)
  assert.deepEqual(roundTrip(full, IPV4_UNICAST, narrow), full)
  for (const nextHop of [
    { address: Ip.parse('fd00::1') },
    { address: Ip.parse('fd00::1'), linkLocal: Ip.parse('fe80::1') },
    { address: Ip.parse('fe80::1'), linkLocal: Ip.parse('fe80::1') },
  ])
    for (const family of [IPV4_UNICAST, IPV6_UNICAST])
      assert.deepEqual(roundTrip({ ...full, nextHop }, family, wide), { ...full, nextHop })
  assert.throws(() => encodeAttributes(full, IPV6_UNICAST, wide), EncodeError)
})

test('attributes stand by number, MP_REACH_NLRI first', () => {
  const types = (block: Uint8Array) => {
    const out: number[] = []
    for (let at = 0; at < block.length; ) {
      out.push(block[at + 1]!)
      at += block[at]! & 0x10 ? 4 + (block[at + 2]! << 8) + block[at + 3]! : 3 + block[at + 2]!
    }
    return out
  }
  assert.deepEqual(
    types(encodeAttributes(full, IPV4_UNICAST, narrow)),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 26, 32, 35, 40, 254],
  )
  const reach = encodeAttributes({ ...full, nextHop: { address: Ip.parse('fd00::1') } }, IPV6_UNICAST, wide)
  assert.deepEqual(types(reach), [14, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 16, 26, 32, 35, 40, 254])
})

test('AS paths of more than 255 numbers are written in several segments', () => {
  const asns = Array.from({ length: 600 }, (_, i) => i + 1)
  const { asPath } = roundTrip({ ...full, asPath: [sequence(...asns)] }, IPV4_UNICAST, wide)
  assert.deepEqual(
    asPath!.map((segment) => segment.asns.length),
    [255, 255, 90],
  )
  assert.deepEqual(
    asPath!.flatMap((segment) => segment.asns),
    asns,
  )
})

test('a path of two-octet speakers is put together as RFC 6793 says', () => {
  /** What a new speaker sees of AS_PATH and AS4_PATH that an old one passed on. */
  const merged = (asPath: AsPathSegment[], as4Path: AsPathSegment[]) => {
    const path = (segments: AsPathSegment[], octets: number, flags: string, type: string) => {
      const number = (value: number) => value.toString(16).padStart(octets * 2, '0')
      const kinds = { set: '01', sequence: '02', 'confed-sequence': '03', 'confed-set': '04' }
      const value = segments
        .map(({ kind, asns }) => kinds[kind] + asns.length.toString(16).padStart(2, '0') + asns.map(number).join(''))
        .join('')
      return flags + type + (value.length / 2).toString(16).padStart(2, '0') + value
    }
    const block = `400101004003040a000001${path(asPath, 2, '40', '02')}${path(as4Path, 4, 'c0', '11')}`
    return formatAsPath(decodeAttributes(new Uint8Array(Buffer.from(block, 'hex')), narrow).attributes.asPath!)
  }
  const T = 23456
  assert.equal(merged([sequence(65001, T, T)], [sequence(4200000001, 4200000002)]), '65001 4200000001 4200000002')
  assert.equal(merged([sequence(T)], [sequence(4200000001)]), '4200000001')
  // AS4_PATH longer than AS_PATH: somebody shortened the path, AS4_PATH is old.
  assert.equal(merged([sequence(65001)], [sequence(4200000001, 4200000002)]), '65001')
  // A set counts one, wherever it stands.
  assert.equal(
    merged([sequence(65001), { kind: 'set', asns: [T, 65009] }, sequence(T)], [sequence(4200000001)]),
    '65001 {23456 65009} 4200000001',
  )
  // Confederation segments count nothing, and stay only where AS_PATH has them.
  assert.equal(
    merged(
      [{ kind: 'confed-sequence', asns: [64600] }, sequence(65001, T)],
      [{ kind: 'confed-sequence', asns: [1] }, sequence(4200000001)],
    ),
    '(64600) 65001 4200000001',
  )
})

test('an aggregator of four octets through a speaker of two', () => {
  const own = { ...full, aggregator: { asn: 65001, identifier: 1 } }
  assert.deepEqual(roundTrip(own, IPV4_UNICAST, narrow).aggregator, own.aggregator)
  // An aggregator that fits beside AS4_AGGREGATOR was put there later: neither AS4_* counts.
  const late =
    '40010100400206 0202 fdea 5ba0 4003040a000001 c00706 fdeb 0a000002 c01106 0201 fa56ea01 c01208 fa56ea01 0a000001'
  const { attributes } = decodeAttributes(new Uint8Array(Buffer.from(late.replaceAll(' ', ''), 'hex')), narrow)
  assert.deepEqual(attributes.aggregator, { asn: 65003, identifier: 0x0a000002 })
  assert.equal(formatAsPath(attributes.asPath!), '65002 23456')
})

test('length of a path', () => {
  assert.equal(asPathLength(full.asPath!), 3)
  assert.equal(formatAsPath(full.asPath!), '(64600) [64601 64602] 65001 4200000001 {65020 4200000002}')
})

test('messages are as full as they may be, and together say what the run says', () => {
  for (const messageBytesMax of [4096, 65535])
    for (const addPath of [false, true])
      for (const family of [IPV4_UNICAST, IPV6_UNICAST]) {
        const both = new Set(addPath ? [family] : [])
        const context = { ...wide, messageBytesMax, addPathSend: both, addPathReceive: both }
        const bits = family === IPV4_UNICAST ? 32 : 128
        const base = Ip.any(family === IPV4_UNICAST ? 4 : 6)
        const prefixes = Array.from({ length: 5000 }, (_, i) =>
          Cidr.of(Ip.fromBigInt(base.family, (BigInt(i) * 0x9e3779b1n) & 0xffffffffn), i % (bits + 1)),
        )
        const run = runOf(
          family,
          prefixes,
          prefixes.map((_, i) => i),
        )
        const nextHop = { address: Ip.parse(family === IPV4_UNICAST ? '10.0.0.1' : 'fd00::1') }
        const attributes = encodeAttributes({ ...full, nextHop }, family, context)
        const texts = (messages: Uint8Array[], field: 'reach' | 'unreach') =>
          messages.flatMap((message) => {
            assert(message.length <= messageBytesMax)
            const [only] = decodeUpdate(message.subarray(19), context)[field]
            return Array.from({ length: only!.count }, (_, i) => `${prefixAt(only!, i)}`)
          })
        const announced = packReach({ ...run, attributes }, context)
        assert.deepEqual(texts(announced, 'reach'), prefixes.map(String))
        const withdrawn = packUnreach(run, context)
        assert.deepEqual(texts(withdrawn, 'unreach'), prefixes.map(String))
        for (const message of [...announced.slice(0, -1), ...withdrawn.slice(0, -1)])
          assert(message.length > messageBytesMax - 21, `${message.length} bytes of ${messageBytesMax}`)
      }
})

test('attributes that leave no room are refused', () => {
  const attributes = encodeAttributes(
    { ...full, communities: Array.from({ length: 1100 }, () => 1) },
    IPV4_UNICAST,
    wide,
  )
  const run = runOf(IPV4_UNICAST, [Cidr.parse('10.0.0.0/8')])
  assert.throws(() => packReach({ ...run, attributes }, wide), EncodeError)
  assert.equal(packReach({ ...run, attributes }, { ...wide, messageBytesMax: 65535 }).length, 1)
})

test('End-of-RIB', () => {
  for (const family of [IPV4_UNICAST, IPV6_UNICAST])
    assert.equal(decodeUpdate(encodeEndOfRib(family).subarray(19), wide).endOfRib, family)
  const run = runOf(IPV6_UNICAST, [Cidr.parse('fd00::/8')])
  assert.equal(decodeUpdate(encodeUpdate({ unreach: run }, wide).subarray(19), wide).unreach[0]?.count, 1)
})
