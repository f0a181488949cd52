import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect } from 'node:tls'
import { Authority, ensureCertificate } from './certificates.ts'

test('a TLS client that trusts the root accepts the server by each of its names, and by no other', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  try {
    const made = ensureCertificate(folder, ['127.0.0.1', 'localhost', '172.30.0.2', 'fd00:172:30::2'])
    assert.equal(ensureCertificate(folder, ['127.0.0.1']).cert, made.cert, 'kept')
    assert.notEqual(ensureCertificate(folder, ['10.9.9.9']).cert, made.cert, 'a missing name makes a new one')
    const leaf = new X509Certificate(made.cert)
    assert.ok(leaf.verify(new X509Certificate(made.ca).publicKey))
    const server = createServer({ cert: made.cert, key: made.key }, (_request, response) => response.end('yes'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const handshake = (servername: string) =>
      new Promise<string>((resolve) => {
        const socket = connect({ port, host: '127.0.0.1', ca: made.ca, servername })
        socket.once('secureConnect', () => resolve('ok'))
        socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
        socket.once('close', () => resolve('closed'))
      })
    assert.equal(await handshake('localhost'), 'ok')
    assert.equal(await handshake('elsewhere.example'), 'ERR_TLS_CERT_ALTNAME_INVALID')
    assert.equal(leaf.checkIP('fd00:172:30::2') !== undefined, true)
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('an authority that was kept gives out certificates with groups, that its first certificate vouches for', () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'))
  try {
    const first = Authority.ensure(folder)
    const { cert, key } = Authority.ensure(folder).issue({
      commonName: 'system:node:n1',
      organizations: ['system:nodes'],
      usages: ['client'],
      validMs: 60_000,
    })
    const leaf = new X509Certificate(cert)
    assert.ok(leaf.verify(new X509Certificate(first.cert).publicKey))
    assert.ok(leaf.checkPrivateKey(createPrivateKey(key)))
    assert.equal(leaf.subject, 'O=system:nodes\nCN=system:node:n1')
    assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.2'])
    assert.ok(Date.parse(leaf.validTo) < Date.now() + 61_000)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
