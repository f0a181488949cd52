/**
 * Calico's objects followed on a Kubernetes API server. Nothing is asked for while their definitions are not served, and all of
 * it is given up when they are removed. Of a block only its version is kept here: who wants the block has it from its event.
 *
 *        GroupWatch ──group──► six informers ──listed──► synced
 *             └──none (definitions missing, or removed)──► everything gone, synced
 *
 * Sources: Calico libcalico-go/lib/backend/k8s/resources (which objects), felix config names `default` and `node.<name>`.
 */
import { decodeAffinitySpec } from '../../config/calico/affinity.ts'
import { Cidr } from '../../net/cidr.ts'
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import type { HttpClient } from '../http-client.ts'
import { Informer, type InformerOptions, type RawObject } from '../kubernetes/informer.ts'
import { type CalicoGroup, type CalicoResource, collectionPath } from './api-group.ts'
import type { CalicoEvent, CalicoListener, CalicoSource, PodDirectory } from './calico-source.ts'
import { ConnectionState } from './connection-state.ts'
import { GroupWatch } from './group-watch.ts'
import { revisionOf } from './kubernetes-store.ts'
import {
  affinityEvent,
  blockEvent,
  keptMetadata,
  passFelix,
  poolEvent,
  reservationEvent,
  settingsEvent,
} from './object-events.ts'
import { KubernetesPods } from './pod-directory.ts'

export interface KubernetesCalicoOptions {
  readonly client: HttpClient
  readonly nodeName: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  /** For tests: shorter pages, watches and waits. */
  readonly tuning?: Pick<
    InformerOptions<unknown>,
    'pageSize' | 'watchSeconds' | 'backoff' | 'spreadMs' | 'absencePatienceMs'
  >
}

type Json = Readonly<Record<string, unknown>>

/** How one resource becomes events. */
interface Row {
  /** What is kept: an object is told again when it differs. */
  keep(object: RawObject): Json
  set(name: string, object: RawObject): CalicoEvent | undefined
  gone(name: string, kept: Json): CalicoEvent | undefined
}

export class KubernetesCalicoSource implements CalicoSource {
  readonly pods: PodDirectory
  readonly #pods: KubernetesPods
  readonly #options: KubernetesCalicoOptions
  readonly #groups: GroupWatch
  readonly #rows: ReadonlyMap<CalicoResource, Row>
  readonly #connection: ConnectionState
  /** What the listener knows, by resource and name. */
  readonly #told = new Map<CalicoResource, Map<string, Json>>()
  readonly #awaited = new Set<CalicoResource>()
  #informers: Informer<Json>[] = []
  #group: CalicoGroup | undefined
  #listener: CalicoListener = () => {}
  #synced = false
  #closed = false

