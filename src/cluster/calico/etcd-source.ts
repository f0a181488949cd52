/**
 * Calico's objects followed in etcd v3, under Calico's keys. Pods are where a Kubernetes API server has them, or nowhere.
 *
 * Sources: Calico libcalico-go/lib/backend/model (keys), lib/backend/etcdv3 (values are JSON).
 */

import { decodeAffinityValue } from '../../config/calico/affinity.ts'
import { etcdKeys, etcdPrefixes, parseAffinityKey, parseBlockKey } from '../../config/calico/store-names.ts'
import type { BackoffOptions } from '../backoff.ts'
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import type { EtcdClient, KeyValue } from '../etcd/client.ts'
import { EtcdFollower } from '../etcd/follower.ts'
import type { HttpClient } from '../http-client.ts'
import type { CalicoEvent, CalicoListener, CalicoSource, PodDirectory } from './calico-source.ts'
import { ConnectionState } from './connection-state.ts'
import { parseValue } from './etcd-store.ts'
import { affinityEvent, blockEvent, passFelix, poolEvent, reservationEvent, settingsEvent } from './object-events.ts'
import { KubernetesPods } from './pod-directory.ts'

export interface EtcdCalicoOptions {
  readonly client: EtcdClient
  readonly nodeName: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
  /** The API server that has the pods. */
  readonly pods?: HttpClient
  readonly backoff?: BackoffOptions
}

/** How the keys under one prefix become events. */
interface Row {
  readonly prefix: string
  set(pair: KeyValue): CalicoEvent | undefined
  gone(key: string): CalicoEvent | undefined
}

/** Where no API server is, nothing is known of pods. */
const noPods: PodDirectory = { find: async () => undefined, annotate: () => {} }

export class EtcdCalicoSource implements CalicoSource {
  readonly pods: PodDirectory
  readonly #pods: KubernetesPods | undefined
  readonly #options: EtcdCalicoOptions
  readonly #followers: readonly EtcdFollower[]
  readonly #awaited = new Set<string>()
  #listener: CalicoListener = () => {}
  #closed = false

  constructor(options: EtcdCalicoOptions) {
    this.#options = options
    const { client, nodeName, log, observer, pods, backoff } = options
    this.#pods = pods && new KubernetesPods({ client: pods, nodeName, log, ...(observer ? { observer } : {}) })
    this.pods = this.#pods ?? noPods
    const connection = new ConnectionState((up, problem) =>
      this.#tell({ type: 'connection', up, ...(problem === undefined ? {} : { problem }) }),
    )
    this.#followers = rowsOf(options).map((row) => {
      this.#awaited.add(row.prefix)
      return new EtcdFollower({
        client,
        prefix: row.prefix,
        ...(observer ? { observer } : {}),
        ...(backoff ? { backoff } : {}),
        onSet: (pair) => this.#tell(row.set(pair)),
        onDelete: (key) => this.#tell(row.gone(key)),
        onListed: () => {
          if (this.#awaited.delete(row.prefix) && this.#awaited.size === 0) this.#tell({ type: 'synced' })
        },
        onConnection: (problem) => connection.note(row.prefix, problem),
      })
    })
  }

  start(listener: CalicoListener): void {
    this.#listener = listener
    setImmediate(() => {
      if (this.#closed) return
      for (const follower of this.#followers) follower.start()
      this.#pods?.start()
    })
  }

  reconnect(): void {
    this.#options.client.close()
    this.#options.pods?.close()
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([this.#pods?.close(), ...this.#followers.map((follower) => follower.close())])
  }

  #tell(event: CalicoEvent | undefined): void {
    if (event && !this.#closed) this.#listener(event)
  }
}

/** The last part of a key, where it is one more than the prefix. */
function nameIn(prefix: string, key: string): string | undefined {
  const name = key.slice(prefix.length)
  return key.startsWith(prefix) && name !== '' && name.length <= 253 && !name.includes('/') ? name : undefined
}

function rowsOf({ nodeName, log }: EtcdCalicoOptions): readonly Row[] {
  const felixNames = new Set(['default', `node.${nodeName}`])
  const named = (
    prefix: string,
    set: (name: string, read: () => unknown) => CalicoEvent | undefined,
    gone: (name: string) => CalicoEvent | undefined,
  ): Row => ({
    prefix,
    set({ key, value }) {
      const name = nameIn(prefix, key)
      return name === undefined ? undefined : set(name, () => parseValue(value))
    },
    gone(key) {
      const name = nameIn(prefix, key)
      return name === undefined ? undefined : gone(name)
    },
  })
  return [
    named(
      etcdPrefixes.pools,
      (name, read) => poolEvent(name, read, log),
      (name) => ({ type: 'pool-gone', name }),
    ),
    named(
      etcdPrefixes.reservations,
      (name, read) => reservationEvent(name, read, log),
      (name) => ({ type: 'reservation-gone', name }),
    ),
    named(
      etcdPrefixes.felix,
      (name, read) => (felixNames.has(name) ? felixEvent(name, read, log) : passFelix(name, log)),
      (name) => (felixNames.has(name) ? { type: 'felix', name, spec: undefined } : undefined),
    ),
    {
      prefix: etcdKeys.ipamConfig,
      set: ({ key, value }) => (key === etcdKeys.ipamConfig ? settingsEvent(() => parseValue(value), log) : undefined),
      gone: (key) => (key === etcdKeys.ipamConfig ? { type: 'ipam-settings', settings: undefined } : undefined),
    },
    {
      prefix: etcdPrefixes.blocks,
      set: ({ key, value, modRevision }) =>
        parseBlockKey(key) && blockEvent(() => parseValue(value), `etcd ${key}`, modRevision),
      gone(key) {
        const cidr = parseBlockKey(key)
        return cidr && { type: 'block-gone', cidr }
      },
    },
    affinityRow(etcdPrefixes.hostAffinities),
    affinityRow(etcdPrefixes.virtualAffinities),
  ]
}

function felixEvent(name: string, read: () => unknown, log: ClusterLog): CalicoEvent | undefined {
  try {
    return { type: 'felix', name, spec: ((read() ?? {}) as { spec?: unknown }).spec ?? {} }
  } catch (error) {
    log.warn({ err: (error as Error).message, felix: name }, 'a FelixConfiguration cannot be read; the last one counts')
    return undefined
  }
}

const affinityRow = (prefix: string): Row => ({
  prefix,
  set({ key, value, modRevision }) {
    const parsed = parseAffinityKey(key)
    if (!parsed) return undefined
    const where = `etcd ${key}`
    return affinityEvent(() => decodeAffinityValue(parseValue(value), parsed, where), where, modRevision)
  },
  gone(key) {
    const parsed = parseAffinityKey(key)
    return parsed && { type: 'affinity-gone', affinity: { ...parsed, state: 'confirmed', deleted: true } }
  },
})
