/**
 * Where address pools and blocks are, as the options say: followed by one client, written by another, so that a pod's address
 * never waits behind the limit of the watches. What was known is remembered for an agent that starts while the store is away.
 */
import { CachedCalicoSource } from '../cluster/cache/cached-calico-source.ts'
import type { CalicoSource } from '../cluster/calico/calico-source.ts'
import { type CalicoPlace, openCalicoSource, openIpamStore } from '../cluster/calico/open.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import { HttpClient } from '../cluster/http-client.ts'
import { followConnection } from '../cluster/kubernetes/kubeconfig.ts'
import type { IpamStore } from '../ipam/stores/ipam-store.ts'
import type { AgentOptions } from './options.ts'
import type { SourceObserver } from './source.ts'

export interface CalicoAccess {
  readonly source: CalicoSource
  readonly store: IpamStore
  close(): Promise<void>
}

/** The same with a memory: an agent that starts while the store is away works from what it knew of it before. */
export async function openCachedCalico(
  options: AgentOptions,
  log: ClusterLog,
  observer: SourceObserver,
): Promise<CalicoAccess | undefined> {
  const access = await openCalico(options, log, observer)
  if (!access) return undefined
  const { nodeName: node, stateDir } = options
  const source = new CachedCalicoSource({
    source: access.source,
    file: `${stateDir}/calico-view`,
    identity: { node, store: storeOf(options) },
    log,
  })
  const close = async () => {
    await source.close()
    await access.close()
  }
  return { source, store: access.store, close }
}

/** What makes two runs of an agent use one store. Holds no secret. */
function storeOf({ calico, kubeApiUrl, kubeconfig }: AgentOptions): string {
  if (calico.store === 'etcd') return `etcd ${[...calico.etcd.endpoints].sort().join()}`
  return `kubernetes ${kubeApiUrl ?? kubeconfig ?? 'in-cluster'}`
}

/** Undefined where there are to be none. Throws ConfigError for a kubeconfig or certificate that cannot be read. */
export async function openCalico(
  options: AgentOptions,
  log: ClusterLog,
  observer?: SourceObserver,
): Promise<CalicoAccess | undefined> {
  const { nodeName } = options
  const places = await openPlaces(options, log, observer)
  if (!places) return undefined
  const { watching, writing } = places
  const source = await openCalicoSource({ place: watching, nodeName, log, ...(observer ? { observer } : {}) })
  const store = await openIpamStore(writing)
  return {
    source: {
      start: (listener) => source.start(listener),
      pods: source.pods,
      reconnect: () => {
        source.reconnect()
        void writing.client.close()
      },
      close: () => source.close(),
    },
    store,
    close: async () => {
      await Promise.all([source.close(), store.close()])
      for (const { client } of [watching, writing]) void client.close()
    },
  }
}

async function openPlaces(
  { kubeconfig, kubeApiUrl, apiLimit, calico, store }: AgentOptions,
  log: ClusterLog,
  observer?: SourceObserver,
): Promise<{ readonly watching: CalicoPlace; readonly writing: CalicoPlace } | undefined> {
  if (calico.store === 'none') return undefined
  const kubernetes = (limit?: AgentOptions['apiLimit']) =>
    new HttpClient(followConnection(kubeconfig, kubeApiUrl, log), observer?.request, undefined, limit)
  if (calico.store === 'kubernetes')
    return {
      watching: { kind: 'kubernetes', client: kubernetes(apiLimit) },
      writing: { kind: 'kubernetes', client: kubernetes() },
    }
  const { EtcdClient } = await import('../cluster/etcd/client.ts')
  const etcd = () => new EtcdClient({ ...calico.etcd, ...(observer ? { observe: observer.request } : {}) })
  return {
    watching: { kind: 'etcd', client: etcd(), ...(store === 'kubernetes' ? { pods: kubernetes(apiLimit) } : {}) },
    writing: { kind: 'etcd', client: etcd() },
  }
}
