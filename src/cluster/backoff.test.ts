import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backoff, pauseAskedBy } from './backoff.ts'
import { HttpError } from './http-client.ts'

/** Mulberry32: the same numbers for the same seed. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Attempts of every client in each second, when all lose the server at 0 and it is back after so many seconds. */
function attempts(clients: number, awaySeconds: number, windowMs: number, seed: number): number[] {
  const random = seeded(seed)
  const seconds: number[] = []
  for (let client = 0; client < clients; client++) {
    const backoff = new Backoff({ random })
    for (let at = backoff.next(windowMs); ; at += backoff.next(windowMs)) {
      const second = Math.floor(at / 1000)
      seconds[second] = (seconds[second] ?? 0) + 1
      if (at >= awaySeconds * 1000) break
    }
  }
  return Array.from(seconds, (count) => count ?? 0)
}

test('five thousand agents that lose their server come back about a thousand a second, however long it is away', () => {
  const first = Date.now() >>> 0
  console.log(`seed ${first}`)
  for (let seed = first; seed < first + 5; seed++)
    for (const away of [0, 0.1, 1, 5, 20, 120]) {
      const seconds = attempts(5000, away, 5000, seed)
      // Those that draw a short wait while the server is away draw again: more attempts, as widely spread.
      assert.ok(Math.max(...seconds) < 2800, `seed ${seed}, away ${away} s: ${seconds.join(' ')}`)
      const after = seconds.slice(Math.ceil(away))
      assert.ok(Math.max(...after) < 1700, `seed ${seed}, away ${away} s: after its return ${after.join(' ')}`)
      assert.ok(after.length <= 11, `seed ${seed}, away ${away} s: the last came after ${after.length} s`)
    }
})

test('three agents are back at once', () => {
  for (let seed = 1; seed < 100; seed++) assert.ok(attempts(3, 0, 3, seed).length === 1)
})

test('the window doubles up to its cap and is small again after a success', () => {
  const backoff = new Backoff({ first: 100, cap: 1000, random: () => 0.5 })
  const waits = () => Array.from({ length: 5 }, () => backoff.next())
  assert.deepEqual(waits(), [50, 100, 200, 400, 500])
  backoff.reset()
  assert.equal(backoff.next(), 50)
  assert.equal(backoff.next(4000), 2000)
})

test('a server is left alone for as long as it asks, up to a minute', () => {
  assert.equal(pauseAskedBy(new HttpError('GET /', 429, '', '', 3)), 3000)
  assert.equal(pauseAskedBy(new HttpError('GET /', 503, '', '', 86_400)), 60_000)
  assert.equal(pauseAskedBy(new HttpError('GET /', 429, '', '')), 0)
  assert.equal(pauseAskedBy(new Error('socket hang up')), 0)
})
