/**
 * The pod network that blocks are cut from: as the command line gives it, or flannel's net-conf.json, followed. One that
 * cannot be read changes nothing; the last good one stays.
 */
import type { ClusterLog } from '../cluster/cluster.ts'
import type { HttpClient } from '../cluster/http-client.ts'
import { Informer } from '../cluster/kubernetes/informer.ts'
import { NetConfigFile } from '../cluster/net-config-file.ts'
import { parseNetConf } from '../config/flannel/net-conf.ts'
import { BlockPool } from '../ipam/block-pool.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'

/** One family's network and how long a node's prefix is. */
export interface PoolSettings {
  readonly network: Cidr
  readonly length: number
  readonly min?: Ip
  readonly max?: Ip
}

export type NetworkPlace =
  | { readonly pools: readonly PoolSettings[] }
  | { readonly file: string }
  | { readonly namespace: string; readonly name: string }

export interface FollowedNetworkOptions {
  readonly client: HttpClient
  readonly place: NetworkPlace
  readonly log: ClusterLog
  /** The network is known, or another one than before. */
  onChange(): void
}

const NET_CONFIG_KEY = 'net-conf.json'
const MAX_NET_CONFIG = 1 << 20

export class FollowedNetwork {
  readonly #options: FollowedNetworkOptions
  #pools: readonly PoolSettings[] | undefined
  #problem: string | undefined = 'the network configuration has not been read yet'
  #file: NetConfigFile | undefined
  #informer: Informer<{ text: string }> | undefined

  constructor(options: FollowedNetworkOptions) {
    this.#options = options
  }

  /** Undefined until it is known. */
  get pools(): readonly PoolSettings[] | undefined {
    return this.#pools
  }

  /** What is wrong with it now; the pools of before hold all the same. */
  get problem(): string | undefined {
    return this.#problem
  }

  start(): void {
    const { client, place } = this.#options
    if ('pools' in place) return this.#accept(place.pools)
    if ('file' in place) {
      this.#file = new NetConfigFile(place.file, (text) => this.#read(text, place.file))
      this.#file.start()
      return
    }
    const { namespace, name } = place
    const object = `ConfigMap ${namespace}/${name}`
    this.#informer = new Informer<{ text: string }>({
      client,
      path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/configmaps`,
      fieldSelector: `metadata.name=${name}`,
      project: ({ data }) => {
        const text = ((data ?? {}) as Record<string, unknown>)[NET_CONFIG_KEY]
        return { text: typeof text === 'string' ? text.slice(0, MAX_NET_CONFIG) : '' }
      },
      onSet: (found, { text }) => {
        if (found === name) this.#read(text || undefined, object)
      },
      onDelete: () => this.#read(undefined, object),
      onListed: (first) => {
        if (first && this.#informer!.size === 0) this.#read(undefined, object)
      },
      onConnection: () => {},
    })
    this.#informer.start()
  }

  async close(): Promise<void> {
    this.#file?.close()
    await this.#informer?.close()
  }

  #read(text: string | undefined, object: string): void {
    const { log } = this.#options
    if (text === undefined) {
      this.#problem = `${object} has no ${NET_CONFIG_KEY}`
      log.warn({ object }, 'there is no network configuration')
      return
    }
    try {
      const { v4, v6 } = parseNetConf(text, object).config
      this.#accept(
        [v4, v6].flatMap((family) =>
          family
            ? [{ network: family.network, length: family.subnetLength, min: family.subnetMin, max: family.subnetMax }]
            : [],
        ),
      )
    } catch (error) {
      this.#problem = (error as Error).message
      log.error({ err: this.#problem }, 'the network configuration is refused; the last good one holds')
    }
  }

  #accept(pools: readonly PoolSettings[]): void {
    this.#problem = undefined
    const same = JSON.stringify(pools.map(describe)) === JSON.stringify(this.#pools?.map(describe))
    this.#pools = pools
    if (!same) {
      this.#options.log.info({ pools: pools.map(describe) }, 'pod network')
      this.#options.onChange()
    }
  }
}

const describe = ({ network, length, min, max }: PoolSettings): string =>
  `${network} in /${length}${min || max ? ` from ${min ?? ''} to ${max ?? ''}` : ''}`

export const makePools = (settings: readonly PoolSettings[]): BlockPool[] =>
  settings.map(
    ({ network, length, min, max }) =>
      new BlockPool(network, length, { ...(min ? { min } : {}), ...(max ? { max } : {}) }),
  )
