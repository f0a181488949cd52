import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Check } from './checks.ts'
import { EventLoopWatch } from './event-loop.ts'
import { askStatus } from './status-client.ts'
import { StatusServer } from './status-server.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-status-'))
const socketPath = join(folder, 'agent.sock')
let level = 'info'
let ready: Check[] = []
let remark: string | undefined
let readings = 0
let release: () => void = () => {}
let server: StatusServer
let port = 0

const ok = (name: string): Check => ({ name, problem: undefined })

before(async () => {
  for (let attempt = 0; port === 0; attempt++) {
    const tried = 20_000 + ((process.pid * 7 + attempt) % 20_000)
    server = new StatusServer({
      socketPath,
      tcp: { ip: '127.0.0.1', port: tried },
      live: () => [ok('event-loop')],
      ready: () => ready,
      remark: () => remark,
      metrics: () => {
        readings++
        return new Promise((resolve) => {
          release = () => resolve('weft_up 1\n')
        })
      },
      addresses: () => '10.0.0.2 fd00::2\n10.0.0.3\n',
      state: () => ({ secret: 1 }),
      logLevel: {
        get: () => level,
        set: (to) => {
          level = to
        },
      },
    })
    await server.listen().then(
      () => {
        port = tried
      },
      (error: NodeJS.ErrnoException) => {
        server.close()
        if (error.code !== 'EADDRINUSE' || attempt > 100) throw error
      },
    )
  }
})
after(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

function ask(
  path: string,
  { method = 'GET', body, tcp = false }: { method?: string; body?: string; tcp?: boolean } = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const place = tcp ? { host: '127.0.0.1', port } : { socketPath }
    const outgoing = request({ ...place, path, method, agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode!, text }))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

test('addresses are told to whoever asks', async () => {
  for (const tcp of [true, false])
    assert.deepEqual(await ask('/addresses', { tcp }), { status: 200, text: '10.0.0.2 fd00::2\n10.0.0.3\n' })
})

test('the socket is root’s alone', () => assert.equal(statSync(socketPath).mode & 0o777, 0o600))

test('checks as Kubernetes’ components answer them', async () => {
  ready = [ok('net-conf'), ok('lease')]
  assert.deepEqual(await ask('/readyz', { tcp: true }), { status: 200, text: 'ok\n' })
  assert.equal((await ask('/readyz/?verbose')).text, '[+]net-conf ok\n[+]lease ok\nreadyz check passed\n')
  assert.equal((await ask('/healthz?verbose')).text, '[+]event-loop ok\nhealthz check passed\n')
  assert.deepEqual(await ask('/livez', { method: 'HEAD' }), { status: 200, text: '' })
  ready = [ok('net-conf'), { name: 'lease', problem: 'no subnet' }, { name: 'kernel', problem: 'not yet' }]
  const text = '[+]net-conf ok\n[-]lease failed: no subnet\n[-]kernel failed: not yet\nreadyz check failed\n'
  assert.deepEqual(await ask('/readyz', { tcp: true }), { status: 503, text })
  assert.deepEqual(await ask('/readyz?exclude=lease&exclude=kernel'), { status: 200, text: 'ok\n' })
  const some = await ask('/readyz?exclude=lease,tea')
  assert.equal(some.status, 503)
  assert.match(some.text, /^\[\+\]lease excluded: ok$\n.*\nwarn: there is no check "tea"$/m)
  assert.equal((await ask('/readyz/net-conf')).status, 200)
  assert.equal((await ask('/readyz/lease')).text, '[-]lease failed: no subnet\nreadyz check failed\n')
  for (const path of ['/readyz/tea', '/readyz/lease/more', '/healthz/lease'])
    assert.equal((await ask(path)).status, 404)
  ready = [ok('net-conf')]
  remark = 'working from the cache'
  assert.equal((await ask('/readyz')).text, 'working from the cache\n')
  assert.match((await ask('/readyz?verbose')).text, /^working from the cache\nreadyz check passed$/m)
})

test('the state and the log level are not for strangers', async () => {
  for (const path of ['/state', '/loglevel', '/debug/flags/v'])
    assert.equal((await ask(path, { tcp: true })).status, 404, path)
  assert.equal((await ask('/loglevel', { tcp: true, method: 'PUT', body: 'debug' })).status, 404)
  assert.equal(level, 'info')
  assert.equal((await ask('/state')).text, '{"secret":1}\n')
})

test('the log level by name and by number; nonsense changes nothing', async () => {
  assert.equal(await askStatus(socketPath, '/loglevel', 'debug'), 'debug\n')
  assert.equal(await askStatus(socketPath, '/debug/flags/v'), '4\n')
  assert.equal(
    (await ask('/debug/flags/v', { method: 'PUT', body: '7' })).text,
    'verbosity 7: the log level is trace\n',
  )
  await assert.rejects(
    askStatus(socketPath, '/loglevel', 'loud'),
    /the levels are error, warn, info, debug, trace \(400\)/,
  )
  for (const body of ['', '-1', 'x'.repeat(100_000)])
    assert.equal((await ask('/debug/flags/v', { method: 'PUT', body })).status, 400)
  assert.equal(level, 'trace')
  await assert.rejects(askStatus(`${socketPath}.not`, '/loglevel'), /Nobody answers at .*agent\.sock\.not/)
  for (const method of ['POST', 'DELETE']) assert.equal((await ask('/loglevel', { method })).status, 404)
})

test('who asks for the metrics while they are read gets the same reading', async () => {
  const answers = [ask('/metrics'), ask('/metrics'), ask('/metrics')]
  // Answered after the three, on a connection of its own: they are waiting by then.
  for (let turn = 0; turn < 5; turn++) await ask('/healthz')
  release()
  for (const { status, text } of await Promise.all(answers)) assert.deepEqual([status, text], [200, 'weft_up 1\n'])
  assert.equal(readings, 1)
})

test('a loop that stood still is not alive until it turns in time again', async () => {
  const lags: number[] = []
  let turned: () => void = () => {}
  const watch = new EventLoopWatch((seconds) => {
    lags.push(seconds)
    turned()
  }, 300)
  const nextSample = () =>
    new Promise<void>((resolve) => {
      const hold = setInterval(() => {}, 1000)
      turned = () => {
        clearInterval(hold)
        resolve()
      }
    })
  assert.equal(watch.problem, undefined)
  const late = nextSample()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1100)
  await late
  assert.match(watch.problem ?? '', /the event loop stood still for \d\.\d s/)
  await nextSample()
  watch.close()
  assert.ok(lags[0]! > 0.3 && lags[1]! < lags[0]!)
})
