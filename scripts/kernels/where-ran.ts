/**
 * Joins the results of several tiers (`scripts/test.ts --results FILE`): prints where each test ran that a tier skipped,
 * and, as the last line, how many were skipped everywhere.
 *
 *   tsx scripts/kernels/where-ran.ts FILE
 */
import { readFileSync } from 'node:fs'

interface Result {
  readonly tier: string
  readonly file: string
  readonly name: string
  readonly ran: boolean
}

const results = readFileSync(process.argv[2]!, 'utf8')
  .split('\n')
  .flatMap((line) => (line === '' ? [] : (JSON.parse(line) as Result)))
const keyOf = ({ file, name }: Result): string => `${file}: ${name}`
const ran = new Map(results.filter((result) => result.ran).map((result) => [keyOf(result), result.tier]))
const skipped = new Map(results.filter((result) => !result.ran).map((result) => [keyOf(result), result.tier]))
let nowhere = 0
for (const [key, tier] of skipped) {
  const place = ran.get(key)
  if (place === undefined) nowhere++
  console.log(`skipped in ${tier}, ${place === undefined ? 'ran nowhere' : `ran in ${place}`}: ${key}`)
}
console.log(`${nowhere} ran nowhere`)
