/**
 * What our codecs write, as tshark reads it: every BGP, BMP and BFD message dissects without a complaint, and tshark finds the
 * prefixes, paths and communities in it that were put there. Needs no daemon and no rights: tshark reads a file.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { Writer } from '../../src/bytes/writer.ts'
import { Cidr } from '../../src/net/cidr.ts'
import { Ip } from '../../src/net/ip.ts'
import { BfdState, encodeBfdPacket } from '../../src/wire/bfd/packet.ts'
import { encodeAttributes } from '../../src/wire/bgp/attribute.ts'
import type { Attributes } from '../../src/wire/bgp/attributes.ts'
import type { Capability } from '../../src/wire/bgp/capability.ts'
import { CeaseCode } from '../../src/wire/bgp/constants.ts'
import type { WireContext } from '../../src/wire/bgp/context.ts'
import { IPV4_UNICAST, IPV6_UNICAST, type RouteFamily } from '../../src/wire/bgp/family.ts'
import { encodeKeepalive } from '../../src/wire/bgp/message.ts'
import { runOf } from '../../src/wire/bgp/nlri.ts'
import { cease, encodeNotification, hardReset, shutdownNotification } from '../../src/wire/bgp/notification.ts'
import { encodeOpen } from '../../src/wire/bgp/open.ts'
import { encodeRouteRefresh } from '../../src/wire/bgp/route-refresh.ts'
import { encodeEndOfRib, packReach, packUnreach } from '../../src/wire/bgp/update-packing.ts'
import { type BmpMessage, type BmpPeer, encodeBmp, informationOf } from '../../src/wire/bmp/message.ts'

const missing = spawnSync('tshark', ['--version']).status === 0 ? false : 'there is no tshark'

const context: WireContext = {
  fourOctetAs: true,
  peerType: 'internal',
  families: new Set([IPV4_UNICAST, IPV6_UNICAST]),
  addPathReceive: new Set(),
  addPathSend: new Set(),
  extendedNextHop: new Set([IPV4_UNICAST]),
  messageBytesMax: 4096,
}

const LINK_TYPE_RAW_IP = 101

/** A capture in which every payload is one TCP segment, or one UDP datagram, from 10.0.0.1 to 10.0.0.2. */
function capture(payloads: readonly Uint8Array[], protocol: 'tcp' | 'udp', port: number): Uint8Array {
  const file = new Writer()
  for (const word of [0xa1b2c3d4, 0x00020004, 0, 0, 0x40000, LINK_TYPE_RAW_IP]) file.u32be(word)
  let sequence = 1
  for (const [i, payload] of payloads.entries()) {
    const transport = protocol === 'tcp' ? 20 : 8
    const length = 20 + transport + payload.length
    for (const word of [1_700_000_000, i, length, length]) file.u32be(word)
    file.u16be(0x4500)
    file.u16be(length)
    file.u32be(0)
    file.u16be(protocol === 'tcp' ? 0xff06 : 0xff11)
    file.u16be(0)
    file.u32be(0x0a000001)
    file.u32be(0x0a000002)
    file.u16be(50_000)
    file.u16be(port)
    if (protocol === 'tcp') {
      file.u32be(sequence)
      file.u32be(1)
      file.u32be(0x5018ffff)
      file.u32be(0)
      sequence += payload.length
    } else {
      file.u16be(8 + payload.length)
      file.u16be(0)
    }
    file.bytes(payload)
  }
  return file.finish().slice()
}

const folder = mkdtempSync(join(tmpdir(), 'weft-tshark-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** One line a payload, of the fields asked for; several values of one field stand with a semicolon between. */
function dissect(
  payloads: readonly Uint8Array[],
  protocol: 'tcp' | 'udp',
  port: number,
  fields: readonly string[],
  options: readonly string[] = [],
): string[][] {
  const file = join(folder, 'capture.pcap')
  writeFileSync(file, capture(payloads, protocol, port))
  const args = [
    '-r',
    file,
    ...options,
    '-T',
    'fields',
    '-E',
    'separator=/t',
    '-E',
    'aggregator=;',
    '-E',
    'occurrence=a',
  ]
  const output = execFileSync('tshark', [...args, ...fields.flatMap((field) => ['-e', field])], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 26,
  })
  return output
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => line.split('\t'))
}

const COMPLAINTS = ['_ws.expert.message', '_ws.malformed']

/** Every payload is of the protocol, and tshark has nothing to say about it. */
function assertClean(payloads: readonly Uint8Array[], protocol: 'tcp' | 'udp', port: number, name: string): void {
  const lines = dissect(payloads, protocol, port, ['frame.protocols', ...COMPLAINTS], portOptions[name] ?? [])
  assert.equal(lines.length, payloads.length)
  for (const [i, [protocols, ...complaints]] of lines.entries()) {
    const bytes = Buffer.from(payloads[i]!).toString('hex')
    assert.match(protocols ?? '', new RegExp(`:${name}\\b`), bytes)
    assert.deepEqual(
      complaints.filter((complaint) => complaint !== ''),
      [],
      bytes,
    )
  }
}
const portOptions: Readonly<Record<string, readonly string[]>> = { bmp: ['-d', 'tcp.port==11019,bmp'] }

