/**
 * The lab's own certificate authority and the API server's certificate, made by the openssl command (Node can
 * read X.509 but not make it). Made once per lab, and the server's again when its names change.
 * Sources: openssl-req(1); RFC 5280 sections 4.2.1.3, 4.2.1.6, 4.2.1.9, 4.2.1.12.
 */
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const days = '3650'
/** A certificate that ends earlier than this is made anew. */
const leastLifeMilliseconds = 30 * 86_400_000

export interface Certificates {
  /** PEM, all of them. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

async function openssl(args: readonly string[]): Promise<void> {
  try {
    await run('openssl', [...args])
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string }
    const why =
      code === 'ENOENT' ? 'the openssl command is missing (package openssl)' : (stderr ?? '').trim().split('\n').at(-1)
    throw new Error(`Cannot make the lab's certificates: ${why}`, { cause: error })
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-sha256', '-days', days]

const isUsable = (certificate: X509Certificate): boolean =>
  Date.parse(certificate.validTo) - Date.now() > leastLifeMilliseconds

function fits(pem: string, ca: string, hosts: readonly string[]): boolean {
  const certificate = new X509Certificate(pem)
  const issuer = new X509Certificate(ca)
  return (
    isUsable(certificate) &&
    certificate.checkIssued(issuer) &&
    certificate.verify(issuer.publicKey) &&
    hosts.every((host) => (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined)
  )
}

/**
 * CA and server certificate from `folder`, made when missing, ending soon, or without one of `hosts` (names and
 * addresses that clients connect to). Keys are readable by their owner only.
 */
export async function ensureCertificates(folder: string, hosts: readonly string[]): Promise<Certificates> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const file = (name: string) => join(folder, name)
  const read = (name: string) => readFileSync(file(name), 'utf8')
  if (
    !existsSync(file('ca.pem')) ||
    !existsSync(file('ca-key.pem')) ||
    !isUsable(new X509Certificate(read('ca.pem')))
  ) {
    await makeIn(folder, ['ca-key.pem', 'ca.pem'], (key, cert) => [
      ...['req', '-x509', ...newKey, '-keyout', key, '-out', cert, '-subj', '/O=weft lab/CN=weft lab CA'],
      ...['-addext', 'basicConstraints=critical,CA:TRUE,pathlen:0'],
      ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ])
  }
  const ca = read('ca.pem')
  if (!existsSync(file('server.pem')) || !existsSync(file('server-key.pem')) || !fits(read('server.pem'), ca, hosts)) {
    const names = hosts.map((host) => `${isIP(host) ? 'IP' : 'DNS'}:${host}`).join(',')
    await makeIn(folder, ['server-key.pem', 'server.pem'], (key, cert) => [
      ...['req', '-x509', '-CA', file('ca.pem'), '-CAkey', file('ca-key.pem'), ...newKey, '-keyout', key, '-out', cert],
      ...['-subj', '/O=weft lab/CN=kube-apiserver', '-addext', `subjectAltName=${names}`],
      ...['-addext', 'basicConstraints=critical,CA:FALSE', '-addext', 'keyUsage=critical,digitalSignature'],
      ...['-addext', 'extendedKeyUsage=serverAuth'],
    ])
  }
  return { ca, cert: read('server.pem'), key: read('server-key.pem') }
}

/** Both files appear whole, the key first: a crash between leaves a pair that `fits` refuses. */
async function makeIn(
  folder: string,
  [keyName, certName]: readonly [string, string],
  command: (key: string, cert: string) => string[],
): Promise<void> {
  const scratch = mkdtempSync(join(folder, '.new-'))
  try {
    const key = join(scratch, keyName)
    const cert = join(scratch, certName)
    // openssl makes files by the umask of its own; the empty file's mode holds.
    writeFileSync(key, '', { mode: 0o600 })
    await openssl(command(key, cert))
    rmSync(join(folder, certName), { force: true })
    renameSync(key, join(folder, keyName))
    renameSync(cert, join(folder, certName))
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}
