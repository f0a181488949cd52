import assert from 'node:assert/strict'
import { test } from 'node:test'
import { textZ, u16be, u32le } from '../../bytes/codec.ts'
import { Reader } from '../../bytes/reader.ts'
import { Writer } from '../../bytes/writer.ts'
import { attributeList, attributeTable, flag, nested } from './attribute.ts'
import { beginMessage, decodeAcknowledgement, endMessage, readMessages } from './message.ts'

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'))

const inner = attributeTable('inner', { port: [1, u16be], on: [2, flag] })
const outer = attributeTable('outer', {
  name: [1, textZ],
  index: [2, u32le],
  inner: nested(3, inner),
  list: nested(4, attributeList(inner)),
})

test('a table encodes nested attributes with padding and decodes them back', () => {
  const value = {
    name: 'eth0',
    index: 7,
    inner: { port: 8472, on: true as const },
    list: [{ port: 1 }, {}, { port: 2 }],
    unknown: [{ type: 99, bytes: Uint8Array.of(1, 2, 3) }],
  }
  const writer = new Writer()
  outer.encode(writer, value)
  const bytes = writer.finish()
  assert.equal(bytes.length % 4, 0)
  assert.deepEqual([...bytes.subarray(0, 12)], [9, 0, 1, 0, 0x65, 0x74, 0x68, 0x30, 0, 0, 0, 0])
  assert.equal(bytes[23]! & 0x80, 0x80, 'NLA_F_NESTED')
  assert.deepEqual(outer.decode(new Reader(bytes)), value)
})

test('undefined fields are not written, unknown keys are refused', () => {
  const writer = new Writer()
  outer.encode(writer, { name: undefined, index: undefined })
  assert.equal(writer.length, 0)
  assert.throws(() => outer.encode(writer, { nonsense: 1 } as never), TypeError)
})

test('a value that is longer than its codec is accepted, a shorter one names its path', () => {
  assert.deepEqual(outer.decode(new Reader(hex('0c000200 07000000 ffffffff'))), { index: 7 })
  assert.throws(() => outer.decode(new Reader(hex('06000200 0700 0000'))), {
    name: 'DecodeError',
    path: ['index'],
    offset: 4,
  })
  assert.throws(() => outer.decode(new Reader(hex('09000380 05000100 07 000000'))), {
    path: ['inner', 'port'],
    offset: 8,
  })
  assert.throws(() => outer.decode(new Reader(hex('0c000480 08000200 06000100'))), { path: ['list', '[0]'] })
})

test('lengths that leave the buffer or are too small are errors', () => {
  for (const bytes of ['ff000200', '03000200', '00000200 00000000', '04000200 01'])
    assert.throws(() => outer.decode(new Reader(hex(bytes))), { name: 'DecodeError' }, bytes)
})

test('messages are told apart, and bad headers refused with their offset', () => {
  const writer = new Writer()
  for (const [type, text] of [
    [20, 'a'],
    [21, 'bcd'],
  ] as const) {
    const start = beginMessage(writer, type, 5, type)
    writer.text(text)
    endMessage(writer, start)
  }
  const datagram = writer.finish()
  const seen: string[] = []
  readMessages(datagram, (header, payload) => {
    seen.push(`${header.type} ${header.flags} ${header.sequence} ${payload.textZ()}`)
  })
  assert.deepEqual(seen, ['20 5 20 a', '21 5 21 bcd'])
  assert.throws(() => readMessages(datagram.subarray(0, 30), () => {}), { name: 'DecodeError', offset: 20 })
  assert.throws(() => readMessages(datagram.subarray(0, 38), () => {}), { name: 'DecodeError', offset: 20 })
  const tiny = datagram.slice()
  tiny[0] = 3
  assert.throws(() => readMessages(tiny, () => {}), { name: 'DecodeError', offset: 0 })
})

test('an error of the kernel gives errno, its words and the offending offset', () => {
  const offset = hex('eaffffff 3c000000 18000505 05000000 00000000 08000200 24000000 08000500 05000000')
  assert.deepEqual(decodeAcknowledgement(0x300, new Reader(offset)), { errno: 22, offset: 36, missingType: 5 })
  assert.deepEqual(decodeAcknowledgement(0x100, new Reader(hex('00000000 3c000000 18000505 05000000 00000000'))), {
    errno: 0,
  })
  assert.deepEqual(decodeAcknowledgement(2, new Reader(hex('00000000')), true), { errno: 0 })
  assert.throws(() => decodeAcknowledgement(0x300, new Reader(hex('eaffffff 3c000000'))), { name: 'DecodeError' })
})
