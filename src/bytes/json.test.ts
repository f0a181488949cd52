import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatJson, parseJson } from './json.ts'

test('whole numbers keep their digits, both ways', () => {
  const text = '{"a":1763761234567890123,"b":[-9223372036854775808,18446744073709551615],"c":9007199254740991,"d":1.5}'
  assert.deepEqual(parseJson(text), {
    a: 1763761234567890123n,
    b: [-9223372036854775808n, 18446744073709551615n],
    c: 9007199254740991,
    d: 1.5,
  })
  assert.equal(formatJson(parseJson(text)), text)
})

test('digits in text and in fractions stay what they are', () => {
  for (const text of [
    '{"12345678901234567890":"12345678901234567890"}',
    '["\\"12345678901234567890,", "\\\\", 3]',
    '[0.12345678901234567,1e400,12345678901234567e3,1.2345678901234567890e2]',
  ])
    assert.deepEqual(parseJson(text), JSON.parse(text))
})

test('what is no JSON stays none', () => {
  for (const text of [
    '{12345678901234567890:1}',
    '012345678901234567890',
    '12345678901234567890 1',
    '"12345678901234567890',
  ])
    assert.throws(() => parseJson(text), SyntaxError, text)
})

test('the stand-in of a number, written by hand, is that number or nothing special', () => {
  const text = (digits: string) => `{"x":{"\\u0000whole":${digits}},"y":12345678901234567890}`
  assert.deepEqual(parseJson(text('"7"')), { x: 7n, y: 12345678901234567890n })
  assert.deepEqual(parseJson(text('"evil"')), { x: { '\u0000whole': 'evil' }, y: 12345678901234567890n })
})

test('beside a bigint everything is written as JSON.stringify writes it', () => {
  const value = { none: undefined, list: [undefined, null], at: new Date(0), inner: { '"': '\u2028' }, zero: -0 }
  assert.equal(
    formatJson({ ...value, big: 2n ** 63n }),
    `${JSON.stringify(value).slice(0, -1)},"big":9223372036854775808}`,
  )
  assert.equal(formatJson(value), JSON.stringify(value))
})

test('an object within itself is an error', () => {
  const round: Record<string, unknown> = {}
  round.self = round
  assert.throws(() => formatJson(round))
})

test('texts of any length are passed over', () => {
  for (const piece of ['a', '\\\\', '\\"', '\\\\\\n', '9']) {
    const text = `{"s":"${piece.repeat(2_000_000)}","n":12345678901234567890}`
    assert.equal(formatJson(parseJson(text)), text)
  }
})

test('random JSON comes back as it was', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const text = () =>
    Array.from({ length: random(6) }, () => ['"', '\\', '\n', '1234567890123456789', '{', 'ü'][random(6)]).join('')
  const make = (depth: number): unknown => {
    switch (random(depth > 0 ? 8 : 6)) {
      case 0:
        return BigInt(random(2) ? 1 : -1) * (2n ** 53n + (BigInt(random(2 ** 31)) << BigInt(random(40))))
      case 1:
        return random(2 ** 31) - 2 ** 30
      case 2:
        return random(2 ** 31) / 7
      case 3:
        return [null, true, false, 0, 1e21, 1e-7][random(6)]
      case 4:
      case 5:
        return text()
      case 6:
        return Array.from({ length: random(5) }, () => make(depth - 1))
      default:
        return Object.fromEntries(Array.from({ length: random(5) }, () => [`k${text()}`, make(depth - 1)]))
    }
  }
  for (let n = 0; n < 2000; n++) {
    const value = make(4)
    assert.deepEqual(parseJson(formatJson(value)), value)
  }
})
