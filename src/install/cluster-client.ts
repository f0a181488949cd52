/**
 * The few requests that an installation makes: read, apply on the server's side as field manager `weft`, delete, and wait.
 *
 * Sources: Kubernetes API Concepts ("Server-Side Apply", "Resource deletion").
 */
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import { type KubeObject, nameOf, pathOf } from './kube-object.ts'

const POLL_MS = 300
const [partOf, weft] = ['app.kubernetes.io/part-of', ownLabels['app.kubernetes.io/part-of']] as const

export const isOurs = (object: KubeObject): boolean => object.metadata.labels?.[partOf] === weft

export type Applied = 'applied' | 'no kind' | 'no namespace'

export class ClusterClient {
  readonly #client: HttpClient
  readonly #dryRun: boolean

  /** `dryRun`: the server checks every change and keeps none. */
  constructor(client: HttpClient, { dryRun = false }: { readonly dryRun?: boolean } = {}) {
    this.#client = client
    this.#dryRun = dryRun
  }

  /** Undefined when there is no such object, or no such kind. */
  async read(path: string): Promise<unknown> {
    try {
      return await this.#client.request({ method: 'GET', path })
    } catch (error) {
      if (isNotFound(error)) return undefined
      throw error
    }
  }

  /** Rejects with the server's words, unless it does not know the kind, or keeps nothing and so has no namespace for it. */
  async apply(object: KubeObject): Promise<Applied> {
    try {
      await this.#client.request({
        method: 'PATCH',
        path: `${pathOf(object)}?fieldManager=weft&force=true${this.#dryRun ? '&dryRun=All' : ''}`,
        contentType: 'application/apply-patch+yaml',
        body: object,
      })
      return 'applied'
    } catch (error) {
      if (isNotFound(error) && !(await this.#hasKind(object))) return 'no kind'
      if (isNotFound(error) && this.#dryRun) return 'no namespace'
      throw error
    }
  }

  async patch(path: string, contentType: string, body: unknown): Promise<void> {
    const query = this.#dryRun ? '?dryRun=All' : ''
    await this.#client.request({ method: 'PATCH', path: `${path}${query}`, contentType, body })
  }

  /** With all that it owns. Fine when it is gone already. */
  async delete(object: KubeObject): Promise<void> {
    // A server that is given options in the body does not read those of the query.
    const dry = this.#dryRun ? { dryRun: ['All'] } : {}
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Foreground', ...dry }
    try {
      await this.#client.request({ method: 'DELETE', path: pathOf(object), body })
    } catch (error) {
      if (!isNotFound(error)) throw error
    }
  }

  /** Asks again and again until `done` is undefined, which is what is still missing. Rejects with that after the time. */
  async waitFor(what: string, seconds: number, missing: () => Promise<string | undefined>): Promise<void> {
    const end = performance.now() + seconds * 1000
    for (;;) {
      const problem = await missing()
      if (problem === undefined) return
      if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s: ${problem}`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  /** Objects of a list (`/api/v1/namespaces/x/configmaps`) that bear weft's label; none when there is no such list. */
  async ours(path: string, apiVersion: string, kind: string): Promise<KubeObject[]> {
    const list = (await this.read(`${path}?labelSelector=${encodeURIComponent(`${partOf}=${weft}`)}`)) ?? {}
    const { items = [] } = list as { items?: readonly Pick<KubeObject, 'metadata'>[] }
    return items.map(({ metadata: { name, namespace } }) => ({
      apiVersion,
      kind,
      metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
    }))
  }

  async waitUntilGone(object: KubeObject, seconds: number): Promise<void> {
    await this.waitFor(`${nameOf(object)} is gone`, seconds, async () =>
      (await this.read(pathOf(object))) === undefined ? undefined : 'it is still there',
    )
  }

  /** Until the DaemonSet runs, as it is now, and is ready on every node. */
  async waitForDaemonSet(object: KubeObject, seconds: number): Promise<void> {
    await this.waitFor(`${nameOf(object)} is ready on every node`, seconds, async () => {
      const { metadata, status = {} } = ((await this.read(pathOf(object))) ?? { metadata: {} }) as {
        metadata: { generation?: number }
        status?: Readonly<Record<string, number>>
      }
      const { observedGeneration, desiredNumberScheduled: wanted, numberReady, updatedNumberScheduled } = status
      if (wanted === undefined || (observedGeneration ?? 0) < (metadata.generation ?? 0)) return 'not looked at yet'
      const ready = Math.min(numberReady ?? 0, updatedNumberScheduled ?? 0)
      return ready >= wanted ? undefined : `${ready} of ${wanted} nodes`
    })
  }

  /** Until one replica of the Deployment, as it is now, is ready. */
  async waitForDeployment(object: KubeObject, seconds: number): Promise<void> {
    await this.waitFor(`a replica of ${nameOf(object)} is ready`, seconds, async () => {
      const { metadata, status = {} } = ((await this.read(pathOf(object))) ?? { metadata: {} }) as {
        metadata: { generation?: number }
        status?: Readonly<Record<string, number>>
      }
      if ((status.observedGeneration ?? 0) < (metadata.generation ?? 0)) return 'not looked at yet'
      return (status.updatedReplicas ?? 0) > 0 && (status.readyReplicas ?? 0) > 0 ? undefined : 'none is'
    })
  }

  async #hasKind(object: KubeObject): Promise<boolean> {
    const { name: _, ...rest } = object.metadata
    const list = pathOf({ ...object, metadata: { ...rest, name: '' } }).replace(/\/$/, '')
    return (await this.read(`${list}?limit=1`)) !== undefined
  }
}

const isNotFound = (error: unknown): boolean => error instanceof HttpError && error.status === 404
