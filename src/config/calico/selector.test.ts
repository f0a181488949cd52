import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Labels, parseSelector, SelectorSyntaxError, usesGlobal } from './selector.ts'

const matches = (text: string, labels: Labels) => parseSelector(text)(labels)

const table: readonly (readonly [text: string, yes: readonly Labels[], no: readonly Labels[]])[] = [
  ['', [{}, { a: 'b' }], []],
  [' \t ', [{}], []],
  ['all()', [{}, { a: 'b' }], []],
  ['all( )', [{}], []],
  ['global()', [{}], []],
  ['!all()', [], [{}, { a: 'b' }]],
  ['has(a)', [{ a: '' }, { a: 'b' }], [{}, { b: 'a' }]],
  ['has( kubernetes.io/os )', [{ 'kubernetes.io/os': 'linux' }], [{}]],
  ['!has(a)', [{}], [{ a: 'b' }]],
  ['!!has(a)', [{ a: 'b' }], [{}]],
  ["a == 'b'", [{ a: 'b' }], [{}, { a: 'c' }]],
  ['a=="b"', [{ a: 'b' }], [{ a: 'B' }]],
  ["a == ''", [{ a: '' }], [{}]],
  ["a != 'b'", [{}, { a: 'c' }], [{ a: 'b' }]],
  [`a == 'say "x"'`, [{ a: 'say "x"' }], [{}]],
  [`a == "it's"`, [{ a: "it's" }], [{}]],
  ["a == 'b\\'", [{ a: 'b\\' }], [{}]],
  ["a contains 'b'", [{ a: 'abc' }, { a: 'b' }], [{}, { a: 'ac' }]],
  ["a contains ''", [{ a: '' }], [{}]],
  ["a starts with 'ab'", [{ a: 'abc' }], [{}, { a: 'cab' }]],
  ["a startswith'ab'", [{ a: 'abc' }], [{ a: 'xab' }]],
  ["a ends  with 'bc'", [{ a: 'abc' }], [{}, { a: 'bcd' }]],
  ['a in {\'x\', "y"}', [{ a: 'x' }, { a: 'y' }], [{}, { a: 'z' }]],
  ['a in {}', [], [{}, { a: 'x' }]],
  ["a in{'x',}", [{ a: 'x' }], [{}]],
  ["a not in {'x'}", [{}, { a: 'y' }], [{ a: 'x' }]],
  ["a notin {'x'}", [{}, { a: 'y' }], [{ a: 'x' }]],
  ['a not in {}', [{}, { a: 'x' }], []],
  ["a == 'b' && c == 'd'", [{ a: 'b', c: 'd' }], [{ a: 'b' }, { c: 'd' }]],
  ["a == 'b' || c == 'd'", [{ a: 'b' }, { c: 'd' }], [{}]],
  // && binds more tightly than ||.
  ['has(a) || has(b) && has(c)', [{ a: '' }, { b: '', c: '' }], [{ b: '' }, { c: '' }]],
  ['(has(a) || has(b)) && has(c)', [{ a: '', c: '' }], [{ a: '' }, { c: '' }]],
  ['!(has(a) && has(b))', [{}, { a: '' }], [{ a: '', b: '' }]],
  ['((((has(a)))))', [{ a: '' }], [{}]],
  // Words are operators only behind a label.
  ["in in {'not'} && not not in {'x'}", [{ in: 'not', not: 'y' }], [{ in: 'x' }]],
  ["all == 'x' && has == 'y'", [{ all: 'x', has: 'y' }], [{ all: 'x' }]],
  ["contains contains 'contains'", [{ contains: 'contains' }], [{}]],
  ["-._/9 == 'x'", [{ '-._/9': 'x' }], [{}]],
  ["a == '中文'", [{ a: '中文' }], [{}]],
]

for (const [text, yes, no] of table)
  test(`selector ${text || '(nothing)'}`, () => {
    for (const labels of yes) assert.equal(matches(text, labels), true, JSON.stringify(labels))
    for (const labels of no) assert.equal(matches(text, labels), false, JSON.stringify(labels))
  })

