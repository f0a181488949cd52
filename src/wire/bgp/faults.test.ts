/**
 * The corpus of what is wrong: a line per fault, with the reaction that RFC 7606 (or the attribute's own document) demands.
 * Every row is an UPDATE that is right but for one thing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cidr } from '../../net/cidr.ts'
import { decodeAttributes } from './attribute.ts'
import { ErrorCode, UpdateError } from './constants.ts'
import type { WireContext } from './context.ts'
import { BgpError, type Reaction, strongestReaction } from './error.ts'
import { IPV4_UNICAST, IPV6_UNICAST } from './family.ts'
import { pathIdAt, prefixAt } from './nlri.ts'
import { decodeUpdate } from './update.ts'

const external: WireContext = {
  fourOctetAs: true,
  peerType: 'external',
  families: new Set([IPV4_UNICAST, IPV6_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set(),
  messageBytesMax: 4096,
}
const internal: WireContext = { ...external, peerType: 'internal' }
const twoOctet: WireContext = { ...external, fourOctetAs: false }

const bytes = (text: string): number[] => [...Buffer.from(text.replaceAll(/[ |]/g, ''), 'hex')]
const u16 = (value: number): number[] => [value >> 8, value & 255]

const ORIGIN = '400101 00'
const AS_PATH = '400206 0201 0000fdea'
const NEXT_HOP = '400304 0a000001'
const USUAL = ORIGIN + AS_PATH + NEXT_HOP
const NLRI = '18 cb0071'
/** MP_REACH_NLRI of 2001:db8::/32 by fd00::1. */
const REACH6 = '800e1a 000201 10 fd000000000000000000000000000001 00 20 20010db8'

/** Body of an UPDATE from its three parts, as hex with blanks. */
function update(attributes: string, nlri = NLRI, withdrawn = ''): Uint8Array {
  const gone = bytes(withdrawn)
  const block = bytes(attributes)
  return Uint8Array.from([...u16(gone.length), ...gone, ...u16(block.length), ...block, ...bytes(nlri)])
}

interface Outcome {
  readonly reaction: Reaction | undefined
  readonly subcode: number | undefined
}

/** What a session has to do: the strongest of what the message and its attribute sets say. */
function reactionTo(body: Uint8Array, context: WireContext): Outcome {
  try {
    const decoded = decodeUpdate(body, context)
    const faults = [
      ...decoded.faults,
      ...decoded.reach.flatMap((run) => decodeAttributes(run.attributes, context).faults),
    ]
    const reaction = strongestReaction(faults)
    return { reaction, subcode: faults.find((fault) => fault.reaction === reaction)?.subcode }
  } catch (error) {
    assert(error instanceof BgpError, `${error}`)
    assert.equal(error.code, ErrorCode.UPDATE_MESSAGE)
    return { reaction: 'sessionReset', subcode: error.subcode }
  }
}

type Row = readonly [
  what: string,
  body: Uint8Array,
  reaction: Reaction | undefined,
  subcode?: number | undefined,
  context?: WireContext,
]
const E = UpdateError

