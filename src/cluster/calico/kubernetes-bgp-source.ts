/**
 * BGP's objects followed on a Kubernetes API server. Nothing is asked for while their definitions are not served, and all of it
 * is given up when they are removed.
 *
 *        GroupWatch ──group──► three informers ──listed──► synced
 *             └──none (definitions missing, or removed)──► everything gone, synced
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/resources (bgpconfig.go, bgppeer.go, bgpfilter.go), confd/pkg/backends/calico/
 * secret_watcher.go (Secrets are in the namespace of the node's pod).
 */
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import type { HttpClient } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from '../kubernetes/informer.ts'
import { NamedSecrets } from '../kubernetes/named-secrets.ts'
import type { CalicoGroup } from './api-group.ts'
import { bgpObjectEvent, bgpObjectKinds, bgpPlural } from './bgp-events.ts'
import type { BgpObjectEvent, BgpObjectKind, BgpObjectListener, BgpSource } from './bgp-source.ts'
import { ConnectionState } from './connection-state.ts'
import { GroupWatch } from './group-watch.ts'
import { keptMetadata } from './object-events.ts'

export interface KubernetesBgpOptions {
  readonly client: HttpClient
  /** Where the Secrets are: the agents' namespace. */
  readonly namespace: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  /** For tests: shorter pages, watches and waits. */
  readonly tuning?: Pick<
    InformerOptions<unknown>,
    'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs' | 'absencePatienceMs'
  >
}

type Json = Readonly<Record<string, unknown>>

const whole = (object: RawObject): Json => ({ metadata: keptMetadata(object.metadata), spec: object.spec ?? {} })

export class KubernetesBgpSource implements BgpSource {
  readonly #options: KubernetesBgpOptions
  readonly #groups: GroupWatch
  readonly #secrets: NamedSecrets
  readonly #connection: ConnectionState
  /** Names that the listener knows. */
  readonly #told = new Map<BgpObjectKind, Set<string>>(bgpObjectKinds.map((kind) => [kind, new Set()]))
  readonly #awaited = new Set<BgpObjectKind>()
  #informers: Informer<Json>[] = []
  #listener: BgpObjectListener = () => {}
  #synced = false
  #closed = false

  constructor(options: KubernetesBgpOptions) {
    this.#options = options
    this.#connection = new ConnectionState((up, problem) =>
      this.#tell({ type: 'connection', up, ...(problem === undefined ? {} : { problem }) }),
    )
    const { client, namespace, observer, tuning = {} } = options
    const { absencePatienceMs: _, ...watchTuning } = tuning
    const common = { client, ...(observer ? { observer } : {}), tuning: watchTuning }
    this.#groups = new GroupWatch({
      ...common,
      onGroup: (group) => this.#onGroup(group),
      onConnection: (part, problem) => this.#connection.note(part, problem),
    })
    this.#secrets = new NamedSecrets({
      ...common,
      namespace,
      onSecret: (name, values, problem) =>
        this.#tell({ type: 'secret', name, values, ...(problem === undefined ? {} : { problem }) }),
    })
  }

  start(listener: BgpObjectListener): void {
    this.#listener = listener
    setImmediate(() => {
      if (!this.#closed) this.#groups.start()
    })
  }

  want(secrets: ReadonlySet<string>): void {
    this.#secrets.want(secrets)
  }

  reconnect(): void {
    this.#options.client.close()
  }

  async close(): Promise<void> {
    this.#closed = true
    const informers = this.#informers.map((each) => each.close())
    await Promise.all([this.#groups.close(), this.#secrets.close(), ...informers])
  }

  #onGroup(group: CalicoGroup | undefined): void {
    for (const informer of this.#informers.splice(0)) void informer.close()
    for (const kind of bgpObjectKinds) this.#connection.note(kind, undefined)
    this.#awaited.clear()
    if (!group) {
      for (const [kind, names] of this.#told) for (const name of [...names]) this.#forget(kind, name)
      this.#sync()
      return
    }
    for (const kind of bgpObjectKinds) this.#awaited.add(kind)
    this.#informers = bgpObjectKinds.map((kind) => this.#follow(group, kind))
  }

  #follow(group: CalicoGroup, kind: BgpObjectKind): Informer<Json> {
    const { client, observer, tuning, log } = this.#options
    const told = this.#told.get(kind)!
    const seen = new Set<string>()
    const informer = new Informer<Json>({
      client,
      path: `/apis/${group}/${bgpPlural(kind)}`,
      absentIsEmpty: true,
      ...(observer ? { observer } : {}),
      ...tuning,
      project: whole,
      onSet: (name, kept) => {
        seen.add(name)
        told.add(name)
        this.#tell(bgpObjectEvent(kind, name, () => kept, log))
      },
      onDelete: (name) => this.#forget(kind, name),
      onListed: (first) => {
        // What another group had before this one, and this one has not.
        if (first) for (const name of [...told]) if (!seen.has(name)) this.#forget(kind, name)
        if (first) seen.clear()
        this.#awaited.delete(kind)
        if (this.#awaited.size === 0) this.#sync()
      },
      onConnection: (problem) => this.#connection.note(kind, problem),
    })
    informer.start()
    return informer
  }

  #forget(kind: BgpObjectKind, name: string): void {
    if (this.#told.get(kind)!.delete(name)) this.#tell({ type: 'object-gone', kind, name })
  }

  #sync(): void {
    if (this.#synced) return
    this.#synced = true
    this.#tell({ type: 'synced' })
  }

  #tell(event: BgpObjectEvent): void {
    if (!this.#closed) this.#listener(event)
  }
}
