/**
 * All that `weft ipam` looks at, read once: pools, reservations and settings; blocks, affinities and handles; nodes and pods.
 * What cannot be read is told beside the rest.
 */
import { usesOfNode, usesOfPod } from '../../cluster/calico/address-uses.ts'
import type { CalicoEvent } from '../../cluster/calico/calico-source.ts'
import { type CalicoPlace, openCalicoSource, openIpamStore } from '../../cluster/calico/open.ts'
import type { ClusterLog } from '../../cluster/cluster.ts'
import type { EtcdClientOptions } from '../../cluster/etcd/client.ts'
import { HttpClient } from '../../cluster/http-client.ts'
import { parseNode, projectNode } from '../../cluster/kubernetes/annotations.ts'
import { followConnection } from '../../cluster/kubernetes/kubeconfig.ts'
import { listObjects } from '../../cluster/kubernetes/list-objects.ts'
import { defaultIpamSettings } from '../../config/calico/ipam-settings.ts'
import { parseNodeResource } from '../../config/calico/node-resource.ts'
import { etcdPrefixes } from '../../config/calico/store-names.ts'
import type { AddressUse, AuditInput } from '../../ipam/audit.ts'
import type { IpamStore } from '../../ipam/stores/ipam-store.ts'
import type { IpamSettings, IpPool, IpReservation } from '../../model/calico.ts'
import type { NodeInfo } from '../../model/cluster.ts'
import { ConfigError } from '../../model/errors.ts'
import { etcdShelf, kubernetesShelf, type PoolShelf } from './split.ts'

/** The part of the agent's options that says where things are. */
export interface IpamPlace {
  readonly kubeconfig?: string
  readonly kubeApiUrl?: string
  readonly annotationPrefix: string
  /** Where this node's subnets come from; with etcd there is no API server. */
  readonly store: 'kubernetes' | 'etcd'
  readonly calico: { readonly store: 'kubernetes' | 'etcd' | 'none'; readonly etcd: EtcdClientOptions }
}

export interface PoolWords {
  readonly pools: readonly IpPool[]
  readonly reservations: readonly IpReservation[]
  readonly settings: IpamSettings
  /** Of objects that cannot be read. */
  readonly problems: readonly Error[]
}

const LOAD_TIMEOUT_MS = 60_000

export class IpamSight {
  readonly store: IpamStore
  /** The API server's client, where there is one and it is needed. */
  readonly kubernetes: HttpClient | undefined
  readonly #place: CalicoPlace
  readonly #options: IpamPlace
  readonly #log: ClusterLog

  private constructor(
    options: IpamPlace,
    place: CalicoPlace,
    store: IpamStore,
    kubernetes: HttpClient | undefined,
    log: ClusterLog,
  ) {
    this.#options = options
    this.#place = place
    this.#log = log
    this.store = store
    this.kubernetes = kubernetes
  }

  /**
   * `usesToo`: who uses addresses is wanted as well, which the API server knows, also where pools are in etcd. Throws ConfigError
   * for a kubeconfig or certificate that cannot be read, and where pools are switched off.
   */
  static async open(options: IpamPlace, log: ClusterLog, usesToo: boolean): Promise<IpamSight> {
    const { kubeconfig, kubeApiUrl, calico } = options
    if (calico.store === 'none')
      throw new ConfigError('--calico-datastore', 'value', 'is none: there are no address pools to look at')
    const hasServer = calico.store === 'kubernetes' || (usesToo && options.store === 'kubernetes')
    const kubernetes = hasServer ? new HttpClient(followConnection(kubeconfig, kubeApiUrl, log)) : undefined
    let place: CalicoPlace
    if (calico.store === 'kubernetes') place = { kind: 'kubernetes', client: kubernetes! }
    else {
      const { EtcdClient } = await import('../../cluster/etcd/client.ts')
      place = {
        kind: 'etcd',
        client: new EtcdClient({ ...calico.etcd }),
        ...(kubernetes ? { pods: kubernetes } : {}),
      }
    }
    return new IpamSight(options, place, await openIpamStore(place), kubernetes, log)
  }

