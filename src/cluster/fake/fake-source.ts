/**
 * A cluster in memory, for tests of the agent and as the simplest reading of the ClusterSource contract: a store that
 * several sources share, which can be taken away and given back.
 */
import type { CalicoNode } from '../../model/calico.ts'
import type { NodeInfo } from '../../model/cluster.ts'
import type { ConfigError } from '../../model/errors.ts'
import type { Announcement, ClusterEvent, ClusterListener, ClusterSource, NodeReport, NodeWishes } from '../cluster.ts'

interface Entry {
  readonly node: NodeInfo
  readonly wishes: NodeWishes
  readonly problems: readonly ConfigError[]
}

/** The store. Writes reach every started source in a later turn of the event loop, in order. */
export class FakeCluster {
  readonly nodes = new Map<string, Entry>()
  readonly reports: NodeReport[] = []
  readonly available = new Set<string>()
  readonly object = 'net-conf.json'
  network: string | undefined
  readonly #sources = new Set<FakeSource>()
  readonly #waiting: (() => void)[] = []
  #up = true

  get up(): boolean {
    return this.#up
  }

  source(nodeName: string): FakeSource {
    return new FakeSource(this, nodeName)
  }

  putNode(node: NodeInfo, wishes: NodeWishes = {}, problems: readonly ConfigError[] = []): void {
    this.nodes.set(node.name, { node, wishes, problems })
    this.tell({ type: 'node', node, wishes, problems })
  }

  removeNode(name: string): void {
    if (this.nodes.delete(name)) this.tell({ type: 'node-gone', name })
  }

  putNetwork(text: string | undefined): void {
    this.network = text
    this.tell({ type: 'network', text, object: this.object })
  }

  /** Takes the store away (nothing is told, writes wait), or gives it back (sources compare and tell differences). */
  setUp(up: boolean): void {
    this.#up = up
    for (const source of this.#sources) source.reach(up)
    if (up) for (const resolve of this.#waiting.splice(0)) resolve()
  }

  whenUp(): Promise<void> {
    return this.#up ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve))
  }

  write(name: string, { lease, weft, calico }: Announcement): void {
    const entry = this.nodes.get(name)
    if (!entry) throw new Error(`There is no node ${name}`)
    const { lease: heldLease, calico: heldCalico, ...rest } = entry.node
    const stands = { lease: lease === undefined ? heldLease : lease, calico: calicoAfter(heldCalico, calico) }
    const node: NodeInfo = {
      ...rest,
      ...(stands.lease ? { lease: stands.lease } : {}),
      weft,
      ...(stands.calico ? { calico: stands.calico } : {}),
    }
    if (JSON.stringify(node) !== JSON.stringify(entry.node)) this.putNode(node, entry.wishes, entry.problems)
  }

  join(source: FakeSource): void {
    this.#sources.add(source)
  }

  leave(source: FakeSource): void {
    this.#sources.delete(source)
  }

  tell(event: ClusterEvent): void {
    if (this.#up) for (const source of this.#sources) source.hear(event)
  }
}

export class FakeSource implements ClusterSource {
  readonly #cluster: FakeCluster
  readonly #nodeName: string
  /** What the listener has been told, to tell only differences after the store was away. */
  readonly #told = new Map<string, string>()
  #listener: ClusterListener | undefined
  #toldNetwork: string | undefined | null = null
  #synced = false
  #closed = false

  constructor(cluster: FakeCluster, nodeName: string) {
    this.#cluster = cluster
    this.#nodeName = nodeName
  }

  start(listener: ClusterListener): void {
    this.#listener = listener
    this.#cluster.join(this)
    if (this.#cluster.up) this.#compare()
    else this.#emit({ type: 'connection', up: false, problem: 'the store is away' })
  }

  async announce(announcement: Announcement): Promise<void> {
    await this.#cluster.whenUp()
    if (!this.#closed) this.#cluster.write(this.#nodeName, announcement)
  }

  async setNetworkAvailable(): Promise<void> {
    await this.#cluster.whenUp()
    this.#cluster.available.add(this.#nodeName)
  }

  report(report: NodeReport): void {
    this.#cluster.reports.push(report)
  }

  reconnect(): void {}

  async close(): Promise<void> {
    this.#closed = true
    this.#cluster.leave(this)
  }

  /** The store says something. */
  hear(event: ClusterEvent): void {
    if (event.type === 'node') {
      const text = JSON.stringify(event)
      if (this.#told.get(event.node.name) === text) return
      this.#told.set(event.node.name, text)
    } else if (event.type === 'node-gone') {
      if (!this.#told.delete(event.name)) return
    } else if (event.type === 'network') {
      if (this.#toldNetwork === event.text) return
      this.#toldNetwork = event.text
    }
    this.#emit(event)
  }

  /** The store went away or came back. */
  reach(up: boolean): void {
    this.#emit({ type: 'connection', up, ...(up ? {} : { problem: 'the store is away' }) })
    if (up) this.#compare()
  }

  #compare(): void {
    const { network, object, nodes } = this.#cluster
    this.hear({ type: 'network', text: network, object })
    for (const name of [...this.#told.keys()]) if (!nodes.has(name)) this.hear({ type: 'node-gone', name })
    for (const entry of nodes.values()) this.hear({ type: 'node', ...entry })
    if (this.#synced) return
    this.#synced = true
    this.#emit({ type: 'synced' })
  }

  #emit(event: ClusterEvent): void {
    setImmediate(() => {
      if (!this.#closed) this.#listener?.(event)
    })
  }
}

/** An administrator's words stay when the node does not say them; nothing is said where nothing is left. */
function calicoAfter(held: CalicoNode | undefined, said: CalicoNode | null | undefined): CalicoNode | undefined {
  if (said === undefined) return held
  const { asNumber, routeReflectorClusterId } = held ?? {}
  const administered = { asNumber, routeReflectorClusterId }
  const kept = Object.fromEntries(Object.entries(administered).filter(([, value]) => value !== undefined))
  const left = { ...kept, ...said }
  return Object.keys(left).length > 0 ? left : undefined
}
