/**
 * Pods of this node and their namespaces, watched on a Kubernetes API server, and annotations written on them.
 *
 * A runtime asks about a pod that the watch may not have brought yet, or of which it has brought an earlier life: that one is
 * read. Writing waits in line behind a limit, and for a server that is away; what a pod says already is not written, and what is
 * asked for one pod meanwhile is written together. Nobody waits for it.
 *
 * Sources: Calico cni-plugin/pkg/k8s/k8s.go and libcalico-go/lib/backend/k8s/resources/workloadendpoint.go (annotations are
 * patched on pods/status); Kubernetes API Concepts, "Patches".
 */
import { Backoff, type BackoffOptions, pauseAskedBy, sleep } from '../backoff.ts'
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from '../kubernetes/informer.ts'
import { TokenBucket } from '../token-bucket.ts'
import type { PodDirectory, PodWords } from './calico-source.ts'

export interface KubernetesPodsOptions {
  readonly client: HttpClient
  readonly nodeName: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  readonly tuning?: Pick<InformerOptions<unknown>, 'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs'>
  /** How long one answer about a pod may take, in milliseconds. */
  readonly patienceMs?: number
}

type Texts = Readonly<Record<string, string>>

interface Words {
  readonly uid?: string
  readonly labels: Texts
  readonly annotations: Texts
}

interface Note {
  readonly annotations: Record<string, string>
  uid: string | undefined
}

const PATIENCE_MS = 10_000
const WRITES_A_SECOND = 20
const WRITES_AT_ONCE = 50
/** Pods that wait for annotations; of more the oldest are given up. */
const MAX_WAITING = 2000
const MAX_TEXT = 4096
const MAX_ENTRIES = 256
/** Annotations that anybody here reads; the others of a pod may be large. */
const CALICO = /(^|\.)projectcalico\.org\//

export class KubernetesPods implements PodDirectory {
  readonly #options: KubernetesPodsOptions
  readonly #abort = new AbortController()
  readonly #bucket = new TokenBucket(WRITES_A_SECOND, WRITES_AT_ONCE, performance.now())
  readonly #backoff: Backoff
  readonly #pods = new Map<string, Words>()
  readonly #namespaces = new Map<string, Words>()
  readonly #waiting = new Map<string, Note>()
  #informers: Informer<Words>[] = []
  #writing: Promise<void> | undefined

  constructor(options: KubernetesPodsOptions) {
    this.#options = options
    this.#backoff = new Backoff((options.tuning as { backoff?: BackoffOptions } | undefined)?.backoff)
  }

  /** Begins to watch, if it has not. Before that every pod is read. */
  start(): void {
    if (this.#informers.length > 0 || this.#abort.signal.aborted) return
    const { nodeName } = this.#options
    this.#informers = [
      this.#follow('/api/v1/pods', this.#pods, { fieldSelector: `spec.nodeName=${nodeName}`, isNamespaced: true }),
      this.#follow('/api/v1/namespaces', this.#namespaces, {}),
    ]
  }

  async find(namespace: string, name: string, uid?: string): Promise<PodWords | undefined> {
    const known = this.#pods.get(`${namespace}/${name}`)
    const isTheOne = known && (uid === undefined || known.uid === uid)
    const [pod, space] = await Promise.all([
      isTheOne ? known : this.#read(`${podPath(namespace, name)}`),
      this.#namespaces.get(namespace) ?? this.#read(`/api/v1/namespaces/${encodeURIComponent(namespace)}`),
    ])
    if (!pod) return undefined
    return { ...pod, namespaceLabels: space?.labels ?? {}, namespaceAnnotations: space?.annotations ?? {} }
  }

  annotate(namespace: string, name: string, annotations: Texts, uid?: string): void {
    if (this.#abort.signal.aborted) return
    const path = podPath(namespace, name)
    const before = this.#waiting.get(path)
    this.#waiting.delete(path)
    const isSameLife = before && (uid === undefined || before.uid === undefined || before.uid === uid)
    this.#waiting.set(path, {
      annotations: { ...(isSameLife ? before.annotations : {}), ...annotations },
      uid: uid ?? before?.uid,
    })
    if (this.#waiting.size > MAX_WAITING) this.#waiting.delete(this.#waiting.keys().next().value!)
    this.#begin()
  }