const rows: readonly Row[] = [
  ['nothing is wrong', update(USUAL), undefined],
  ['nothing is wrong, IPv6', update(ORIGIN + AS_PATH + REACH6, ''), undefined],
  ['an empty AS_PATH is right', update(`${ORIGIN}400200${NEXT_HOP}`), undefined],
  ['a length in two octets where one would do', update(`50010001 00${AS_PATH}${NEXT_HOP}`), undefined],
  ['bits behind a prefix’s length', update(USUAL, '11 cbffff'), undefined],

  // RFC 7606 section 3.a and 4: lengths.
  [
    'the withdrawn routes end behind the message',
    Uint8Array.of(0, 9, 0, 0),
    'sessionReset',
    E.MALFORMED_ATTRIBUTE_LIST,
  ],
  ['the attributes end behind the message', Uint8Array.of(0, 0, 0, 1), 'sessionReset', E.MALFORMED_ATTRIBUTE_LIST],
  ['a body of three bytes', Uint8Array.of(0, 0, 0), 'sessionReset', E.MALFORMED_ATTRIBUTE_LIST],
  ['an attribute ends behind the list', update(`${USUAL}800405 0000`), 'treatAsWithdraw', E.MALFORMED_ATTRIBUTE_LIST],
  ['an attribute’s head is cut', update(`${USUAL}80`), 'treatAsWithdraw', E.MALFORMED_ATTRIBUTE_LIST],
  ['a long attribute’s head is cut', update(`${USUAL}900400`), 'treatAsWithdraw', E.MALFORMED_ATTRIBUTE_LIST],
  ['the list is broken and no routes are there', update(`${USUAL}80`, ''), 'sessionReset', E.MALFORMED_ATTRIBUTE_LIST],
  // Section 5.2: without routes nobody can tell what was withdrawn.
  ['a malformed attribute and no routes', update('400101 07', ''), 'sessionReset', E.INVALID_ORIGIN],
  ['attributes and no routes', update(USUAL, ''), undefined],

  // Section 3.c: flags.
  ['ORIGIN is optional', update(`c00101 00${AS_PATH}${NEXT_HOP}`), 'treatAsWithdraw', E.ATTRIBUTE_FLAGS],
  ['COMMUNITIES are not transitive', update(`${USUAL}800804 fde80001`), 'treatAsWithdraw', E.ATTRIBUTE_FLAGS],
  [
    'MP_REACH_NLRI is transitive',
    update(ORIGIN + AS_PATH + REACH6.replace('80', 'c0'), ''),
    'treatAsWithdraw',
    E.ATTRIBUTE_FLAGS,
  ],
  ['MP_UNREACH_NLRI is transitive', update(`${USUAL}c00f03 000201`), 'treatAsWithdraw', E.ATTRIBUTE_FLAGS],
  ['PARTIAL on a well-known attribute is no matter', update(`600101 00${AS_PATH}${NEXT_HOP}`), undefined],

  // Section 3.d: missing.
  ['no ORIGIN', update(AS_PATH + NEXT_HOP), 'treatAsWithdraw', E.MISSING_WELL_KNOWN],
  ['no AS_PATH', update(ORIGIN + NEXT_HOP), 'treatAsWithdraw', E.MISSING_WELL_KNOWN],
  ['no NEXT_HOP', update(ORIGIN + AS_PATH), 'treatAsWithdraw', E.MISSING_WELL_KNOWN],
  ['no attributes at all', update(''), 'treatAsWithdraw', E.MISSING_WELL_KNOWN],
  ['no LOCAL_PREF from an internal peer', update(USUAL), undefined, undefined, internal],

  // Section 3.g: twice.
  ['ORIGIN twice', update(`${USUAL}400101 02`), 'discardAttribute', E.MALFORMED_ATTRIBUTE_LIST],
  ['an unknown attribute twice', update(`${USUAL}c06301 01 c06301 02`), 'discardAttribute', E.MALFORMED_ATTRIBUTE_LIST],
  ['MP_REACH_NLRI twice', update(ORIGIN + AS_PATH + REACH6 + REACH6, ''), 'sessionReset', E.MALFORMED_ATTRIBUTE_LIST],
  ['MP_UNREACH_NLRI twice', update('800f03 000201 800f03 000201', ''), 'sessionReset', E.MALFORMED_ATTRIBUTE_LIST],

  // RFC 4271 section 6.3: unknown and well-known.
  ['an unknown well-known attribute', update(`${USUAL}406301 00`), 'sessionReset', E.UNRECOGNIZED_WELL_KNOWN],
  ['an unknown optional attribute', update(`${USUAL}c06301 00`), undefined],

  // Section 5.3: prefixes.
  ['a prefix longer than its family', update(USUAL, '21 cb00710000'), 'sessionReset', E.INVALID_NETWORK_FIELD],
  ['a prefix that is cut', update(USUAL, '18 cb00'), 'sessionReset', E.INVALID_NETWORK_FIELD],
  ['a withdrawn prefix that is cut', update('', '', '20 cb0071'), 'sessionReset', E.INVALID_NETWORK_FIELD],
  [
    'an IPv6 prefix of 129 bits',
    update(`800f15 000201 81 ${'00'.repeat(17)}`, ''),
    'sessionReset',
    E.INVALID_NETWORK_FIELD,
  ],
  [
    'no path identifier where one was agreed upon',
    update(USUAL),
    'sessionReset',
    E.INVALID_NETWORK_FIELD,
    { ...external, addPathReceive: new Set([IPV4_UNICAST]) },
  ],

  // Section 7.1.
  ['ORIGIN 3', update(`400101 03${AS_PATH}${NEXT_HOP}`), 'treatAsWithdraw', E.INVALID_ORIGIN],
  ['ORIGIN of two bytes', update(`400102 0000${AS_PATH}${NEXT_HOP}`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH],
  // Section 7.2.
  ['a segment of type 5', update(`${ORIGIN}400206 0501 0000fdea${NEXT_HOP}`), 'treatAsWithdraw', E.MALFORMED_AS_PATH],
  ['a segment without AS numbers', update(`${ORIGIN}400202 0200${NEXT_HOP}`), 'treatAsWithdraw', E.MALFORMED_AS_PATH],
  ['a segment that is cut', update(`${ORIGIN}400206 0202 0000fdea${NEXT_HOP}`), 'treatAsWithdraw', E.MALFORMED_AS_PATH],
  [
    'a segment’s head that is cut',
    update(`${ORIGIN}400207 0201 0000fdea 02${NEXT_HOP}`),
    'treatAsWithdraw',
    E.MALFORMED_AS_PATH,
  ],
  [
    'two octets where four were agreed upon',
    update(`${ORIGIN}400204 0201 fdea${NEXT_HOP}`),
    'treatAsWithdraw',
    E.MALFORMED_AS_PATH,
  ],
  ['AS 0 (RFC 7607)', update(`${ORIGIN}400206 0201 00000000${NEXT_HOP}`), 'treatAsWithdraw', E.MALFORMED_AS_PATH],
  [
    'a confederation segment from outside (RFC 5065)',
    update(`${ORIGIN}400206 0301 0000fdea${NEXT_HOP}`),
    'treatAsWithdraw',
    E.MALFORMED_AS_PATH,
  ],
  [
    'a confederation segment from inside',
    update(`${ORIGIN}400206 0301 0000fdea${NEXT_HOP}`),
    undefined,
    undefined,
    { ...external, peerType: 'confederation' },
  ],
  // Section 7.3.
  ['NEXT_HOP of five bytes', update(`${ORIGIN}${AS_PATH}400305 0a00000100`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH],
  ['NEXT_HOP 0.0.0.0', update(`${ORIGIN}${AS_PATH}400304 00000000`), 'treatAsWithdraw', E.INVALID_NEXT_HOP],
  ['NEXT_HOP 127.0.0.1', update(`${ORIGIN}${AS_PATH}400304 7f000001`), 'treatAsWithdraw', E.INVALID_NEXT_HOP],
  ['NEXT_HOP is multicast', update(`${ORIGIN}${AS_PATH}400304 e0000001`), 'treatAsWithdraw', E.INVALID_NEXT_HOP],
  ['a bad NEXT_HOP beside MP_REACH_NLRI alone', update(`${ORIGIN}${AS_PATH}400304 00000000${REACH6}`, ''), undefined],
  // Sections 7.4 to 7.10.
  ['MULTI_EXIT_DISC of three bytes', update(`${USUAL}800403 000001`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH],
  ['LOCAL_PREF of three bytes', update(`${USUAL}400503 000001`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH, internal],
  ['LOCAL_PREF from outside', update(`${USUAL}400503 000001`), 'discardAttribute', E.OPTIONAL_ATTRIBUTE],
  ['ATOMIC_AGGREGATE with a byte', update(`${USUAL}400601 00`), 'discardAttribute', E.ATTRIBUTE_LENGTH],
  [
    'AGGREGATOR of six bytes on a four-octet session',
    update(`${USUAL}c00706 fdea0a000001`),
    'discardAttribute',
    E.ATTRIBUTE_LENGTH,
  ],
  [
    'AGGREGATOR of eight bytes on a two-octet session',
    update(`${ORIGIN}400204 0201 fdea${NEXT_HOP}c00708 0000fdea0a000001`),
    'discardAttribute',
    E.ATTRIBUTE_LENGTH,
    twoOctet,
  ],
  [
    'AGGREGATOR with AS 0 (RFC 7607)',
    update(`${USUAL}c00708 000000000a000001`),
    'discardAttribute',
    E.OPTIONAL_ATTRIBUTE,
  ],
  ['COMMUNITIES of six bytes', update(`${USUAL}c00806 fde800010000`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH],
  ['no COMMUNITIES in COMMUNITIES', update(`${USUAL}c00800`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH],
  ['ORIGINATOR_ID of five bytes', update(`${USUAL}800905 0000000000`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH, internal],
  ['ORIGINATOR_ID from outside', update(`${USUAL}800904 0a000001`), 'discardAttribute', E.OPTIONAL_ATTRIBUTE],
  ['CLUSTER_LIST of two bytes', update(`${USUAL}800a02 0000`), 'treatAsWithdraw', E.ATTRIBUTE_LENGTH, internal],
  ['CLUSTER_LIST from outside', update(`${USUAL}800a02 0000`), 'discardAttribute', E.OPTIONAL_ATTRIBUTE],
  // Sections 7.11 and 7.12.
  [
    'an IPv6 next hop of twelve bytes',
    update(`${ORIGIN}${AS_PATH}800e16 000201 0c ${'fd'.repeat(12)} 00 20 20010db8`, ''),
    'sessionReset',
    E.OPTIONAL_ATTRIBUTE,
  ],
  [
    'a next hop that reaches behind MP_REACH_NLRI',
    update(`${ORIGIN}${AS_PATH}800e09 000201 10 fd00000000`, ''),
    'sessionReset',
    E.OPTIONAL_ATTRIBUTE,
  ],
  [
    'MP_REACH_NLRI of four bytes',
    update(`${ORIGIN}${AS_PATH}800e04 00020110`, ''),
    'sessionReset',
    E.OPTIONAL_ATTRIBUTE,
  ],
  ['MP_UNREACH_NLRI of two bytes', update('800f02 0002', ''), 'sessionReset', E.OPTIONAL_ATTRIBUTE],
  [
    'an IPv6 next hop for IPv4 that was not agreed upon',
    update(`${ORIGIN}${AS_PATH}800e19 000101 10 fd000000000000000000000000000001 00 18 cb0071`, ''),
    'sessionReset',
    E.OPTIONAL_ATTRIBUTE,
  ],
  [
    'an IPv6 next hop for IPv4',
    update(`${ORIGIN}${AS_PATH}800e19 000101 10 fd000000000000000000000000000001 00 18 cb0071`, ''),
    undefined,
    undefined,
    { ...external, extendedNextHop: new Set([IPV4_UNICAST]) },
  ],
  [
    'next hop ::',
    update(`${ORIGIN}${AS_PATH}${REACH6.replace('fd000000000000000000000000000001', '00'.repeat(16))}`, ''),
    'treatAsWithdraw',
    E.OPTIONAL_ATTRIBUTE,
  ],
  [
    'next hop ff02::1',
    update(`${ORIGIN}${AS_PATH}${REACH6.replace('fd00', 'ff02')}`, ''),
    'treatAsWithdraw',
    E.OPTIONAL_ATTRIBUTE,
  ],
  [
    'a family that was not agreed upon',
    update(`${ORIGIN}${AS_PATH}${REACH6.replace('000201', '000202')}`, ''),
    'discardAttribute',
    E.OPTIONAL_ATTRIBUTE,
  ],
  // Section 7.14 and others' documents.
  [
    'EXTENDED_COMMUNITIES of seven bytes',
    update(`${USUAL}c01007 00020000000000`),
    'treatAsWithdraw',
    E.ATTRIBUTE_LENGTH,
  ],
  [
    'LARGE_COMMUNITY of eight bytes (RFC 8092)',
    update(`${USUAL}c02008 0000000000000000`),
    'treatAsWithdraw',
    E.ATTRIBUTE_LENGTH,
  ],
  [
    'ONLY_TO_CUSTOMER of three bytes (RFC 9234)',
    update(`${USUAL}c02303 000000`),
    'treatAsWithdraw',
    E.ATTRIBUTE_LENGTH,
  ],
  [
    'AS4_PATH that is cut (RFC 6793)',
    update(`${ORIGIN}400204 0201 5ba0${NEXT_HOP}c01105 0201 0000fd`),
    'discardAttribute',
    E.MALFORMED_AS_PATH,
    twoOctet,
  ],
  [
    'AS4_PATH with AS 0 (RFC 7607)',
    update(`${ORIGIN}400204 0201 5ba0${NEXT_HOP}c01106 0201 00000000`),
    'treatAsWithdraw',
    E.MALFORMED_AS_PATH,
    twoOctet,
  ],
  ['AS4_PATH with AS 0 among those who do not need it', update(`${USUAL}c01106 0201 00000000`), undefined],
  [
    'AS4_AGGREGATOR of six bytes (RFC 6793)',
    update(`${ORIGIN}400204 0201 5ba0${NEXT_HOP}c01206 0000fdea0a00`),
    'discardAttribute',
    E.ATTRIBUTE_LENGTH,
    twoOctet,
  ],
  ['AIGP without a metric (RFC 7311)', update(`${USUAL}801a03 020003`), 'discardAttribute', E.OPTIONAL_ATTRIBUTE],
  ['AIGP with a TLV of two bytes', update(`${USUAL}801a03 010002`), 'discardAttribute', E.OPTIONAL_ATTRIBUTE],
  ['AIGP that is transitive', update(`${USUAL}c01a0b 01000b 0000000000000001`), 'discardAttribute', E.ATTRIBUTE_FLAGS],

  // Section 3.h: the strongest counts.
  ['two faults', update(`400101 07${AS_PATH}${NEXT_HOP}400601 00`), 'treatAsWithdraw', E.INVALID_ORIGIN],
]

for (const [what, body, reaction, subcode, context = external] of rows)
  test(`${what}: ${reaction ?? 'accepted'}`, () => {
    assert.deepEqual(reactionTo(body, context), { reaction, subcode })
    // The message is looked at alone: whatever lies behind it in memory, the answer is the same.
    const padded = new Uint8Array(body.length + 64).fill(0x55)
    padded.set(body, 32)
    assert.deepEqual(reactionTo(padded.subarray(32, 32 + body.length), context), { reaction, subcode })
  })

test('routes with a broken list of attributes count as withdrawn, the others as they are', () => {
  const { unreach, reach } = decodeUpdate(update(`${USUAL}80`, NLRI, '10 0a01'), external)
  assert.deepEqual(reach, [])
  assert.deepEqual(
    unreach.map((run) => `${prefixAt(run, 0)}`),
    ['10.1.0.0/16', '203.0.113.0/24'],
  )
})

test('a discarded attribute leaves the others', () => {
  const [run] = decodeUpdate(update(`${USUAL}400601 00 c00804 fde80001`), external).reach
  const { attributes, reaction } = decodeAttributes(run!.attributes, external)
  assert.equal(reaction, 'discardAttribute')
  assert.deepEqual(attributes.communities, [0xfde80001])
  assert.equal(attributes.atomicAggregate, undefined)
})

test('of an attribute that stands there twice the first counts', () => {
  const [run] = decodeUpdate(update(`${USUAL}800404 00000001 800404 00000002`), external).reach
  assert.equal(decodeAttributes(run!.attributes, external).attributes.med, 1)
})

test('unknown transitive attributes are kept with PARTIAL, others are not', () => {
  const [run] = decodeUpdate(update(`${USUAL}c06302 abcd 806402 abcd`), external).reach
  assert.deepEqual(decodeAttributes(run!.attributes, external).attributes.unknown, [
    { type: 0x63, flags: 0xe0, value: Uint8Array.of(0xab, 0xcd) },
  ])
})

test('End-of-RIB of either family, and what only looks like one', () => {
  assert.equal(decodeUpdate(update('', ''), external).endOfRib, IPV4_UNICAST)
  assert.equal(decodeUpdate(update('800f03 000201', ''), external).endOfRib, IPV6_UNICAST)
  assert.equal(decodeUpdate(update('800f03 000202', ''), external).endOfRib, undefined)
  assert.equal(decodeUpdate(update('800f08 000201 20 20010db8', ''), external).endOfRib, undefined)
  assert.equal(decodeUpdate(update('800f03 000201', '', '18 cb0071'), external).endOfRib, undefined)
})

test('routes of both families in one message have a set of attributes each', () => {
  const { reach } = decodeUpdate(update(USUAL + REACH6), external)
  const nextHops = reach.map(
    (run) => `${prefixAt(run, 0)} ${decodeAttributes(run.attributes, external).attributes.nextHop?.address}`,
  )
  assert.deepEqual(nextHops, ['203.0.113.0/24 10.0.0.1', '2001:db8::/32 fd00::1'])
})

test('a link-local next hop beside the global one, or alone', () => {
  const local = 'fe800000000000000000000000000002'
  const two = (first: string) =>
    decodeUpdate(update(`${ORIGIN}${AS_PATH}800e2a 000201 20 ${first} ${local} 00 20 20010db8`, ''), external)
  const nextHop = (first: string) => decodeAttributes(two(first).reach[0]!.attributes, external).attributes.nextHop
  const text = (first: string) => `${nextHop(first)?.address} ${nextHop(first)?.linkLocal}`
  assert.equal(text('fd000000000000000000000000000001'), 'fd00::1 fe80::2')
  assert.equal(text('00'.repeat(16)), 'fe80::2 fe80::2')
})

test('families that nobody negotiated are left out, IPv4 among them', () => {
  const onlyIpv6 = { ...external, families: new Set([IPV6_UNICAST]) }
  const decoded = decodeUpdate(update(USUAL + REACH6, NLRI, '10 0a01'), onlyIpv6)
  assert.deepEqual(
    decoded.reach.map((run) => `${prefixAt(run, 0)}`),
    ['2001:db8::/32'],
  )
  assert.deepEqual(decoded.unreach, [])
  assert.equal(decoded.faults.length, 1)
})

test('path identifiers are read where they were agreed upon', () => {
  const context = { ...external, addPathReceive: new Set([IPV4_UNICAST]) }
  const [run] = decodeUpdate(update(USUAL, 'fffffffe 18 cb0071 00000001 00'), context).reach
  assert.deepEqual(
    [0, 1].map((i) => `${prefixAt(run!, i)} ${pathIdAt(run!, i)}`),
    ['203.0.113.0/24 4294967294', '0.0.0.0/0 1'],
  )
})

test('prefixes of every length read as net/cidr has them', () => {
  for (let length = 0; length <= 128; length++) {
    const cidr = Cidr.parse('2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128')
    const size = Math.ceil(length / 8)
    const nlri = [...cidr.base.toBytes().subarray(0, size)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
    const hex = `800f${(4 + size).toString(16).padStart(2, '0')}000201${length.toString(16).padStart(2, '0')}${nlri}`
    const [run] = decodeUpdate(update(hex, ''), external).unreach
    assert.equal(`${prefixAt(run!, 0)}`, `${Cidr.of(cidr.base, length)}`)
  }
})
