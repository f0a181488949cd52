/**
 * `weft cleanup`: takes everything of weft off a node, and nothing else. What is weft's is told by the same marks as for a
 * restarted agent: protocol 119, aliases `weft:` and `weft-pod:`, the tables inet weft and bridge weft, the comment of rules
 * in iptables' FORWARD, the tunnels that answer on the sockets of the run directory. Kernel variables go back to what they
 * were before weft, unless somebody set them otherwise since.
 *
 *   lock ─► conflist, plugin ─► devices, routes, rules, table, tunnels ─► variables ─► files
 *
 * Pods that are still there lose their network. May run again, also after it was killed: it finds what is left.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { Applier } from '../apply/applier.ts'
import { type Ownership, weftOwnership } from '../apply/ownership.ts'
import type { Kernel } from '../kernel/kernel.ts'
import { openLinuxKernel } from '../kernel/linux/linux-kernel.ts'
import { makeSysctlsWritable } from '../kernel/linux/proc-sys.ts'
import { readRememberedSysctls } from '../kernel/linux/sysctl-memory.ts'
import { useTunnelDirectory } from '../kernel/linux/tunnel-client.ts'
import { formatOp } from '../model/format.ts'
import { removeForwardRules } from './forward-rules.ts'
import { type FileOptions, removeOwnFiles, removeRuntimeFiles, sysctlFile } from './own-files.ts'
import { RunLock } from './run-lock.ts'

/** Prints every step as the command that it stands for; resolves with the exit code. Throws ConfigError while an agent runs. */
export async function cleanUp(options: FileOptions, print: (line: string) => void): Promise<number> {
  const lock = await RunLock.take(options.runDir)
  useTunnelDirectory(options.runDir)
  try {
    for (const path of removeRuntimeFiles(options)) print(`rm -r ${path}`)
    const kernel = openLinuxKernel()
    try {
      const problems = await sweep(kernel, print)
      for (const command of await removeForwardRules(kernel).catch((error: Error) => {
        problems.push(`weft's rules in FORWARD cannot be taken away: ${error.message}`)
        return []
      }))
        print(command)
      for (const problem of problems) print(`# ${problem}`)
      if (problems.length > 0) return 1
    } finally {
      kernel.close()
    }
    restoreSysctls(sysctlFile(options.stateDir), print)
  } finally {
    lock.release()
  }
  for (const path of removeOwnFiles(options)) print(`rm -r ${path}`)
  return 0
}

const marks = weftOwnership()
/** Every mark, the links of pods and bridges included. */
const everything: Ownership = {
  owns: (object, isOurDevice) =>
    object.kind === 'link' ? /^weft(-pod)?:/.test(object.alias ?? '') : marks.owns(object, isOurDevice),
}

/** Wants nothing, so that all that is ours is swept. Returns what the kernel refused. */
async function sweep(kernel: Kernel, print: (line: string) => void): Promise<string[]> {
  const applier = new Applier(kernel, {
    ownership: everything,
    onReport: ({ ops, failures }) => {
      const failed = new Set(failures.map(({ key }) => key))
      if (failed.size === 0) for (const op of ops) print(formatOp(op))
    },
  })
  try {
    await applier.start()
    applier.markComplete()
    await applier.settle()
    return applier.failures().map(({ error }) => error.message)
  } finally {
    await applier.close()
  }
}

/** What weft last wrote is not kept: only 1 and 2 are ever written, and a variable that is neither is another's by now. */
function restoreSysctls(file: string, print: (line: string) => void): void {
  const before = readRememberedSysctls(file)
  if (before.size === 0) return
  makeSysctlsWritable()
  for (const [path, value] of before) {
    try {
      const now = readFileSync(`/proc/sys/${path}`, 'utf8').trim()
      if (now === value || !['1', '2'].includes(now)) continue
      writeFileSync(`/proc/sys/${path}`, value)
      print(`sysctl -w ${path.replaceAll('/', '.')}=${value}`)
    } catch {
      // The device that it belonged to is gone.
    }
  }
}
