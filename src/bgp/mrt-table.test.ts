import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PeerStatus, RibRoute, SpeakerStatus } from '../model/bgp.ts'
import { decodeAttributes } from '../wire/bgp/attribute.ts'
import type { Attributes } from '../wire/bgp/attributes.ts'
import { unicastOf } from '../wire/bgp/family.ts'
import { readMrt } from '../wire/mrt/record.ts'
import { blockOfRibAttributes } from '../wire/mrt/rib-attributes.ts'
import { mrtTable } from './mrt-table.ts'

const noCounts = { open: 0, update: 0, keepalive: 0, notification: 0, routeRefresh: 0, bytes: 0 }
const peer = (name: string, changes: Partial<PeerStatus>): PeerStatus => ({
  name,
  port: 179,
  remoteAsn: 65001,
  localAsn: 64512,
  type: 'ebgp',
  state: 'established',
  sinceMs: 0,
  establishedCount: 1,
  families: [],
  messages: { received: noCounts, sent: noCounts },
  ...changes,
})
const status: SpeakerStatus = {
  asn: 64512,
  routerId: '10.0.0.1',
  listen: { port: 179, addresses: [] },
  peers: [
    peer('tor', { address: '10.0.0.2', remoteRouterId: '192.0.2.2' }),
    peer('six', { address: 'fd00::3', remoteAsn: 'internal', type: 'ibgp' }),
    peer('eth0', { remoteAsn: 'external', state: 'idle' }),
  ],
  rib: { ipv4: { prefixes: 0, paths: 0 }, ipv6: { prefixes: 0, paths: 0 } },
  attributeSets: 0,
}

const route = (prefix: string, changes: Partial<RibRoute>): RibRoute => ({
  prefix,
  nextHops: [{ address: '10.0.0.2' }],
  origin: 'igp',
  asPath: [{ kind: 'sequence', asns: [65001, 4200000001] }],
  communities: [],
  best: true,
  multipath: false,
  stale: false,
  ...changes,
})

const routes: readonly RibRoute[] = [
  route('10.1.0.0/16', {
    fromPeer: 'tor',
    receivedAtMs: 1_700_000_000_999,
    med: 5,
    communities: ['65001:7', 'no-export'],
  }),
  route('10.1.0.0/16', {
    fromPeer: 'six',
    pathId: 9,
    localPreference: 200,
    originatorId: '10.0.0.9',
    clusterList: ['10.0.0.1'],
  }),
  route('10.2.0.0/24', { nextHops: [], localKind: 'block', asPath: [], origin: 'incomplete' }),
  route('2001:db8::/32', {
    fromPeer: 'six',
    nextHops: [{ address: 'fd00::3' }],
    communities: ['4200000001:1:2', 'rt:65001:1'],
  }),
  route('10.3.0.0/16', { fromPeer: 'tor', nextHops: [{ address: 'fd00::2' }] }),
]

test('a local RIB as a table that says the same', async () => {
  const seconds = 1_700_000_500
  const parts: Uint8Array[] = []
  for await (const part of mrtTable(status, routes, seconds)) parts.push(part)
  const file = new Uint8Array(Buffer.concat(parts))
  const [index, ...records] = [...readMrt(file)]
  assert(index?.kind === 'peerIndexTable')
  assert.deepEqual(
    index.peers.map(({ identifier, address, asn }) => `${identifier.toString(16)} ${address} ${asn}`),
    ['a000001 0.0.0.0 64512', 'c0000202 10.0.0.2 65001', '0 fd00::3 64512', '0 0.0.0.0 0'],
  )
  const context = {
    fourOctetAs: true,
    peerType: 'internal',
    families: new Set<number>(),
    addPathReceive: new Set<number>(),
    addPathSend: new Set<number>(),
    extendedNextHop: new Set<number>(),
    messageBytesMax: 4096,
  } as const
  const words = records.map((record) => {
    assert(record.kind === 'rib')
    const { prefix, addPath, sequence, entries } = record
    return entries.map(({ peerIndex, pathId, originatedSeconds, attributes }) => {
      const block = blockOfRibAttributes(attributes, unicastOf(prefix.family))
      const { nextHop, ...rest }: Attributes = decodeAttributes(block, context).attributes
      return [`${sequence} ${prefix} ${addPath} ${peerIndex} ${pathId} ${originatedSeconds} ${nextHop?.address}`, rest]
    })
  })
  const asPath = [{ kind: 'sequence', asns: [65001, 4200000001] }]
  assert.deepEqual(words, [
    [
      [
        '0 10.1.0.0/16 true 1 0 1700000000 10.0.0.2',
        { origin: 0, asPath, med: 5, communities: [0xfde90007, 0xffffff01] },
      ],
      [
        '0 10.1.0.0/16 true 2 9 1700000500 10.0.0.2',
        { origin: 0, asPath, localPreference: 200, originatorId: 0x0a000009, clusterList: [0x0a000001] },
      ],
    ],
    // The reader of tables sees the empty next hop of our own route as none.
    [['1 10.2.0.0/24 false 0 undefined 1700000500 undefined', { origin: 2, asPath: [] }]],
    [
      [
        '2 2001:db8::/32 false 2 undefined 1700000500 fd00::3',
        { origin: 0, asPath, extendedCommunities: [0x0002fde900000001n], largeCommunities: [[4200000001, 1, 2]] },
      ],
    ],
    [['3 10.3.0.0/16 false 1 undefined 1700000500 fd00::2', { origin: 0, asPath }]],
  ])
})