  /** Everything, for an audit of a sight that was opened with `usesToo`. Rejects when the store or the API server cannot be asked. */
  async load(nowMilliseconds: number): Promise<AuditInput> {
    const [words, blocks, affinities, handles, { nodes, uses }] = await Promise.all([
      this.readPools(),
      this.store.blocks.list(),
      this.store.affinities.list(),
      this.store.handles.list(),
      this.#readUses(),
    ])
    const { pools, reservations, settings } = words
    return {
      pools,
      reservations,
      settings,
      blocks: blocks.objects,
      affinities: affinities.objects,
      handles: handles.objects,
      nodes: new Set(nodes.map(({ name }) => name)),
      inUse: uses,
      unreadable: [...words.problems, ...blocks.problems, ...affinities.problems, ...handles.problems],
      now: nowMilliseconds,
    }
  }

  /** Pools, reservations and settings as an agent hears of them. */
  async readPools(): Promise<PoolWords> {
    const pools = new Map<string, IpPool>()
    const reservations = new Map<string, IpReservation>()
    const problems: Error[] = []
    let settings = defaultIpamSettings
    const hear = (event: CalicoEvent) => {
      if ('problem' in event && event.problem instanceof Error) problems.push(event.problem)
      if (event.type === 'pool' && event.pool) pools.set(event.name, event.pool)
      if (event.type === 'pool-gone') pools.delete(event.name)
      if (event.type === 'reservation' && event.reservation) reservations.set(event.name, event.reservation)
      if (event.type === 'reservation-gone') reservations.delete(event.name)
      if (event.type === 'ipam-settings' && event.settings) settings = event.settings
    }
    // The pods of a node by this name are none.
    const source = await openCalicoSource({ place: this.#place, nodeName: '', log: this.#log })
    let timeout: NodeJS.Timeout | undefined
    try {
      await new Promise<void>((resolve, reject) => {
        timeout = setTimeout(
          () => reject(new Error(`the store did not answer for ${LOAD_TIMEOUT_MS / 1000} s`)),
          LOAD_TIMEOUT_MS,
        )
        source.start((event) => {
          hear(event)
          if (event.type === 'connection' && !event.up)
            reject(new Error(event.problem ?? 'the store cannot be reached'))
          if (event.type === 'synced') resolve()
        })
      })
    } finally {
      clearTimeout(timeout)
      await source.close()
    }
    return { pools: [...pools.values()], reservations: [...reservations.values()], settings, problems }
  }

  async #readUses(): Promise<{ nodes: readonly Pick<NodeInfo, 'name' | 'calico'>[]; uses: AddressUse[] }> {
    const signal = AbortSignal.timeout(LOAD_TIMEOUT_MS)
    const [pods, nodes] = await Promise.all([
      this.kubernetes ? listObjects(this.kubernetes, '/api/v1/pods', signal) : [],
      this.#readNodes(signal),
    ])
    return { nodes, uses: [...pods.flatMap(usesOfPod), ...nodes.flatMap(usesOfNode)] }
  }

  async #readNodes(signal: AbortSignal): Promise<NodeInfo[]> {
    const { annotationPrefix } = this.#options
    const place = this.#place
    if (place.kind === 'kubernetes') {
      const objects = await listObjects(place.client, '/api/v1/nodes', signal)
      return objects.map((object) => parseNode(projectNode(object, annotationPrefix), annotationPrefix).node)
    }
    const nodes: NodeInfo[] = []
    await place.client.pages(
      etcdPrefixes.nodes,
      (pairs) => {
        for (const { key, value } of pairs) {
          const { calico } = parseNodeResource(JSON.parse(value), () => {})
          const name = key.slice(etcdPrefixes.nodes.length)
          nodes.push({ name, addresses: [], podCidrs: [], ...(calico ? { calico } : {}) })
        }
      },
      signal,
    )
    return nodes
  }

  /** Pools as objects, to be changed. */
  async openShelf(): Promise<PoolShelf> {
    return this.#place.kind === 'kubernetes' ? kubernetesShelf(this.#place.client) : etcdShelf(this.#place.client)
  }

  async close(): Promise<void> {
    await this.store.close()
    void this.#place.client.close()
    if (this.kubernetes !== this.#place.client) void this.kubernetes?.close()
  }
}
