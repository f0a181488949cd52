/**
 * Fills the captured blocks of documentation pages with what the commands really print, in a lab made for the page.
 *
 *   tsx scripts/capture-docs.ts docs/modes/vxlan.md [MORE.md …]
 *
 * A page names its lab once, `<!-- lab: --backend vxlan -->` (arguments of `weft lab up`), and stands for each block:
 *
 *   <!-- run: weft lab node exec n1 -- ip route -->
 *   ```text
 *   …replaced…
 *   ```
 *
 * `weft lab …` runs with the page's lab; `kubectl …` with its kubeconfig. A command that fails ends the run, unless its line is
 * `<!-- run-failing: … -->`: then it must fail.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const lab = 'docs'

function shell(command: string, env: NodeJS.ProcessEnv = {}): { ok: boolean; output: string } {
  const { status, stdout } = spawnSync('bash', ['-c', `${command} 2>&1`], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env, PATH: `${root}:${process.env.PATH}`, COLUMNS: '160' },
  })
  return { ok: status === 0, output: stdout.trimEnd() }
}

/** The command as it must run here: with the page's lab named. */
const named = (command: string) => command.replace(/\bweft lab ((?:node |fault )?\S+)/g, `weft lab $1 --name ${lab}`)
/** What a reader sees: the commands as they would type them. */
const shown = (output: string) => output.replaceAll(` --name ${lab}`, '').replace(/ +$/gm, '')

const block = /<!-- (run|run-failing): (.+?) -->\n```text\n[\s\S]*?```/g

for (const page of process.argv.slice(2)) {
  const text = readFileSync(page, 'utf8')
  const lab = /<!-- lab: (.*?) -->/.exec(text)?.[1]
  if (lab === undefined) throw new Error(`${page} names no lab`)
  shell(named('weft lab down'))
  const up = shell(named(`weft lab up ${lab}`))
  if (!up.ok) throw new Error(up.output)
  const KUBECONFIG = shell(named('weft lab kubeconfig')).output
  const filled = text.replace(block, (_whole, kind: string, command: string) => {
    console.log(`${page}: ${command}`)
    const { ok, output } = shell(named(command), { KUBECONFIG })
    if (ok !== (kind === 'run')) throw new Error(`${command}\n${output}`)
    return `<!-- ${kind}: ${command} -->\n\`\`\`text\n$ ${command}\n${shown(output)}\n\`\`\``
  })
  writeFileSync(page, filled)
  shell(named('weft lab down'))
}
