/**
 * Container images without a registry: one layer from a folder, as the archive that `docker save` writes and containerd
 * imports. The same files give the same bytes.
 *
 * Sources: Docker Image Specification v1.2 (image JSON description, combined image JSON + filesystem changeset format).
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export interface Image {
  /** With its tag: `weft.test/agnhost:1`. */
  readonly name: string
  /** Path in the image → program on this machine that is copied there, or what a symbolic link names. */
  readonly files: Readonly<Record<string, string | { readonly link: string }>>
  readonly entrypoint: readonly string[]
}

const tar = (archive: string, folder: string, names: readonly string[]): void => {
  const same = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--format=gnu']
  execFileSync('tar', [...same, '-C', folder, '-cf', archive, ...names])
}

/** Writes the archive. */
export function writeImageArchive(path: string, image: Image): void {
  mkdirSync(dirname(path), { recursive: true })
  const work = mkdtempSync(`${path}.`)
  try {
    const root = join(work, 'root')
    // Places that a runtime mounts over.
    for (const folder of ['dev', 'etc', 'proc', 'sys', 'tmp']) mkdirSync(join(root, folder), { recursive: true })
    for (const [at, from] of Object.entries(image.files)) {
      const target = join(root, at)
      mkdirSync(dirname(target), { recursive: true })
      if (typeof from === 'string') copyFileSync(from, target)
      else symlinkSync(from.link, target)
    }
    tar(join(work, 'layer.tar'), root, ['.'])
    const layer = createHash('sha256')
      .update(readFileSync(join(work, 'layer.tar')))
      .digest('hex')
    const config = JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      created: '1970-01-01T00:00:00Z',
      config: { Entrypoint: image.entrypoint, Env: ['PATH=/bin:/sbin:/'], WorkingDir: '/' },
      rootfs: { type: 'layers', diff_ids: [`sha256:${layer}`] },
    })
    const configName = `${createHash('sha256').update(config).digest('hex')}.json`
    writeFileSync(join(work, configName), config)
    const manifest = [{ Config: configName, RepoTags: [image.name], Layers: ['layer.tar'] }]
    writeFileSync(join(work, 'manifest.json'), JSON.stringify(manifest))
    tar(path, work, ['manifest.json', configName, 'layer.tar'])
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