  #begin(): void {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined
      if (this.#waiting.size > 0 && !this.#abort.signal.aborted) this.#begin()
    })
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await Promise.all([...this.#informers.map((informer) => informer.close()), this.#writing])
  }

  #follow(
    path: string,
    into: Map<string, Words>,
    more: Pick<InformerOptions<Words>, 'fieldSelector' | 'isNamespaced'>,
  ): Informer<Words> {
    const { client, observer, tuning, log } = this.#options
    const informer = new Informer<Words>({
      client,
      path,
      ...more,
      ...(observer ? { observer } : {}),
      ...tuning,
      project: projectWords,
      onSet: (key, words) => into.set(key, words),
      onDelete: (key) => into.delete(key),
      onListed: () => {},
      // A pod that is not known is asked for: nothing else depends on it.
      onConnection: (problem) => problem && log.debug({ err: problem.message }, `${path} cannot be watched now`),
    })
    informer.start()
    return informer
  }

  async #read(path: string): Promise<Words | undefined> {
    const { client, patienceMs = PATIENCE_MS } = this.#options
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(patienceMs)])
    try {
      return projectWords((await client.request({ method: 'GET', path, signal })) as RawObject)
    } catch (error) {
      if (error instanceof HttpError && error.status === 404) return undefined
      throw error
    }
  }

  async #write(): Promise<void> {
    const { signal } = this.#abort
    while (this.#waiting.size > 0 && !signal.aborted) {
      await sleep(this.#bucket.reserve(performance.now()), signal)
      const next = this.#next()
      if (signal.aborted || !next) return
      const [path, note] = next
      try {
        await this.#patch(path, note)
        this.#backoff.reset()
      } catch (error) {
        if (signal.aborted) return
        if (this.#isFinal(error, path)) continue
        if (!this.#waiting.has(path)) this.#waiting.set(path, note)
        await sleep(pauseAskedBy(error) + this.#backoff.next(), signal)
      }
    }
  }

  /** Takes the oldest that has something to say. */
  #next(): [string, Note] | undefined {
    for (const [path, note] of this.#waiting) {
      this.#waiting.delete(path)
      if (!this.#says(path, note)) return [path, note]
    }
    return undefined
  }

  /** The pod has them already, as far as is known. */
  #says(path: string, { annotations, uid }: Note): boolean {
    const [, namespace, name] = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)$/.exec(path)!
    const known = this.#pods.get(`${decodeURIComponent(namespace!)}/${decodeURIComponent(name!)}`)
    if (!known || (uid !== undefined && known.uid !== uid)) return false
    return Object.entries(annotations).every(([key, text]) => known.annotations[key] === text)
  }

  async #patch(path: string, { annotations, uid }: Note): Promise<void> {
    await this.#options.client.request({
      method: 'PATCH',
      path: `${path}/status`,
      body: { metadata: { ...(uid === undefined ? {} : { uid }), annotations } },
      contentType: 'application/strategic-merge-patch+json',
      signal: this.#abort.signal,
    })
  }

  /** A pod that is gone, or another under its name; rights that are missing. */
  #isFinal(error: unknown, path: string): boolean {
    if (!(error instanceof HttpError) || error.status >= 500 || error.status === 429 || error.status === 401)
      return false
    if (error.status !== 404 && error.status !== 409)
      this.#options.log.warn({ err: error.message, pod: path }, 'annotations of a pod cannot be written')
    return true
  }
}

const podPath = (namespace: string, name: string): string =>
  `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`

/** What is kept of a Pod or a Namespace. Never throws. */
function projectWords(object: RawObject): Words {
  const { uid, labels, annotations } = (object.metadata ?? {}) as Record<string, unknown>
  return {
    ...(typeof uid === 'string' ? { uid: uid.slice(0, 64) } : {}),
    labels: textsOf(labels, () => true),
    annotations: textsOf(annotations, (key) => CALICO.test(key)),
  }
}

function textsOf(value: unknown, isKept: (key: string) => boolean): Texts {
  const pairs = Object.entries(typeof value === 'object' && value !== null ? value : {}).filter(
    ([key, text]) => isKept(key) && typeof text === 'string',
  )
  // One character beyond what is allowed: who parses it says that it is too long.
  return Object.fromEntries(
    pairs.slice(0, MAX_ENTRIES).map(([key, text]) => [key, String(text).slice(0, MAX_TEXT + 1)]),
  )
}
