/**
 * The lab's own certificate authority: a root and what it gives out. The lab's API server has one server certificate, made
 * once per lab and kept beside its store; a lab of real Kubernetes programs gives each of them one of its own.
 * X.509 needs a handful of DER shapes only, so they are written here by hand.
 *
 * Sources: RFC 5280 sections 4.1 and 4.2 (certificate, extensions), ITU-T X.690 (DER), RFC 5480 and 5758 (ECDSA P-256, SHA-256).
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { Ip } from '../net/ip.ts'

export interface ServerCertificate {
  /** PEM. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

const VALID_DAYS = 3650
const DAY_MS = 86_400_000

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  if (body.length < 0x80) return Buffer.concat([Buffer.of(tag, body.length), body])
  const length =
    body.length < 0x100 ? Buffer.of(0x81, body.length) : Buffer.of(0x82, body.length >> 8, body.length & 255)
  return Buffer.concat([Buffer.of(tag), length, body])
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts)
const octets = (body: Uint8Array): Buffer => der(0x04, body)
const bits = (body: Uint8Array, unused = 0): Buffer => der(0x03, Buffer.of(unused), body)
const truth = der(0x01, Buffer.of(0xff))

function objectId(dotted: string): Buffer {
  const [a = 0, b = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [a * 40 + b]
  for (const arc of rest) {
    const groups = [arc & 127]
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 127) | 128)
    bytes.push(...groups)
  }
  return der(0x06, Buffer.from(bytes))
}

const ECDSA_SHA256 = sequence(objectId('1.2.840.10045.4.3.2'))

/** What a certificate says of its holder; Kubernetes reads the common name as user and organizations as groups. */
interface Subject {
  readonly commonName: string
  readonly organizations?: readonly string[]
}

const nameOf = ({ commonName, organizations = [] }: Subject): Buffer => {
  const part = (id: string, text: string) => der(0x31, sequence(objectId(id), der(0x0c, Buffer.from(text))))
  return sequence(...organizations.map((each) => part('2.5.4.10', each)), part('2.5.4.3', commonName))
}

/** GeneralizedTime, whole seconds. */
const time = (ms: number): Buffer =>
  der(0x18, Buffer.from(`${new Date(ms).toISOString().replace(/\D/g, '').slice(0, 14)}Z`))

const extension = (id: string, critical: boolean, value: Uint8Array): Buffer =>
  sequence(objectId(id), ...(critical ? [truth] : []), octets(value))

const alternativeName = (name: string): Buffer =>
  isIP(name) ? der(0x87, Ip.parse(name).toBytes()) : der(0x82, Buffer.from(name))

interface CertificateRequest {
  readonly subject: Subject
  readonly issuer: Subject
  readonly validMs: number
  readonly subjectKey: KeyObject
  readonly issuerKey: KeyObject
  readonly issuerPublic: KeyObject
  readonly extensions: readonly Uint8Array[]
}

const publicBytes = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const keyId = (key: KeyObject): Buffer => createHash('sha1').update(publicBytes(key).subarray(-65)).digest()

function certificate(request: CertificateRequest): string {
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x7f) | 1
  const now = Date.now()
  const body = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, serial),
    ECDSA_SHA256,
    nameOf(request.issuer),
    sequence(time(now - DAY_MS), time(now + request.validMs)),
    nameOf(request.subject),
    publicBytes(request.subjectKey),
    der(
      0xa3,
      sequence(
        extension('2.5.29.14', false, octets(keyId(request.subjectKey))),
        extension('2.5.29.35', false, sequence(der(0x80, keyId(request.issuerPublic)))),
        ...request.extensions,
      ),
    ),
  )
  const signature = sign('sha256', body, request.issuerKey)
  const text = sequence(body, ECDSA_SHA256, bits(signature)).toString('base64').replace(/.{64}/g, '$&\n').trimEnd()
  return `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`
}

/** A certificate that an authority gives out. */
export interface Issue extends Subject {
  /** Host names and addresses that a server answers by. */
  readonly names?: readonly string[]
  readonly usages: readonly ('server' | 'client')[]
  readonly validMs?: number
}

const USAGES = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const
const issuer: Subject = { commonName: 'weft-lab-ca' }
const VALID_MS = VALID_DAYS * DAY_MS

/** A certificate authority with its key. */
export class Authority {
  /** PEM. */
  readonly cert: string
  readonly #key: KeyObject

  private constructor(cert: string, key: KeyObject) {
    this.cert = cert
    this.#key = key
  }

  static make(): Authority {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const cert = certificate({
      subject: issuer,
      issuer,
      validMs: VALID_MS,
      subjectKey: publicKey,
      issuerKey: privateKey,
      issuerPublic: publicKey,
      extensions: [
        extension('2.5.29.19', true, sequence(truth)),
        extension('2.5.29.15', true, bits(Buffer.of(0x06), 1)),
      ],
    })
    return new Authority(cert, privateKey)
  }

  /** The authority of a folder (`ca.crt`, `ca.key`), made at the first asking. */
  static ensure(folder: string): Authority {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const [certPath, keyPath] = [join(folder, 'ca.crt'), join(folder, 'ca.key')]
    if (existsSync(certPath) && existsSync(keyPath))
      return new Authority(readFileSync(certPath, 'utf8'), createPrivateKey(readFileSync(keyPath)))
    const made = Authority.make()
    writeFileSync(keyPath, pemOf(made.#key), { mode: 0o600 })
    writeFileSync(certPath, made.cert)
    return made
  }

  /** A new key and a certificate for it. PEM. */
  issue(wish: Issue): { readonly cert: string; readonly key: string } {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const { names = [] } = wish
    const cert = certificate({
      subject: wish,
      issuer,
      validMs: wish.validMs ?? VALID_MS,
      subjectKey: publicKey,
      issuerKey: this.#key,
      issuerPublic: createPublicKey(this.#key),
      extensions: [
        extension('2.5.29.19', true, sequence()),
        extension('2.5.29.15', true, bits(Buffer.of(0x80), 7)),
        extension('2.5.29.37', false, sequence(...wish.usages.map((usage) => objectId(USAGES[usage])))),
        ...(names.length > 0 ? [extension('2.5.29.17', false, sequence(...names.map(alternativeName)))] : []),
      ],
    })
    return { cert, key: pemOf(privateKey) }
  }
}

const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString()

/** The lab's certificate for the names; made when there is none yet or when it lacks one of them. */
export function ensureCertificate(folder: string, names: readonly string[]): ServerCertificate {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = (name: string) => join(folder, name)
  if (['ca.crt', 'server.crt', 'server.key'].every((name) => existsSync(path(name)))) {
    const [ca, cert, key] = ['ca.crt', 'server.crt', 'server.key'].map((name) => readFileSync(path(name), 'utf8'))
    const known = new X509Certificate(cert!)
    const covers = (name: string) => (isIP(name) ? known.checkIP(name) : known.checkHost(name)) !== undefined
    if (names.every(covers) && known.checkPrivateKey(createPrivateKey(key!))) return { ca: ca!, cert: cert!, key: key! }
  }
  const authority = Authority.make()
  const made = {
    ca: authority.cert,
    ...authority.issue({ commonName: 'weft-lab-apiserver', names, usages: ['server'] }),
  }
  writeFileSync(path('ca.crt'), made.ca)
  writeFileSync(path('server.crt'), made.cert)
  writeFileSync(path('server.key'), made.key)
  chmodSync(path('server.key'), 0o600)
  return made
}
