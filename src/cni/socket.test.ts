import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { CniSocket, maxRequestBytes, type Reply } from './socket.ts'

let folder: string
let server: CniSocket
/** Requests that the server has handed over, and how each is answered. */
let asked: { readonly body: string; readonly reply: (reply: Reply | Error) => void }[]
let news: () => void = () => undefined

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'weft-socket-'))
  asked = []
  server = new CniSocket(join(folder, 'cni.sock'), (body) => {
    const { promise, resolve, reject } = withResolvers<Reply>()
    const reply = (given: Reply | Error) => (given instanceof Error ? reject(given) : resolve(given))
    asked.push({ body: body.toString(), reply })
    news()
    return promise
  })
  await server.listen()
})
afterEach(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

function withResolvers<T>() {
  let [resolve, reject]: [(value: T) => void, (error: unknown) => void] = [() => undefined, () => undefined]
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

/** Waits until so many requests have come. */
async function requests(count: number): Promise<typeof asked> {
  while (asked.length < count) await new Promise<void>((resolve) => (news = resolve))
  return asked
}

function request(body: string | Buffer): Buffer {
  const head = Buffer.from('WFT1\0\0\0\0')
  head.writeUInt32BE(body.length, 4)
  return Buffer.concat([head, Buffer.from(body)])
}

async function connect(): Promise<Socket> {
  const socket = createConnection(server.path)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  return socket
}

/** Everything that the server says until it closes. */
async function answerTo(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'close')
  return Buffer.concat(chunks)
}

test('a request in one piece, and its answer', async () => {
  assert.equal(statSync(server.path).mode & 0o777, 0o600)
  const socket = await connect()
  socket.write(request('A=1\0\0{}'))
  const answer = answerTo(socket)
  const [first] = await requests(1)
  assert.equal(first!.body, 'A=1\0\0{}')
  first!.reply({ exitCode: 1, stdout: 'né' })
  assert.deepEqual(await answer, Buffer.from('\x01\0\0\0\x03né'))
})

test('a request that comes byte by byte, and one of 16 MiB', async () => {
  const socket = await connect()
  const answer = answerTo(socket)
  for (const byte of request('B=2\0\0{}')) {
    socket.write(Buffer.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
  ;(await requests(1))[0]!.reply({ exitCode: 0, stdout: '' })
  assert.deepEqual(await answer, Buffer.from('\0\0\0\0\0'))
  const large = await connect()
  large.write(request(Buffer.alloc(maxRequestBytes, 'x')))
  const second = (await requests(2))[1]!
  assert.equal(second.body.length, maxRequestBytes)
  const same = answerTo(large)
  // More than a socket buffer holds.
  second.reply({ exitCode: 0, stdout: second.body })
  assert.equal((await same).length, 5 + maxRequestBytes)
})

test('what is no request, or too long, is dropped and asks for nothing', async () => {
  const long = Buffer.from('WFT1\0\0\0\0')
  long.writeUInt32BE(maxRequestBytes + 1, 4)
  for (const bytes of [Buffer.from('GET / HTTP/1.0\r\n\r\n'), long, Buffer.concat([request('a'), Buffer.from('b')])]) {
    const socket = await connect()
    const answer = answerTo(socket)
    socket.write(bytes)
    if (bytes.subarray(8).toString() === 'ab') (await requests(1))[0]!.reply({ exitCode: 0, stdout: '' })
    else assert.deepEqual(await answer, Buffer.alloc(0))
    await answer
  }
  assert.deepEqual(
    asked.map(({ body }) => body),
    ['a'],
  )
})

test('a plugin of another version is told so, in the form of answer that all versions read', async () => {
  const later = request('CNI_COMMAND=ADD\0\0{}')
  later[3] = '2'.charCodeAt(0)
  for (const pieces of [
    [later],
    [...later].map((byte) => Buffer.of(byte)),
    [Buffer.concat([later, Buffer.alloc(1 << 20)])],
  ]) {
    const socket = await connect()
    const answer = answerTo(socket)
    for (const piece of pieces) {
      socket.write(piece)
      await new Promise((resolve) => setImmediate(resolve))
    }
    socket.end()
    const said = await answer
    assert.equal(said[0], 1)
    assert.equal(said.readUInt32BE(1), said.length - 5)
    const error = JSON.parse(said.toString('utf8', 5))
    assert.equal(error.code, 11)
    assert.match(error.msg, /plugin speaks version "2" .* the agent version "1"/)
  }
  assert.equal(asked.length, 0)
})

test('whoever goes away, before or after its request is whole, harms nobody', async () => {
  const early = await connect()
  early.end(request('half').subarray(0, 6))
  await once(early, 'close')
  const late = await connect()
  late.write(request('whole'))
  const [first] = await requests(1)
  late.destroy()
  await once(late, 'close')
  first!.reply({ exitCode: 0, stdout: 'nobody listens' })
  const next = await connect()
  next.write(request('next'))
  const answer = answerTo(next)
  ;(await requests(2))[1]!.reply({ exitCode: 0, stdout: 'ok' })
  assert.equal((await answer).toString('latin1', 5), 'ok')
})

test('a request whose work throws is hung up on', async () => {
  const socket = await connect()
  const answer = answerTo(socket)
  socket.write(request('x'))
  ;(await requests(1))[0]!.reply(new Error('broken'))
  assert.deepEqual(await answer, Buffer.alloc(0))
})

test('a hundred at once are all answered, each with its own', async () => {
  const answers = Array.from({ length: 100 }, async (_, n) => {
    const socket = await connect()
    socket.write(request(`${n}`))
    return answerTo(socket)
  })
  for (const { body, reply } of await requests(100)) reply({ exitCode: 0, stdout: body })
  assert.deepEqual(
    (await Promise.all(answers)).map((answer) => answer.toString('latin1', 5)),
    Array.from({ length: 100 }, (_, n) => `${n}`),
  )
})

test('closing answers what is under way, and hangs up on who has not asked', async () => {
  const silent = await connect()
  const ended = answerTo(silent)
  const socket = await connect()
  socket.write(request('x'))
  const answer = answerTo(socket)
  const [first] = await requests(1)
  assert.equal(server.isListening, true)
  const closed = server.close()
  assert.equal(server.isListening, false)
  await ended
  first!.reply({ exitCode: 0, stdout: 'last' })
  assert.equal((await answer).toString('latin1', 5), 'last')
  await closed
  await assert.rejects(once(createConnection(server.path), 'connect'), { code: 'ENOENT' })
})

test('a path that somebody serves is refused, and one that no socket can have', async () => {
  const answer = async () => ({ exitCode: 0, stdout: '' })
  await assert.rejects(new CniSocket(server.path, answer).listen(), /Another process serves/)
  const deep = join(folder, 'x'.repeat(100), 'cni.sock')
  await assert.rejects(new CniSocket(deep, answer).listen(), { code: 'ENAMETOOLONG' })
})
