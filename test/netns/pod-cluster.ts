/**
 * What a routed node asks of its cluster, for CNI tests: the real block allocator over a store in memory that can be cut off,
 * and pods with annotations of the test's choice.
 */
import type { PodDirectory } from '../../src/cluster/calico/calico-source.ts'
import type { RoutedNetwork } from '../../src/cni/network.ts'
import { allocationsOf } from '../../src/ipam/block.ts'
import { BlockIpam } from '../../src/ipam/stores/block-ipam.ts'
import { type IpamStore, type Kept, StoreAwayError } from '../../src/ipam/stores/ipam-store.ts'
import { MemoryStore } from '../../src/ipam/stores/memory-store.ts'
import type { PoolAddresses } from '../../src/ipam/stores/pool-addresses.ts'
import type { IpPool } from '../../src/model/calico.ts'
import { Cidr } from '../../src/net/cidr.ts'
import type { Family } from '../../src/net/ip.ts'

/** The allocator compares lists by identity. */
const noReservations = [] as const

type Words = Readonly<Record<string, string>>

export interface PodClusterOptions {
  readonly interfacePrefix?: string
  readonly sourceSpoofing?: 'Any' | 'Disabled'
}

const poolOf = (cidr: Cidr): IpPool => ({
  name: `pool-${cidr.family}`,
  cidr,
  blockSize: cidr.family === 4 ? 26 : 122,
  ipipMode: 'Never',
  vxlanMode: 'Never',
  geneveMode: 'Never',
  natOutgoing: false,
  disabled: false,
  disableBgpExport: false,
  nodeSelector: 'all()',
  allowedUses: ['Workload', 'Tunnel'],
  assignmentMode: 'Automatic',
})

export interface PodClusterNews {
  readonly given: Readonly<Record<string, readonly string[]>>
  readonly written: Readonly<Record<string, Words>>
  /** Handles that were given back, in order. */
  readonly released: readonly string[]
  /** Requests that changed the store. */
  readonly writes: number
}

export class PodCluster {
  isAway = false
  readonly #store: IpamStore
  readonly #memory = new MemoryStore()
  readonly #pools: readonly IpPool[]
  readonly #pods: Readonly<Record<string, Words>> | undefined
  readonly #written: Record<string, Record<string, string>> = {}
  readonly #released: string[] = []
  readonly #ipam: BlockIpam

  /** Without a store blocks are kept in memory. */
  constructor(
    pools: readonly string[],
    pods?: Readonly<Record<string, Words>>,
    store?: IpamStore,
    options: { readonly spareAddresses?: number } = {},
  ) {
    this.#store = store ?? this.#memory
    this.#pools = pools.map((text) => poolOf(Cidr.parse(text)))
    this.#pods = pods
    const quiet = () => undefined
    this.#ipam = new BlockIpam({
      store: this.#cuttable(),
      node: { name: 'node-1', labels: () => ({}) },
      log: { debug: quiet, info: quiet, warn: quiet },
      pools: () => this.#pools,
      reservations: () => noReservations,
      settings: () => ({ strictAffinity: false, maxBlocksPerHost: 0, autoAllocateBlocks: true, ipCooldownSeconds: 0 }),
      selects: () => true,
      now: Date.now,
      spareAddresses: options.spareAddresses ?? 0,
    })
  }

  network({ interfacePrefix, sourceSpoofing }: PodClusterOptions): RoutedNetwork {
    const families = ([4, 6] as const).filter((family: Family) =>
      this.#pools.some(({ cidr }) => cidr.family === family),
    )
    return {
      nodeName: 'node-1',
      families,
      ...(this.#pools.length ? { addresses: this.#addresses } : {}),
      ...(this.#pods ? { pods: this.#directory(this.#pods) } : {}),
      ...(interfacePrefix ? { interfacePrefix } : {}),
      ...(sourceSpoofing ? { sourceSpoofing } : {}),
    }
  }

  readonly #addresses: PoolAddresses = {
    assign: (request) => this.#ipam.assign(request),
    release: async (handle) => {
      await this.#ipam.release(handle)
      this.#released.push(handle)
    },
    resume: (journal, held) => this.#ipam.resume(journal, held),
    expectPods: (areExpected) => this.#ipam.expectPods(areExpected),
  }

  /** Resolves when blocks say all that was given. */
  idle(): Promise<void> {
    return this.#ipam.idle()
  }

  /** Addresses in use by handle, of a store in memory, and what was written on pods. */
  tell(): PodClusterNews {
    const given: Record<string, string[]> = {}
    this.#memory.blocks.watch((_block, held) => {
      for (const one of held ? allocationsOf(held.value) : [])
        if (one.attribute?.handleId !== undefined && one.attribute.releasedAt === undefined)
          given[one.attribute.handleId] = [
            ...(given[one.attribute.handleId] ?? []),
            `${held!.value.cidr.base.plus(one.ordinal)}`,
          ]
    })()
    return { given, written: this.#written, released: this.#released, writes: this.#ipam.counts.writes }
  }

  #directory(pods: Readonly<Record<string, Words>>): PodDirectory {
    return {
      find: async (namespace, name) => {
        if (this.isAway) throw new StoreAwayError('the API server cannot be reached')
        const annotations = pods[`${namespace}/${name}`]
        return (
          annotations && { labels: {}, annotations, namespaceLabels: {}, namespaceAnnotations: pods[namespace] ?? {} }
        )
      },
      annotate: (namespace, name, annotations) => {
        const pod = `${namespace}/${name}`
        this.#written[pod] = { ...this.#written[pod], ...annotations }
      },
    }
  }

  /** The store, but for when it is away. */
  #cuttable(): IpamStore {
    const check = async () => {
      if (this.isAway) throw new StoreAwayError('the API server cannot be reached')
    }
    const kept = <K, T>(inner: Kept<K, T>): Kept<K, T> => ({
      read: (key) => check().then(() => inner.read(key)),
      list: () => check().then(() => inner.list()),
      create: (value) => check().then(() => inner.create(value)),
      replace: (held, value) => check().then(() => inner.replace(held, value)),
      remove: (held) => check().then(() => inner.remove(held)),
    })
    const { blocks, affinities, handles } = this.#store
    return { blocks: kept(blocks), affinities: kept(affinities), handles: kept(handles), close: async () => undefined }
  }
}