const refused: readonly (readonly [text: string, problem: RegExp])[] = [
  ["a = 'b'", /expected an operator after the label "a" at character 2/],
  ['a', /expected an operator/],
  ['a == b', /text in quotes at character 5/],
  ["a == 'b", /no closing quote/],
  ["a in 'b'", /expected \{/],
  ["a in {'b'", /expected \}/],
  ["a in {'b' 'c'}", /expected \}/],
  ['a in {,}', /text in quotes/],
  ['a in {b}', /text in quotes/],
  ["a inx {'b'}", /expected an operator/],
  ['has(a', /expected \) after has\(/],
  ['has()', /expected a label/],
  ['has(a b)', /expected \)/],
  ['all(a)', /expected \) after all\(/],
  ['all ()', /expected an operator/],
  ['(has(a)', /expected \)/],
  ['has(a))', /expected && or \|\| or the end/],
  ['has(a) &&', /expected a label/],
  ['&& has(a)', /expected a label/],
  ['has(a) & has(b)', /expected && or/],
  ['has(a) || || has(b)', /expected a label/],
  ['!', /expected a label/],
  ['a !has(b)', /expected an operator/],
  ["a == 'b' c == 'd'", /expected && or/],
  ["a == 'b'\n&& has(c)", /expected && or/],
  ["a$ == 'b'", /expected an operator/],
  [`${'x'.repeat(513)} == 'b'`, /longer than 512/],
  [`${'('.repeat(65)}all()${')'.repeat(65)}`, /more than 64 parentheses/],
  [`a == '${'x'.repeat(5000)}'`, /longer than 4096/],
]

for (const [text, problem] of refused)
  test(`no selector: ${text.slice(0, 40)}`, () => {
    assert.throws(
      () => parseSelector(text),
      (error: Error) => error instanceof SelectorSyntaxError && problem.test(error.message),
    )
  })

test('a label of a prototype is no label', () => {
  for (const text of ['has(constructor)', "toString contains 'native'", "__proto__ != 'x' && has(__proto__)"])
    assert.equal(matches(text, {}), false)
})

test('global() is found wherever it stands, and nowhere else', () => {
  assert.equal(usesGlobal('has(a) || !(global() && has(b))'), true)
  assert.equal(usesGlobal("a == 'global()'"), false)
})

test('random expressions mean what they say', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
  console.log(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const names = ['a', 'b', 'c']
  type Made = { readonly text: string; readonly truth: (labels: Labels) => boolean }
  const make = (depth: number): Made => {
    const name = names[random(3)]!
    const value = String(random(3))
    switch (random(depth > 0 ? 9 : 5)) {
      case 0:
        return { text: `has(${name})`, truth: (l) => name in l }
      case 1:
        return { text: `${name} == '${value}'`, truth: (l) => l[name] === value }
      case 2:
        return { text: `${name}!="${value}"`, truth: (l) => l[name] !== value }
      case 3:
        return { text: `${name} in { '${value}', '7' }`, truth: (l) => l[name] === value || l[name] === '7' }
      case 4:
        return { text: `${name} not in {'${value}'}`, truth: (l) => l[name] !== value }
      case 5: {
        const inner = make(depth - 1)
        return { text: `!(${inner.text})`, truth: (l) => !inner.truth(l) }
      }
      case 6: {
        const inner = make(0)
        return { text: `!${inner.text}`, truth: (l) => !inner.truth(l) }
      }
      default: {
        const [left, right] = [make(depth - 1), make(depth - 1)]
        return random(2)
          ? { text: `(${left.text}) && (${right.text})`, truth: (l) => left.truth(l) && right.truth(l) }
          : { text: `(${left.text} || ${right.text})`, truth: (l) => left.truth(l) || right.truth(l) }
      }
    }
  }
  for (let n = 0; n < 2000; n++) {
    const { text, truth } = make(4)
    const selector = parseSelector(text)
    for (let m = 0; m < 8; m++) {
      const labels = Object.fromEntries(names.filter(() => random(2)).map((name) => [name, String(random(4))]))
      assert.equal(selector(labels), truth(labels), `${text} on ${JSON.stringify(labels)}`)
    }
  }
})
