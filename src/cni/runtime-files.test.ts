import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { RuntimeFiles } from './runtime-files.ts'

let folder: string
let files: RuntimeFiles
let warnings: string[]
let overtaken: string[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-runtime-files-'))
  writeFileSync(join(folder, 'plugin'), 'the plugin', { mode: 0o755 })
  warnings = []
  overtaken = []
  const note = (_fields: object, message: string) => void warnings.push(message)
  files = new RuntimeFiles({
    binDir: join(folder, 'bin'),
    confDir: join(folder, 'conf'),
    runDir: join(folder, 'run'),
    log: { debug() {}, info() {}, warn: note, error: note },
    onOvertaken: (name) => overtaken.push(name),
  })
  files.keepPlugin(join(folder, 'plugin'))
  files.keepConflist()
})
afterEach(() => {
  files.close()
  rmSync(folder, { recursive: true })
})

const plugin = () => join(folder, 'bin/weft')
const link = () => join(folder, 'bin/.weft.sock')
const conflist = () => join(folder, 'conf/10-weft.conflist')

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !holds(); await wait(5))
    if (Date.now() > end) throw new Error(`${what}: not within 20 s; ${warnings.join('; ')}`)
}
const text = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '')

test('what is removed or altered is written again at once', async () => {
  const was = text(conflist())
  assert.equal(JSON.parse(was).name, 'weft')
  rmSync(conflist())
  await until('the list is back', () => text(conflist()) === was)
  writeFileSync(conflist(), '{}')
  await until('the list is as it was', () => text(conflist()) === was)
  rmSync(plugin())
  await until('the plugin is back', () => text(plugin()) === 'the plugin')
  writeFileSync(join(folder, 'old'), 'an old plugin')
  renameSync(join(folder, 'old'), plugin())
  await until('the plugin is ours', () => text(plugin()) === 'the plugin')
  rmSync(link())
  symlinkSync('/nowhere', link())
  await until('the link leads to the agent', () => {
    try {
      return readlinkSync(link()) === join(folder, 'run/cni.sock')
    } catch {
      return false
    }
  })
  assert.deepEqual(readdirSync(join(folder, 'bin')).sort(), ['.weft.sock', 'weft'])
  assert.deepEqual(readdirSync(join(folder, 'conf')), ['10-weft.conflist'])
})

test('a directory that is taken away comes back, and is watched anew', async () => {
  rmSync(join(folder, 'conf'), { recursive: true })
  await until('the list is back', () => existsSync(conflist()))
  rmSync(conflist())
  await until('the list is back again', () => existsSync(conflist()))
})

test('what cannot be put back is said, and done as soon as it can be', async () => {
  rmSync(join(folder, 'conf'), { recursive: true })
  writeFileSync(join(folder, 'conf'), 'in the way')
  await until('the problem is seen', () => files.problem !== undefined)
  assert.match(files.problem!, /conf: /)
  rmSync(join(folder, 'conf'))
  await until('the list is back', () => existsSync(conflist()))
  await until('the problem is gone', () => files.problem === undefined)
})

test('another file before ours is told once and left alone', async () => {
  writeFileSync(join(folder, 'conf/99-later.conf'), '{}')
  writeFileSync(join(folder, 'conf/00-notes.txt'), '')
  writeFileSync(join(folder, 'conf/05-other.conflist'), '{"name":"other"}')
  await until('it is told', () => overtaken.length > 0)
  rmSync(conflist())
  await until('the list is back', () => existsSync(conflist()))
  assert.deepEqual(overtaken, ['05-other.conflist'])
  assert.equal(text(join(folder, 'conf/05-other.conflist')), '{"name":"other"}')
})

test('a hand that goes on altering is not fought without end', async () => {
  for (let round = 0; round < 6; round++) {
    writeFileSync(conflist(), `{"round":${round}}`)
    await until('it is put back', () => text(conflist()).includes('weft'))
  }
  const count = warnings.length
  writeFileSync(conflist(), '{"round":6}')
  await wait(300)
  assert.equal(text(conflist()), '{"round":6}')
  assert.equal(warnings.length, count)
  assert.match(warnings.at(-1)!, /another hand goes on/)
})

test('after close nothing is written', async () => {
  files.close()
  rmSync(conflist())
  chmodSync(plugin(), 0o644)
  await wait(200)
  assert.ok(!existsSync(conflist()))
})
