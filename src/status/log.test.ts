import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpClient, HttpError } from '../cluster/http-client.ts'
import { levelToggle, openLog, setLogLevel, stepLogLevel } from './log.ts'
import { levelOfVerbosity, logLevels, verbosityOf } from './log-level.ts'

function capture(level: string, format: 'json' | 'text') {
  const lines: string[] = []
  const counted: string[] = []
  const log = openLog(
    { level, format, base: { node: 'n1' }, onMessage: (each) => counted.push(each) },
    { write: (line: string) => void lines.push(line) },
  )
  return { log, lines, counted }
}

test('one JSON object a line, with level, time and the base fields; what is written is counted', () => {
  const { log, lines, counted } = capture('info', 'json')
  log.info({ peer: 'n2' }, 'heard')
  log.debug({}, 'not said')
  log.error({ err: new Error('broken') }, 'failed')
  const [first, second] = lines.map((line) => JSON.parse(line))
  assert.equal(lines.length, 2)
  assert.deepEqual([first.level, first.node, first.peer, first.msg], ['info', 'n1', 'n2', 'heard'])
  assert.match(first.time, /^\d{4}-\d\d-\d\dT.*Z$/)
  assert.equal(second.err.message, 'broken')
  assert.deepEqual(counted, ['info', 'error'])
})

test('text is one line a message, whatever is in it', () => {
  const { log, lines } = capture('trace', 'text')
  log.warn({ peer: 'n2', words: 'two words', list: [1, 2], err: new Error('a\nb') }, 'said\nby\u001b[31m another')
  log.trace({}, 'end')
  assert.equal(lines.length, 2)
  assert.match(
    lines[0]!,
    /^\S+Z WARN {2}said\\nby\\u001b\[31m another peer=n2 words="two words" list=\[1,2\] err="a\\nb"\n$/,
  )
  assert.match(lines[1]!, /Z TRACE end\n$/)
  for (const line of lines) assert.equal(line.indexOf('\n'), line.length - 1)
})

test('levels by name, by step, by toggle and by number', () => {
  const { log, lines } = capture('info', 'json')
  assert.equal(setLogLevel(log, 'loud'), false)
  assert.equal(lines.length, 0)
  const seen = (act: () => void) => {
    act()
    return log.level
  }
  const toggle = levelToggle(log)
  assert.equal(seen(toggle), 'debug')
  assert.equal(
    seen(() => stepLogLevel(log, 1)),
    'trace',
  )
  assert.equal(
    seen(() => stepLogLevel(log, 1)),
    'trace',
  )
  assert.equal(
    seen(() => stepLogLevel(log, -1)),
    'debug',
  )
  assert.equal(seen(toggle), 'info')
  for (const level of logLevels) {
    assert.ok(setLogLevel(log, level))
    assert.equal(levelOfVerbosity(verbosityOf(level)), level)
  }
  assert.equal(levelOfVerbosity(3), 'info')
  assert.equal(levelOfVerbosity(99), 'trace')
  // Each change is said, even by a log that says errors alone.
  lines.length = 0
  setLogLevel(log, 'error')
  assert.equal(lines.length, 1)
})

test('secrets are in no line, at the lowest level, of either format', async () => {
  const secret = 'kaiserschmarrn'
  for (const format of ['json', 'text'] as const) {
    const { log, lines } = capture('trace', format)
    const endpoint = {
      server: 'http://127.0.0.1:1',
      insecure: false,
      credentials: async () => ({ authorization: `Bearer ${secret}`, key: secret, certificate: secret }),
    }
    const refused = await new HttpClient(endpoint).request({ method: 'GET', path: '/' }).catch((error) => error)
    assert.ok(refused instanceof Error)
    log.error({ err: refused }, 'no answer')
    log.error({ err: new HttpError('GET /', 401, 'Unauthorized', 'no') }, 'refused')
    log.trace({ token: secret, options: { password: secret, etcd: { password: secret } } }, 'options')
    assert.equal(lines.length, 3)
    assert.ok(!lines.join('').includes(secret), lines.join(''))
  }
})
