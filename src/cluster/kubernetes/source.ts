/**
 * The cluster source on a Kubernetes API server: Node objects and the ConfigMap with net-conf.json (or a file), and the
 * writes about this node: annotations and the condition through its status subresource (which is what flannel's role
 * may write), Events in the namespace `default`.
 *
 * Sources: flannel Documentation/kubernetes.md and kube-flannel.yml (names and the role); Kubernetes API reference: Node,
 * NodeCondition, core/v1 Event.
 */
import { Backoff, pauseAskedBy, sleep } from '../backoff.ts'
import type {
  Announcement,
  ClusterEvent,
  ClusterListener,
  ClusterLog,
  ClusterObserver,
  ClusterSource,
  NodeReport,
} from '../cluster.ts'
import { type HttpClient, HttpError } from '../http-client.ts'
import { NetConfigFile } from '../net-config-file.ts'
import { annotationsByKey, formatAnnouncement, type ProjectedNode, parseNode, projectNode } from './annotations.ts'
import { Informer, type InformerOptions, type RawObject } from './informer.ts'
import { availableCondition, type NetworkCondition, networkConditionOf } from './network-condition.ts'
import { NodeEvents } from './node-events.ts'

export interface KubernetesSourceOptions {
  readonly client: HttpClient
  readonly nodeName: string
  readonly annotationPrefix: string
  /** Where net-conf.json is: a file, or the key `net-conf.json` of a ConfigMap. */
  readonly netConfig: { readonly file: string } | { readonly namespace: string; readonly name: string }
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  /** For tests: shorter pages, watches and waits. */
  readonly tuning?: Pick<InformerOptions<unknown>, 'pageSize' | 'watchSeconds' | 'backoff'>
}

const NET_CONFIG_KEY = 'net-conf.json'
const MAX_NET_CONFIG = 1 << 20
/** The server has read it and will never take it. Rights, a renewed token and the Node itself may still come. */
const REFUSALS: ReadonlySet<number> = new Set([400, 405, 413, 415, 422])
/** Agents that come back to a server in a second, when all of them have to. */
const RETURNS_A_SECOND = 1000
/** Between two words about one condition, when somebody contradicts. */
const CONDITION_PAUSE_MS = 10_000

/** What is kept of this node's own object besides. */
interface OwnNode extends ProjectedNode {
  readonly condition?: NetworkCondition
}

export class KubernetesSource implements ClusterSource {
  readonly #options: KubernetesSourceOptions
  readonly #abort = new AbortController()
  readonly #events: NodeEvents
  #listener: ClusterListener = () => {}
  #nodes: Informer<OwnNode> | undefined
  #network: Informer<{ text: string | undefined }> | undefined
  #file: NetConfigFile | undefined
  readonly #awaited = new Set<'nodes' | 'network'>(['nodes', 'network'])
  /** What fails, and why. */
  readonly #failing = new Map<string, string>()
  /** This node as last seen, to write only what differs. */
  #own: OwnNode | undefined
  #available = false
  /** When it was last said, monotonic milliseconds. */
  #availableAt = Number.NEGATIVE_INFINITY
  #keeping = false

