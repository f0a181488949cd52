/**
 * Secrets followed by their names: one list and one watch of one name each, so that the right to read that one Secret is
 * enough. What is kept of a Secret are its short texts; nothing of it is logged.
 *
 * Sources: Kubernetes API reference, core/v1 Secret (`data` in base64); documentation "Using RBAC Authorization" (resourceNames
 * and list, watch with a field selector of metadata.name).
 */
import type { ClusterObserver } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from './informer.ts'

export type SecretTexts = Readonly<Record<string, string>>

export interface NamedSecretsOptions {
  readonly client: HttpClient
  readonly namespace: string
  readonly observer?: ClusterObserver
  readonly tuning?: Pick<InformerOptions<unknown>, 'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs'>
  /** Without texts: there is none, or it may not be read and `problem` says so. Told again only when it differs. */
  onSecret(name: string, texts: SecretTexts | undefined, problem?: string): void
}

/** Longer values are no passwords. */
const MAX_TEXT_BYTES = 1024
const MAX_KEYS = 100

export class NamedSecrets {
  readonly #options: NamedSecretsOptions
  readonly #informers = new Map<string, Informer<SecretTexts>>()
  #closed = false

  constructor(options: NamedSecretsOptions) {
    this.#options = options
  }

  /** Follows these and no others. */
  want(names: ReadonlySet<string>): void {
    if (this.#closed) return
    for (const [name, informer] of this.#informers)
      if (!names.has(name)) {
        this.#informers.delete(name)
        void informer.close()
      }
    for (const name of names) if (!this.#informers.has(name)) this.#follow(name)
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#informers.values()].map((informer) => informer.close()))
  }

  #follow(name: string): void {
    const { client, namespace, observer, tuning, onSecret } = this.#options
    let isKnown = false
    let refusal: string | undefined
    const tell = (texts: SecretTexts | undefined, problem?: string) => {
      if (this.#informers.get(name) === informer) onSecret(name, texts, problem)
    }
    const informer: Informer<SecretTexts> = new Informer<SecretTexts>({
      client,
      path: `/api/v1/namespaces/${namespace}/secrets`,
      fieldSelector: `metadata.name=${name}`,
      ...(observer ? { observer } : {}),
      ...tuning,
      project: textsOf,
      onSet: (found, texts) => {
        if (found !== name) return
        isKnown = true
        tell(texts)
      },
      onDelete: (found) => {
        if (found !== name) return
        isKnown = false
        tell(undefined)
      },
      onListed: (first) => {
        if (first && !isKnown) tell(undefined)
      },
      onConnection: (problem) => {
        const denied = problem instanceof HttpError && problem.status === 403 ? problem.message : undefined
        if (denied !== undefined && denied !== refusal && !isKnown) tell(undefined, denied)
        refusal = denied
      },
    })
    this.#informers.set(name, informer)
    informer.start()
  }
}

/** Values that are text, decoded. */
function textsOf(object: RawObject): SecretTexts {
  const data = typeof object.data === 'object' && object.data !== null ? (object.data as Record<string, unknown>) : {}
  const texts: [string, string][] = []
  for (const [key, value] of Object.entries(data).slice(0, MAX_KEYS)) {
    if (typeof value !== 'string' || value.length > 2 * MAX_TEXT_BYTES) continue
    const bytes = Buffer.from(value, 'base64')
    const text = bytes.toString('utf8')
    if (bytes.length <= MAX_TEXT_BYTES && !text.includes('\ufffd')) texts.push([key, text])
  }
  return Object.fromEntries(texts)
}
