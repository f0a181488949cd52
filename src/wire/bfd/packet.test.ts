import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DecodeError } from '../../bytes/errors.ts'
import { type BfdPacket, BfdState, decodeBfdPacket, encodeBfdPacket } from './packet.ts'

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'))

const packet: BfdPacket = {
  diagnostic: 3,
  state: BfdState.Init,
  poll: true,
  final: false,
  controlPlaneIndependent: true,
  demand: false,
  detectMultiplier: 3,
  myDiscriminator: 0x01020304,
  yourDiscriminator: 0xfffefdfc,
  desiredMinTransmitMicroseconds: 1_000_000,
  requiredMinReceiveMicroseconds: 300_000,
  requiredMinEchoReceiveMicroseconds: 50_000,
}
const bytes = '23 a8 03 18 01020304 fffefdfc 000f4240 000493e0 0000c350'

test('the mandatory section, both ways', () => {
  assert.deepEqual(encodeBfdPacket(packet), hex(bytes))
  assert.deepEqual(decodeBfdPacket(hex(bytes)), packet)
})

test('an authentication section is kept as bytes, both ways', () => {
  const authenticated = { ...packet, authentication: { type: 1, body: hex('07 73656372') } }
  const wire = hex(`23 ac 03 1f ${bytes.slice(12)} 01 07 07 73656372`)
  assert.deepEqual(encodeBfdPacket(authenticated), wire)
  assert.deepEqual(decodeBfdPacket(wire), authenticated)
})

test('bytes after the length that the packet states do not count', () => {
  assert.deepEqual(decodeBfdPacket(hex(`${bytes} dead`)), packet)
})

const refused: readonly (readonly [what: string, bytes: string, problem: RegExp])[] = [
  ['another version', bytes.replace('23', '43'), /version 2/],
  ['a length below the mandatory section', bytes.replace('18', '17'), /length 23/],
  ['a length beyond the datagram', bytes.replace('18', '19'), /length 25 in a datagram of 24/],
  ['a detect multiplier of 0', bytes.replace('a8 03', 'a8 00'), /detect multiplier 0/],
  ['the multipoint bit', bytes.replace('a8', 'a9'), /multipoint/],
  ['no discriminator of its own', bytes.replace('01020304', '00000000'), /my discriminator 0/],
  ['Init without our discriminator', bytes.replace('fffefdfc', '00000000'), /your discriminator 0 in state 2/],
  ['authentication announced and missing', bytes.replace('a8', 'ac'), /length 24, at least 26/],
  ['authentication longer than the packet', `23 ac 03 1a ${bytes.slice(12)} 01 07`, /authentication of 7 bytes/],
  ['authentication shorter than its header', `23 ac 03 1a ${bytes.slice(12)} 01 01`, /authentication of 1 bytes/],
]
for (const [what, text, problem] of refused)
  test(`refused: ${what}`, () => {
    assert.throws(
      () => decodeBfdPacket(hex(text)),
      (error) => error instanceof DecodeError && problem.test(error.message),
    )
  })

test('every cut of a packet is refused, and any bytes give a packet that encodes to the same or a DecodeError', () => {
  for (let length = 0; length < 24; length++)
    assert.throws(() => decodeBfdPacket(hex(bytes).slice(0, length)), DecodeError)
  let state = 0x2545f491
  const random = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
  let decoded = 0
  for (let round = 0; round < 20_000; round++) {
    const wire = hex(bytes)
    for (let changes = random() % 4; changes > 0; changes--) wire[random() % wire.length] = random()
    try {
      const known = decodeBfdPacket(wire)
      assert.deepEqual(encodeBfdPacket(known), wire)
      decoded++
    } catch (error) {
      assert.ok(error instanceof DecodeError, String(error))
    }
  }
  assert.ok(decoded > 5000)
})
