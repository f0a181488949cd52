/**
 * A cluster source whose nodes say Calico's words in Calico's etcd: the nodes of another source (flannel's keys of an etcd, or
 * Kubernetes) and Calico's Node resources, joined by name. A node that only one of the two knows is a node.
 *
 *   flannel's keys    lease, weft status ──┐
 *                                          ├─► NodeInfo { lease, weft, calico, labels }
 *   Calico's Node     words, labels, status┘
 *
 * The status of weft stands in both places, as each may be the only one; the other source's counts where it has one.
 *
 * Sources: Calico libcalico-go/lib/backend/model/resource.go (key), node/pkg/lifecycle/startup (a node makes its resource itself).
 */
import { randomUUID } from 'node:crypto'
import { formatJson } from '../../bytes/json.ts'
import { changeNodeResource, type NodeResource, parseNodeResource } from '../../config/calico/node-resource.ts'
import { etcdKeys, etcdPrefixes } from '../../config/calico/store-names.ts'
import type { NodeInfo, WeftNodeStatus } from '../../model/cluster.ts'
import { ConfigError } from '../../model/errors.ts'
import type { Cidr } from '../../net/cidr.ts'
import { Backoff, type BackoffOptions, sleep } from '../backoff.ts'
import type {
  Announcement,
  ClusterEvent,
  ClusterListener,
  ClusterLog,
  ClusterObserver,
  ClusterSource,
  NodeReport,
  SubnetRequest,
} from '../cluster.ts'
import type { EtcdClient, KeyValue } from '../etcd/client.ts'
import { EtcdFollower } from '../etcd/follower.ts'
import { HttpError } from '../http-client.ts'
import { parseStatus, STATUS_ANNOTATION } from '../kubernetes/annotations.ts'
import { ConnectionState } from './connection-state.ts'
import { parseValue } from './etcd-store.ts'

export interface EtcdNodesOptions {
  /** Closed with this one. */
  readonly source: ClusterSource
  readonly client: EtcdClient
  readonly nodeName: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  readonly backoff?: BackoffOptions
}

type NodeEvent = Extract<ClusterEvent, { type: 'node' }>

/** What Calico's resource of a node says, read. */
interface Words extends NodeResource {
  readonly weft?: WeftNodeStatus
  readonly problems: readonly ConfigError[]
}

export class EtcdNodesSource implements ClusterSource {
  readonly acquire?: NonNullable<ClusterSource['acquire']>
  readonly #options: EtcdNodesOptions
  readonly #follower: EtcdFollower
  readonly #connection: ConnectionState
  readonly #abort = new AbortController()
  readonly #nodes = new Map<string, NodeEvent>()
  readonly #words = new Map<string, Words>()
  readonly #awaited = new Set<'nodes' | 'words'>(['nodes', 'words'])
  #listener: ClusterListener = () => {}

