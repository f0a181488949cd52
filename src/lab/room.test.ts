import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { checkRoom } from './room.ts'

test('a folder without room is named, with what is free and what is needed', () => {
  checkRoom(tmpdir(), 1)
  assert.throws(
    () => checkRoom(tmpdir(), 2 ** 60),
    /^Error: \/\S+ has \d+\.\d MiB free; a lab needs 1099511627776\.0 MiB there$/,
  )
  assert.throws(() => checkRoom('/proc', 1), /\/proc has 0\.0 MiB free/)
})
