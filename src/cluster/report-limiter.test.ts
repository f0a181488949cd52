import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NodeReport } from './cluster.ts'
import { ReportLimiter } from './report-limiter.ts'

const about = (node: string, message: string, reason = 'PeerRefused'): NodeReport => ({
  node,
  severity: 'Warning',
  reason,
  message,
})

test('the same words are said once in five minutes', () => {
  let now = 0
  const limiter = new ReportLimiter(undefined, () => now)
  const said: number[] = []
  for (; now < 600_000; now += 1000) if (limiter.admit(about('n1', 'bad'))) said.push(now)
  assert.deepEqual(said, [0, 300_000])
})

test('a peer whose words are wrong in a thousand ways costs a handful; other peers are told of all the same', () => {
  let now = 0
  const limiter = new ReportLimiter(undefined, () => now)
  let said = 0
  for (let n = 0; n < 1000; n++, now += 100) if (limiter.admit(about('n1', `bad ${n}`))) said++
  assert.equal(said, 5)
  assert.ok(limiter.admit(about('n2', 'bad')))
  now += 300_000
  assert.ok(limiter.admit(about('n1', 'bad again')))
  assert.ok(!limiter.admit(about('n1', 'and again')))
})

test('a thousand bad peers at once cost twenty, then six a minute', () => {
  let now = 0
  const limiter = new ReportLimiter(undefined, () => now)
  let said = 0
  for (let n = 0; n < 1000; n++) if (limiter.admit(about(`n${n}`, 'bad'))) said++
  assert.equal(said, 20)
  for (let n = 0; n < 1000; n++, now += 60.1) if (limiter.admit(about(`m${n}`, 'bad'))) said++
  assert.equal(said, 26)
})

test('of five thousand nodes about fifty speak of one peer, each always; of few all do; of itself any', () => {
  const speakers = (nodes: number, peer: string): string[] =>
    Array.from({ length: nodes }, (_, n) => `node-${n}`).filter((host) =>
      new ReportLimiter({ host, clusterSize: () => nodes }).admit(about(peer, 'bad')),
    )
  assert.equal(speakers(50, 'far').length, 50)
  for (const peer of ['far', 'farther', 'node-x']) {
    const chosen = speakers(5000, peer)
    assert.ok(chosen.length >= 25 && chosen.length <= 90, `${chosen.length} speak of ${peer}`)
    assert.deepEqual(speakers(5000, peer), chosen)
  }
  assert.notDeepEqual(speakers(5000, 'far'), speakers(5000, 'farther'))
  const own = Array.from({ length: 200 }, (_, n) => `node-${n}`).filter((host) =>
    new ReportLimiter({ host, clusterSize: () => 5000 }).admit(about(host, 'bad')),
  )
  assert.equal(own.length, 200)
})
