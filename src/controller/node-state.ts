/**
 * What nodes say of the pod network when nobody on them can say it any more, or not yet.
 *
 *   new node, no condition NetworkUnavailable     True, NoWeftYet: nothing is scheduled there before its agent is ready
 *   agent gone for a while                        True, WeftAgentGone: pods that run keep their network, new ones get none
 *   agent ready again                             False, where it was this program that had said True
 *   agent gone for very long, if so configured    weft's and flannel's annotations go: the other nodes drop their routes to it
 *
 * An agent is there while a pod of its DaemonSet on the node is ready. How long it is gone is counted by this process'
 * monotonic clock from when it was first missed. Every write names the version of the Node that was judged: an agent that
 * spoke meanwhile is not talked over.
 *
 * Sources: Kubernetes documentation, "Nodes" (condition NetworkUnavailable, taint node.kubernetes.io/network-unavailable).
 */
import type { ClusterLog } from '../cluster/cluster.ts'
import { type HttpClient, HttpError } from '../cluster/http-client.ts'
import { announcedKeys } from '../cluster/kubernetes/annotations.ts'
import { Informer, type RawObject } from '../cluster/kubernetes/informer.ts'
import { conditionReasons } from '../cluster/kubernetes/network-condition.ts'
import type { NodeEvents } from '../cluster/kubernetes/node-events.ts'
import { Ip } from '../net/ip.ts'
import type { AgentPlace } from './leaked-addresses.ts'
import type { ControllerMetrics } from './metrics.ts'
import { type Condition, hasWeft, isConflict, projectWatched, versionOf, type WatchedNode } from './objects.ts'

export interface NodeStateSettings {
  /** A node without the condition gets it as True. */
  readonly markNew: boolean
  /** The agents' pods. Undefined: nothing is known of agents, and none is missed. */
  readonly agents: { readonly namespace: string; readonly selector: string } | undefined
  /** How long an agent may be missing before its node is marked. Milliseconds. */
  readonly missedAfter: number
  /** And before its node's annotations are removed; undefined: never. */
  readonly forgetAfter: number | undefined
}

/** What is known of the agent on a node. */
export interface AgentSight {
  readonly ready: boolean
  /** For how long it has not been ready, in milliseconds. */
  readonly missing: number
}

export type Duty = 'mark-new' | 'mark-gone' | 'unmark' | 'forget'

const { up, gone, fresh } = conditionReasons

const MARKS = {
  'mark-new': { status: 'True', reason: fresh, message: 'no agent of weft has said yet that pods can be served' },
  'mark-gone': { status: 'True', reason: gone, message: 'no agent of weft is ready on this node' },
  unmark: { status: 'False', reason: up, message: 'weft is running on this node' },
} as const

/** What is to be done about a node now. Pure. `sight` is undefined when nothing is known of agents. */
export function judgeNode(node: WatchedNode, sight: AgentSight | undefined, settings: NodeStateSettings): Duty[] {
  if (node.leaving) return []
  const { networkUnavailable: mark } = node
  if (!mark) return settings.markNew && !hasWeft(node) ? ['mark-new'] : []
  if (!sight || !hasWeft(node)) return []
  if (sight.ready) return isOwn(mark) ? ['unmark'] : []
  const duties: Duty[] = []
  if (mark.status !== 'True' && sight.missing >= settings.missedAfter) duties.push('mark-gone')
  if (settings.forgetAfter !== undefined && sight.missing >= settings.forgetAfter) duties.push('forget')
  return duties
}

/** When the node is to be judged again, in milliseconds from now; undefined when only news can change the judgement. */
export function judgeAgainIn(node: WatchedNode, sight: AgentSight | undefined, settings: NodeStateSettings) {
  if (!sight || sight.ready || !hasWeft(node)) return undefined
  const waits = [settings.missedAfter, settings.forgetAfter ?? 0].map((after) => after - sight.missing)
  const ahead = waits.filter((wait) => wait > 0)
  return ahead.length > 0 ? Math.min(...ahead) : undefined
}

const isOwn = ({ status, reason }: Condition): boolean => status === 'True' && reason === MARKS['mark-gone'].reason

export interface NodeStateOptions {
  readonly client: HttpClient
  readonly settings: NodeStateSettings
  readonly annotationPrefix: string
  readonly events: NodeEvents
  readonly metrics: ControllerMetrics
  readonly log: ClusterLog
  readonly signal: AbortSignal
  mayWrite(): boolean
}

/** A refused or failed write is tried again after this. */
const RETRY_MS = 10_000

interface AgentPod {
  readonly node: string
  readonly ready: boolean
  readonly address: string
  /** Of the port that is called `metrics`; 0 when there is none. */
  readonly port: number
}

export class NodeState {
  readonly #options: NodeStateOptions
  readonly #nodes = new Map<string, WatchedNode>()
  /** Agents' pods by name. */
  readonly #pods = new Map<string, AgentPod>()
  /** Node → since when its agent is missed. */
  readonly #missing = new Map<string, number>()
  readonly #timers = new Map<string, NodeJS.Timeout>()
  readonly #busy = new Set<string>()
  #agents: Informer<AgentPod> | undefined
  #agentsKnown = false
  #begun = false

  constructor(options: NodeStateOptions) {
    this.#options = options
  }

