/**
 * Programs of other projects, built from their Go modules as a go.mod of these tests pins them, and clients of theirs
 * whose source is in the folder: once for each content of the folder's Go files and each compiler. A first build takes
 * minutes; later runs take the binary from `~/.cache/weft/peers` (or XDG_CACHE_HOME).
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { goCompiler, missingGo } from '../../src/lab/kubernetes/programs.ts'

export interface BuiltPeer {
  readonly program: string
}

/** The binary of a package, or why there is none on this machine. Throws when it should build and does not. */
export function buildGoProgram(
  folder: string,
  name: string,
  path: string,
  environment: Readonly<Record<string, string>> = {},
): BuiltPeer | { readonly missing: string } {
  const missing = missingGo(name, folder)
  if (missing) return { missing }
  const go = goCompiler()!
  const hash = createHash('sha256').update(execFileSync(go, ['env', 'GOVERSION', 'GOARCH'], { encoding: 'utf8' }))
  for (const file of readdirSync(folder).sort())
    if (/^go\.(mod|sum)$|\.go$/.test(file)) hash.update(readFileSync(join(folder, file)))
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft', 'peers')
  const program = join(cache, `${name}-${hash.digest('hex').slice(0, 16)}`)
  if (!existsSync(program)) {
    mkdirSync(cache, { recursive: true })
    const started = performance.now()
    const flags = ['build', '-p', '1', '-trimpath', '-ldflags=-s -w', '-o', `${program}.tmp`]
    execFileSync(go, [...flags, path], {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, ...environment },
    })
    renameSync(`${program}.tmp`, program)
    console.log(`built ${name} in ${Math.round((performance.now() - started) / 1000)} s`)
  }
  return { program }
}
