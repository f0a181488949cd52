/**
 * What pods of this node get, put together from what each part gives: where both of flannel's and Calico's networks stand,
 * every pod may talk to pods of the other, whatever its own wiring, so the least MTU of all holds for all.
 */
import type { WiringChoice } from '../cluster/cluster.ts'
import type { NodeNetwork, RoutedNetwork } from '../cni/network.ts'
import type { NodeInfo } from '../model/cluster.ts'
import type { Cidr } from '../net/cidr.ts'
import type { CalicoPart } from './calico-part.ts'
import type { NetworkPart, PodShare } from './network-part.ts'

/** What pods get, told to the CNI server and written to subnet.env. */
export interface PodNetwork extends NodeNetwork {
  /** Every network that pods of the cluster have addresses of. */
  readonly allNetworks: readonly Cidr[]
}

/** How new pods are wired. */
export type Wiring = 'bridge' | 'routed'

/**
 * How new pods are wired: `auto` means routed where a pool selects this node, and where there is nothing but pools. Undefined until
 * it is known whether there are pools.
 */
export function decideWiring(
  choice: WiringChoice,
  flannel: NetworkPart['presence'],
  calico: Pick<CalicoPart, 'presence' | 'selectsNode'> | undefined,
): Wiring | undefined {
  if (choice !== 'auto') return choice
  if (calico?.presence === 'unknown') return undefined
  return calico?.presence === 'active' && (calico.selectsNode || flannel === 'absent') ? 'routed' : 'bridge'
}

export interface PodShares {
  readonly flannel?: PodShare | undefined
  readonly calico?: PodShare | undefined
}

/**
 * Undefined while pods of that wiring cannot be served. Routed pods without pools have addresses of the node's podCIDRs, as
 * those on a bridge.
 */
export function podNetworkOf(
  wiring: Wiring,
  { flannel, calico }: PodShares,
  own: Pick<NodeInfo, 'name' | 'podCidrs'> | undefined,
): PodNetwork | undefined {
  const shares = [flannel, calico].filter((share) => share !== undefined)
  const podCidrs = flannel?.podCidrs ?? own?.podCidrs ?? []
  const routed = calico?.routed ?? (own && flannel && routedOf(own.name, flannel.podCidrs))
  if (wiring === 'routed' ? !routed : !flannel) return undefined
  return {
    podCidrs,
    clusterNetworks: flannel?.networks ?? [],
    mtuBytes: Math.min(...shares.map(({ mtuBytes }) => mtuBytes)),
    ...(wiring === 'routed' && routed ? { routed } : {}),
    allNetworks: shares.flatMap(({ networks }) => networks),
  }
}

const routedOf = (nodeName: string, podCidrs: readonly Cidr[]): RoutedNetwork => ({
  nodeName,
  families: [...new Set(podCidrs.map(({ family }) => family))],
})

/** What of routed pods' network may change; where addresses come from stays the same for an agent's life. */
export const routedText = ({ routed }: PodNetwork): string | undefined => {
  if (!routed) return undefined
  const { addresses, pods, ...plain } = routed
  return JSON.stringify({ ...plain, addresses: addresses !== undefined, pods: pods !== undefined })
}
