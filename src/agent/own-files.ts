/**
 * The files of an agent on its node, all of them, for whoever removes it.
 *
 *   <run-dir>       agent.sock, agent.lock, cni.sock, tunnel-<device>.{sock,log}
 *   <state-dir>     cni/, cluster-view, calico-view, sysctls-before
 *   <cni-bin-dir>   weft, .weft.sock            <cni-conf-dir>   10-weft.conflist           subnet.env
 *
 * A file that is not of this list is another's, also where weft's stand; a directory is removed when nothing is left in it.
 */
import { readdirSync, rmdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { conflistName } from '../cni/install.ts'
import type { AgentOptions } from './options.ts'

/** Kernel variables as they were before weft. */
export const sysctlFile = (stateDir: string): string => join(stateDir, 'sysctls-before')

export type FileOptions = Pick<AgentOptions, 'runDir' | 'stateDir' | 'cniBinDir' | 'cniConfDir' | 'subnetFile'>

interface Place {
  readonly folder: string
  readonly names: RegExp
  /** The directory is weft's: it goes when it is empty. */
  readonly own: boolean
}

const runtimePlaces = ({ cniBinDir, cniConfDir }: FileOptions): Place[] => [
  { folder: cniConfDir, names: new RegExp(`^\\.?${conflistName.replaceAll('.', '\\.')}(-\\d+)?$`), own: false },
  { folder: cniBinDir, names: /^(weft|\.weft\.sock|\.weft-\d+)$/, own: false },
]

const ownPlaces = ({ runDir, stateDir, subnetFile }: FileOptions): Place[] => [
  { folder: dirname(subnetFile), names: /^subnet\.env(\.\d+\.tmp)?$/, own: true },
  { folder: stateDir, names: /^(cni|(cluster-view|calico-view|sysctls-before)(\..*)?)$/, own: true },
  { folder: runDir, names: /^((agent|cni)\.sock|agent\.lock(\.\d+)?|tunnel-.*\.(sock|log))$/, own: true },
]

/** What makes the container runtime use weft. Returns the paths that were there. */
export const removeRuntimeFiles = (options: FileOptions): string[] => runtimePlaces(options).flatMap(removeFrom)

/** Everything else. */
export const removeOwnFiles = (options: FileOptions): string[] => ownPlaces(options).flatMap(removeFrom)

function removeFrom({ folder, names, own }: Place): string[] {
  if (folder === '') return []
  let held: string[]
  try {
    held = readdirSync(folder)
  } catch {
    return []
  }
  const going = held.filter((name) => names.test(name)).map((name) => join(folder, name))
  for (const path of going) rmSync(path, { recursive: true, force: true })
  if (!own || going.length < held.length) return going
  try {
    rmdirSync(folder)
    return [...going, folder]
  } catch {
    // A mount point, or somebody was quicker.
    return going
  }
}
