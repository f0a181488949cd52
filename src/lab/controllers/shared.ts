/**
 * What the lab's controllers share: live copies of the resources that several of them read, a client, a log.
 */
import type { Logger } from 'pino'
import type { KubeObject, LocalClient, OwnerReference } from '../api/interfaces.ts'
import { Informer, isNotFound, nameOf, WorkQueue } from '../informer.ts'
import type { Pod } from '../kubelet/pod-spec.ts'

export interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>
  readonly matchExpressions?: readonly {
    readonly key: string
    readonly operator: string
    readonly values?: readonly string[]
  }[]
}

export class Shared {
  readonly client: LocalClient
  readonly log: Logger
  readonly nodes: Informer
  readonly pods: Informer<Pod>
  readonly #informers: Informer[] = []
  readonly #queues: WorkQueue[] = []

  constructor(client: LocalClient, log: Logger) {
    this.client = client
    this.log = log
    this.nodes = this.informer('nodes')
    this.pods = this.informer<Pod>('pods')
  }

  /** A live copy that ends with this. */
  informer<T extends KubeObject = KubeObject>(resource: string): Informer<T> {
    const made = new Informer<T>(this.client, resource)
    this.#informers.push(made as unknown as Informer)
    return made
  }

  /** A queue that reports to the log under the controller's name and ends with this. */
  queue(controller: string, handle: (key: string) => Promise<void>, width = 1): WorkQueue {
    const made = new WorkQueue(
      handle,
      (key, error) => this.log.warn({ controller, key, err: error }, 'will try again'),
      { width },
    )
    this.#queues.push(made)
    return made
  }

  close(): void {
    for (const informer of this.#informers) informer.close()
    for (const queue of this.#queues) queue.close()
  }
}

export const nowText = (): string => `${new Date().toISOString().slice(0, 19)}Z`

/** The reference that makes `owner` the managing controller of what carries it. */
export const controllerReference = (owner: KubeObject, apiVersion: string, kind: string): OwnerReference => ({
  apiVersion,
  kind,
  name: owner.metadata.name!,
  uid: owner.metadata.uid!,
  controller: true,
  blockOwnerDeletion: true,
})

export const controllerOf = (object: KubeObject): OwnerReference | undefined =>
  object.metadata.ownerReferences?.find((each) => each.controller === true)

/** True when the labels are what the selector asks for. An empty selector matches everything. */
export function matches(selector: Selector | undefined, labels: Readonly<Record<string, string>> | undefined): boolean {
  const have = labels ?? {}
  for (const [key, value] of Object.entries(selector?.matchLabels ?? {})) if (have[key] !== value) return false
  for (const { key, operator, values = [] } of selector?.matchExpressions ?? []) {
    const value = have[key]
    const held =
      operator === 'In'
        ? value !== undefined && values.includes(value)
        : operator === 'NotIn'
          ? value === undefined || !values.includes(value)
          : operator === 'Exists'
            ? value !== undefined
            : value === undefined
    if (!held) return false
  }
  return true
}

export const isTerminating = (object: KubeObject): boolean => object.metadata.deletionTimestamp !== undefined
export const isFinished = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'
export const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true

/** Deletes; gone already is fine. */
export async function remove(client: LocalClient, resource: string, object: KubeObject): Promise<void> {
  try {
    await client.delete(resource, nameOf(object), {
      preconditions: { uid: object.metadata.uid! },
      propagationPolicy: 'Background',
    })
  } catch (error) {
    if (!isNotFound(error) && (error as { code?: number }).code !== 409) throw error
  }
}

/** Writes `status` when it differs from what is there. */
export async function writeStatus(
  client: LocalClient,
  resource: string,
  object: KubeObject,
  status: object,
): Promise<void> {
  const have = (object.status ?? {}) as Record<string, unknown>
  const differs = Object.entries(status).some(([key, value]) => JSON.stringify(have[key]) !== JSON.stringify(value))
  if (!differs) return
  try {
    await client.patch(resource, nameOf(object), { status }, { subresource: 'status' })
  } catch (error) {
    if (!isNotFound(error)) throw error
  }
}

/** A Pod from a template, owned by `owner`. */
export function podFrom(
  owner: KubeObject,
  ownerKind: string,
  template: KubeObject,
  extra: {
    readonly labels?: Record<string, string>
    readonly nodeName?: string
    readonly tolerations?: readonly object[]
  } = {},
): Pod {
  const spec = structuredClone(template.spec)
  if (extra.nodeName) spec.nodeName = extra.nodeName
  if (extra.tolerations) spec.tolerations = [...(spec.tolerations ?? []), ...extra.tolerations]
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      generateName: `${owner.metadata.name}-`,
      namespace: owner.metadata.namespace ?? 'default',
      labels: { ...template.metadata?.labels, ...extra.labels },
      ...(template.metadata?.annotations ? { annotations: { ...template.metadata.annotations } } : {}),
      ownerReferences: [controllerReference(owner, 'apps/v1', ownerKind)],
    },
    spec,
  } as Pod
}
