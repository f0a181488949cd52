import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitUntil } from '../process.ts'
import { Program } from './process.ts'

const programIn = (folder: string, wrapped: boolean): Program =>
  new Program({
    name: 'sleeper',
    log: join(folder, 'log'),
    state: join(folder, 'state.json'),
    wrapped,
    spawn: (output) =>
      wrapped
        ? spawn('sh', ['-c', 'sleep 3600 & wait'], { detached: true, stdio: ['ignore', output, output] })
        : spawn('sleep', ['3600'], { detached: true, stdio: ['ignore', output, output] }),
  })

for (const wrapped of [false, true])
  test(`a program ${wrapped ? 'behind another ' : ''}is started again when it ends, taken over by the next one, and ended`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
    const first = programIn(folder, wrapped)
    try {
      await first.start()
      const pid = first.pid!
      process.kill(pid, 'SIGKILL')
      assert.ok(await waitUntil(() => first.restarts === 1 && first.pid !== undefined, 20_000))
      assert.notEqual(first.pid, pid)
      first.close()
      const second = programIn(folder, wrapped)
      assert.equal(second.pid, first.pid)
      for (const _twice of [1, 2]) await second.start()
      assert.equal(second.pid, first.pid, 'not a second one')
      process.kill(second.pid!, 'SIGKILL')
      assert.ok(await waitUntil(() => second.restarts === 1 && second.pid !== undefined, 20_000))
      await second.stop()
      assert.equal(second.pid, undefined)
      assert.equal(programIn(folder, wrapped).pid, undefined)
    } finally {
      await first.stop('SIGKILL')
      rmSync(folder, { recursive: true, force: true })
    }
  })