  constructor(options: EtcdNodesOptions) {
    this.#options = options
    const { source, client, observer, backoff } = options
    if (source.acquire) this.acquire = (request: SubnetRequest): Promise<readonly Cidr[]> => source.acquire!(request)
    this.#connection = new ConnectionState((up, problem) =>
      this.#tell({ type: 'connection', up, ...(problem === undefined ? {} : { problem }) }),
    )
    this.#follower = new EtcdFollower({
      client,
      prefix: etcdPrefixes.nodes,
      ...(observer ? { observer } : {}),
      ...(backoff ? { backoff } : {}),
      onSet: (pair) => this.#onWords(pair),
      onDelete: (key) => this.#onWordsGone(key.slice(etcdPrefixes.nodes.length)),
      onListed: () => this.#arrived('words'),
      onConnection: (problem) => this.#connection.note('words', problem),
    })
  }

  start(listener: ClusterListener): void {
    this.#listener = listener
    this.#options.source.start((event) => this.#hear(event))
    setImmediate(() => {
      if (!this.#abort.signal.aborted) this.#follower.start()
    })
  }

  async announce({ calico, ...others }: Announcement): Promise<void> {
    await Promise.all([this.#options.source.announce(others), this.#write({ calico, weft: others.weft })])
  }

  setNetworkAvailable(): Promise<void> {
    return this.#options.source.setNetworkAvailable()
  }

  report(report: NodeReport): void {
    this.#options.source.report(report)
  }

  reconnect(): void {
    this.#options.source.reconnect()
    this.#options.client.close()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await Promise.all([this.#options.source.close(), this.#follower.close()])
    this.#options.client.close()
  }

  #hear(event: ClusterEvent): void {
    if (event.type === 'node') {
      this.#nodes.set(event.node.name, event)
      this.#tellNode(event.node.name)
    } else if (event.type === 'node-gone') {
      this.#nodes.delete(event.name)
      this.#tellNode(event.name)
    } else if (event.type === 'synced') this.#arrived('nodes')
    else if (event.type === 'connection')
      this.#connection.note('nodes', event.up ? undefined : new Error(event.problem ?? 'the store is away'))
    else this.#tell(event)
  }

  #onWords({ key, value }: KeyValue): void {
    const name = key.slice(etcdPrefixes.nodes.length)
    if (name === '' || name.includes('/') || name.length > 253) return
    this.#words.set(name, readWords(key, value))
    this.#tellNode(name)
  }

  #onWordsGone(name: string): void {
    if (this.#words.delete(name)) this.#tellNode(name)
  }

  #tellNode(name: string): void {
    const [known, words] = [this.#nodes.get(name), this.#words.get(name)]
    if (!known && !words) return this.#tell(this.#isOurs(name) ? newcomer(name) : { type: 'node-gone', name })
    const problems = [...(known?.problems ?? []), ...(words?.problems ?? [])]
    const node = words ? join(known?.node ?? bareNode(name, words), words) : known!.node
    this.#tell({ type: 'node', node, problems, wishes: known?.wishes ?? {} })
  }

  #arrived(part: 'nodes' | 'words'): void {
    if (!this.#awaited.delete(part) || this.#awaited.size > 0) return
    const { nodeName } = this.#options
    if (this.#isOurs(nodeName) && !this.#nodes.has(nodeName) && !this.#words.has(nodeName)) this.#tellNode(nodeName)
    this.#tell({ type: 'synced' })
  }

  /** Where nodes take their subnets themselves, nobody makes this node but it: it is there before it has said anything. */
  #isOurs(name: string): boolean {
    return name === this.#options.nodeName && this.acquire !== undefined && this.#awaited.size === 0
  }

  #tell(event: ClusterEvent): void {
    if (!this.#abort.signal.aborted) this.#listener(event)
  }

  /** Writes the own resource until it says this; what the store refuses for good rejects. */
  async #write({ calico, weft }: Pick<Announcement, 'weft'> & { calico: Announcement['calico'] }): Promise<void> {
    const { client, nodeName, log } = this.#options
    const { signal } = this.#abort
    const key = etcdKeys.node(nodeName)
    const backoff = new Backoff(this.#options.backoff)
    const made = { uid: randomUUID(), creationTimestamp: `${new Date().toISOString().slice(0, 19)}Z` }
    const status = { [STATUS_ANNOTATION]: calico === null ? null : JSON.stringify(weft) }
    for (let attempt = 0; !signal.aborted; attempt++)
      try {
        const [pair] = (await client.range(key, { exact: true }, signal)).pairs
        const standing = pair && standingOf(pair)
        // Without Calico's words there is nothing to make, and nothing of weft's to keep up to date.
        if (!calico && !saysStatus(standing)) return
        const change = { ...(calico === undefined ? {} : { calico }), annotations: status }
        const text = formatJson(changeNodeResource(nodeName, standing, change, made))
        if (pair && formatJson(standing) === text) return
        if ((await client.replaceIf(key, pair?.modRevision ?? '0', text, signal)) !== undefined) return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof HttpError && error.status < 500 && error.status !== 429) throw error
        if (attempt === 0) log.warn({ err: (error as Error).message }, "cannot write this node's Calico resource yet")
        await sleep(backoff.next(), signal)
      }
  }
}

/** A value that is no JSON is replaced: nobody else can read it either. */
function standingOf({ value }: KeyValue): unknown {
  try {
    return parseValue(value)
  } catch {
    return undefined
  }
}

const saysStatus = (value: unknown): boolean =>
  parseNodeResource(value, () => {}).annotations[STATUS_ANNOTATION] !== undefined

function readWords(key: string, text: string): Words {
  const problems: ConfigError[] = []
  const attempt = <T>(where: string, read: () => T): T | undefined => {
    try {
      return read()
    } catch (cause) {
      problems.push(new ConfigError(`etcd ${key}`, where, (cause as Error).message, { cause }))
      return undefined
    }
  }
  const value = attempt('value', () => parseValue(text))
  const resource = parseNodeResource(value, (where, cause) =>
    problems.push(new ConfigError(`etcd ${key}`, where, cause.message, { cause })),
  )
  const status = resource.annotations[STATUS_ANNOTATION]
  const weft =
    status === undefined ? undefined : attempt(`metadata.annotations.${STATUS_ANNOTATION}`, () => parseStatus(status))
  return { ...resource, ...(weft ? { weft } : {}), problems }
}

/** A node that has said nothing yet. */
const newcomer = (name: string): NodeEvent => ({
  type: 'node',
  node: { name, addresses: [], podCidrs: [] },
  problems: [],
  wishes: {},
})

/** A node that only Calico's store knows. */
function bareNode(name: string, { calico, creationTimestamp }: Words): NodeInfo {
  const createdAt = Date.parse(creationTimestamp ?? '') / 1000
  return {
    name,
    ...(Number.isFinite(createdAt) ? { createdAtSeconds: createdAt } : {}),
    addresses: [calico?.ipv4?.ip, calico?.ipv6?.ip].filter((ip) => ip !== undefined),
    podCidrs: [],
  }
}

function join(node: NodeInfo, { calico, weft, labels: said }: Words): NodeInfo {
  const labels = { ...said, ...node.labels }
  return {
    ...node,
    ...(node.weft || !weft ? {} : { weft }),
    ...(calico ? { calico } : {}),
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
  }
}
