import assert from 'node:assert/strict'
import { closeSync, openSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { ConfigError } from '../model/errors.ts'
import { at, atAsync } from './named-place.ts'

const fill = () => {
  const fd = openSync('/dev/full', 'w')
  try {
    writeSync(fd, 'x')
  } finally {
    closeSync(fd)
  }
}

test('a full disk is told with the flag that would choose another', async () => {
  const wanted = { message: '--run-dir /run/weft: ENOSPC: no space left on device, write' }
  assert.throws(() => at('--run-dir /run/weft', fill), wanted)
  await assert.rejects(
    atAsync('--run-dir /run/weft', async () => fill()),
    wanted,
  )
})

test('other errors stay as they are', () => {
  const error = new ConfigError('--iface', 'eth9', 'is not there')
  assert.throws(
    () =>
      at('--run-dir /run/weft', () => {
        throw error
      }),
    error,
  )
})
