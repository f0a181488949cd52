/** SPDY at its edges: framing in any pieces, hostile frames, resets. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { constants, deflateSync } from 'node:zlib'
import { SpdyConnection, type SpdyStream } from './spdy.ts'
import { spdyDictionary } from './spdy-dictionary.ts'

let server: Server
let onStream: (stream: SpdyStream) => void = () => {}
let onConnection: (connection: SpdyConnection) => void = () => {}

before(async () => {
  server = createServer((socket) => onConnection(new SpdyConnection(socket, Buffer.alloc(0), (s) => onStream(s))))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
after(() => server.close())

async function open(): Promise<{ socket: Socket; connection: SpdyConnection }> {
  const accepted = new Promise<SpdyConnection>((done) => {
    onConnection = done
  })
  const { port } = server.address() as { port: number }
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  return { socket, connection: await accepted }
}

const control = (type: number, body: Buffer, flags = 0): Buffer => {
  const head = Buffer.alloc(8)
  head.writeUInt16BE(0x8003)
  head.writeUInt16BE(type, 2)
  head.writeUInt32BE(body.length, 4)
  head[4] = flags
  return Buffer.concat([head, body])
}
const data = (id: number, content: string, flags = 0): Buffer => {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(id)
  head.writeUInt32BE(content.length, 4)
  head[4] = flags
  return Buffer.concat([head, Buffer.from(content)])
}
const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
/** The first header block of a connection. */
const synStream = (id: number, name: string, value: string): Buffer => {
  const block = Buffer.concat([word(1), word(name.length), Buffer.from(name), word(value.length), Buffer.from(value)])
  const compressed = deflateSync(block, { dictionary: spdyDictionary, finishFlush: constants.Z_SYNC_FLUSH })
  return control(1, Buffer.concat([word(id), word(0), Buffer.from([0, 0]), compressed]))
}

test('a stream opened byte by byte echoes its data and its end', async () => {
  const headers: string[] = []
  onStream = (stream) => {
    headers.push(stream.headers.get('streamtype') ?? '')
    stream.pipe(stream)
  }
  const { socket } = await open()
  const bytes = Buffer.concat([synStream(1, 'streamtype', 'data'), data(1, 'hello'), data(1, '', 1)])
  for (const byte of bytes) socket.write(Buffer.from([byte]))
  let received = Buffer.alloc(0)
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk])
    if (received.subarray(-8).equals(data(1, '', 1))) break
  }
  assert.deepEqual(headers, ['data'])
  assert.equal(received.readUInt16BE(2), 2, 'a SYN_REPLY comes first')
  assert.ok(received.includes(data(1, 'hello')))
  socket.destroy()
})

test('pings come back; an even stream number is a protocol error', async () => {
  const { socket } = await open()
  socket.write(Buffer.concat([control(6, word(7)), synStream(2, 'a', 'b')]))
  let received = Buffer.alloc(0)
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk])
    if (received.length >= 28) break
  }
  assert.deepEqual(received.subarray(0, 12), control(6, word(7)))
  assert.deepEqual(received.subarray(12), control(3, Buffer.concat([word(2), word(1)])))
  socket.destroy()
})

test('hostile frames end the connection and nothing else', async () => {
  const bomb = deflateSync(Buffer.alloc(4_000_000), { dictionary: spdyDictionary })
  const cases = [
    control(1, Buffer.concat([word(1), word(0), Buffer.from([0, 0]), randomBytes(64)])),
    control(1, Buffer.concat([word(1), word(0), Buffer.from([0, 0]), bomb])),
    Buffer.concat([Buffer.from([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]), randomBytes(32)]),
  ]
  for (const bytes of cases) {
    onStream = () => assert.fail('no stream was opened')
    const { socket, connection } = await open()
    const closed = new Promise<void>((done) => connection.onClose(done))
    socket.write(bytes)
    await closed
    socket.destroy()
  }
})

test('the dictionary is whole', () => assert.equal(spdyDictionary.length, 1423))
