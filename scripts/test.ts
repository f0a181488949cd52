/**
 * Runs the tests: types, lint, layers, then every tier asked for, and prints where each ran and the totals.
 *
 *   tsx scripts/test.ts                       everything of `npm test`
 *   tsx scripts/test.ts --tier unit           one tier
 *   tsx scripts/test.ts [--tier T] PATTERN    only files whose path contains PATTERN
 *
 * Tiers: `unit` (x.test.ts beside x.ts, anywhere), `netns` (test/netns: root and network namespaces), and, only when
 * asked for, `kernels` (the list of scripts/kernels/suites.ts, in guests that boot another kernel), `peers`
 * (test/peers, test/interop: beside other projects' real programs) and `kubernetes` (test/kubernetes: on clusters of Kubernetes' own
 * programs); both build from source at the first run.
 *
 * Beyond the unit tier a file that fails is run once more: such tests need processor time that a busy machine may withhold
 * for longer than any timeout of theirs. What failed at first is printed either way, and a file that passes only then is
 * named again above the totals: it is a defect to look into, of the test or of the product.
 *
 * `--results FILE` adds a line of JSON per passed or skipped test to a file; scripts/kernels/where-ran.ts joins them.
 */
import { spawnSync } from 'node:child_process'
import { appendFileSync, readdirSync } from 'node:fs'
import { release } from 'node:os'
import { join, relative } from 'node:path'
import { run } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ensurePrograms, missingForKubernetes } from '../src/lab/kubernetes/programs.ts'
import { emptyReport, type FileReport } from './file-report.ts'
import { Guests } from './kernels/guest.ts'
import { boots, type Suite } from './kernels/suites.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
process.chdir(root)

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tier: { type: 'string', multiple: true },
    'no-checks': { type: 'boolean', default: false },
    results: { type: 'string' },
  },
})

const allTiers: Readonly<Record<string, readonly string[]>> = {
  unit: ['src', 'bin', 'scripts'],
  netns: ['test/netns'],
  peers: ['test/peers', 'test/interop'],
  kubernetes: ['test/kubernetes'],
}
const tiers = values.tier ?? ['unit', 'netns']
const guestFiles = boots.flatMap(({ suites }) => suites.map(({ file }) => file))

