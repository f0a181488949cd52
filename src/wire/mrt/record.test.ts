import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { DecodeError, EncodeError } from '../../bytes/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { Ip } from '../../net/ip.ts'
import { decodeAttributes, encodeAttributes } from '../bgp/attribute.ts'
import type { Attributes } from '../bgp/attributes.ts'
import type { WireContext } from '../bgp/context.ts'
import { IPV4_UNICAST, IPV6_UNICAST, unicastOf } from '../bgp/family.ts'
import { decodeHeader } from '../bgp/header.ts'
import { encodeMrt, type MrtRecord, readMrt } from './record.ts'
import { blockOfRibAttributes, ribAttributesOf } from './rib-attributes.ts'

const folder = new URL('testdata/', import.meta.url)
const files = readdirSync(folder)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const context: WireContext = {
  fourOctetAs: true,
  peerType: 'internal',
  families: new Set([IPV4_UNICAST, IPV6_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set([IPV4_UNICAST]),
  messageBytesMax: 4096,
}

const labelOf = (record: MrtRecord): string => {
  const addPath = 'addPath' in record && record.addPath ? ' add-path' : ''
  return `${record.kind}${addPath}${record.microseconds === undefined ? '' : ' microseconds'}`
}

/** What bird 2.0.12, frr 8.4.4 and gobgpd 3.10 wrote while sessions.json of wire/bgp was captured. */
const expected: Readonly<Record<string, readonly string[]>> = {
  'bird-messages.mrt': ['message', 'message add-path', 'stateChange'],
  'bird-table.mrt': ['peerIndexTable', 'rib', 'rib add-path'],
  'frr-messages.mrt': ['message', 'stateChange', 'unknown'],
  'frr-table.mrt': ['peerIndexTable', 'rib'],
  'gobgp-messages.mrt': ['message', 'message add-path'],
  'gobgp-table.mrt': ['peerIndexTable', 'rib', 'rib add-path'],
}

test('files of other speakers come out as they went in', () => {
  assert.deepEqual(files.sort(), Object.keys(expected))
  for (const file of files) {
    const bytes = new Uint8Array(readFileSync(new URL(file, folder)))
    const records = [...readMrt(bytes)]
    assert.deepEqual([...new Set(records.map(labelOf))].sort(), expected[file], file)
    assert.equal(records.map((record) => hex(encodeMrt(record))).join(''), hex(bytes), file)
    for (const record of records) {
      // A state change of a peer that has no address yet; nothing else is kept unread.
      if (record.kind === 'unknown') assert.match(record.problem ?? '', /needs 4 bytes/)
      if (record.kind === 'message') {
        const header = decodeHeader(record.message, 65535)
        assert.equal(header?.length, record.message.length, file)
      }
    }
  }
})

test('entries of their tables have attributes that say the same when they are written again', () => {
  let entries = 0
  const oddities = new Set<string>()
  for (const file of files)
    for (const record of readMrt(new Uint8Array(readFileSync(new URL(file, folder))))) {
      if (record.kind !== 'rib') continue
      for (const { attributes } of record.entries) {
        const block = blockOfRibAttributes(attributes, unicastOf(record.prefix.family))
        const { faults, attributes: decoded } = decodeAttributes(block, context)
        if (faults.length > 0) {
          for (const { problem } of faults) oddities.add(`${file}: ${problem}`)
          continue
        }
        // Ours, read again, are the same.
        const again = ribAttributesOf(encodeAttributes(decoded, unicastOf(record.prefix.family), context))
        const blockAgain = blockOfRibAttributes(again, unicastOf(record.prefix.family))
        assert.deepEqual(decodeAttributes(blockAgain, context).attributes, decoded)
        entries++
      }
    }
  // Routes of their own all three write without what only a session adds, bird without flags also.
  for (const problem of oddities)
    assert.match(problem, /next hop ::|NEXT_HOP|is missing$|^bird-table.mrt: .* flags 0x0$/)
  assert(entries >= 13, `${entries}`)
})

const session = {
  seconds: 1_795_000_000,
  peerAsn: 65001,
  localAsn: 65002,
  interfaceIndex: 7,
  peerAddress: Ip.parse('10.0.0.1'),
  localAddress: Ip.parse('10.0.0.2'),
}
const overIpv6 = { ...session, peerAddress: Ip.parse('fe80::1'), localAddress: Ip.parse('fe80::2') }

test('every record comes back', () => {
  const records: MrtRecord[] = []
  for (const ends of [session, overIpv6, { ...session, microseconds: 999_999 }])
    for (const fourOctetAs of [false, true]) {
      records.push({ kind: 'stateChange', ...ends, fourOctetAs, oldState: 5, newState: 6 })
      for (const local of [false, true])
        for (const addPath of [false, true])
          records.push({ kind: 'message', ...ends, fourOctetAs, local, addPath, message: new Uint8Array(19).fill(255) })
    }
  records.push({
    kind: 'peerIndexTable',
    seconds: 1,
    collectorIdentifier: 0xffffffff,
    viewName: 'größe',
    peers: [
      { identifier: 1, address: Ip.parse('10.0.0.1'), asn: 4200000001 },
      { identifier: 0xffffffff, address: Ip.parse('fd00::1'), asn: 1 },
    ],
  })
  for (const prefix of ['0.0.0.0/0', '10.128.0.0/9', '192.0.2.1/32', '::/0', '2001:db8::/33', 'fd00::1/128'])
    for (const addPath of [false, true]) {
      const path = addPath ? { pathId: 0xffffffff } : {}
      const entry = { peerIndex: 1, originatedSeconds: 2, ...path, attributes: Uint8Array.of(0x40, 1, 1, 0) }
      records.push({
        kind: 'rib',
        seconds: 3,
        addPath,
        sequence: 4,
        prefix: Cidr.parse(prefix),
        entries: [entry, entry],
      })
    }
  records.push({ kind: 'unknown', seconds: 5, type: 48, subtype: 9, body: Uint8Array.of(1, 2, 3) })
  const bytes = new Uint8Array(Buffer.concat(records.map(encodeMrt)))
  assert.deepEqual([...readMrt(bytes)], records)
})

test('what a record cannot hold is refused, what a file does not hold is an error', () => {
  const message = { kind: 'message', local: false, addPath: false, message: new Uint8Array(0), ...session } as const
  assert.throws(() => encodeMrt({ ...message, fourOctetAs: false, peerAsn: 65536 }), EncodeError)
  assert.throws(() => encodeMrt({ ...message, fourOctetAs: true, peerAddress: Ip.parse('fd00::1') }), EncodeError)
  const bytes = encodeMrt({ ...message, fourOctetAs: true })
  assert.throws(() => [...readMrt(bytes.subarray(0, -1))], DecodeError)
  assert.throws(() => [...readMrt(bytes.subarray(0, 11))], DecodeError)
})

test('next hops in tables, in the short form and in the long one', () => {
  const attributes: Attributes = {
    origin: 0,
    asPath: [],
    nextHop: { address: Ip.parse('fd00::1'), linkLocal: Ip.parse('fe80::1') },
    med: 1,
  }
  const block = encodeAttributes(attributes, IPV6_UNICAST, context)
  const short = ribAttributesOf(block)
  assert.equal(hex(short.subarray(0, 6)), '800e2120fd00')
  assert.deepEqual(hex(blockOfRibAttributes(short, IPV6_UNICAST)), hex(block))
  assert.deepEqual(hex(blockOfRibAttributes(block, IPV6_UNICAST)), hex(block))
  const classic = encodeAttributes({ ...attributes, nextHop: { address: Ip.parse('10.0.0.1') } }, IPV4_UNICAST, context)
  assert.deepEqual(hex(ribAttributesOf(classic)), hex(classic))
  // Whatever is cut, what is left is a whole list.
  for (let length = 0; length < short.length; length++)
    decodeAttributes(blockOfRibAttributes(short.subarray(0, length), IPV6_UNICAST), context)
})

test('random changes are a record or a DecodeError', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const whole = files.map((file) => new Uint8Array(readFileSync(new URL(file, folder))))
  for (let round = 0; round < 300; round++) {
    const bytes = whole[random(whole.length)]!.slice()
    for (let n = random(6); n >= 0; n--) bytes[random(bytes.length)] = random(256)
    try {
      for (const record of readMrt(bytes))
        if (record.kind === 'rib')
          for (const { attributes } of record.entries)
            decodeAttributes(blockOfRibAttributes(attributes, unicastOf(record.prefix.family)), context)
    } catch (error) {
      assert(error instanceof DecodeError, `${error}`)
    }
  }
})
