import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from '../../model/errors.ts'
import { parseSpeakerFile } from './speaker-file.ts'

const least = { asn: 64513, routerId: '10.0.0.1' }
const withPeer = (peer: object) => ({ ...least, peers: [{ address: '10.0.0.2', asn: 64512, ...peer }] })

test('the least that a file must say, and what is usual then', () => {
  const { config, routes } = parseSpeakerFile(withPeer({}), 'f')
  assert.deepEqual(config.listen, { port: 179, addresses: [] })
  assert.deepEqual(routes, [])
  const [peer] = config.peers
  assert.equal(peer!.name, '10.0.0.2')
  assert.deepEqual(
    peer!.families.map(({ family }) => family),
    ['ipv4', 'ipv6'],
  )
  assert.equal(peer!.timers.holdSeconds, 90)
  assert.equal(peer!.gracefulRestart.mode, 'helper')
  assert.equal(peer!.capabilities.extendedNextHop, false)
})

test('an unnumbered peer needs a device and is offered IPv6 next hops', () => {
  const [peer] = parseSpeakerFile({ ...least, peers: [{ device: 'eth1', asn: 'external' }] }, 'f').config.peers
  assert.equal(peer!.name, 'eth1')
  assert.equal(peer!.address, undefined)
  assert.equal(peer!.capabilities.extendedNextHop, true)
})

test('BFD has usual intervals, and several hops where BGP has them', () => {
  const bfdOf = (peer: object) => parseSpeakerFile(withPeer(peer), 'f').config.peers[0]!.bfd
  const usual = {
    multihop: false,
    minTransmitMicroseconds: 300_000,
    minReceiveMicroseconds: 300_000,
    detectMultiplier: 3,
  }
  assert.equal(bfdOf({}), undefined)
  assert.deepEqual(bfdOf({ bfd: {} }), usual)
  assert.deepEqual(bfdOf({ bfd: {}, multihopTtl: 3 }), { ...usual, multihop: true })
  assert.deepEqual(bfdOf({ bfd: { minReceiveMilliseconds: 50, port: 13784 } }), {
    ...usual,
    minReceiveMicroseconds: 50_000,
    port: 13784,
  })
  for (const bfd of [true, { interval: 50 }, { detectMultiplier: 0 }, { minTransmitMilliseconds: 5 }])
    assert.throws(() => bfdOf({ bfd }), ConfigError)
})

test('families by name or with what is to be said of each; addresses in canonical text', () => {
  const [one] = parseSpeakerFile(withPeer({ families: ['ipv6'], address: 'FD00:0::2' }), 'f').config.peers
  assert.deepEqual(
    one!.families.map(({ family }) => family),
    ['ipv6'],
  )
  assert.equal(one!.address, 'fd00::2')
  const families = { ipv4: { maxPrefixes: { limit: 10 }, nextHop: 'self', addPathSend: 2 }, ipv6: {} }
  const [two] = parseSpeakerFile(withPeer({ families }), 'f').config.peers
  assert.deepEqual(two!.families[0]!.maxPrefixes, { limit: 10, warnPercent: 80, action: 'restart' })
  assert.equal(two!.families[0]!.nextHop, 'self')
})

test('policies, prefix sets, dynamic peers, routes and a confederation', () => {
  const { config, routes } = parseSpeakerFile(
    {
      ...least,
      confederation: { identifier: 100, members: [64514] },
      dynamicPeers: [{ prefix: '10.244.0.0/16', asn: 'external', maxPeers: 5 }],
      prefixSets: [{ name: 'lan', ranges: [{ prefix: '10.0.0.0/8', maxLength: 24 }] }],
      policies: [
        {
          name: 'in',
          rules: [
            {
              match: { prefixes: { set: 'lan', negated: true }, peerType: 'ebgp', communities: ['no-export'] },
              changes: [
                { kind: 'prepend-as-path', asns: [64513, 64513] },
                { kind: 'set-next-hop', nextHop: 'self' },
              ],
              verdict: 'next',
            },
          ],
        },
      ],
      routes: [{ prefix: '192.0.2.0/24', communities: ['64513:1'], med: 5 }],
    },
    'f',
  )
  assert.equal(config.dynamicPeers[0]!.name, '10.244.0.0/16')
  assert.equal(config.policies[0]!.rules[0]!.match.prefixes!.negated, true)
  assert.deepEqual(routes, [{ prefix: '192.0.2.0/24', kind: 'static', communities: ['64513:1'], med: 5 }])
})

test('every error names the file and the key', () => {
  const cases: [unknown, RegExp][] = [
    ['text', /^f: \(whole\): must be an object/],
    [{ asn: 64513 }, /^f: routerId: is missing/],
    [{ ...least, asn: 23456 }, /^f: asn: 23456 is reserved/],
    [{ ...least, asn: '64513' }, /^f: asn: must be a whole number/],
    [{ ...least, routerId: 'fd00::1' }, /^f: routerId: must be an IPv4 address/],
    [{ ...least, peer: [] }, /^f: peer: is not known here/],
    [withPeer({ adress: '10.0.0.3' }), /^f: peers\[0\]\.adress: is not known here/],
    [withPeer({ timers: { holdSeconds: 2 } }), /^f: peers\[0\]\.timers\.holdSeconds: must be 0, or 3 and more/],
    [withPeer({ families: ['ipv5'] }), /^f: peers\[0\]\.families\[0\]: must be one of ipv4, ipv6/],
    [
      withPeer({ families: { ipv4: { maxPrefixes: {} } } }),
      /^f: peers\[0\]\.families\.ipv4\.maxPrefixes\.limit: is missing/,
    ],
    [withPeer({ ttlSecurityHops: 1, multihopTtl: 2 }), /^f: peers\[0\]\.multihopTtl: has no meaning/],
    [withPeer({ address: 'fe80::1' }), /^f: peers\[0\]\.device: is missing/],
    [withPeer({ password: 'x'.repeat(81) }), /^f: peers\[0\]\.password: is longer than 80 characters/],
    [withPeer({ asn: 'mine' }), /^f: peers\[0\]\.asn: must be an AS number, internal or external/],
    [{ ...least, peers: [{ asn: 1 }] }, /^f: peers\[0\]\.address: is missing, and there is no device/],
    [
      { ...least, peers: [1, 2].map(() => ({ address: '10.0.0.2', asn: 1 })) },
      /^f: peers\[1\]\.name: "10.0.0.2" is the name of two peers/,
    ],
    [{ ...least, routes: [{ prefix: '10.0.0.1/24' }] }, /^f: routes\[0\]\.prefix: .*host bits/],
    [{ ...least, routes: [{ prefix: '10.0.0.0/24', communities: ['1:2:3:4'] }] }, /^f: routes\[0\]\.communities\[0\]/],
    [
      { ...least, policies: [{ name: 'a', rules: [{ match: {}, verdict: 'maybe' }] }] },
      /^f: policies\[0\]\.rules\[0\]\.verdict: must be one of accept, reject, next/,
    ],
    [
      { ...least, policies: [{ name: 'a', rules: [{ changes: [{ kind: 'set-med', mad: 1 }], verdict: 'next' }] }] },
      /^f: policies\[0\]\.rules\[0\]\.changes\[0\]\.mad: is not known here/,
    ],
  ]
  for (const [value, message] of cases)
    assert.throws(
      () => parseSpeakerFile(value, 'f'),
      (error) => error instanceof ConfigError && message.test(error.message),
      String(message),
    )
})
