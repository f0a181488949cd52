/**
 * `npm run bench -- NAME [ARGS]`: measures weft against the peer in the same run, interleaved, and prints both, the
 * ratio and the spread. The last line is one JSON object. With `--json` it is the only line.
 *
 * A bench is a file beside this one that exports `bench` or `benches`.
 */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What every bench ends with. `ratio` is ours ÷ peer; the other keys are the bench's own readings. */
export interface BenchResult {
  readonly bench: string
  readonly ours: number
  readonly peer: number
  readonly unit: string
  readonly ratio: number
  readonly [detail: string]: unknown
}

export interface Bench {
  readonly name: string
  readonly describe: string
  /** Prints its table with console.log and returns the last line. */
  run(args: readonly string[]): Promise<BenchResult>
}

async function loadBenches(): Promise<Map<string, Bench>> {
  const folder = new URL('.', import.meta.url)
  const benches = new Map<string, Bench>()
  for (const file of readdirSync(folder).sort()) {
    if (!file.endsWith('.ts') || file === 'bench.ts' || file.endsWith('.test.ts')) continue
    const module = (await import(new URL(file, folder).href)) as { bench?: Bench; benches?: Bench[] }
    for (const bench of [module.bench ?? [], module.benches ?? []].flat()) benches.set(bench.name, bench)
  }
  return benches
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [name, ...rest] = process.argv.slice(2)
  const benches = await loadBenches()
  const bench = name === undefined ? undefined : benches.get(name)
  if (!bench) {
    console.error(`usage: npm run bench -- NAME [--json] [arguments]\n`)
    for (const { name, describe } of benches.values()) console.error(`  ${name.padEnd(14)} ${describe}`)
    process.exit(name === undefined || name === '--help' ? 0 : 2)
  }
  // What a bench made goes with its process, also when somebody has seen enough.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const json = rest.includes('--json')
  const print = console.log
  if (json) console.log = () => {}
  const result = await bench.run(rest.filter((arg) => arg !== '--json'))
  print(JSON.stringify(result))
  process.exit(0)
}
