/**
 * Credentials that are replaced while a client uses them, against a TLS server that asks for a client certificate.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { Authority } from '../../lab/certificates.ts'
import { HttpClient } from '../http-client.ts'
import { followConnection, inClusterConnection } from './kubeconfig.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-kubeconfig-'))
const path = join(folder, 'kubeconfig')
let said: string[]
const say = (_: object, message: string) => void said.push(message)
const log = { debug: say, info: say, warn: say, error: say }

/** Answers who asks: the certificate's name and the token. */
class IdentityServer {
  readonly authority = Authority.make()
  readonly #server: Server
  /** Streams that are open. */
  readonly streams: ServerResponse[] = []

  constructor() {
    const { cert, key } = this.authority.issue({ commonName: 'server', names: ['127.0.0.1'], usages: ['server'] })
    this.#server = createServer(
      { cert, key, ca: this.authority.cert, requestCert: true, rejectUnauthorized: false },
      (request, response) => this.#answer(request, response),
    )
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { subject } = (request.socket as TLSSocket).getPeerCertificate()
    const who = JSON.stringify([subject?.CN ?? '', request.headers.authorization ?? ''])
    if (request.url === '/watch') {
      this.streams.push(response)
      response.write(`${who}\n`)
    } else response.end(who)
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  client(commonName: string): object {
    const { cert, key } = this.authority.issue({ commonName, usages: ['client'] })
    const data = (pem: string) => Buffer.from(pem).toString('base64')
    return { 'client-certificate-data': data(cert), 'client-key-data': data(key) }
  }
}

function writeKubeconfig(server: IdentityServer, user: object): void {
  const cluster = {
    server: server.url,
    'certificate-authority-data': Buffer.from(server.authority.cert).toString('base64'),
  }
  const config = {
    'current-context': 'c',
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
  }
  writeFileSync(path, JSON.stringify(config))
}

let server: IdentityServer
let other: IdentityServer
before(async () => {
  server = new IdentityServer()
  other = new IdentityServer()
  await Promise.all([server.listen(), other.listen()])
})
beforeEach(() => {
  said = []
})
after(() => {
  server.close()
  other.close()
  rmSync(folder, { recursive: true })
})

const ask = (client: HttpClient) => client.request({ method: 'GET', path: '/who' })

test('a renewed client certificate is used from the next request on; a watch under way goes on', async () => {
  writeKubeconfig(server, server.client('before'))
  const client = new HttpClient(followConnection(path, undefined, log))
  const lines: string[] = []
  let wake = () => {}
  const stream = client.stream({ method: 'GET', path: '/watch' }, (line) => {
    lines.push(line)
    wake()
  })
  const heard = async (count: number) => {
    while (lines.length < count) await new Promise<void>((resolve) => (wake = resolve))
  }
  await heard(1)
  assert.deepEqual(await ask(client), ['before', ''])
  writeKubeconfig(server, server.client('after'))
  assert.deepEqual(await ask(client), ['after', ''])
  server.streams[0]!.write('still there\n')
  await heard(2)
  server.streams[0]!.end()
  await stream
  assert.deepEqual(lines, ['["before",""]', 'still there'])
  assert.deepEqual(said, ['credentials were read again'])
  client.close()
})

test('a kubeconfig in mid-writing is warned of once and not used', async () => {
  writeKubeconfig(server, server.client('good'))
  const client = new HttpClient(followConnection(path, undefined, log))
  assert.deepEqual(await ask(client), ['good', ''])
  for (const half of ['', '{"current-context": "c"']) {
    said = []
    writeFileSync(path, half)
    for (let n = 0; n < 2; n++) assert.deepEqual(await ask(client), ['good', ''])
    assert.deepEqual(said, ['new credentials cannot be read; the last ones are used on'])
  }
  writeKubeconfig(server, server.client('better'))
  assert.deepEqual(await ask(client), ['better', ''])
  client.close()
})

test('tokens: in the file, and in a file of its own', async () => {
  writeKubeconfig(server, { token: 'one' })
  const client = new HttpClient(followConnection(path, undefined, log))
  assert.deepEqual(await ask(client), ['', 'Bearer one'])
  writeKubeconfig(server, { token: 'two' })
  assert.deepEqual(await ask(client), ['', 'Bearer two'])
  writeFileSync(join(folder, 'token'), 'three\n')
  writeKubeconfig(server, { tokenFile: 'token' })
  assert.deepEqual(await ask(client), ['', 'Bearer three'])
  writeFileSync(join(folder, 'token'), 'four\n')
  assert.deepEqual(await ask(client), ['', 'Bearer four'])
  client.close()
})

test('another server with another authority', async () => {
  writeKubeconfig(server, { token: 'x' })
  const client = new HttpClient(followConnection(path, undefined, log))
  await ask(client)
  assert.equal(client.server, server.url)
  writeKubeconfig(other, other.client('there'))
  assert.deepEqual(await ask(client), ['there', ''])
  assert.equal(client.server, other.url)
  client.close()
})

test("a pod's account: token and authority as the kubelet puts them there now", async () => {
  const { port } = new URL(server.url)
  const env = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: port }
  writeFileSync(join(folder, 'token'), 'pod\n')
  writeFileSync(join(folder, 'ca.crt'), server.authority.cert)
  const connection = inClusterConnection(env, folder)
  assert.equal(connection.namespace, 'default')
  const client = new HttpClient(connection)
  assert.deepEqual(await ask(client), ['', 'Bearer pod'])
  client.close()
  rmSync(join(folder, 'token'))
  assert.throws(() => inClusterConnection(env, folder), /not given, and this is not a pod/)
})
