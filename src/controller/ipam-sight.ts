/**
 * What the collector of addresses looks at: pools and their settings, the pods of the API, what nodes say of themselves, and what
 * agents say that their journals hold. All of it strangers' words, bounded, and each agent believed of its own node only.
 */

import { collectionPath, readGroup } from '../cluster/calico/api-group.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import type { HttpClient } from '../cluster/http-client.ts'
import type { RawObject } from '../cluster/kubernetes/informer.ts'
import { defaultIpamSettings, parseIpamSettings } from '../config/calico/ipam-settings.ts'
import { parsePool } from '../config/calico/pool.ts'
import { parseReservation } from '../config/calico/reservation.ts'
import type { AddressUse } from '../ipam/audit.ts'
import type { NodeInfo } from '../model/cluster.ts'
import { Ip } from '../net/ip.ts'
import type { AddressSight, PoolObjects } from './ipam-collector.ts'
import { type AgentPlace, addressesOf, parseHeld, readAddresses } from './leaked-addresses.ts'

export interface IpamSightOptions {
  readonly client: HttpClient
  readonly log: ClusterLog
  readonly signal: AbortSignal
  /** Every node that exists. */
  nodes(): Iterable<NodeInfo>
  /** Where the agents that are ready answer. */
  agents(): readonly AgentPlace[]
}

const PAGE_SIZE = 500
/** As many agents are asked at a time. */
const ASKED_AT_ONCE = 16
const FINISHED = ['Succeeded', 'Failed']

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
      this.#listObjects(collectionPath(group, 'ippools')),
      this.#listObjects(collectionPath(group, 'ipreservations')),
      this.#listObjects(collectionPath(group, 'ipamsettings')),
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
    // Journals first: a pod that comes between the two is in the second answer.
    const journals = await this.#readJournals()
    const pods = await this.#listObjects('/api/v1/pods')
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

  async #listObjects(path: string): Promise<readonly RawObject[]> {
    const { client, signal } = this.#options
    const objects: RawObject[] = []
    let next = ''
    do {
      const query = new URLSearchParams({ limit: `${PAGE_SIZE}`, ...(next ? { continue: next } : {}) })
      const page = (await client.request({ method: 'GET', path: `${path}?${query}`, signal })) as {
        readonly items?: readonly RawObject[] | null
        readonly metadata?: { readonly continue?: string }
      }
      objects.push(...(page.items ?? []))
      next = page.metadata?.continue ?? ''
    } while (next)
    return objects
  }
}

/** A pod that has finished has its address until the runtime takes its sandbox down, which its node's journal tells. */
function usesOfPod(pod: RawObject): AddressUse[] {
  const { namespace = '', name = '' } = (pod.metadata ?? {}) as { namespace?: string; name?: string }
  const { phase } = (pod.status ?? {}) as { phase?: string }
  const { nodeName, hostNetwork } = (pod.spec ?? {}) as { nodeName?: string; hostNetwork?: boolean }
  if (hostNetwork === true || FINISHED.includes(phase ?? '')) return []
  return addressesOf(pod).map((text) => ({
    ip: Ip.parse(text),
    holder: `Workload(${namespace}/${name})`,
    ...(nodeName === undefined ? {} : { node: nodeName }),
  }))
}

function usesOfNode({ name, calico }: NodeInfo): AddressUse[] {
  const own = [calico?.ipv4IpipTunnelAddr, calico?.ipv4VxlanTunnelAddr, calico?.ipv6VxlanTunnelAddr]
  return own.flatMap((ip) => (ip ? [{ ip, holder: `Node(${name})`, node: name }] : []))
}
