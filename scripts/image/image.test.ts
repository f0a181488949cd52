import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, test } from 'node:test'
import { type ImageSpec, writeImage } from './archive.ts'
import { findLibraries, readNeeds, trimElf } from './elf.ts'
import { type TarEntry, writeTar } from './tar.ts'

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-test-image-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

const long = `${'folder/'.repeat(20)}file`
const entries: TarEntry[] = [
  { path: 'usr/bin/program', type: 'file', data: Buffer.from('#!/bin/sh\n'), mode: 0o755 },
  { path: '/usr/bin/other', type: 'symlink', target: 'program' },
  { path: long, type: 'file', data: Buffer.alloc(1025, 'x'), mode: 0o644 },
  { path: 'tmp', type: 'directory', mode: 0o1777 },
]

test('a layer is read by tar as it was meant, and does not depend on the order of its entries', () => {
  const archive = writeTar(entries, 0)
  const listed = execFileSync('tar', ['--numeric-owner', '--full-time', '-tvf', '-'], {
    input: archive,
    env: { ...process.env, TZ: 'UTC' },
    encoding: 'utf8',
  })
  assert.match(listed, /^-rwxr-xr-x 0\/0 +10 1970-01-01 00:00:00 usr\/bin\/program$/m)
  assert.match(listed, /^lrwxrwxrwx 0\/0 +0 1970-01-01 00:00:00 usr\/bin\/other -> program$/m)
  assert.match(listed, /^drwxrwxrwt 0\/0 .* tmp\/$/m)
  assert.match(listed, /^drwxr-xr-x 0\/0 .* usr\/$/m)
  assert.match(listed, new RegExp(`^-rw-r--r-- 0/0 +1025 .* ${long}$`, 'm'))
  assert.deepEqual(writeTar([...entries].reverse(), 0), archive)
  assert.throws(() => writeTar([entries[0]!, entries[0]!], 0), /usr\/bin\/program is in the archive twice/)
  assert.throws(() => writeTar([{ ...entries[0]!, path: 'x'.repeat(300) }], 0), /too long/)
})

const specOf = (layers: TarEntry[][]): ImageSpec => ({
  name: 'example.test/weft:1',
  architecture: 'amd64',
  layers: layers.map((list, index) => ({ comment: `layer ${index}`, entries: list })),
  entrypoint: ['/usr/bin/program'],
  env: ['PATH=/usr/bin'],
  labels: { 'org.opencontainers.image.version': '1' },
  createdSeconds: 1_700_000_000,
})

test('an image has one digest, and every digest in it is that of its blob', () => {
  const image = writeImage(specOf([entries, []]))
  assert.deepEqual(writeImage(specOf([[...entries].reverse(), []])).archive, image.archive)
  writeFileSync(join(folder, 'image.tar'), image.archive)
  execFileSync('tar', ['-xf', 'image.tar'], { cwd: folder })
  const read = (path: string) => readFileSync(join(folder, path))
  const blob = (digest: string) => read(`blobs/${digest.replace(':', '/')}`)
  const [listed] = JSON.parse(read('index.json').toString()).manifests
  assert.equal(listed.digest, image.digest)
  assert.equal(listed.annotations['io.containerd.image.name'], 'example.test/weft:1')
  const manifest = JSON.parse(blob(listed.digest).toString())
  const config = JSON.parse(blob(manifest.config.digest).toString())
  assert.equal(config.created, '2023-11-14T22:13:20Z')
  const sha256 = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`
  for (const { digest, size } of [listed, manifest.config, ...manifest.layers]) {
    assert.equal(sha256(blob(digest)), digest)
    assert.equal(blob(digest).length, size)
  }
  const unpacked = manifest.layers.map(({ digest }: { digest: string }) =>
    sha256(execFileSync('gzip', ['-dc'], { input: blob(digest) })),
  )
  assert.deepEqual(config.rootfs.diff_ids, unpacked)
  const [docker] = JSON.parse(read('manifest.json').toString())
  assert.deepEqual(docker.RepoTags, ['example.test/weft:1'])
  assert.equal(sha256(read(docker.Config)), manifest.config.digest)
  assert.deepEqual(
    docker.Layers.map(read).map(sha256),
    manifest.layers.map(({ digest }: { digest: string }) => digest),
  )
})

test('the libraries found are those that the loader loads', { skip: process.platform !== 'linux' }, () => {
  const node = realpathSync(process.execPath)
  const loaded = execFileSync('ldd', [node], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => /(\S+) (?:=> \S+ )?\(0x/.exec(line.trim())?.[1] ?? [])
    .filter((name) => !name.startsWith('linux-vdso'))
    .map((name) => basename(name))
  const found = findLibraries([node])
  assert.deepEqual([...found.keys()].map((place) => basename(place)).sort(), loaded.sort())
  assert.equal(readNeeds(readFileSync(node)).interpreter, [...found.keys()][0])
})

test('a trimmed program is smaller and runs', { skip: process.platform !== 'linux' }, () => {
  const whole = readFileSync(realpathSync('/bin/true'))
  assert.ok(trimElf(whole).length < whole.length)
  const path = join(folder, 'true')
  writeFileSync(path, trimElf(whole), { mode: 0o755 })
  assert.equal(spawnSync(path).status, 0)
  assert.throws(() => trimElf(Buffer.alloc(100)), /no 64-bit little-endian ELF/)
})
