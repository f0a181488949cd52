import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { writeImageArchive } from './image-archive.ts'

test('an image has its files, says the digest of its layer, and is the same bytes each time', () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  try {
    const image = {
      name: 'weft.test/true:1',
      files: { '/bin/true': '/bin/true', '/bin/yes': { link: 'true' } },
      entrypoint: ['/bin/true'],
    }
    const [first, second] = ['first.tar', 'second.tar'].map((name) => join(folder, name)) as [string, string]
    writeImageArchive(first, image)
    writeImageArchive(second, image)
    assert.deepEqual(readFileSync(first), readFileSync(second))
    execFileSync('tar', ['-xf', first, '-C', folder])
    const [manifest] = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'))
    assert.deepEqual(manifest.RepoTags, ['weft.test/true:1'])
    const config = readFileSync(join(folder, manifest.Config))
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
    assert.equal(manifest.Config, `${digest(config)}.json`)
    const layer = join(folder, manifest.Layers[0])
    assert.deepEqual(JSON.parse(String(config)).rootfs.diff_ids, [`sha256:${digest(readFileSync(layer))}`])
    const listed = execFileSync('tar', ['-tvf', layer], { encoding: 'utf8' })
    assert.match(listed, /^-rwxr-xr-x 0\/0 .* \.\/bin\/true$/m)
    assert.match(listed, /^lrwxrwxrwx 0\/0 .* \.\/bin\/yes -> true$/m)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
