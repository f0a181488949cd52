/**
 * What pods of this node get, put together from what each part gives: where both of flannel's and Calico's networks stand,
 * every pod may talk to pods of the other, whatever its own wiring, so the least MTU of all holds for all.
 */
import type { NodeNetwork } from '../cni/network.ts'
import type { Cidr } from '../net/cidr.ts'
import type { PodShare } from './network-part.ts'

/** What pods get, told to the CNI server and written to subnet.env. */
export interface PodNetwork extends NodeNetwork {
  /** Every network that pods of the cluster have addresses of. */
  readonly allNetworks: readonly Cidr[]
}

/** How new pods are wired. */
export type Wiring = 'bridge' | 'routed'

export interface PodShares {
  readonly flannel?: PodShare | undefined
  readonly calico?: PodShare | undefined
}

/** Undefined while pods of that wiring cannot be served. */
export function podNetworkOf(wiring: Wiring, { flannel, calico }: PodShares): PodNetwork | undefined {
  const shares = [flannel, calico].filter((share) => share !== undefined)
  const routed = calico?.routed
  if (wiring === 'routed' ? !routed : !flannel) return undefined
  return {
    podCidrs: flannel?.podCidrs ?? calico?.podCidrs ?? [],
    clusterNetworks: flannel?.networks ?? [],
    mtuBytes: Math.min(...shares.map(({ mtuBytes }) => mtuBytes)),
    ...(wiring === 'routed' && routed ? { routed } : {}),
    allNetworks: shares.flatMap(({ networks }) => networks),
  }
}