const capabilities: readonly Capability[] = [
  { kind: 'multiprotocol', family: IPV4_UNICAST },
  { kind: 'multiprotocol', family: IPV6_UNICAST },
  { kind: 'routeRefresh' },
  { kind: 'enhancedRouteRefresh' },
  { kind: 'extendedMessage' },
  { kind: 'extendedNextHop', families: [{ family: IPV4_UNICAST, nextHopAfi: 2 }] },
  { kind: 'role', role: 3 },
  {
    kind: 'gracefulRestart',
    restarted: true,
    notification: true,
    restartTimeSeconds: 120,
    families: [
      { family: IPV4_UNICAST, forwarding: true },
      { family: IPV6_UNICAST, forwarding: false },
    ],
  },
  { kind: 'fourOctetAs', asn: 4200000001 },
  { kind: 'addPath', families: [{ family: IPV4_UNICAST, send: true, receive: true }] },
  { kind: 'longLivedGracefulRestart', families: [{ family: IPV4_UNICAST, forwarding: true, staleTimeSeconds: 3600 }] },
  { kind: 'fqdn', hostName: 'node1', domainName: 'example.org' },
]
const open = encodeOpen({ asn: 4200000001, holdTimeSeconds: 90, identifier: 0x0a000001, capabilities })

const attributes: Attributes = {
  origin: 2,
  asPath: [
    { kind: 'confed-sequence', asns: [64600] },
    { kind: 'sequence', asns: [65001, 4200000001] },
    { kind: 'set', asns: [65020, 65021] },
  ],
  nextHop: { address: Ip.parse('10.0.0.1') },
  med: 7,
  localPreference: 200,
  atomicAggregate: true,
  aggregator: { asn: 4200000001, identifier: 0x0a000001 },
  communities: [0xffffff01, 0xfde80064],
  originatorId: 0x0a000009,
  clusterList: [0x0a000001, 0x0a000002],
  extendedCommunities: [0x0002fde800000001n, 0x0003fde800000002n],
  aigp: 1000n,
  largeCommunities: [[4200000001, 1, 2]],
  onlyToCustomer: 65001,
}

const prefixes = {
  [IPV4_UNICAST]: ['0.0.0.0/0', '10.0.0.0/8', '192.0.2.128/25', '203.0.113.7/32'],
  [IPV6_UNICAST]: ['::/0', '2001:db8::/32', '2001:db8:0:8000::/49', 'fd00::1/128'],
}
const nextHops = [
  { address: Ip.parse('fd00::1') },
  { address: Ip.parse('fd00::1'), linkLocal: Ip.parse('fe80::1') },
  { address: Ip.parse('fe80::1'), linkLocal: Ip.parse('fe80::1') },
]

function announce(family: RouteFamily, set: Attributes, own: WireContext = context): Uint8Array[] {
  const run = runOf(
    family,
    prefixes[family]!.map((text) => Cidr.parse(text)),
  )
  return packReach({ ...run, attributes: encodeAttributes(set, family, own) }, own)
}

const updates: readonly Uint8Array[] = [
  ...announce(IPV4_UNICAST, attributes),
  ...announce(IPV4_UNICAST, { origin: 0, asPath: [], nextHop: attributes.nextHop! }),
  ...nextHops.flatMap((nextHop) => announce(IPV6_UNICAST, { ...attributes, nextHop })),
  ...nextHops.flatMap((nextHop) => announce(IPV4_UNICAST, { ...attributes, nextHop })),
  ...[IPV4_UNICAST, IPV6_UNICAST].flatMap((family) => [
    ...packUnreach(
      runOf(
        family,
        prefixes[family]!.map((text) => Cidr.parse(text)),
      ),
      context,
    ),
    encodeEndOfRib(family),
  ]),
]

