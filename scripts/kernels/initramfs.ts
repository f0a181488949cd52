/**
 * The initramfs of a guest: a static first process (init.c) and the modules that it loads, as a cpio archive in the
 * kernel's "newc" form. No tool of the machine but the C compiler and modprobe has a part in it.
 *
 * Sources: Documentation/driver-api/early-userspace/buffer-format.rst.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What the guest must load to reach its root. */
const rootModules = ['virtio_pci', '9pnet_virtio', '9p', 'overlay'] as const

const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFCHR = 0o020000

interface Entry {
  readonly name: string
  readonly mode: number
  readonly data?: Uint8Array
  /** Major and minor number of a device node. */
  readonly device?: readonly [number, number]
}

const padding = (length: number): Buffer => Buffer.alloc(-length & 3)

/** A cpio archive of the entries; the trailer is added. */
export function encodeCpio(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = []
  for (const [index, entry] of [...entries, { name: 'TRAILER!!!', mode: 0 } as Entry].entries()) {
    const data = Buffer.from(entry.data ?? [])
    const name = Buffer.from(`${entry.name}\0`)
    const [major, minor] = entry.device ?? [0, 0]
    const fields = [index + 1, entry.mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length, 0]
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
    parts.push(Buffer.from(header), name, padding(header.length + name.length), data, padding(data.length))
  }
  return Buffer.concat(parts)
}

/** Paths of the modules that must be loaded, in that order. */
function modulePaths(kernelFolder: string, release: string): string[] {
  const paths = rootModules.flatMap((name) =>
    execFileSync('modprobe', ['-d', kernelFolder, '-S', release, '--show-depends', name], { encoding: 'utf8' })
      .split('\n')
      .flatMap((line) => /^insmod (\S+)/.exec(line)?.[1] ?? []),
  )
  return [...new Set(paths)]
}

/** Builds the archive for the kernel unpacked in a folder. Throws when the compiler or modprobe fails. */
export function buildInitramfs(kernelFolder: string, release: string, workFolder: string): Buffer {
  const init = join(workFolder, 'init')
  const source = fileURLToPath(new URL('init.c', import.meta.url))
  execFileSync('cc', ['-static', '-O1', '-Wall', '-Werror', '-o', init, source])
  const modules = modulePaths(kernelFolder, release)
  const order = modules.map((path) => `${basename(path)}\n`).join('')
  return encodeCpio([
    { name: 'dev', mode: S_IFDIR | 0o755 },
    { name: 'dev/console', mode: S_IFCHR | 0o600, device: [5, 1] },
    { name: 'modules', mode: S_IFDIR | 0o755 },
    { name: 'modules/order', mode: S_IFREG | 0o644, data: Buffer.from(order) },
    ...modules.map((path) => ({ name: `modules/${basename(path)}`, mode: S_IFREG | 0o644, data: readFileSync(path) })),
    { name: 'init', mode: S_IFREG | 0o755, data: readFileSync(init) },
  ])
}
