import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { DecodeError } from '../../bytes/errors.ts'
import { type BfdAuthentication, type BfdPacket, BfdState, decodeBfd, encodeBfd } from './packet.ts'

const captured = JSON.parse(readFileSync(new URL('testdata/captured.json', import.meta.url), 'utf8')) as {
  from: string
  bytes: string
}[]
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

test('packets of bird and frr come out as they went in, with and without keyed SHA1', () => {
  const kinds = new Set<string>()
  for (const { from, bytes } of captured) {
    const packet = decodeBfd(bytesOf(bytes))
    kinds.add(`${from} ${packet.authentication?.kind ?? 'plain'} ${packet.state}`)
    assert.equal(Buffer.from(encodeBfd(packet)).toString('hex'), bytes, from)
  }
  for (const kind of ['bird 2.0.12 keyedSha1 1', 'bird 2.0.12 plain 3', 'frr 8.4.4 plain 3', 'frr 8.4.4 plain 1'])
    assert(kinds.has(kind), `${kind} of ${[...kinds]}`)
})

const packet: BfdPacket = {
  diagnostic: 3,
  state: BfdState.UP,
  poll: true,
  final: false,
  controlPlaneIndependent: true,
  demand: true,
  detectMultiplier: 255,
  myDiscriminator: 0xffffffff,
  yourDiscriminator: 1,
  desiredMinTransmitMicroseconds: 0xffffffff,
  requiredMinReceiveMicroseconds: 100_000,
  requiredMinEchoReceiveMicroseconds: 0,
}

test('every authentication comes back', () => {
  const sections: (BfdAuthentication | undefined)[] = [
    undefined,
    { kind: 'simplePassword', keyId: 7, password: new Uint8Array(16).fill(65) },
    { kind: 'keyedMd5', keyId: 255, sequence: 0xffffffff, digest: new Uint8Array(16).fill(1) },
    { kind: 'meticulousKeyedMd5', keyId: 0, sequence: 0, digest: new Uint8Array(16) },
    { kind: 'keyedSha1', keyId: 1, sequence: 1, digest: new Uint8Array(20).fill(2) },
    { kind: 'meticulousKeyedSha1', keyId: 1, sequence: 1, digest: new Uint8Array(20).fill(3) },
    { kind: 'unknown', type: 77, value: Uint8Array.of(1, 2) },
  ]
  for (const authentication of sections) {
    const whole = authentication ? { ...packet, authentication } : packet
    assert.deepEqual(decodeBfd(encodeBfd(whole)), whole)
  }
})

test('what RFC 5880 section 6.8.6 drops is dropped', () => {
  const dropped = (problem: RegExp, change: (bytes: Uint8Array) => void, from: BfdPacket = packet) => {
    const bytes = encodeBfd(from).slice()
    change(bytes)
    assert.throws(
      () => decodeBfd(bytes),
      (error) => error instanceof DecodeError && problem.test(error.message),
      `${problem}`,
    )
  }
  dropped(/version 2/, (bytes) => bytes.set([0x40], 0))
  dropped(/length 23/, (bytes) => bytes.set([23], 3))
  dropped(/length 25/, (bytes) => bytes.set([25], 3))
  dropped(/length 24/, (bytes) => bytes.set([bytes[1]! | 4], 1))
  dropped(/detect multiplier/, (bytes) => bytes.set([0], 2))
  dropped(/multipoint/, (bytes) => bytes.set([bytes[1]! | 1], 1))
  dropped(/my discriminator/, (bytes) => bytes.fill(0, 4, 8))
  dropped(/your discriminator/, (bytes) => bytes.fill(0, 8, 12))
  const keyed: BfdPacket = {
    ...packet,
    authentication: { kind: 'keyedMd5', keyId: 1, sequence: 1, digest: new Uint8Array(16) },
  }
  dropped(/keyedMd5 of 23/, (bytes) => bytes.set([23], 25), keyed)
  dropped(/needs/, (bytes) => bytes.set([99], 25), keyed)
  dropped(/authentication of 1/, (bytes) => bytes.set([1], 25), keyed)
  dropped(/password of 21/, (bytes) => bytes.set([1], 24), keyed)
  assert.throws(() => decodeBfd(new Uint8Array(3)), DecodeError)
})

test('a peer that is down need not know our discriminator; what stands behind a packet does not count', () => {
  const down = { ...packet, state: BfdState.DOWN, yourDiscriminator: 0 }
  const padded = new Uint8Array(40).fill(9)
  padded.set(encodeBfd(down))
  assert.deepEqual(decodeBfd(padded), down)
})

test('random bytes are a packet or a DecodeError', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  let accepted = 0
  for (let round = 0; round < 20_000; round++) {
    const bytes = bytesOf(captured[random(captured.length)]!.bytes)
    for (let n = random(4); n >= 0; n--) bytes[random(bytes.length)] = random(256)
    const part = bytes.subarray(0, random(4) === 0 ? random(bytes.length + 1) : bytes.length)
    try {
      assert.deepEqual(decodeBfd(encodeBfd(decodeBfd(part))), decodeBfd(part))
      accepted++
    } catch (error) {
      assert(error instanceof DecodeError, `${error}`)
    }
  }
  assert(accepted > 5_000)
})
