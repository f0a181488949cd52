/**
 * What a container runtime looks for on the node: the plugin binary and the network's configuration list. Both appear
 * whole or not at all.
 *
 * Sources: CNI SPEC.md "Section 1"; containerd and CRI-O take the first file of the directory by name.
 */
import { copyFileSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

export const conflistName = '10-weft.conflist'

/**
 * Copies the plugin to `<binDir>/weft` and points `<binDir>/.weft.sock`, where the plugin looks for its agent, to the
 * socket in `runDir`. A copy, not a link: the plugin finds the socket beside its own file.
 */
export function installShim(binDir: string, runDir: string, shimPath: string): void {
  mkdirSync(binDir, { recursive: true })
  const fresh = join(binDir, `.weft-${process.pid}`)
  rmSync(fresh, { force: true })
  symlinkSync(join(resolve(runDir), 'cni.sock'), fresh)
  renameSync(fresh, join(binDir, '.weft.sock'))
  copyFileSync(shimPath, fresh)
  renameSync(fresh, join(binDir, 'weft'))
}

export const conflist = {
  cniVersion: '1.0.0',
  name: 'weft',
  plugins: [{ type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }],
}

/** Writes `<confDir>/10-weft.conflist`: from then on the runtime calls the node's network ready. */
export function writeConflist(confDir: string): void {
  mkdirSync(confDir, { recursive: true })
  const fresh = join(confDir, `.${conflistName}-${process.pid}`)
  writeFileSync(fresh, `${JSON.stringify(conflist, undefined, 2)}\n`, { mode: 0o644 })
  renameSync(fresh, join(confDir, conflistName))
}
