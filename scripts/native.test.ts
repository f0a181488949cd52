import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

test('the native programs pass their own tests', () => {
  const cwd = fileURLToPath(new URL('../native', import.meta.url))
  const { status, stdout, stderr } = spawnSync('cargo', ['test', '--locked'], { cwd, encoding: 'utf8' })
  assert.equal(status, 0, stdout + stderr)
  const passed = [...stdout.matchAll(/test result: ok\. (\d+) passed/g)].reduce(
    (sum, match) => sum + Number(match[1]),
    0,
  )
  assert.ok(passed >= 40, `${passed} passed:\n${stdout}`)
})

// Debian's compiler is the oldest that must do; the machine's own may be years newer.
const oldest = '/usr/bin/cargo'
test('the native programs compile with the compiler of Debian', { skip: !existsSync(oldest) && `no ${oldest}` }, () => {
  const { status, stderr } = spawnSync(oldest, ['check', '--locked', '--target-dir', 'target/debian'], {
    cwd: fileURLToPath(new URL('../native', import.meta.url)),
    encoding: 'utf8',
    env: { ...process.env, RUSTC: '/usr/bin/rustc', PATH: '/usr/bin:/bin' },
  })
  assert.equal(status, 0, stderr)
})
