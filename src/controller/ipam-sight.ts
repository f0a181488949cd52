/**
 * What the collector of addresses looks at: pools and their settings, the pods of the API, what nodes say of themselves, and what
 * agents say that their journals hold. All of it strangers' words, bounded, and each agent believed of its own node only.
 */

import { usesOfNode, usesOfPod } from '../cluster/calico/address-uses.ts'
import { collectionPath, readGroup } from '../cluster/calico/api-group.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import type { HttpClient } from '../cluster/http-client.ts'
import { listObjects } from '../cluster/kubernetes/list-objects.ts'
import { defaultIpamSettings, parseIpamSettings } from '../config/calico/ipam-settings.ts'
import { parsePool } from '../config/calico/pool.ts'
import { parseReservation } from '../config/calico/reservation.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { AddressSight, PoolObjects } from './ipam-collector.ts'
import { type AgentPlace, parseHeld, readAddresses } from './leaked-addresses.ts'

export interface IpamSightOptions {
  readonly client: HttpClient
  readonly log: ClusterLog
  readonly signal: AbortSignal
  /** Every node that exists. */
  nodes(): Iterable<NodeInfo>
  /** Where the agents that are ready answer. */
  agents(): readonly AgentPlace[]
}

/** As many agents are asked at a time. */
const ASKED_AT_ONCE = 16

export class IpamSight {
  readonly #options: IpamSightOptions

  constructor(options: IpamSightOptions) {
    this.#options = options
  }

  /**
   * Pools, reservations and settings; undefined where the cluster has no pools. Rejects when one of them cannot be read: what
   * is reserved, or in which pool an address is, must be known.
   */
  async readPools(): Promise<PoolObjects | undefined> {
    const { client, signal } = this.#options
    const group = await readGroup(client, signal)
    if (!group) return undefined
    const [pools, reservations, settings] = await Promise.all([
      listObjects(client, collectionPath(group, 'ippools'), signal),
      listObjects(client, collectionPath(group, 'ipreservations'), signal),
      listObjects(client, collectionPath(group, 'ipamsettings'), signal),
    ])
    if (pools.length === 0) return undefined
    const own = settings.find(({ metadata }) => metadata?.name === 'default')
    return {
      pools: pools.map((object) => parsePool(object).pool),
      reservations: reservations.map((object) => parseReservation(object).reservation),
      settings: own ? parseIpamSettings(own).settings : defaultIpamSettings,
    }
  }

  /** Rejects when pods cannot be listed; an agent that does not answer is left out. */
  async look(): Promise<AddressSight> {
    const { client, signal } = this.#options
    // Journals first: a pod that comes between the two is in the second answer.
    const journals = await this.#readJournals()
    const pods = await listObjects(client, '/api/v1/pods', signal)
    const nodes = [...this.#options.nodes()]
    return {
      uses: [...pods.flatMap(usesOfPod), ...nodes.flatMap(usesOfNode)],
      nodes: new Set(nodes.map(({ name }) => name)),
      journals,
    }
  }

  async #readJournals(): Promise<Map<string, ReadonlySet<string>>> {
    const { agents, signal, log } = this.#options
    const journals = new Map<string, ReadonlySet<string>>()
    const waiting = [...agents()]
    const ask = async () => {
      for (let agent = waiting.pop(); agent; agent = waiting.pop())
        try {
          journals.set(agent.node, new Set(parseHeld(await readAddresses(agent, signal)).flat()))
        } catch (error) {
          signal.throwIfAborted()
          log.debug({ node: agent.node, err: (error as Error).message }, 'an agent does not say what it holds')
        }
    }
    await Promise.all(Array.from({ length: ASKED_AT_ONCE }, ask))
    return journals
  }
}
