/**
 * The store that Calico's objects are kept in, opened by kind. What another kind needs is not loaded.
 */
import type { IpamStore } from '../../ipam/stores/ipam-store.ts'
import type { ClusterLog, ClusterObserver } from '../cluster.ts'
import type { EtcdClient } from '../etcd/client.ts'
import type { HttpClient } from '../http-client.ts'
import type { CalicoSource } from './calico-source.ts'

/** `client` stays its owner's: neither a source nor a store closes it for good. */
export type CalicoPlace =
  | { readonly kind: 'kubernetes'; readonly client: HttpClient }
  /** `pods`: the API server that has the pods; left out where there is none. */
  | { readonly kind: 'etcd'; readonly client: EtcdClient; readonly pods?: HttpClient }

export interface CalicoSourceOptions {
  readonly place: CalicoPlace
  readonly nodeName: string
  readonly log: ClusterLog
  readonly observer?: ClusterObserver
}

export async function openCalicoSource({ place, ...options }: CalicoSourceOptions): Promise<CalicoSource> {
  if (place.kind === 'kubernetes') {
    const { KubernetesCalicoSource } = await import('./kubernetes-source.ts')
    return new KubernetesCalicoSource({ ...options, client: place.client })
  }
  const { EtcdCalicoSource } = await import('./etcd-source.ts')
  return new EtcdCalicoSource({ ...options, client: place.client, ...(place.pods ? { pods: place.pods } : {}) })
}

export async function openIpamStore(place: CalicoPlace): Promise<IpamStore> {
  if (place.kind === 'kubernetes') {
    const { KubernetesStore } = await import('./kubernetes-store.ts')
    return new KubernetesStore({ client: place.client })
  }
  const { EtcdStore } = await import('./etcd-store.ts')
  return new EtcdStore({ client: place.client })
}
