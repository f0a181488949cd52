/** Streams into pods with the machine's own kubectl: logs, exec, port-forward. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { connect, createServer, type Server } from 'node:net'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { ApiUnderTest, podManifest } from './api-under-test.ts'

const api = new ApiUnderTest()
const kubectl = (line: string, input?: unknown) => api.kubectl(line, input)
const refused = (line: string, input?: unknown) => api.refused(line, input)

test('logs and exec: output, input, exit code, a binary stream both ways', async () => {
  await kubectl('apply -f -', podManifest('p2'))
  await api.setRunning('p2')
  assert.equal(await kubectl('logs p2 --tail 5'), 'p2/c tail=5\n')
  assert.equal(await kubectl('logs -f p2'), 'p2/c tail=all\nfollowed\n')
  assert.match(await refused('logs p2 -c no'), /container no is not valid for pod p2/)
  const failing = await api.run(['exec', 'p2', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3'])
  assert.deepEqual([failing.code, failing.out], [3, 'out\n'])
  assert.match(failing.err, /^err$/m)
  assert.equal(await kubectl('exec -i p2 -- tr a-z A-Z', 'hello\n'), 'HELLO\n')
  const text = Array.from({ length: 200_000 }, (_, n) => n).join('\n')
  assert.equal(await kubectl('exec -i p2 -- cat', text), text)
  assert.match(await refused('exec p2 -- /no/such/command'), /ENOENT/)
  await kubectl('delete pod p2 --force --grace-period=0')
})

/** Waits for a line of a child's output. */
async function lineOf(child: ChildProcess, pattern: RegExp): Promise<RegExpMatchArray> {
  for await (const line of createInterface({ input: child.stdout! })) {
    const match = pattern.exec(line)
    if (match) return match
  }
  throw new Error(`kubectl ended without ${pattern}`)
}

test('port-forward carries several connections, and tells when nobody listens', async () => {
  await kubectl('apply -f -', podManifest('p3'))
  await api.setRunning('p3')
  const echo: Server = createServer((socket) => socket.pipe(socket))
  await new Promise<void>((done) => echo.listen(0, '127.0.0.1', done))
  const { port: target } = echo.address() as { port: number }
  const child = spawn('kubectl', ['port-forward', 'pod/p3', `:${target}`, '--address', '127.0.0.1'], {
    env: api.environment,
  })
  child.stderr.resume()
  try {
    const forwarded = Number((await lineOf(child, /Forwarding from 127\.0\.0\.1:(\d+)/))[1])
    child.stdout.resume()
    const send = (text: string): Promise<string> =>
      new Promise((done, fail) => {
        let answer = ''
        const socket = connect(forwarded, '127.0.0.1', () => socket.end(text))
        socket.on('data', (chunk) => {
          answer += chunk
        })
        socket.on('error', fail)
        socket.on('end', () => done(answer))
      })
    const texts = Array.from({ length: 5 }, (_, n) => String(n).repeat(100_000))
    assert.deepEqual(await Promise.all(texts.map(send)), texts)
  } finally {
    child.kill()
    echo.close()
  }
  await kubectl('delete pod p3 --force --grace-period=0')
})
