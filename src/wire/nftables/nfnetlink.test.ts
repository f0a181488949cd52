/**
 * Codecs of nftables, connection tracking and ethtool against what Linux 6.18 said (testdata/captured.json: dumps of a
 * ruleset that nft 1.0.6 loaded, of tracked flows, and of a veth's features), both ways, and against bytes that nobody
 * should send.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Codec } from '../../bytes/codec.ts'
import { DecodeError } from '../../bytes/errors.ts'
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import { flowMessage } from '../conntrack/message.ts'
import { featuresMessage, namesOf } from '../ethtool/message.ts'
import { describeGeneric } from '../genetlink/describe.ts'
import { familyMessage } from '../genetlink/message.ts'
import { NLMSG_DONE, NLMSG_ERROR } from '../netlink/constants.gen.ts'
import { readMessages } from '../netlink/message.ts'
import { commentEntry, decodeComment, decodeUserdata, encodeUserdata, RULE_COMMENT, RULE_DIGEST } from './data.ts'
import { describeNfnetlink } from './describe.ts'
import { chainMessage, elementListMessage, objectMessage, ruleMessage, setMessage, tableMessage } from './message.ts'

const load = (path: string) =>
  JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as Record<string, string[]>
const captured: Record<string, string[]> = {
  ...load('testdata/captured.json'),
  ...load('../conntrack/testdata/captured.json'),
  ...load('../ethtool/testdata/captured.json'),
}
const codecs: Readonly<Record<string, Codec<object>>> = {
  table: tableMessage,
  chain: chainMessage,
  rule: ruleMessage,
  set: setMessage,
  elements: elementListMessage,
  object: objectMessage,
  flow: flowMessage,
  family: familyMessage,
  features: featuresMessage,
}
/** nfgenmsg, or the generic header: four bytes either way. */
const HEAD_BYTES = 4
const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

function payloads(name: string): Uint8Array[] {
  const out: Uint8Array[] = []
  for (const datagram of captured[name]!)
    readMessages(bytesOf(datagram), (header, payload) => {
      if (header.type !== NLMSG_DONE && header.type !== NLMSG_ERROR) out.push(payload.rest().slice(HEAD_BYTES))
    })
  assert.ok(out.length > 0, name)
  return out
}

const decodeAll = <T>(name: string, codec: Codec<T>): T[] =>
  payloads(name).map((bytes) => codec.decode(new Reader(bytes)))

for (const [name, codec] of Object.entries(codecs))
  test(`every captured ${name} message decodes, and encodes to the same content`, () => {
    for (const bytes of payloads(name)) {
      const value = codec.decode(new Reader(bytes))
      const writer = new Writer()
      codec.encode(writer, value)
      assert.deepEqual(codec.decode(new Reader(writer.finish().slice())), value)
    }
  })

test('captured objects say what nft made them', () => {
  const [table] = decodeAll('table', tableMessage)
  assert.equal(table!.name, 'weft')
  assert.equal(decodeComment(decodeUserdata(table!.userdata), 0), 'hello')
  const chains = new Map(decodeAll('chain', chainMessage).map((chain) => [chain.name, chain]))
  assert.deepEqual(chains.get('c2')!.hook, { number: 1, priority: -10 })
  assert.deepEqual(
    [chains.get('c1')!.type, chains.get('c1')!.hook!.priority, chains.get('c1')!.policy],
    ['nat', -100, 1],
  )
  const rules = decodeAll('rule', ruleMessage)
  const [first] = rules
  assert.deepEqual(
    first!.expressions!.map(({ name }) => name),
    ['fib', 'cmp', 'meta', 'payload', 'lookup', 'nat'],
  )
  assert.equal(decodeComment(decodeUserdata(first!.userdata), RULE_COMMENT), 'hh')
  const names = new Set(rules.flatMap(({ expressions }) => expressions ?? []).map(({ name }) => name))
  assert.ok(names.has('notrack'))
  assert.ok(!names.has('other'))
  const ranges = decodeAll('set', setMessage).find(({ name }) => name === 'c')!
  assert.deepEqual(
    ranges.desc!.fields!.map(({ length }) => length),
    [6, 4],
  )
  const verdicts = decodeAll('elements', elementListMessage).find(({ set }) => set === 'vm')!
  assert.ok(verdicts.elements!.some(({ data }) => data?.verdict?.chain === 'q'))
})

test('captured flows show both directions, captured features their names', () => {
  const flow = decodeAll('flow', flowMessage).find(({ original }) => original?.proto?.destinationPort === 53)!
  assert.equal(`${flow.original!.ip!.v4Destination} ${flow.reply!.ip!.v4Source}`, '10.9.9.9 127.0.0.1')
  assert.ok(decodeAll('flow', flowMessage).some(({ original }) => `${original?.ip?.v6Source}` === '::1'))
  const [features] = decodeAll('features', featuresMessage)
  assert.ok(namesOf(features!.active).has('tx-checksum-ip-generic'))
  assert.equal(decodeAll('family', familyMessage)[0]!.name, 'ethtool')
})

test('every captured message has words', () => {
  const describe = (name: string) => (name === 'family' || name === 'features' ? describeGeneric : describeNfnetlink)
  for (const name of Object.keys(codecs))
    for (const datagram of captured[name]!)
      readMessages(bytesOf(datagram), (header, payload) => {
        if (header.type >= 16) assert.match(describe(name)(header, payload), /^(NFT_MSG_NEW|CT_NEW|CTRL|family) ?.*\{/)
      })
})

test('cut and damaged messages fail by their own error or decode, never otherwise', () => {
  let state = Number(process.env.SEED ?? 20261121)
  console.log(`SEED=${state}`)
  const next = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % n
  }
  const attempt = (codec: Codec<object>, bytes: Uint8Array) => {
    try {
      codec.decode(new Reader(bytes))
    } catch (error) {
      assert.ok(error instanceof DecodeError, `${(error as Error).stack}`)
    }
  }
  for (const [name, codec] of Object.entries(codecs))
    for (const bytes of payloads(name)) {
      for (let i = 0; i < 12; i++) attempt(codec, bytes.subarray(0, next(bytes.length)))
      for (let i = 0; i < 40; i++) {
        const damaged = bytes.slice()
        for (let flips = 1 + next(4); flips > 0; flips--) damaged[next(damaged.length)] = next(256)
        attempt(codec, damaged)
      }
    }
})

test('user data of any kind is read as far as it goes', () => {
  const ours = encodeUserdata([commentEntry(RULE_COMMENT, 'pods'), { type: RULE_DIGEST, value: Uint8Array.of(1, 2) }])
  assert.equal(decodeComment(decodeUserdata(ours), RULE_COMMENT), 'pods')
  assert.deepEqual(decodeUserdata(ours).get(RULE_DIGEST), Uint8Array.of(1, 2))
  assert.equal(decodeUserdata(ours.subarray(0, ours.length - 1)).size, 1)
  assert.equal(decodeUserdata(Uint8Array.of(0)).size, 0)
  assert.equal(decodeUserdata(undefined).size, 0)
  assert.throws(() => commentEntry(RULE_COMMENT, 'x'.repeat(128)), RangeError)
  assert.throws(() => encodeUserdata([{ type: 1, value: new Uint8Array(255) }]), RangeError)
})
