/**
 * Which of the two API groups with Calico's objects a server has, and when that changes: definitions that come after the agent,
 * and that go. Two watches of one name each cost a server nothing; who may not watch definitions asks for the groups now and
 * then.
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/discovery.go (with both, the definitions of `crd.projectcalico.org` count).
 */
import { sleep } from '../backoff.ts'
import type { ClusterObserver } from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from '../kubernetes/informer.ts'
import { type CalicoGroup, poolDefinitions, readGroup } from './api-group.ts'

export interface GroupWatchOptions {
  readonly client: HttpClient
  readonly observer?: ClusterObserver
  readonly tuning?: Pick<InformerOptions<unknown>, 'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs'>
  /** Between two questions of who may not watch, in milliseconds. */
  readonly askEveryMs?: number
  /** Called at first when it is known, and on every change; undefined: neither is served. */
  onGroup(group: CalicoGroup | undefined): void
  /** As an informer's. `part` tells which of several. */
  onConnection(part: string, problem: Error | undefined): void
}

const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const ASK_EVERY_MS = 60_000

export class GroupWatch {
  readonly #options: GroupWatchOptions
  readonly #abort = new AbortController()
  readonly #informers = new Map<CalicoGroup, Informer<boolean>>()
  readonly #served = new Map<CalicoGroup, boolean>()
  #asking: Promise<void> | undefined
  #told: CalicoGroup | undefined | null = null

  constructor(options: GroupWatchOptions) {
    this.#options = options
  }

  start(): void {
    for (const { group, name } of poolDefinitions) {
      const { client, observer, tuning } = this.#options
      const informer = new Informer<boolean>({
        client,
        path: DEFINITIONS,
        fieldSelector: `metadata.name=${name}`,
        absentIsEmpty: true,
        ...(observer ? { observer } : {}),
        ...tuning,
        project: isEstablished,
        onSet: (found, served) => {
          if (found === name) this.#note(group, served)
        },
        onDelete: (found) => {
          if (found === name) this.#note(group, false)
        },
        onListed: () => {
          if (!this.#served.has(group)) this.#note(group, false)
        },
        onConnection: (problem) => {
          if (problem instanceof HttpError && problem.status === 403) this.#ask()
          else if (!this.#asking) this.#options.onConnection(name, problem)
        },
      })
      this.#informers.set(group, informer)
      informer.start()
    }
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await Promise.all([...[...this.#informers.values()].map((informer) => informer.close()), this.#asking])
  }

  #note(group: CalicoGroup, served: boolean): void {
    this.#served.set(group, served)
    this.#judge()
  }

  #judge(): void {
    if (this.#abort.signal.aborted || this.#served.size < poolDefinitions.length) return
    const found = poolDefinitions.find((each) => this.#served.get(each.group) === true)?.group
    if (found === this.#told) return
    this.#told = found
    this.#options.onGroup(found)
  }

  /** Definitions may not be watched: asks for the groups instead. */
  #ask(): void {
    if (this.#asking || this.#abort.signal.aborted) return
    this.#asking = this.#askOn()
    for (const informer of this.#informers.values()) void informer.close()
  }

  async #askOn(): Promise<void> {
    const { client, onConnection, askEveryMs = ASK_EVERY_MS } = this.#options
    const { signal } = this.#abort
    let failing = false
    for (; !signal.aborted; await sleep(askEveryMs * (0.5 + Math.random()), signal))
      try {
        const found = await readGroup(client, signal)
        for (const { group } of poolDefinitions) this.#served.set(group, group === found)
        this.#judge()
        if (failing) onConnection('groups', undefined)
        failing = false
      } catch (error) {
        if (signal.aborted) return
        if (!failing) onConnection('groups', error as Error)
        failing = true
      }
  }
}

/** A definition that is being removed serves no new lists. */
function isEstablished(object: RawObject): boolean {
  const { conditions } = (object.status ?? {}) as { conditions?: unknown }
  const list = (Array.isArray(conditions) ? conditions : []) as ({ type?: unknown; status?: unknown } | null)[]
  return list.some((each) => each?.type === 'Established' && each.status === 'True')
}
