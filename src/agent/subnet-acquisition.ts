/**
 * Takes subnets in stores that leave it to nodes (etcd), once; they come back as the own node's event. A full network is
 * asked again later.
 */
import type { ClusterSource, LeaseAnnouncement, SubnetRange } from '../cluster/cluster.ts'
import type { NetworkConfig } from '../config/config.ts'
import type { Cidr } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import type { LoopLog } from './network-loop.ts'

const RETRY_MS = 30_000

export interface AcquisitionOptions {
  readonly source: ClusterSource
  /** Subnets of an earlier run. */
  readonly previous: readonly Cidr[]
  readonly log: LoopLog
  /** There is reason to look again: they were taken, or it is time for another attempt. */
  onChange(): void
}

export class SubnetAcquisition {
  readonly #options: AcquisitionOptions
  #state: 'needed' | 'asking' | 'done'

  constructor(options: AcquisitionOptions) {
    this.#options = options
    this.#state = options.source.acquire ? 'needed' : 'done'
  }

  /** True when this store gives subnets without being asked, or they were taken. */
  get isDone(): boolean {
    return this.#state === 'done'
  }

  /** Asks, unless that is under way. `announce` says what goes with the subnets. */
  begin(
    { v4, v6 }: NetworkConfig,
    publicIp: Ip | undefined,
    announce: (podCidrs: readonly Cidr[]) => LeaseAnnouncement,
  ): void {
    const { source, previous, log, onChange } = this.#options
    if (!source.acquire || this.#state === 'asking') return
    const ranges: SubnetRange[] = [v4, v6]
      .filter((family) => family !== undefined)
      .map(({ network, subnetLength, subnetMin, subnetMax }) => ({
        network,
        length: subnetLength,
        min: subnetMin,
        max: subnetMax,
      }))
    this.#state = 'asking'
    source.acquire({ ranges, previous, ...(publicIp ? { publicIp } : {}), announce }).then(
      () => {
        this.#state = 'done'
        onChange()
      },
      (error: Error) => {
        this.#state = 'needed'
        log.error({ err: error.message }, 'no subnet for this node')
        setTimeout(onChange, RETRY_MS).unref()
      },
    )
  }
}
