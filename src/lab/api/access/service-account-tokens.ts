/**
 * Tokens of service accounts: signed statements (JWT) of who the bearer is, until when, and what they are bound to. Nothing
 * is stored: a token holds as long as its signature, its time, its account and what it is bound to do.
 * Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 7518 section 3.4 (ES256); Kubernetes documentation, "Managing Service
 * Accounts", "Bound service account tokens"; API reference, TokenRequest v1 authentication.k8s.io.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
  sign,
  verify,
} from 'node:crypto'
import type { ObjectStore } from '../../../cluster/embedded/store.ts'
import { badRequest, invalid, notFound, problem } from '../api-error.ts'
import type { KubeObject, TokenUser } from '../interfaces.ts'
import type { Kind } from '../kinds/kind.ts'
import { isObject } from '../schema/schema.ts'
import { nodeNameExtra } from './node.ts'
import { serviceAccountGroups, serviceAccountUser } from './rbac.ts'

const issuer = 'https://kubernetes.default.svc.cluster.local'
const leastSeconds = 600
const usualSeconds = 3600
const mostSeconds = 365 * 86_400
/** Clocks of two machines may differ by so much. */
const leewaySeconds = 30

interface Bound {
  readonly name: string
  readonly uid: string
}

interface Claims {
  readonly iss: string
  readonly sub: string
  readonly aud: readonly string[]
  readonly exp: number
  readonly nbf: number
  readonly jti: string
  readonly 'kubernetes.io': {
    readonly namespace: string
    readonly serviceaccount: Bound
    readonly pod?: Bound
    readonly secret?: Bound
    readonly node?: Bound
  }
}

/** Kinds that a token may be bound to, and where they are stored. */
const boundKinds = { Pod: ['pod', 'pods'], Secret: ['secret', 'secrets'], Node: ['node', 'nodes'] } as const

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const seconds = (): number => Math.floor(Date.now() / 1000)

export class ServiceAccountTokens {
  readonly #store: ObjectStore
  readonly #private: KeyObject
  readonly #public: KeyObject
  readonly #header: string

  /** `key`: PEM of an EC private key on P-256; left out, a fresh one, whose tokens end with the server. */
  constructor(store: ObjectStore, key?: string) {
    this.#store = store
    this.#private = key ? createPrivateKey(key) : generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey
    this.#public = createPublicKey(this.#private)
    const spki = this.#public.export({ type: 'spki', format: 'der' })
    this.#header = encode({ alg: 'ES256', kid: createHash('sha256').update(spki).digest('base64url') })
  }

