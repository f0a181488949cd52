/**
 * Codecs against what Linux 6.18 said (testdata/captured.json: dumps of a namespace with a device of every kind that
 * kernel has, as hexadecimal datagrams), both ways, and against bytes that nobody should send.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Codec } from '../../bytes/codec.ts'
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { decodeUtf8 } from '../../bytes/text.ts'
import { Writer } from '../../bytes/writer.ts'
import { NLMSG_DONE, NLMSG_ERROR } from '../netlink/constants.gen.ts'
import { decodeAcknowledgement, readMessages } from '../netlink/message.ts'
import { addressMessage } from './address.ts'
import { type BridgeLinkMessage, bridgeLinkMessage } from './bridge-link.ts'
import { describeRtnetlink } from './describe.ts'
import { linkMessage } from './link.ts'
import { neighbourMessage } from './neighbour.ts'
import { routeMessage } from './route.ts'
import { ruleMessage } from './rule.ts'
import { bpfOptions, matchallOptions, tbfOptions, trafficMessage, u32Options } from './traffic.ts'

const captured = JSON.parse(readFileSync(new URL('testdata/captured.json', import.meta.url), 'utf8')) as Record<
  string,
  string[]
>
const codecs: Readonly<Record<string, Codec<object>>> = {
  link: linkMessage as Codec<object>,
  address: addressMessage as Codec<object>,
  route: routeMessage as Codec<object>,
  neighbour: neighbourMessage as Codec<object>,
  fdb: neighbourMessage as Codec<object>,
  rule: ruleMessage as Codec<object>,
  qdisc: trafficMessage as Codec<object>,
  filter: trafficMessage as Codec<object>,
}
const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

/** Payloads of the data messages of a capture. */
function payloads(name: string): Uint8Array[] {
  const out: Uint8Array[] = []
  for (const datagram of captured[name]!)
    readMessages(bytesOf(datagram), (header, payload) => {
      if (header.type !== NLMSG_DONE && header.type !== NLMSG_ERROR) out.push(payload.rest().slice())
    })
  assert.ok(out.length > 0, name)
  return out
}

const decodeAll = <T>(name: string, codec: Codec<T>): T[] =>
  payloads(name).map((bytes) => codec.decode(new Reader(bytes)))

for (const [name, codec] of Object.entries(codecs))
  test(`every captured ${name} message decodes, and encodes to the same content and size`, () => {
    for (const bytes of payloads(name)) {
      const value = codec.decode(new Reader(bytes))
      const writer = new Writer()
      codec.encode(writer, value)
      const again = writer.finish().slice()
      assert.equal(again.length, (bytes.length + 3) & ~3)
      assert.deepEqual(codec.decode(new Reader(again)), value)
    }
  })

test('captured devices say what ip made them', () => {
  const links = new Map(decodeAll('link', linkMessage).map((link) => [link.attributes.name, link]))
  const vxlan = links.get('vx0')!.attributes
  assert.equal(vxlan.alias, 'weft:vxlan')
  const { vni, port, local, learning, ttl } = vxlan.info!.data as Record<string, unknown>
  assert.deepEqual([vni, port, `${local}`, learning, ttl], [7, 8472, '10.1.0.1', false, 64])
  assert.equal(vxlan.familySpecifics!.inet6!.addressGenerationMode, 1)
  const veth = links.get('v0')!
  assert.equal(veth.attributes.mtu, 1450)
  assert.equal(veth.attributes.master, links.get('br0')!.header.index)
  const port0 = veth.attributes.info!.portData as Record<string, unknown>
  assert.deepEqual([port0.hairpin, port0.isolated, port0.guard], [true, true, false])
  assert.equal((links.get('vx6')!.attributes.info!.data as Record<string, unknown>).gbp, true)
  assert.equal((links.get('tun0')!.attributes.info!.data as Record<string, unknown>).persist, true)
})

test('captured routes, rules and neighbours say what ip made them', () => {
  const routes = new Map(decodeAll('route', routeMessage).map((r) => [`${r.attributes.destination}`, r]))
  const onlink = routes.get('10.244.1.0')!
  assert.deepEqual([onlink.protocol, onlink.flags & 4, `${onlink.attributes.gateway}`], [119, 4, '10.244.1.0'])
  const multi = routes.get('10.8.0.0')!.attributes
  assert.deepEqual(
    multi.multipath!.map((hop) => [`${hop.attributes.gateway}`, hop.hops]),
    [
      ['10.1.0.2', 2],
      ['10.1.0.3', 0],
    ],
  )
  assert.deepEqual([multi.metrics!.mtu, multi.metrics!.advertisedMss], [1400, 1360])
  assert.equal(`${routes.get('10.7.0.0')!.attributes.via}`, 'fd00::9')
  assert.deepEqual([routes.get('10.9.0.0')!.attributes.table, routes.get('10.9.0.0')!.type], [1000, 6])
  const rule = decodeAll('rule', ruleMessage).find((one) => one.attributes.priority === 99)!
  assert.deepEqual(
    [`${rule.attributes.source}`, rule.sourceLength, rule.attributes.inDevice, rule.attributes.suppressPrefixLength],
    ['10.0.0.0', 8, 'br0', 0],
  )
  const zero = decodeAll('fdb', neighbourMessage).find((one) => one.attributes.linkAddress?.every((byte) => byte === 0))
  assert.equal(`${zero!.attributes.destination}`, '10.1.0.8')
})

