import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
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

test('a restart starts one, although what stood around the first ends while the second comes up', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  const fifo = join(folder, 'fifo')
  execFileSync('mkfifo', [fifo])
  // Waits without a child: a second before the program, half of one after it.
  const script = 'exec 3<>"$1"; echo started; read -rt 1 -u 3; sleep 3600; read -rt 0.5 -u 3; echo ended'
  const log = join(folder, 'log')
  const program = new Program({
    name: 'slow',
    log,
    state: join(folder, 'state.json'),
    wrapped: true,
    spawn: (output) =>
      spawn('bash', ['-c', script, 'slow', fifo], { detached: true, stdio: ['ignore', output, output] }),
  })
  const said = () => readFileSync(log, 'utf8').trim().split('\n')
  try {
    await program.start()
    await program.restart('SIGKILL')
    assert.ok(await waitUntil(() => said().includes('ended'), 20_000))
    assert.deepEqual(said().filter((line) => line === 'started').length, 2)
    assert.equal(program.restarts, 0)
    assert.notEqual(program.pid, undefined)
  } finally {
    await program.stop('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
})
