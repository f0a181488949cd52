/** The archive of `npm run image` in the hands of Debian's podman: loaded as it is, and run without a right and without a file to write. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { cannotRun } from '../netns/cni-node.ts'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
const missing = ['podman', 'runc'].find((command) => spawnSync('sh', ['-c', `command -v ${command}`]).status !== 0)
const skip = cannotRun || (missing ? `there is no ${missing} (package podman)` : false)
const parent = `weft-test-${process.pid}-image`
const image = 'weft.test/weft:9.8.7'

function removeCgroups(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroups(join(folder, entry.name))
  rmdirSync(folder)
}

describe('podman', { skip }, () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-test-image-'))
    const args = ['--output', join(folder, 'image.tar'), '--name', 'weft.test/weft', '--tag', '9.8.7']
    execFileSync(process.execPath, ['--import', 'tsx', 'scripts/image.ts', ...args], { cwd: checkout, stdio: 'pipe' })
  })
  after(() => {
    podman('rm', '--force', '--all', '--time', '0')
    for (const controller of readdirSync('/sys/fs/cgroup'))
      if (existsSync(`/sys/fs/cgroup/${controller}/${parent}`)) removeCgroups(`/sys/fs/cgroup/${controller}/${parent}`)
    rmSync(folder, { recursive: true, force: true })
  })

  function podman(...words: string[]) {
    const folders = ['--root', join(folder, 'graph'), '--runroot', join(folder, 'run'), '--tmpdir', join(folder, 'tmp')]
    const engine = [
      '--storage-driver',
      'vfs',
      '--events-backend',
      'file',
      '--cgroup-manager',
      'cgroupfs',
      '--runtime',
      'runc',
    ]
    return spawnSync('podman', [...folders, ...engine, ...words], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, HOME: folder },
    })
  }

  /** As the controller's pod: nobody's user, no capability, nothing to write to. */
  const run = (...words: string[]) =>
    podman(
      ...['run', '--rm', '--network', 'none', '--read-only', '--user', '65532:65532', '--cap-drop', 'all'],
      ...['--cgroup-parent', parent, '--log-driver', 'k8s-file'],
      // A machine may refuse to raise limits.
      ...['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024', image, ...words],
    )

  test('loads it under its name, with what is to be started', () => {
    const loaded = podman('load', '--input', join(folder, 'image.tar'))
    assert.equal(loaded.status, 0, loaded.stderr)
    assert.match(loaded.stdout, /Loaded image: weft\.test\/weft:9\.8\.7/)
    const [found] = JSON.parse(podman('image', 'inspect', image).stdout)
    assert.deepEqual(found.Config.Entrypoint, ['/usr/bin/weft'])
    assert.equal(found.Os, 'linux')
  })

  test('runs it', () => {
    const version = run('--version')
    assert.equal(version.stdout, '9.8.7\n', version.stderr)
    const controller = run('controller')
    assert.equal(controller.status, 2)
    assert.match(controller.stderr, /this is not a pod with a service account/)
  })
})
