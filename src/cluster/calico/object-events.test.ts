import assert from 'node:assert/strict'
import { test } from 'node:test'
import { passFelix } from './object-events.ts'

test('a FelixConfiguration that has no effect is named, unless it is another node’s', () => {
  const warned: string[] = []
  const log = { warn: (_: object, message: string) => warned.push(message) } as never
  assert.equal(passFelix('node.n2', log), undefined)
  assert.deepEqual(warned, [])
  passFelix('gpu', log)
  assert.match(warned.join(), /^FelixConfiguration gpu has no effect/)
})
