/**
 * What a container runtime looks for on the node: the plugin binary and the network's configuration list. Both appear
 * whole or not at all.
 *
 * Sources: CNI SPEC.md "Section 1"; containerd and CRI-O take the first file of the directory by name.
 */
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'

export const conflistName = '10-weft.conflist'

/** By which a plugin's file is known to be the one that was put in place. */
export type ShimStamp = Pick<Stats, 'ino' | 'dev' | 'size' | 'mtimeMs' | 'ctimeMs'>

/**
 * Copies the plugin to `<binDir>/weft` and points `<binDir>/.weft.sock`, where the plugin looks for its agent, to the
 * socket in `runDir`. A copy, not a link: the plugin finds the socket beside its own file.
 */
export function installShim(binDir: string, runDir: string, shimPath: string): ShimStamp {
  mkdirSync(binDir, { recursive: true })
  const fresh = join(binDir, `.weft-${process.pid}`)
  rmSync(fresh, { force: true })
  symlinkSync(socketOf(runDir), fresh)
  renameSync(fresh, join(binDir, '.weft.sock'))
  copyFileSync(shimPath, fresh)
  renameSync(fresh, join(binDir, 'weft'))
  return lstatSync(join(binDir, 'weft'))
}

const socketOf = (runDir: string): string => join(resolve(runDir), 'cni.sock')

/** True while plugin and link are those that `installShim` made. */
export function hasShim(binDir: string, runDir: string, stamp: ShimStamp): boolean {
  const found = lstatSync(join(binDir, 'weft'), { throwIfNoEntry: false })
  const same =
    found && (['ino', 'dev', 'size', 'mtimeMs', 'ctimeMs'] as const).every((key) => found[key] === stamp[key])
  return same === true && found.isFile() && linkOf(join(binDir, '.weft.sock')) === socketOf(runDir)
}

/** Where a symbolic link leads; undefined when there is none. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

export const conflist = {
  cniVersion: '1.0.0',
  name: 'weft',
  plugins: [{ type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }],
}

const conflistText = `${JSON.stringify(conflist, undefined, 2)}\n`

/** True while the configuration list is there, word for word. */
export function hasConflist(confDir: string): boolean {
  try {
    return readFileSync(join(confDir, conflistName), 'utf8') === conflistText
  } catch {
    return false
  }
}

/** Writes `<confDir>/10-weft.conflist`: from then on the runtime calls the node's network ready. */
export function writeConflist(confDir: string): void {
  mkdirSync(confDir, { recursive: true })
  const fresh = join(confDir, `.${conflistName}-${process.pid}`)
  writeFileSync(fresh, conflistText, { mode: 0o644 })
  renameSync(fresh, join(confDir, conflistName))
}
