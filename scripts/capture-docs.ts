/**
 * Fills the captured blocks of documentation pages with what the commands really print, in a lab made for the page.
 *
 *   tsx scripts/capture-docs.ts                      every page that names a lab
 *   tsx scripts/capture-docs.ts docs/modes/vxlan.md  these pages
 *   tsx scripts/capture-docs.ts --twins              nothing is run: the blocks of all pages go to their twins as they are
 *
 * A page names a lab, `<!-- lab: --backend vxlan -->` (arguments of `weft lab up`; each mark begins a new lab), or one in a guest
 * with the distribution's kernel, `<!-- guest-lab: --backend calico-ipip -->`, and stands for each block:
 *
 *   <!-- run: weft lab node exec n1 -- ip route -->
 *   ```text
 *   …replaced…
 *   ```
 *
 * A command that fails ends the run, unless its mark is `run-failing`: then it must fail. The lab's own name is shown as the
 * usual one, the checkout's path as `./`, and tcpdump's remarks about itself are left out; nothing else is changed. The same blocks go into the page's
 * twin under docs/zh/, so that both languages show one run (scripts/docs.test.ts holds them together).
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { docPages, twinOf } from './docs.ts'
import { bundleForGuest, Guests } from './kernels/guest.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const usual = 'lab'
/** As long as the usual name, so that columns stay where they are. */
const lab = 'doc'

function shell(command: string, env: NodeJS.ProcessEnv = {}): { ok: boolean; output: string } {
  const { status, stdout } = spawnSync('bash', ['-c', `exec 2>&1; ${command}`], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env, PATH: `${root}:${process.env.PATH}`, COLUMNS: '160' },
  })
  return { ok: status === 0, output: stdout.trimEnd() }
}

/** The command as it must run here: with the page's lab named. */
const named = (command: string) =>
  command
    .replace(/\bweft lab ((?:node |fault )?[a-z-]+)/g, `weft lab $1 --name ${lab}`)
    .replaceAll(`/labs/${usual}/`, `/labs/${lab}/`)

/** What a reader sees: the commands as they would type them, in the lab that they would have. */
const shown = (output: string) =>
  output
    .replaceAll(` --name ${lab}`, '')
    .replaceAll(`/labs/${lab}/`, `/labs/${usual}/`)
    .replaceAll(`weft-${lab}-`, `weft-${usual}-`)
    .replaceAll(root, './')
    .replaceAll(`lab ${lab}`, `lab ${usual}`)
    .replace(/^(tcpdump: .*|listening on .*|\d+ packets? (captured|received by filter|dropped by kernel))\n?/gm, '')
    .replace(/[ \t]+$/gm, '')
    .trimEnd()

const mark = /<!-- (lab|guest-lab|run|run-failing): (.+?) -->(\n```text\n[\s\S]*?```)?/g

/** The page with every block captured anew. */
function capture(page: string, text: string): string {
  let env: NodeJS.ProcessEnv = {}
  const filled = text.replace(mark, (whole, kind: string, argument: string) => {
    console.log(`${page}: ${kind} ${argument}`)
    if (kind === 'lab' || kind === 'guest-lab') {
      shell(named('weft lab down'))
      const up = shell(named(`weft lab up ${argument}`))
      if (!up.ok) throw new Error(up.output)
      env = { KUBECONFIG: shell(named('weft lab kubeconfig')).output }
      return whole
    }
    const { ok, output } = shell(named(argument), env)
    if (ok !== (kind === 'run')) throw new Error(`${argument}\n${output}`)
    const lines = ['```text', `$ ${argument}`, ...(shown(output) === '' ? [] : [shown(output)]), '```']
    return `<!-- ${kind}: ${argument} -->\n${lines.join('\n')}`
  })
  shell(named('weft lab down'))
  return filled
}

/** The twin with the blocks of the captured page, one after another. */
function copyBlocks(page: string, from: string, to: string): string {
  const blocks = [...from.matchAll(mark)]
  let next = 0
  const filled = to.replace(mark, (_whole, kind: string, argument: string) => {
    const block = blocks[next++]
    if (block?.[1] !== kind || block[2] !== argument)
      throw new Error(`${twinOf(page)} has ${kind} ${argument} where ${page} has ${block?.[1]} ${block?.[2]}`)
    return block[0]
  })
  if (next !== blocks.length) throw new Error(`${twinOf(page)} lacks ${blocks[next]?.[2]}`)
  return filled
}

const GUEST_CAP_SECONDS = 1200

/** The page as this program captures it in a guest; what it prints there is printed here. */
async function captureInGuest(page: string): Promise<string> {
  const guests = await Guests.open()
  if (typeof guests === 'string') throw new Error(`${page} needs a guest: ${guests}`)
  try {
    const program = await bundleForGuest('scripts/capture-docs.ts')
    const argv = ['node', '--enable-source-maps', program, '--into', '/report/page', page]
    const { exitCode, files } = await guests.command({ argv, cpus: 2, capSeconds: GUEST_CAP_SECONDS })
    const filled = files.get('page')
    if (exitCode !== 0 || filled === undefined) throw new Error(`${page}: the guest ended with ${exitCode}`)
    return filled
  } finally {
    guests.close()
  }
}

const { values, positionals } = parseArgs({
  // `into` is for the program in a guest: the captured page goes there and nowhere else.
  options: { twins: { type: 'boolean' }, into: { type: 'string' } },
  allowPositionals: true,
})
for (const page of positionals.length > 0 ? positionals : docPages(root)) {
  const text = readFileSync(page, 'utf8')
  const inGuest = text.includes('<!-- guest-lab: ')
  if (!inGuest && !text.includes('<!-- lab: ')) continue
  if (values.into !== undefined) {
    writeFileSync(values.into, capture(page, text))
    continue
  }
  const filled = values.twins ? text : inGuest ? await captureInGuest(page) : capture(page, text)
  writeFileSync(page, filled)
  const twin = twinOf(page)
  if (existsSync(twin)) writeFileSync(twin, copyBlocks(page, filled, readFileSync(twin, 'utf8')))
}
