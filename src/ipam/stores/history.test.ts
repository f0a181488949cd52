import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type HistoryReport, liveHistory } from './history.ts'

const HISTORIES = 1000
const firstSeed = Number(process.env.WEFT_SEED ?? (Math.random() * 2 ** 31) >>> 0)

test(`${HISTORIES} random histories, seeds from ${firstSeed} on`, async () => {
  const sums: Record<string, number> = {}
  for (let seed = firstSeed; seed < firstSeed + HISTORIES; seed++)
    for (const [key, count] of Object.entries(await liveHistory(seed))) sums[key] = (sums[key] ?? 0) + count
  console.log(JSON.stringify(sums))
  // Histories in which nothing happens prove nothing.
  for (const key of [
    'assigned',
    'refused',
    'away',
    'released',
    'crashes',
    'leaked',
    'conflicts',
    'borrowed',
  ] satisfies (keyof HistoryReport)[])
    assert.ok(sums[key]! > HISTORIES / 20, `${key}: ${sums[key]}`)
})
