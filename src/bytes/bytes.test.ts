import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DecodeError, inField } from './errors.ts'
import { Reader } from './reader.ts'
import { decodeUtf8, encodeUtf8 } from './text.ts'
import { Writer } from './writer.ts'

test('what a writer writes in either byte order, a reader reads', () => {
  const writer = new Writer(1)
  writer.u8(0xfe)
  writer.u16le(0xfedc)
  writer.u16be(0xfedc)
  writer.u32le(0xfedcba98)
  writer.u32be(0xfedcba98)
  writer.i32le(-2)
  writer.u64le(0xfedcba9876543210n)
  writer.u64be(0xfedcba9876543210n)
  writer.text('né')
  writer.align(4)
  const bytes = writer.finish()
  assert.equal(bytes.length % 4, 0)
  assert.deepEqual([...bytes.subarray(0, 9)], [0xfe, 0xdc, 0xfe, 0xfe, 0xdc, 0x98, 0xba, 0xdc, 0xfe])
  const reader = new Reader(bytes)
  assert.deepEqual([reader.u8(), reader.u16le(), reader.u16be()], [0xfe, 0xfedc, 0xfedc])
  assert.deepEqual([reader.u32le(), reader.u32be(), reader.i32le()], [0xfedcba98, 0xfedcba98, -2])
  assert.deepEqual([reader.u64le(), reader.u64be()], [0xfedcba9876543210n, 0xfedcba9876543210n])
  assert.equal(reader.textZ(), 'né')
  assert.equal(reader.remaining, 0)
})

test('lengths are patched afterwards, also when the buffer grew meanwhile', () => {
  const writer = new Writer(2)
  writer.u16be(0)
  writer.bytes(new Uint8Array(1000).fill(7))
  writer.patchU16be(0, writer.length)
  assert.deepEqual([...writer.finish().subarray(0, 3)], [3, 234, 7])
  writer.truncate(2)
  writer.zeros(2)
  assert.deepEqual([...writer.finish()], [3, 234, 0, 0])
})

test('reading past the end fails with offset and path, and never reads a neighbour', () => {
  const reader = new Reader(Uint8Array.of(1, 2, 3, 4, 5, 6))
  reader.skip(1)
  assert.throws(() => inField('outer', () => inField('inner', () => reader.scoped(2, (part) => part.u32le()))), {
    name: 'DecodeError',
    offset: 1,
    path: ['outer', 'inner'],
    message: 'outer.inner: needs 4 bytes, 2 are left at offset 1',
  })
  const fresh = new Reader(Uint8Array.of(1, 2, 3, 4))
  assert.throws(() => fresh.bytes(5), DecodeError)
  assert.throws(() => fresh.bytes(-1), DecodeError)
  assert.equal(
    fresh.scoped(2, (part) => part.u8()),
    1,
  )
  assert.equal(fresh.u8(), 3)
  assert.throws(() => new Reader(new Uint8Array(2), 1, 3), RangeError)
})

test('a reader over part of a larger buffer sees that part', () => {
  const whole = Uint8Array.of(9, 9, 1, 2, 3, 4, 9)
  assert.equal(new Reader(whole.subarray(2, 6)).u32be(), 0x01020304)
})

test('UTF-8 agrees with the platform on text and on random bytes', () => {
  for (const text of ['', 'plain', 'né 中文 🚀', '\ud800 lone', '\u{10ffff}'])
    assert.deepEqual(encodeUtf8(text), new TextEncoder().encode(text), text)
  const seed = Number(process.env.SEED ?? Date.now() % 1e9)
  console.log(`seed ${seed}`)
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return state >>> 16
  }
  for (let round = 0; round < 2000; round++) {
    let text = ''
    for (let i = 0; i < 12; i++) text += String.fromCodePoint(0x20 + ((next() * 37) % 0xd000))
    assert.equal(decodeUtf8(new TextEncoder().encode(text)), text)
    const bytes = Uint8Array.from({ length: 8 }, () => next() & 0xff)
    // Bad bytes count one by one here; the platform may count a cut sequence as one.
    assert.equal(decodeUtf8(bytes).replaceAll('\ufffd', ''), new TextDecoder().decode(bytes).replaceAll('\ufffd', ''))
  }
})