  constructor(options: KubernetesSourceOptions) {
    this.#options = options
    const { client, log, nodeName: host } = options
    this.#events = new NodeEvents({
      client,
      log,
      component: 'weft',
      host,
      clusterSize: () => this.#nodes?.size ?? 1,
      spreadMs: () => this.#spreadMs(),
      signal: this.#abort.signal,
    })
  }

  start(listener: ClusterListener): void {
    this.#listener = listener
    setImmediate(() => {
      if (this.#abort.signal.aborted) return
      this.#watchNetwork()
      this.#watchNodes()
    })
  }

  async announce(announcement: Announcement): Promise<void> {
    const { annotationPrefix } = this.#options
    const wanted = formatAnnouncement(announcement)
    await this.#patchOwn('announce', () => {
      const held = this.#own?.annotations
      const differs = !held || Object.entries(wanted).some(([key, text]) => (held[key] ?? null) !== text)
      return differs ? { metadata: { annotations: annotationsByKey(wanted, annotationPrefix) } } : undefined
    })
  }

  async setNetworkAvailable(): Promise<void> {
    this.#available = true
    if (this.#own) await this.#writeAvailable()
  }

  report(report: NodeReport): void {
    this.#events.report(report)
  }

  reconnect(): void {
    this.#options.client.close()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    this.#file?.close()
    await Promise.all([this.#nodes?.close(), this.#network?.close()])
    this.#options.client.close()
  }

  async #writeAvailable(): Promise<void> {
    this.#availableAt = performance.now()
    await this.#patchOwn('set the condition NetworkUnavailable', () => {
      const now = `${new Date().toISOString().slice(0, 19)}Z`
      const condition = this.#own && availableCondition(this.#own.condition, now)
      return condition ? { status: { conditions: [condition] } } : undefined
    })
  }

  /** The condition went, with a Node that was made anew, or somebody else spoke: says it again, though not at once after the last time. */
  #keepAvailable(): void {
    const { signal } = this.#abort
    if (!this.#available || this.#keeping || !this.#own || !availableCondition(this.#own.condition, '')) return
    this.#keeping = true
    sleep(Math.max(0, this.#availableAt + CONDITION_PAUSE_MS - performance.now()), signal)
      .then(() => this.#writeAvailable())
      .catch((error: Error) =>
        this.#options.log.warn({ err: error.message }, 'the condition NetworkUnavailable cannot be set'),
      )
      .finally(() => {
        this.#keeping = false
      })
  }

  /** Patches this node's status subresource until the server has taken it; what it refuses for good rejects. */
  async #patchOwn(what: string, patch: () => object | undefined): Promise<void> {
    const { client, nodeName, log } = this.#options
    const { signal } = this.#abort
    const backoff = new Backoff(this.#options.tuning?.backoff)
    for (let attempt = 0; !signal.aborted; attempt++) {
      const body = patch()
      if (!body) return
      try {
        const path = `/api/v1/nodes/${encodeURIComponent(nodeName)}/status`
        await client.request({
          method: 'PATCH',
          path,
          body,
          contentType: 'application/strategic-merge-patch+json',
          signal,
        })
        return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof HttpError && REFUSALS.has(error.status)) throw error
        if (attempt === 0) log.warn({ err: (error as Error).message }, `cannot ${what} yet`)
        await sleep(pauseAskedBy(error) + backoff.next(this.#spreadMs()), signal)
      }
    }
  }

  /** Every node has an agent: the window in which they come back, in milliseconds. */
  #spreadMs(): number {
    return ((this.#nodes?.size ?? 0) * 1000) / RETURNS_A_SECOND
  }

  #watchNodes(): void {
    const { client, annotationPrefix, nodeName, tuning, observer } = this.#options
    this.#nodes = new Informer<OwnNode>({
      client,
      spreadMs: () => this.#spreadMs(),
      ...(observer ? { observer } : {}),
      path: '/api/v1/nodes',
      ...tuning,
      project: (object) => {
        const node = projectNode(object, annotationPrefix)
        const condition = node.name === nodeName ? networkConditionOf(object) : undefined
        return condition ? { ...node, condition } : node
      },
      onSet: (name, projected) => {
        if (name === nodeName) this.#own = projected
        this.#tell({ type: 'node', ...parseNode(projected, annotationPrefix) })
        if (name === nodeName) this.#keepAvailable()
      },
      onDelete: (name) => {
        if (name === nodeName) this.#own = undefined
        this.#tell({ type: 'node-gone', name })
      },
      onListed: () => this.#arrived('nodes'),
      onConnection: (problem) => this.#connection('nodes', problem),
    })
    this.#nodes.start()
  }

  #watchNetwork(): void {
    const { client, netConfig, tuning, observer } = this.#options
    if ('file' in netConfig) {
      this.#file = new NetConfigFile(netConfig.file, (text) => {
        this.#tell({ type: 'network', text, object: netConfig.file })
        this.#arrived('network')
      })
      this.#file.start()
      return
    }
    const object = `ConfigMap ${netConfig.namespace}/${netConfig.name}`
    const tell = (text: string | undefined) => this.#tell({ type: 'network', text, object })
    this.#network = new Informer<{ text: string | undefined }>({
      client,
      spreadMs: () => this.#spreadMs(),
      ...(observer ? { observer } : {}),
      path: `/api/v1/namespaces/${encodeURIComponent(netConfig.namespace)}/configmaps`,
      fieldSelector: `metadata.name=${netConfig.name}`,
      ...tuning,
      project: projectNetConfig,
      onSet: (name, { text }) => {
        if (name === netConfig.name) tell(text)
      },
      onDelete: (name) => {
        if (name === netConfig.name) tell(undefined)
      },
      onListed: (first) => {
        if (first && this.#network!.size === 0) tell(undefined)
        this.#arrived('network')
      },
      onConnection: (problem) => this.#connection('network', problem),
    })
    this.#network.start()
  }

  #tell(event: ClusterEvent): void {
    if (!this.#abort.signal.aborted) this.#listener(event)
  }

  #arrived(part: 'nodes' | 'network'): void {
    if (this.#awaited.delete(part) && this.#awaited.size === 0) this.#tell({ type: 'synced' })
  }

  /** Two watches, one connection: down when the first fails, and again for each other reason, up when both work. */
  #connection(part: string, problem: Error | undefined): void {
    const before = [...this.#failing.values()]
    if (problem) this.#failing.set(part, problem.message)
    else this.#failing.delete(part)
    if (problem && !before.includes(problem.message))
      this.#tell({ type: 'connection', up: false, problem: problem.message })
    if (!problem && before.length > 0 && this.#failing.size === 0) this.#tell({ type: 'connection', up: true })
  }
}

function projectNetConfig(object: RawObject): { text: string | undefined } {
  const data = (object.data ?? {}) as Record<string, unknown>
  const text = data[NET_CONFIG_KEY]
  return { text: typeof text === 'string' ? text.slice(0, MAX_NET_CONFIG) : undefined }
}
