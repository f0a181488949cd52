/**
 * Runs the tests: types, lint, layers, then every tier asked for, and prints where each ran and the totals.
 *
 *   tsx scripts/test.ts                       everything of `npm test`
 *   tsx scripts/test.ts --tier unit           one tier
 *   tsx scripts/test.ts [--tier T] PATTERN    only files whose path contains PATTERN
 *
 * Tiers: `unit` (x.test.ts beside x.ts, anywhere), `netns` (test/netns: root and network namespaces).
 */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { run } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
process.chdir(root)

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { tier: { type: 'string', multiple: true }, 'no-checks': { type: 'boolean', default: false } },
})

const allTiers: Readonly<Record<string, readonly string[]>> = {
  unit: ['src', 'bin', 'scripts'],
  netns: ['test/netns'],
}
const tiers = values.tier ?? Object.keys(allTiers)

function testFiles(tier: string): string[] {
  const folders = allTiers[tier]
  if (!folders) throw new Error(`There is no tier ${tier}; there are ${Object.keys(allTiers).join(', ')}`)
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.test.ts'))
      .map((entry) => relative(root, join(entry.parentPath, entry.name))),
  )
  const chosen = files.filter((file) => positionals.every((part) => file.includes(part))).sort()
  if (chosen.length === 0 && positionals.length === 0) throw new Error(`Tier ${tier} has no test files`)
  return chosen
}

/** Runs one check as a test of its own; prints its output only when it fails. */
function check(name: string, command: string, args: readonly string[]): boolean {
  const started = performance.now()
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  const ok = status === 0
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name} (${Math.round(performance.now() - started)} ms)`)
  if (!ok) console.log(stdout + stderr)
  return ok
}

interface Totals {
  passed: number
  failed: number
  skipped: number
}

async function runFiles(tier: string, files: readonly string[], totals: Totals): Promise<void> {
  const concurrency = tier === 'unit' ? 2 : 1
  const perFile = new Map<string, Totals & { failures: string[]; milliseconds: number }>()
  const stream = run({ files: [...files], concurrency, timeout: 600_000 })
  const rowOf = (file: string | undefined) => {
    const name = file ? relative(root, file) : '(unknown)'
    let row = perFile.get(name)
    if (!row) {
      row = { passed: 0, failed: 0, skipped: 0, failures: [], milliseconds: 0 }
      perFile.set(name, row)
    }
    return row
  }
  const isFile = (name: string) => files.some((file) => name === file || name === join(root, file))
  stream.on('test:pass', (event) => {
    if (isFile(event.name)) {
      if (event.nesting === 0) rowOf(event.file ?? join(root, event.name)).milliseconds = event.details.duration_ms
      return
    }
    if (event.details.type === 'suite') return
    const row = rowOf(event.file)
    if (event.skip !== undefined && event.skip !== false) {
      row.skipped++
      console.log(
        `skip ${relative(root, event.file ?? '')}: ${event.name} (${event.skip === true ? 'no reason' : event.skip})`,
      )
    } else row.passed++
  })
  stream.on('test:fail', (event) => {
    if (event.details.type === 'suite') return
    const row = rowOf(event.file ?? join(root, event.name))
    const cause = event.details.error.cause as { failureType?: string; stack?: string; message?: string } | undefined
    if (isFile(event.name) && row.failed > 0) return
    row.failed++
    row.failures.push(`${event.name}\n${cause?.stack ?? cause?.message ?? event.details.error.message}`)
  })
  const output = new Map<string, string>()
  for (const kind of ['test:stdout', 'test:stderr'] as const)
    stream.on(kind, (event) => {
      const file = event.file ? relative(root, event.file) : '(unknown)'
      output.set(file, ((output.get(file) ?? '') + event.message).slice(-20_000))
    })
  stream.resume()
  await new Promise((done) => stream.once('end', done))
  for (const [file, row] of [...perFile].sort(([a], [b]) => a.localeCompare(b))) {
    totals.passed += row.passed
    totals.failed += row.failed
    totals.skipped += row.skipped
    const skipped = row.skipped ? `, ${row.skipped} skipped` : ''
    console.log(
      `${row.failed ? 'FAIL' : 'ok  '} ${tier} ${file}: ${row.passed} passed${row.failed ? `, ${row.failed} failed` : ''}${skipped}`,
    )
    for (const failure of row.failures) console.log(failure.replace(/^/gm, '     '))
    if (row.failed && output.has(file)) console.log(output.get(file)!.replace(/^/gm, '   | '))
  }
  const silent = files.filter((file) => !perFile.has(file))
  for (const file of silent) {
    totals.failed++
    console.log(`FAIL ${tier} ${file}: ran no test`)
  }
}

const totals: Totals = { passed: 0, failed: 0, skipped: 0 }
if (!values['no-checks'] && !values.tier && positionals.length === 0) {
  const checks: [string, string, string[]][] = [
    ['types', 'node_modules/.bin/tsc', ['-p', 'tsconfig.json']],
    ['types of the pure layers', 'node_modules/.bin/tsc', ['-p', 'tsconfig.pure.json']],
    ['lint and format', 'node_modules/.bin/biome', ['check', '.']],
  ]
  for (const [name, command, args] of checks) totals[check(name, command, args) ? 'passed' : 'failed']++
}
for (const tier of tiers) {
  const files = testFiles(tier)
  if (files.length) await runFiles(tier, files, totals)
}
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`)
process.exit(totals.failed ? 1 : 0)