describe('tshark', { skip: missing }, () => {
  test('BGP: nothing to complain about', () => {
    const notifications = [
      ...Object.values(CeaseCode).map(cease),
      shutdownNotification(CeaseCode.ADMINISTRATIVE_SHUTDOWN, 'moving racks, größer'),
      hardReset(shutdownNotification(CeaseCode.ADMINISTRATIVE_RESET, 'again')),
      { code: 4, subcode: 0, data: new Uint8Array(0) },
      { code: 3, subcode: 1, data: new Uint8Array(0) },
    ]
    assertClean(
      [
        open,
        encodeKeepalive(),
        ...[IPV4_UNICAST, IPV6_UNICAST].flatMap((family) =>
          (['request', 'begin', 'end'] as const).map((kind) => encodeRouteRefresh(family, kind)),
        ),
        ...notifications.map(encodeNotification),
        ...updates,
      ],
      'tcp',
      179,
      'bgp',
    )
  })

  test('BGP: it would complain', () => {
    const broken = updates[0]!.slice()
    // The length of ORIGIN: the rest of the attributes stands where nobody looks for it.
    broken[25] = 77
    assert.throws(() => assertClean([broken], 'tcp', 179, 'bgp'), assert.AssertionError)
  })

  test('BGP: a table of full messages, with and without path identifiers', () => {
    const many = Array.from({ length: 3000 }, (_, i) => Cidr.of(Ip.v4(0x0b000000 + i * 256), 24))
    const block = encodeAttributes(attributes, IPV4_UNICAST, context)
    const run = runOf(
      IPV4_UNICAST,
      many,
      many.map((_, i) => i + 1),
    )
    const withPaths = { ...context, addPathSend: new Set([IPV4_UNICAST]) }
    for (const own of [context, withPaths]) {
      const messages = packReach({ ...run, attributes: block }, own)
      const lines = dissect([open, ...messages], 'tcp', 179, ['bgp.nlri_prefix', ...COMPLAINTS])
      assert.deepEqual(
        lines.slice(1).flatMap(([found]) => found!.split(';')),
        many.map(({ base }) => `${base}`),
      )
      for (const line of lines) assert.deepEqual(line.slice(1).join(''), '')
    }
  })

  test('BGP: what it finds is what was said', () => {
    const found = (message: Uint8Array, fields: readonly string[]) => dissect([message], 'tcp', 179, fields)[0]
    const [full] = announce(IPV4_UNICAST, attributes)
    assert.deepEqual(
      found(full!, [
        'bgp.update.path_attribute.origin',
        'bgp.update.path_attribute.as_path_segment.as4',
        'bgp.update.path_attribute.next_hop',
        'bgp.update.path_attribute.multi_exit_disc',
        'bgp.update.path_attribute.local_pref',
        'bgp.update.path_attribute.community_value',
        'bgp.update.path_attribute.originator_id',
        'bgp.large_communities.ga',
        'bgp.nlri_prefix',
        'bgp.prefix_length',
      ]),
      [
        '2',
        '64600;65001;4200000001;65020;65021',
        '10.0.0.1',
        '7',
        '200',
        // Well-known ones have a field of their own.
        '100',
        '10.0.0.9',
        '4200000001',
        '0.0.0.0;10.0.0.0;192.0.2.128;203.0.113.7',
        '0;8;25;32',
      ],
    )
    const [six] = announce(IPV6_UNICAST, { ...attributes, nextHop: nextHops[1]! })
    assert.deepEqual(
      found(six!, [
        'bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6',
        'bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6.link_local',
        'bgp.mp_reach_nlri_ipv6_prefix',
      ]),
      ['fd00::1', 'fe80::1', '::;2001:db8::;2001:db8:0:8000::;fd00::1'],
    )
  })

  test('BMP: nothing to complain about', () => {
    const peer: BmpPeer = {
      type: 0,
      distinguisher: 0n,
      address: Ip.parse('10.0.0.2'),
      postPolicy: true,
      twoOctetAs: false,
      adjRibOut: false,
      asn: 65001,
      identifier: 0x0a000002,
      seconds: 1_700_000_000,
      microseconds: 1,
    }
    const shutdown = encodeNotification(shutdownNotification(CeaseCode.ADMINISTRATIVE_SHUTDOWN, 'bye'))
    const messages: BmpMessage[] = [
      { kind: 'initiation', information: [informationOf(1, 'weft'), informationOf(2, 'node1')] },
      {
        kind: 'peerUp',
        peer,
        localAddress: Ip.parse('10.0.0.1'),
        localPort: 179,
        remotePort: 50_000,
        sentOpen: open,
        receivedOpen: open,
        information: [],
      },
      ...updates.map((update): BmpMessage => ({ kind: 'routeMonitoring', peer, update })),
      { kind: 'routeMonitoring', peer: { ...peer, address: Ip.parse('fd00::2') }, update: updates[0]! },
      {
        kind: 'statistics',
        peer,
        counters: [
          { type: 0, value: 1 },
          { type: 7, value: 2n },
          { type: 9, family: IPV4_UNICAST, value: 3n },
        ],
      },
      { kind: 'peerDown', peer, reason: { kind: 'localNotification', message: shutdown } },
      { kind: 'peerDown', peer, reason: { kind: 'remoteNotification', message: shutdown } },
      { kind: 'peerDown', peer, reason: { kind: 'localEvent', event: 10 } },
      { kind: 'peerDown', peer, reason: { kind: 'remoteClosed' } },
      { kind: 'termination', information: [{ type: 1, value: Uint8Array.of(0, 0) }] },
    ]
    assertClean(messages.map(encodeBmp), 'tcp', 11019, 'bmp')
  })

  test('BFD: nothing to complain about', () => {
    const packet = {
      diagnostic: 3,
      state: BfdState.Up,
      poll: true,
      final: false,
      controlPlaneIndependent: true,
      demand: false,
      detectMultiplier: 3,
      myDiscriminator: 1,
      yourDiscriminator: 2,
      desiredMinTransmitMicroseconds: 100_000,
      requiredMinReceiveMicroseconds: 100_000,
      requiredMinEchoReceiveMicroseconds: 0,
    }
    const packets = Object.values(BfdState).map((state) => encodeBfdPacket({ ...packet, state }))
    assertClean(packets, 'udp', 3784, 'bfd')
    assertClean(packets, 'udp', 4784, 'bfd')
  })
})
