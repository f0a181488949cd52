/**
 * Says of every address pool in its status whether it gives out addresses, and why not: the condition Allocatable, with the words that
 * Calico's own controller uses. Where that one runs as well the two judge alike, and what it has written is left alone.
 *
 * Sources: Calico kube-controllers/pkg/controllers/ippool; Kubernetes API conventions (conditions).
 */
import { Backoff, sleep } from '../cluster/backoff.ts'
import { type CalicoGroup, collectionPath } from '../cluster/calico/api-group.ts'
import { GroupWatch } from '../cluster/calico/group-watch.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import { Informer, type RawObject } from '../cluster/kubernetes/informer.ts'
import { parsePool } from '../config/calico/pool.ts'
import { type Allocatable, judgeAllocatable } from '../config/calico/pool-condition.ts'

export interface PoolConditionsOptions {
  readonly client: HttpClient
  readonly log: ClusterLog
  readonly signal: AbortSignal
  /** False from the moment that this replica leads no more. */
  mayWrite(): boolean
}

const TYPE = 'Allocatable'

export class PoolConditions {
  readonly #options: PoolConditionsOptions
  readonly #objects = new Map<string, RawObject>()
  #group: CalicoGroup | undefined
  #informer: Informer<RawObject> | undefined
  #isListed = false
  #wake = () => {}

  constructor(options: PoolConditionsOptions) {
    this.#options = options
  }

  /** Resolves when the signal is aborted. */
  async run(): Promise<void> {
    const { client, signal } = this.#options
    const groups = new GroupWatch({ client, onGroup: (group) => this.#follow(group), onConnection: () => {} })
    signal.addEventListener('abort', () => this.#wake(), { once: true })
    groups.start()
    try {
      await this.#work(signal)
    } finally {
      await Promise.all([groups.close(), this.#informer?.close()])
    }
  }

  async #work(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff()
    while (!signal.aborted) {
      const news = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      try {
        await this.#judge()
        backoff.reset()
        await news
      } catch (error) {
        if (signal.aborted) return
        this.#options.log.warn({ err: (error as Error).message }, 'what pools give out cannot be written yet')
        await sleep(backoff.next(), signal)
      }
    }
  }

  #follow(group: CalicoGroup | undefined): void {
    void this.#informer?.close()
    this.#informer = undefined
    this.#objects.clear()
    this.#group = group
    this.#isListed = false
    if (!group) return
    const informer = new Informer<RawObject>({
      client: this.#options.client,
      path: collectionPath(group, 'ippools'),
      absentIsEmpty: true,
      project: (object) => object,
      onSet: (name, object) => {
        this.#objects.set(name, object)
        this.#wake()
      },
      onDelete: (name) => {
        this.#objects.delete(name)
        this.#wake()
      },
      onListed: () => {
        this.#isListed = true
        this.#wake()
      },
      onConnection: () => {},
    })
    this.#informer = informer
    informer.start()
  }

  /** Writes what is not so yet. Rejects when the server refuses for another reason than that something has changed. */
  async #judge(): Promise<void> {
    const group = this.#group
    if (!this.#isListed || !group) return
    const pools = [...this.#objects.values()].flatMap((object) => {
      try {
        return [parsePool(object).pool]
      } catch {
        // Who cannot be judged is not spoken of; an agent's Event says why.
        return []
      }
    })
    for (const [name, wanted] of judgeAllocatable(pools)) {
      const object = this.#objects.get(name)
      if (!object || isSaid(object, wanted) || !this.#options.mayWrite()) continue
      await this.#write(`${collectionPath(group, 'ippools')}/${encodeURIComponent(name)}/status`, object, wanted)
    }
  }

  async #write(path: string, object: RawObject, wanted: Allocatable): Promise<void> {
    const { client, signal, log } = this.#options
    const condition = { type: TYPE, ...wanted, lastTransitionTime: `${new Date().toISOString().slice(0, 19)}Z` }
    const conditions = [...conditionsOf(object).filter(({ type }) => type !== TYPE), condition]
    const body = { metadata: { resourceVersion: object.metadata?.resourceVersion }, status: { conditions } }
    try {
      await client.request({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json', signal })
      log.info({ pool: object.metadata?.name, status: wanted.status, reason: wanted.reason }, 'pool judged')
    } catch (error) {
      // Changed or gone meanwhile, which the watch tells; or a definition without a status, which has no place for it.
      if (!(error instanceof HttpError) || (error.status !== 409 && error.status !== 404)) throw error
    }
  }
}

interface Condition {
  readonly type?: unknown
  readonly status?: unknown
  readonly reason?: unknown
}

function conditionsOf({ status }: RawObject): readonly Condition[] {
  const conditions = (status as { readonly conditions?: unknown } | null | undefined)?.conditions
  return Array.isArray(conditions) ? conditions.filter((each) => typeof each === 'object' && each !== null) : []
}

/** Whatever the sentence beside it: of two writers neither corrects the other's words. */
const isSaid = (object: RawObject, { status, reason }: Allocatable): boolean =>
  conditionsOf(object).some((each) => each.type === TYPE && each.status === status && each.reason === reason)