test('captured traffic control says what tc made it', () => {
  const tbf = decodeAll('qdisc', trafficMessage).find((one) => one.attributes.kind === 'tbf')!
  const { parameters } = tbfOptions.decode(new Reader(tbf.attributes.options!))
  assert.equal(parameters!.rateBytesPerSecond, 1_000_000)
  assert.equal(parameters!.limitBytes, 50_000)
  assert.equal((parameters!.bufferTicks * 64) / 1e9, 0.02, 'the burst of 20000 bytes takes 20 ms')
  const filters = decodeAll('filter', trafficMessage).map((one) =>
    u32Options.decode(new Reader(one.attributes.options ?? new Uint8Array())),
  )
  const mirred = filters.map((one) => one.actions?.first?.options?.parameters).find((one) => one)
  assert.deepEqual([mirred!.action, mirred!.direction], [4, 1])
})

test('captured refusals say why', () => {
  const said: string[] = []
  for (const datagram of captured.error!)
    readMessages(bytesOf(datagram), (header, payload) => {
      const { errno, message, offset } = decodeAcknowledgement(header.flags, payload)
      said.push(`${errno} ${message} ${offset}`)
    })
  assert.deepEqual(said, [
    '101 Nexthop has invalid gateway undefined',
    '34 VXLAN ID must be lower than 16777216 60',
    '22 invalid address undefined',
  ])
})

test('every captured message has words', () => {
  for (const name of Object.keys(codecs))
    for (const datagram of captured[name]!)
      readMessages(bytesOf(datagram), (header, payload) => {
        if (header.type >= 16) assert.match(describeRtnetlink(header, payload), /^RTM_NEW[A-Z]+ \{/)
      })
  const link = captured.link!.find((datagram) => decodeUtf8(bytesOf(datagram)).includes('weft:vxlan'))!
  const lines: string[] = []
  readMessages(bytesOf(link), (header, payload) => {
    lines.push(describeRtnetlink(header, payload))
  })
  assert.ok(lines.some((line) => line.includes('kind=vxlan data={vni=7') && line.includes('alias=weft:vxlan')))
})

/** A small generator of numbers, repeatable by its seed. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

test('truncated and garbled messages give DecodeErrors with an offset inside, and nothing else', () => {
  const seed = Number(process.env.SEED ?? (Date.now() % 1e9) + 1)
  console.log(`seed ${seed}`)
  const next = random(seed)
  const options = [tbfOptions, u32Options, matchallOptions, bpfOptions] as unknown as Codec<object>[]
  let refused = 0
  const attempt = (codec: Codec<object>, bytes: Uint8Array): void => {
    try {
      codec.decode(new Reader(bytes))
    } catch (error) {
      assert.ok(error instanceof DecodeError, String((error as Error).stack))
      assert.ok(error.offset >= 0 && error.offset <= bytes.length)
      refused++
    }
  }
  for (const [name, codec] of Object.entries(codecs))
    for (const bytes of payloads(name)) {
      for (let length = 0; length < bytes.length; length += 1 + next(7)) attempt(codec, bytes.subarray(0, length))
      for (let round = 0; round < 150; round++) {
        const garbled = bytes.slice()
        for (let flips = 1 + next(4); flips > 0; flips--) garbled[next(garbled.length)] = next(256)
        attempt(codec, garbled)
        attempt(options[round % options.length]!, garbled)
      }
    }
  assert.ok(refused > 1000, `${refused} refusals`)
})

test('a request about VLANs is what `bridge vlan add dev #9 vid 7 pvid untagged` sends, and reads back', () => {
  const message: BridgeLinkMessage = {
    header: { family: 7, hardwareType: 0, index: 9, flags: 0, change: 0 },
    attributes: { specifics: { target: 1, vlans: [{ flags: 6, vlan: 7 }] } },
  }
  const writer = new Writer()
  bridgeLinkMessage.encode(writer, message)
  const bytes = writer.finish().slice()
  assert.equal(
    Buffer.from(bytes).toString('hex'),
    `0700000009000000${'00'.repeat(8)}14001a80${'06000000010000000800020006000700'}`,
  )
  assert.deepEqual(bridgeLinkMessage.decode(new Reader(bytes)), message)
  const cut = bytes.slice()
  cut[28] = 6
  assert.throws(() => bridgeLinkMessage.decode(new Reader(cut)), DecodeError)
})

test('garbled datagrams never hang or crash the message reader', () => {
  const next = random(Number(process.env.SEED ?? 42))
  for (const datagram of Object.values(captured).flat())
    for (let round = 0; round < 60; round++) {
      const bytes = bytesOf(datagram)
      for (let flips = 1 + next(6); flips > 0; flips--) bytes[next(bytes.length)] = next(256)
      try {
        readMessages(bytes.subarray(0, 1 + next(bytes.length)), (header, payload) => {
          if (header.type === NLMSG_ERROR) decodeAcknowledgement(header.flags, payload)
          else describeRtnetlink(header, payload)
        })
      } catch (error) {
        assert.ok(error instanceof DecodeError, String((error as Error).stack))
      }
    }
})