function testFiles(tier: string): string[] {
  if (tier === 'kernels') return guestFiles.filter((file) => positionals.every((part) => file.includes(part)))
  const folders = allTiers[tier]
  if (!folders) throw new Error(`There is no tier ${tier}; there are ${Object.keys(allTiers).join(', ')}, kernels`)
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

const timeoutMs = (file: string): number => {
  if (file.startsWith('test/peers/') || file.startsWith('test/interop/')) return 1_800_000
  return file.startsWith('test/kubernetes/') ? 900_000 : 300_000
}

/** Runs one file in a process of its own; its tests may stand in a suite file that it imports. */
async function runFile(file: string): Promise<FileReport> {
  const report = emptyReport()
  const isFile = (name: string) => name === file || name === join(root, file)
  const stream = run({ files: [file], concurrency: 1, timeout: timeoutMs(file) })
  stream.on('test:pass', (event) => {
    const skipped = event.skip !== undefined && event.skip !== false
    // A suite counts by its tests, unless it is skipped whole: then none of them is heard of.
    if (isFile(event.name) || (event.details.type === 'suite' && !skipped)) return
    if (!skipped) {
      report.passed++
      report.passes.push(event.name)
    } else
      report.skips.push({ name: event.name, reason: typeof event.skip === 'string' ? event.skip : 'no reason given' })
  })
  stream.on('test:fail', (event) => {
    // Suites and files fail with their tests; what sets them up or clears them away fails by itself.
    const { failureType } = event.details.error as { failureType?: string }
    const ofTests = event.details.type === 'suite' || (isFile(event.name) && report.failed > 0)
    if (ofTests && failureType !== 'hookFailed' && failureType !== 'testTimeoutFailure') return
    const cause = event.details.error.cause as { stack?: string; message?: string } | undefined
    report.failed++
    report.failures.push(`${event.name}\n${cause?.stack ?? cause?.message ?? event.details.error.message}`)
  })
  for (const kind of ['test:stdout', 'test:stderr'] as const)
    stream.on(kind, (event) => {
      report.output = (report.output + event.message).slice(-20_000)
    })
  stream.resume()
  await new Promise((done) => stream.once('end', done))
  if (report.passed + report.failed + report.skips.length === 0) {
    report.failed++
    report.failures.push('ran no test')
  }
  return report
}

function print(tier: string, file: string, report: FileReport, seconds: number): void {
  const guests = tier !== 'kernels' && guestFiles.includes(file)
  for (const { name, reason } of report.skips)
    console.log(`skip ${file}: ${name} (${reason}${guests ? '; runs in npm run test:kernels' : ''})`)
  const counts = [
    `${report.passed} passed`,
    report.failed ? `${report.failed} failed` : [],
    report.skips.length ? `${report.skips.length} skipped` : [],
  ].flat()
  console.log(`${report.failed ? 'FAIL' : 'ok  '} ${tier} ${file}: ${counts.join(', ')} (${seconds.toFixed(1)} s)`)
  for (const failure of report.failures) console.log(failure.replace(/^/gm, '     '))
  if (report.failed && report.output) console.log(report.output.replace(/^/gm, '   | '))
  if (values.results === undefined) return
  const lines = [
    ...report.passes.map((name) => ({ tier, file, name, ran: true })),
    ...report.skips.map(({ name }) => ({ tier, file, name, ran: false })),
  ]
  appendFileSync(values.results, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
}

/** Counts and prints what a file reported. */
function conclude(tier: string, file: string, report: FileReport, seconds: number): void {
  totals.passed += report.passed
  totals.failed += report.failed
  totals.skipped += report.skips.length
  print(tier, file, report, seconds)
}

/** Prints what failed and is to be run once more. */
function tellFailed(tier: string, file: string, report: FileReport, seconds: number): void {
  print(tier, file, report, seconds)
  console.log(`once more: ${file}`)
}

/** Works on several at once, in their order. */
async function runAll<T>(things: readonly T[], workers: number, runOne: (thing: T) => Promise<void>): Promise<void> {
  const waiting = [...things]
  const worker = async () => {
    for (let thing = waiting.shift(); thing !== undefined; thing = waiting.shift()) await runOne(thing)
  }
  await Promise.all(Array.from({ length: workers }, worker))
}

const runFiles = (tier: string, files: readonly string[], workers: number): Promise<void> =>
  runAll(files, workers, async (file) => {
    let started = performance.now()
    const seconds = () => (performance.now() - started) / 1000
    let report = await runFile(file)
    if (report.failed > 0 && tier !== 'unit') {
      tellFailed(tier, file, report, seconds())
      started = performance.now()
      report = await runFile(file)
      if (report.failed === 0) unsteady.push(file)
    }
    conclude(tier, file, report, seconds())
  })

/** The kernels tier; on a machine that cannot boot a guest it says why and counts as one skip. */
async function runGuests(files: readonly string[]): Promise<void> {
  const guests = await Guests.open()
  if (typeof guests === 'string') {
    console.log(`skip the kernels tier: ${guests}`)
    totals.skipped++
    return
  }
  process.once('exit', () => guests.close())
  console.log(`guests run Linux ${guests.release}; the machine runs ${release()}`)
  const chosen = boots
    .map((boot) => ({ ...boot, suites: boot.suites.filter(({ file }) => files.includes(file)) }))
    .filter(({ suites }) => suites.length > 0)
  await runAll(chosen, 2, async (boot) => {
    const failed: Suite[] = []
    await guests.run(boot, (suite, report, seconds) => {
      if (report.failed === 0) return conclude('kernels', suite.file, report, seconds)
      tellFailed('kernels', suite.file, report, seconds)
      failed.push(suite)
    })
    for (const suite of failed)
      await guests.run({ ...boot, suites: [suite] }, ({ file }, report, seconds) => {
        if (report.failed === 0) unsteady.push(file)
        conclude('kernels', file, report, seconds)
      })
  })
}

/** The kubernetes tier; on a machine that cannot have such a cluster it says why and counts as one skip. */
async function runClusters(files: readonly string[]): Promise<void> {
  const missing = missingForKubernetes()
  if (missing) {
    console.log(`skip the kubernetes tier: ${missing}`)
    totals.skipped++
    return
  }
  await ensurePrograms((line) => console.log(line))
  await runFiles('kubernetes', files, 1)
}

const totals: Totals = { passed: 0, failed: 0, skipped: 0 }
/** Files that passed only when they were run again. */
const unsteady: string[] = []
if (!values['no-checks'] && !values.tier && positionals.length === 0) {
  const checks: [string, string, string[]][] = [
    ['types', 'node_modules/.bin/tsc', ['-p', 'tsconfig.json']],
    ['types of the pure layers', 'node_modules/.bin/tsc', ['-p', 'tsconfig.pure.json']],
    ['lint and format', 'node_modules/.bin/biome', ['check', '.']],
  ]
  for (const [name, command, args] of checks) totals[check(name, command, args) ? 'passed' : 'failed']++
}
if (tiers.every((tier) => testFiles(tier).length === 0))
  throw new Error(`No test file of ${tiers.join(' and ')} has ${positionals.join(' and ')} in its path`)
for (const tier of tiers) {
  const files = testFiles(tier)
  if (files.length === 0) continue
  if (tier === 'kernels') await runGuests(files)
  else if (tier === 'kubernetes') await runClusters(files)
  // The namespaces tier uses the machine's clock, cores and names: one file at a time.
  else await runFiles(tier, files, tier === 'unit' ? 2 : 1)
}
for (const file of unsteady) console.log(`unsteady: ${file} failed, and passed when it was run again`)
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`)
process.exit(totals.failed ? 1 : 0)
