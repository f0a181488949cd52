import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { FollowedFiles } from './followed-files.ts'

let folder: string
let made: number
let told: string[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-followed-'))
  made = 0
  told = []
})
afterEach(() => rmSync(folder, { recursive: true }))

const write = (name: string, text: string) => writeFileSync(join(folder, name), text)

/** Two files joined; the word `bad` in one of them cannot be used. */
const follow = () =>
  new FollowedFiles(
    (read) => {
      made++
      const text = ['a', 'b'].map((name) => read(join(folder, name))).join('+')
      if (text.includes('bad')) throw new Error(`cannot use ${text}`)
      return text
    },
    (problem) => told.push(problem?.message ?? 'again'),
  )

test('a value is made anew when one of its files has changed, and only then', () => {
  write('a', '1')
  write('b', '2')
  const files = follow()
  for (let n = 0; n < 3; n++) assert.equal(files.value, '1+2')
  assert.equal(made, 1)
  write('b', '3')
  assert.equal(files.value, '1+3')
  assert.equal(files.value, '1+3')
  assert.equal(made, 2)
  assert.deepEqual(told, ['again'])
})

test('a file that cannot be used, or is gone, leaves the last good value, is told once, and tried when it changes', () => {
  write('a', '1')
  write('b', '2')
  const files = follow()
  write('a', 'bad')
  assert.equal(files.value, '1+2')
  assert.equal(files.value, '1+2')
  rmSync(join(folder, 'a'))
  assert.equal(files.value, '1+2')
  assert.equal(files.value, '1+2')
  assert.equal(told.length, 2)
  assert.match(told[0]!, /cannot use bad\+2/)
  assert.match(told[1]!, /ENOENT/)
  // A change of the file that the failing reading never came to counts as well.
  write('b', '4')
  assert.equal(files.value, '1+2')
  write('a', '3')
  assert.equal(files.value, '3+4')
  assert.equal(told.at(-1), 'again')
})

test('a first value that cannot be made is an error', () => {
  write('a', '1')
  assert.throws(follow, /ENOENT/)
})

test('a link that is turned, as kubelets turn those of a pod, is a change', () => {
  for (const [generation, text] of Object.entries({ one: '1', two: '2' })) {
    mkdirSync(join(folder, generation))
    write(`${generation}/token`, text)
  }
  symlinkSync('one', join(folder, '..data'))
  symlinkSync('..data/token', join(folder, 'token'))
  const files = new FollowedFiles((read) => read(join(folder, 'token')))
  assert.equal(files.value, '1')
  symlinkSync('two', join(folder, '..data.new'))
  renameSync(join(folder, '..data.new'), join(folder, '..data'))
  assert.equal(files.value, '2')
})
