/** JSONPath as printer columns use it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { evaluateJsonPath, parseJsonPath } from './json-path.ts'

const object = {
  metadata: { annotations: { 'a.b/c': 'x' } },
  spec: { list: [{ n: 1 }, { n: 2 }] },
  status: {
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'Other', status: 'False' },
    ],
  },
}

test('paths lead to their values', () => {
  const cases: [string, unknown[]][] = [
    ['.spec.list[1].n', [2]],
    ['.spec.list[-1].n', [2]],
    ['.spec.list[*].n', [1, 2]],
    [`.metadata.annotations['a.b/c']`, ['x']],
    ['.metadata.annotations.a\\.b', []],
    ['.status.conditions[?(@.type=="Ready")].status', ['True']],
    ['.status.conditions[?(@.type != "Ready")].type', ['Other']],
    ['{.spec.no.such}', []],
    ['spec.list[0].n', [1]],
  ]
  for (const [path, values] of cases) assert.deepEqual(evaluateJsonPath(parseJsonPath(path), object), values, path)
})

test('what cannot be read is named', () => {
  for (const path of ['.a[', '.a[?(@.b)]', '.a..b', '.a b'])
    assert.throws(() => parseJsonPath(path), /Cannot read the JSONPath/)
})