  /** Answers a TokenRequest for an account: the request with `status`. Throws 400, 404, 422. */
  request(kind: Kind, account: KubeObject, body: unknown): KubeObject {
    const spec = isObject(body) && isObject(body.spec) ? body.spec : {}
    const audiences = Array.isArray(spec.audiences) && spec.audiences.length > 0 ? spec.audiences.map(String) : [issuer]
    const lifetime = spec.expirationSeconds ?? usualSeconds
    const { name = '', namespace = '', uid = '' } = account.metadata
    if (!Number.isSafeInteger(lifetime)) throw badRequest('spec.expirationSeconds must be an integer')
    if (Number(lifetime) < leastSeconds || Number(lifetime) > mostSeconds)
      throw invalid({ ...kind, kind: 'TokenRequest', group: 'authentication.k8s.io' }, name, [
        problem.invalid(
          'spec.expirationSeconds',
          lifetime,
          `may not specify a duration less than 10 minutes or more than ${mostSeconds} seconds`,
        ),
      ])
    const bound = isObject(spec.boundObjectRef) ? this.#bind(namespace, name, spec.boundObjectRef) : {}
    const now = seconds()
    const claims: Claims & { iat: number } = {
      aud: audiences,
      exp: now + Number(lifetime),
      iat: now,
      iss: issuer,
      jti: randomUUID(),
      'kubernetes.io': { namespace, serviceaccount: { name, uid }, ...bound },
      nbf: now,
      sub: serviceAccountUser(namespace, name),
    }
    const expirationTimestamp = new Date(claims.exp * 1000).toISOString().replace(/\.\d+Z$/, 'Z')
    return {
      kind: 'TokenRequest',
      apiVersion: 'authentication.k8s.io/v1',
      metadata: { name, namespace, creationTimestamp: new Date(now * 1000).toISOString().replace(/\.\d+Z$/, 'Z') },
      spec: { ...spec, audiences, expirationSeconds: Number(lifetime), boundObjectRef: spec.boundObjectRef ?? null },
      status: { token: this.#sign(claims), expirationTimestamp },
    }
  }

  /** Whom a token stands for, or undefined when it does not hold for any of the audiences. */
  verify(token: string, audiences: readonly string[] = [issuer]): TokenUser | undefined {
    const claims = this.#claimsOf(token)
    if (!claims || claims.iss !== issuer || !claims.aud.some((each) => audiences.includes(each))) return undefined
    const now = seconds()
    if (now > claims.exp + leewaySeconds || now < claims.nbf - leewaySeconds) return undefined
    const { namespace, serviceaccount, pod, secret, node } = claims['kubernetes.io']
    const stands = (storage: string, space: string, bound: Bound | undefined): boolean => {
      if (!bound) return true
      const found = this.#store.get(storage, space, bound.name) as KubeObject | undefined
      return found?.metadata.uid === bound.uid
    }
    if (!stands('serviceaccounts', namespace, serviceaccount)) return undefined
    if (!stands('pods', namespace, pod) || !stands('secrets', namespace, secret) || !stands('nodes', '', node))
      return undefined
    const at = node?.name ?? (pod && (this.#store.get('pods', namespace, pod.name) as KubeObject).spec?.nodeName)
    const extra: Record<string, string[]> = {
      'authentication.kubernetes.io/credential-id': [`JTI=${claims.jti}`],
      ...(pod && {
        'authentication.kubernetes.io/pod-name': [pod.name],
        'authentication.kubernetes.io/pod-uid': [pod.uid],
      }),
      ...(at && { [nodeNameExtra]: [at] }),
    }
    return {
      user: serviceAccountUser(namespace, serviceaccount.name),
      uid: serviceaccount.uid,
      groups: serviceAccountGroups(namespace),
      extra,
    }
  }

  #bind(
    namespace: string,
    account: string,
    ref: Record<string, unknown>,
  ): Partial<Record<'pod' | 'secret' | 'node', Bound>> {
    const known = boundKinds[ref.kind as keyof typeof boundKinds]
    if (!known) throw badRequest(`cannot bind token to object of type ${ref.apiVersion ?? ''} ${ref.kind ?? ''}`)
    const [claim, storage] = known
    const name = String(ref.name ?? '')
    const found = this.#store.get(storage, storage === 'nodes' ? '' : namespace, name) as KubeObject | undefined
    if (!found) throw notFound({ plural: storage, group: '', kind: String(ref.kind) }, name)
    if (ref.uid && ref.uid !== found.metadata.uid)
      throw badRequest(`the UID in the bound object reference (${ref.uid}) does not match the UID in record`)
    if (storage === 'pods' && (found.spec?.serviceAccountName ?? 'default') !== account)
      throw badRequest(
        `cannot bind token for serviceaccount "${account}" to pod running with a different serviceaccount name.`,
      )
    return { [claim]: { name, uid: found.metadata.uid! } }
  }

  #sign(claims: Claims): string {
    const content = `${this.#header}.${encode(claims)}`
    const signature = sign('sha256', Buffer.from(content), { key: this.#private, dsaEncoding: 'ieee-p1363' })
    return `${content}.${signature.toString('base64url')}`
  }

  #claimsOf(token: string): Claims | undefined {
    const [header, payload, signature, ...rest] = token.split('.')
    if (header !== this.#header || payload === undefined || signature === undefined || rest.length) return undefined
    const key = { key: this.#public, dsaEncoding: 'ieee-p1363' as const }
    if (!verify('sha256', Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, 'base64url')))
      return undefined
    return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Claims
  }
}
