import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { DecodeError, EncodeError } from '../../bytes/errors.ts'
import { Ip } from '../../net/ip.ts'
import { decodeHeader } from '../bgp/header.ts'
import { encodeKeepalive } from '../bgp/message.ts'
import { cease, encodeNotification } from '../bgp/notification.ts'
import { encodeOpen } from '../bgp/open.ts'
import {
  BmpInformationType,
  type BmpMessage,
  type BmpPeer,
  BmpPeerType,
  BmpStatistic,
  bmpMessageBytes,
  decodeBmp,
  encodeBmp,
  informationOf,
  informationText,
} from './message.ts'

const captured = JSON.parse(readFileSync(new URL('testdata/captured.json', import.meta.url), 'utf8')) as {
  from: string
  bytes: string
}[]
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

test('messages of frr and gobgpd come out as they went in', () => {
  const kinds = new Set<string>()
  for (const { from, bytes } of captured) {
    const message = decodeBmp(bytesOf(bytes))
    kinds.add(`${from} ${message.kind}`)
    assert.equal(Buffer.from(encodeBmp(message)).toString('hex'), bytes, from)
    if (message.kind === 'routeMonitoring') assert.equal(decodeHeader(message.update, 65535)?.type, 2)
    if (message.kind === 'initiation')
      assert.match(message.information.map(informationText).join(), /^(FRRouting 8\.4\.4,frr|GoBGP,3\.10\.0)$/)
  }
  for (const kind of ['routeMonitoring', 'statistics', 'peerUp', 'peerDown', 'initiation'])
    for (const from of ['frr 8.4.4', 'gobgpd 3.10.0']) assert(kinds.has(`${from} ${kind}`), `${from} ${kind}`)
  assert(kinds.has('frr 8.4.4 routeMirroring'))
})

const peer: BmpPeer = {
  type: BmpPeerType.GLOBAL,
  distinguisher: 0n,
  address: Ip.parse('10.0.0.2'),
  postPolicy: false,
  twoOctetAs: false,
  adjRibOut: false,
  asn: 4200000001,
  identifier: 0xffffffff,
  seconds: 0xffffffff,
  microseconds: 999_999,
}
const open = encodeOpen({ asn: 65001, holdTimeSeconds: 90, identifier: 1, capabilities: [] }).slice()
const information = [informationOf(BmpInformationType.STRING, 'größe'), informationOf(BmpInformationType.SYS_NAME, '')]

test('every message comes back', () => {
  const peers: BmpPeer[] = [
    peer,
    { ...peer, address: Ip.parse('fe80::1'), postPolicy: true },
    { ...peer, adjRibOut: true, twoOctetAs: true },
    { ...peer, type: BmpPeerType.LOC_RIB, address: Ip.any(4), postPolicy: true },
    { ...peer, type: BmpPeerType.RD, distinguisher: 0xffffffffffffffffn },
  ]
  const messages = peers.flatMap((peer): BmpMessage[] => [
    { kind: 'routeMonitoring', peer, update: encodeKeepalive() },
    {
      kind: 'statistics',
      peer,
      counters: [
        { type: BmpStatistic.REJECTED_PREFIXES, value: 0xffffffff },
        { type: BmpStatistic.ADJ_RIB_IN, value: 0xffffffffffffffffn },
        { type: BmpStatistic.ADJ_RIB_IN_OF_FAMILY, family: 0x0201, value: 1n },
        { type: 999, value: Uint8Array.of(1) },
      ],
    },
    { kind: 'peerDown', peer, reason: { kind: 'localNotification', message: encodeNotification(cease(2)) } },
    { kind: 'peerDown', peer, reason: { kind: 'remoteNotification', message: encodeNotification(cease(2)) } },
    { kind: 'peerDown', peer, reason: { kind: 'localEvent', event: 10 } },
    { kind: 'peerDown', peer, reason: { kind: 'remoteClosed' } },
    { kind: 'peerDown', peer, reason: { kind: 'deconfigured' } },
    { kind: 'peerDown', peer, reason: { kind: 'unknown', reason: 6, data: Uint8Array.of(1, 2) } },
    {
      kind: 'peerUp',
      peer,
      localAddress: Ip.any(peer.address.family),
      localPort: 179,
      remotePort: 65535,
      sentOpen: open,
      receivedOpen: open,
      information,
    },
    { kind: 'routeMirroring', peer, information: [{ type: 0, value: encodeKeepalive() }] },
  ])
  messages.push(
    { kind: 'initiation', information },
    { kind: 'termination', information: [{ type: 1, value: Uint8Array.of(0, 0) }] },
  )
  messages.push({ kind: 'unknown', type: 77, body: Uint8Array.of(1) })
  for (const message of messages) assert.deepEqual(decodeBmp(encodeBmp(message)), message)
})

test('what no message is', () => {
  assert.equal(bmpMessageBytes(new Uint8Array(5)), undefined)
  const bytes = encodeBmp({ kind: 'routeMonitoring', peer, update: encodeKeepalive() })
  assert.equal(bmpMessageBytes(bytes), bytes.length)
  const refused = (problem: RegExp, change: (bytes: Uint8Array) => void) => {
    const copy = bytes.slice()
    change(copy)
    assert.throws(
      () => decodeBmp(copy),
      (error) => error instanceof DecodeError && problem.test(error.message),
    )
  }
  refused(/version 2/, (copy) => copy.set([2]))
  refused(/length 5/, (copy) => copy.set([0, 0, 0, 5], 1))
  refused(/length 268435456/, (copy) => copy.set([16, 0, 0, 0], 1))
  refused(/length 99 in/, (copy) => copy.set([0, 0, 0, 99], 1))
  refused(/BGP message of 18 bytes/, (copy) => copy.set([0, 18], copy.length - 3))
  refused(/needs 1 bytes/, (copy) => copy.set([0, 20], copy.length - 3))
  assert.throws(
    () =>
      encodeBmp({
        kind: 'peerUp',
        peer,
        localAddress: Ip.parse('fd00::1'),
        localPort: 1,
        remotePort: 1,
        sentOpen: open,
        receivedOpen: open,
        information: [],
      }),
    EncodeError,
  )
})

test('random changes are a message or a DecodeError', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  let accepted = 0
  for (let round = 0; round < 10_000; round++) {
    const bytes = bytesOf(captured[random(captured.length)]!.bytes)
    for (let n = random(5); n >= 0; n--) bytes[random(bytes.length)] = random(256)
    try {
      const message = decodeBmp(bytes)
      assert.deepEqual(decodeBmp(encodeBmp(message)), message)
      accepted++
    } catch (error) {
      assert(error instanceof DecodeError, `${error}`)
    }
  }
  assert(accepted > 2_000, `${accepted}`)
})
