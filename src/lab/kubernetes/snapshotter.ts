/**
 * Which of containerd's snapshotters a disk can have: `overlayfs` where the kernel takes an overlay there, else `native`, which
 * copies every layer into every container.
 *
 * Sources: the kernel's Documentation/filesystems/overlayfs.rst; containerd's docs/snapshotters.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

export function findSnapshotter(folder: string): 'overlayfs' | 'native' {
  const work = mkdtempSync(join(folder, 'overlay-'))
  try {
    for (const part of ['lower1', 'lower2', 'upper', 'work', 'merged']) mkdirSync(join(work, part))
    // In a mount namespace of its own: nothing to take away again.
    const options = 'lowerdir=lower1:lower2,upperdir=upper,workdir=work'
    const script = `mount -t overlay -o ${options} overlay merged && echo >merged/file && [ -s upper/file ]`
    const { status } = spawnSync('unshare', ['--mount', 'sh', '-c', script], { cwd: work })
    return status === 0 ? 'overlayfs' : 'native'
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