  constructor(options: KubernetesCalicoOptions) {
    this.#options = options
    this.#rows = rowsOf(options)
    this.#pods = new KubernetesPods(options)
    this.pods = this.#pods
    this.#connection = new ConnectionState((up, problem) =>
      this.#tell({ type: 'connection', up, ...(problem === undefined ? {} : { problem }) }),
    )
    const { client, observer, tuning = {} } = options
    const { absencePatienceMs: _, ...watchTuning } = tuning
    this.#groups = new GroupWatch({
      client,
      ...(observer ? { observer } : {}),
      tuning: watchTuning,
      onGroup: (group) => this.#onGroup(group),
      onConnection: (part, problem) => this.#connection.note(part, problem),
    })
  }

  /** The group that is served now; undefined while none is. For stores that share this source's knowledge. */
  get group(): CalicoGroup | undefined {
    return this.#group
  }

  start(listener: CalicoListener): void {
    this.#listener = listener
    setImmediate(() => {
      if (!this.#closed) this.#groups.start()
    })
  }

  reconnect(): void {
    this.#options.client.close()
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([this.#groups.close(), this.#pods.close(), ...this.#informers.map((each) => each.close())])
  }

  #onGroup(group: CalicoGroup | undefined): void {
    this.#group = group
    for (const informer of this.#informers.splice(0)) void informer.close()
    for (const resource of this.#rows.keys()) this.#connection.note(resource, undefined)
    this.#awaited.clear()
    if (!group) {
      for (const [resource, told] of this.#told) for (const name of [...told.keys()]) this.#forget(resource, name)
      this.#sync()
      return
    }
    for (const resource of this.#rows.keys()) this.#awaited.add(resource)
    this.#informers = [...this.#rows].map(([resource, row]) => this.#follow(group, resource, row))
    this.#pods.start()
  }

  #follow(group: CalicoGroup, resource: CalicoResource, row: Row): Informer<Json> {
    const { client, observer, tuning } = this.#options
    const told = this.#told.get(resource) ?? new Map<string, Json>()
    this.#told.set(resource, told)
    const seen = new Set<string>()
    const informer = new Informer<Json>({
      client,
      path: collectionPath(group, resource),
      absentIsEmpty: true,
      ...(observer ? { observer } : {}),
      ...tuning,
      project: (object) => row.keep(object),
      onSet: (name, kept, object) => {
        seen.add(name)
        told.set(name, kept)
        this.#tell(row.set(name, object))
      },
      onDelete: (name) => this.#forget(resource, name),
      onListed: (first) => {
        // What another group had before this one, and this one has not.
        if (first) for (const name of [...told.keys()]) if (!seen.has(name)) this.#forget(resource, name)
        if (first) seen.clear()
        this.#awaited.delete(resource)
        if (this.#awaited.size === 0) this.#sync()
      },
      onConnection: (problem) => this.#connection.note(resource, problem),
    })
    informer.start()
    return informer
  }

  #forget(resource: CalicoResource, name: string): void {
    const told = this.#told.get(resource)!
    const kept = told.get(name)
    if (!kept || !told.delete(name)) return
    this.#tell(this.#rows.get(resource)!.gone(name, kept))
  }

  #sync(): void {
    if (this.#synced) return
    this.#synced = true
    this.#tell({ type: 'synced' })
  }

  #tell(event: CalicoEvent | undefined): void {
    if (event && !this.#closed) this.#listener(event)
  }
}

const asJson = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})
const versionOf = ({ metadata }: RawObject): string => revisionOf(metadata ?? {})
const whole = (object: RawObject): Json => ({ metadata: keptMetadata(object.metadata), spec: asJson(object.spec) })

/** Of a pool's status, which others write, only whether it is said to give out addresses: not since when, and why not. */
function wholePool(object: RawObject): Json {
  const { conditions } = asJson(object.status)
  const said = (Array.isArray(conditions) ? conditions : []).filter((each) => asJson(each).type === 'Allocatable')
  const status = { conditions: said.map(({ type, status }) => ({ type, status })) }
  return { ...whole(object), ...(said.length > 0 ? { status } : {}) }
}

function rowsOf({ nodeName, log }: KubernetesCalicoOptions): ReadonlyMap<CalicoResource, Row> {
  const felixNames = new Set(['default', `node.${nodeName}`])
  return new Map<CalicoResource, Row>([
    [
      'ippools',
      {
        keep: wholePool,
        set: (name, object) => poolEvent(name, () => wholePool(object), log),
        gone: (name) => ({ type: 'pool-gone', name }),
      },
    ],
    [
      'ipreservations',
      {
        keep: whole,
        set: (name, object) => reservationEvent(name, () => whole(object), log),
        gone: (name) => ({ type: 'reservation-gone', name }),
      },
    ],
    [
      'ipamsettings',
      {
        keep: whole,
        set: (name, object) => (name === 'default' ? settingsEvent(() => whole(object), log) : undefined),
        gone: (name) => (name === 'default' ? { type: 'ipam-settings', settings: undefined } : undefined),
      },
    ],
    [
      'felixconfigurations',
      {
        keep: (object) => (felixNames.has(String(object.metadata?.name)) ? { spec: object.spec } : {}),
        set: (name, { spec }) =>
          felixNames.has(name) ? { type: 'felix', name, spec: spec ?? {} } : passFelix(name, log),
        gone: (name) => (felixNames.has(name) ? { type: 'felix', name, spec: undefined } : undefined),
      },
    ],
    [
      'blockaffinities',
      {
        keep: (object) => ({ version: versionOf(object), spec: affinityFields(object.spec) }),
        set: (name, object) => {
          const where = `BlockAffinity ${name}`
          return affinityEvent(() => decodeAffinitySpec(object.spec, where), where, versionOf(object))
        },
        gone(name, { spec }) {
          const event = affinityEvent(() => decodeAffinitySpec(spec, name), name, '')
          return event.type === 'affinity' ? { type: 'affinity-gone', affinity: event.held.value } : undefined
        },
      },
    ],
    [
      'ipamblocks',
      {
        keep: ({ metadata, spec }) => ({
          version: metadata?.resourceVersion,
          cidr: String(asJson(spec).cidr).slice(0, 64),
        }),
        set: (name, object) => blockEvent(() => object.spec, `IPAMBlock ${name}`, versionOf(object)),
        gone(_, { cidr: text }) {
          const cidr = Cidr.tryParse(String(text))
          return cidr && { type: 'block-gone', cidr }
        },
      },
    ],
  ])
}

/** What of an affinity says which it is. */
function affinityFields(spec: unknown): Json {
  const { node, type, cidr } = asJson(spec)
  const text = (value: unknown) => (typeof value === 'string' ? value.slice(0, 253) : undefined)
  return { node: text(node), type: text(type), cidr: text(cidr) }
}