  /** Nodes are all told: from now on they are judged. */
  start(): void {
    const { client, settings, signal } = this.#options
    this.#begun = true
    if (settings.agents) {
      const { namespace, selector } = settings.agents
      this.#agents = new Informer<AgentPod>({
        client,
        path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods`,
        labelSelector: selector,
        project: projectAgent,
        onSet: (name, pod) => {
          const before = this.#pods.get(name)
          this.#pods.set(name, pod)
          if (before && before.node !== pod.node) this.#look(before.node)
          this.#look(pod.node)
        },
        onDelete: (name, { node }) => {
          this.#pods.delete(name)
          this.#look(node)
        },
        onListed: () => {
          this.#agentsKnown = true
          this.#lookAtAll()
        },
        onConnection: () => {},
      })
      this.#agents.start()
    }
    signal.addEventListener('abort', () => this.#close(), { once: true })
    this.#lookAtAll()
  }

  /** Where the agents that are ready answer. */
  readyAgents(): AgentPlace[] {
    return [...this.#pods.values()].filter(({ ready, address, port }) => ready && address !== '' && port > 0)
  }

  setNode(node: WatchedNode): void {
    this.#nodes.set(node.name, node)
    this.#look(node.name)
  }

  removeNode(name: string): void {
    this.#nodes.delete(name)
    this.#missing.delete(name)
    this.#options.metrics.setAgentless(this.#missing.size)
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }

  #close(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
    void this.#agents?.close()
  }

  #lookAtAll(): void {
    for (const name of this.#nodes.keys()) this.#look(name)
  }

  #sight(node: WatchedNode): AgentSight | undefined {
    if (!this.#agentsKnown || !hasWeft(node)) return undefined
    const ready = [...this.#pods.values()].some((pod) => pod.node === node.name && pod.ready)
    if (ready) this.#missing.delete(node.name)
    else if (!this.#missing.has(node.name)) this.#missing.set(node.name, performance.now())
    this.#options.metrics.setAgentless(this.#missing.size)
    return { ready, missing: ready ? 0 : performance.now() - this.#missing.get(node.name)! }
  }

  #look(name: string, wait?: number): void {
    const { settings, signal } = this.#options
    const node = this.#nodes.get(name)
    clearTimeout(this.#timers.get(name))
    if (!this.#begun || !node || signal.aborted) return
    if (wait !== undefined) {
      this.#timers.set(
        name,
        setTimeout(() => this.#look(name), wait),
      )
      return
    }
    const sight = this.#sight(node)
    const again = judgeAgainIn(node, sight, settings)
    if (again !== undefined) this.#look(name, again)
    if (this.#busy.has(name) || judgeNode(node, sight, settings).length === 0) return
    this.#busy.add(name)
    this.#act(name).then(
      () => this.#busy.delete(name),
      (error: Error) => {
        this.#busy.delete(name)
        if (signal.aborted) return
        // A conflict is news on its way: the node is judged again when it is told.
        if (!isConflict(error))
          this.#options.log.warn({ node: name, err: error.message }, 'the node cannot be marked yet')
        this.#look(name, RETRY_MS)
      },
    )
  }

  /** Reads the node as it is, judges it again, and writes on condition that it is still that. */
  async #act(name: string): Promise<void> {
    const { client, annotationPrefix, settings, signal, mayWrite } = this.#options
    const path = `/api/v1/nodes/${encodeURIComponent(name)}`
    let object: unknown
    try {
      object = await client.request({ method: 'GET', path, signal })
    } catch (error) {
      if (error instanceof HttpError && error.status === 404) return
      throw error
    }
    const node = projectWatched(object as RawObject, annotationPrefix)
    for (const duty of judgeNode(node, this.#sight(node), settings)) {
      if (!mayWrite()) return
      const resourceVersion = versionOf(object)
      const body =
        duty === 'forget'
          ? { metadata: { resourceVersion, annotations: forgotten(annotationPrefix) } }
          : { metadata: { resourceVersion }, status: { conditions: [conditionOf(MARKS[duty])] } }
      object = await client.request({
        method: 'PATCH',
        path: `${path}/status`,
        body,
        contentType: 'application/strategic-merge-patch+json',
        signal,
      })
      this.#tell(node, duty)
    }
  }

  #tell(node: WatchedNode, duty: Duty): void {
    const { log, events } = this.#options
    log.info({ node: node.name, duty }, 'node state changed')
    const told =
      duty === 'mark-gone'
        ? 'no agent of weft is ready here: pods that run keep their network, new ones cannot have one'
        : duty === 'forget'
          ? 'no agent of weft came back: its annotations are removed, the other nodes route here no more'
          : undefined
    if (!told) return
    const uid = node.uid === undefined ? {} : { uid: node.uid }
    const reason = duty === 'forget' ? 'WeftStateRemoved' : gone
    events.report({ node: node.name, ...uid, severity: 'Warning', reason, message: told })
  }
}

function conditionOf(mark: { readonly status: string; readonly reason: string; readonly message: string }): object {
  const now = `${new Date().toISOString().slice(0, 19)}Z`
  return { type: 'NetworkUnavailable', ...mark, lastHeartbeatTime: now, lastTransitionTime: now }
}

const forgotten = (prefix: string): Record<string, null> =>
  Object.fromEntries(announcedKeys(prefix).map((key) => [key, null]))

function projectAgent(object: RawObject): AgentPod {
  const { nodeName, containers } = (object.spec ?? {}) as { nodeName?: unknown; containers?: unknown }
  const { conditions, podIP } = (object.status ?? {}) as { conditions?: unknown; podIP?: unknown }
  const listed = (value: unknown): Record<string, unknown>[] => (Array.isArray(value) ? value : []).filter(Boolean)
  const port = listed(containers)
    .flatMap(({ ports }) => listed(ports))
    .find(({ name }) => name === 'metrics')?.containerPort
  return {
    node: typeof nodeName === 'string' ? nodeName.slice(0, 253) : '',
    ready: listed(conditions).some(({ type, status }) => type === 'Ready' && status === 'True'),
    address: typeof podIP === 'string' && Ip.tryParse(podIP) ? podIP : '',
    port: typeof port === 'number' ? port : 0,
  }
}
