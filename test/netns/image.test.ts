/** The image that `npm run image` writes: unpacked and entered, it is weft and needs nothing of the machine. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
let folder: string
let root: string

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-test-image-'))
  root = join(folder, 'root')
  mkdirSync(join(root, 'proc'), { recursive: true })
  build('image.tar')
  execFileSync('tar', ['-xf', 'image.tar'], { cwd: folder })
  const [image] = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'))
  for (const layer of image.Layers) execFileSync('tar', ['-xzf', join(folder, layer), '-C', root])
})
after(() => rmSync(folder, { recursive: true, force: true }))

function build(file: string): string {
  const args = ['--import', 'tsx', 'scripts/image.ts', '--output', join(folder, file), '--tag', '9.8.7-test']
  execFileSync(process.execPath, args, { cwd: checkout, env: { ...process.env, SOURCE_DATE_EPOCH: '0' } })
  return createHash('sha256')
    .update(readFileSync(join(folder, file)))
    .digest('hex')
}

/** In the image's files, with /proc as a runtime gives it. */
const enter = (...args: string[]) =>
  spawnSync(
    'unshare',
    ['--mount', 'sh', '-c', 'mount --rbind /proc "$0/proc" && exec chroot "$0" /usr/bin/weft "$@"', root, ...args],
    { encoding: 'utf8', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
  )

test('the program starts from its own Node and libraries and says the version of the image', () => {
  assert.equal(enter('--version').stdout, '9.8.7-test\n')
  const help = enter('agent', '--help')
  assert.equal(help.status, 0, help.stderr)
  assert.match(help.stdout, /--net-config-map/)
})

test('the agent loads its native parts, and then says what it misses', () => {
  const agent = enter('agent', '--run-dir', '/tmp/run', '--dry-run', '--kubeconfig', '/nowhere')
  assert.equal(agent.status, 2, agent.stderr)
  assert.match(agent.stderr, /nowhere/)
  const koffi = spawnSync(
    'chroot',
    [
      root,
      '/usr/bin/node',
      '-e',
      "import('/usr/lib/weft/node_modules/koffi/index.js').then((k) => console.log(k.default.version))",
    ],
    { encoding: 'utf8', env: { PATH: '/usr/sbin:/usr/bin' } },
  )
  assert.match(koffi.stdout, /^\d+\.\d+\.\d+\n$/, koffi.stderr)
  for (const program of ['weft-cni', 'weft-tunnel'])
    assert.notEqual(
      spawnSync('chroot', [root, `/usr/lib/weft/dist/native/${program}`], { env: { PATH: '/usr/sbin:/usr/bin' } })
        .status,
      null,
    )
})

test('the image holds no shell, no lab, and the licences of what is in it', () => {
  assert.equal(existsSync(join(root, 'bin/sh')) || existsSync(join(root, 'usr/bin/sh')), false)
  assert.notEqual(enter('lab', 'list').status, 0)
  for (const path of ['weft/LICENSE', 'node-modules/koffi/LICENSE.txt', 'node-modules/commander/LICENSE'])
    assert.ok(existsSync(join(root, 'usr/share/licenses', path)), path)
})

test('building again gives the same bytes', () => {
  const first = createHash('sha256')
    .update(readFileSync(join(folder, 'image.tar')))
    .digest('hex')
  assert.equal(build('again.tar'), first)
})
