/**
 * The cluster source that the options ask for. etcd's is loaded only when it is.
 */
import { CachedSource } from '../cluster/cache/cached-source.ts'
import type { ClusterLog, ClusterSource } from '../cluster/cluster.ts'
import { HttpClient } from '../cluster/http-client.ts'
import type { AgentOptions } from './options.ts'

/** Throws ConfigError for a kubeconfig or certificate that cannot be read. */
export async function openSource(options: AgentOptions, log: ClusterLog): Promise<ClusterSource> {
  const { kubeconfig, kubeApiUrl, nodeName, annotationPrefix, netConfig, etcd } = options
  if (options.store === 'etcd') {
    const [{ EtcdClient }, { EtcdSource }] = await Promise.all([
      import('../cluster/etcd/client.ts'),
      import('../cluster/etcd/source.ts'),
    ])
    const { prefix, renewMarginMinutes } = etcd
    return new EtcdSource({ client: new EtcdClient(etcd), prefix, nodeName, renewMarginMinutes, log })
  }
  const [{ inClusterConnection, readKubeconfig }, { KubernetesSource }] = await Promise.all([
    import('../cluster/kubernetes/kubeconfig.ts'),
    import('../cluster/kubernetes/source.ts'),
  ])
  const connection = kubeconfig ? readKubeconfig(kubeconfig, kubeApiUrl) : inClusterConnection()
  return new KubernetesSource({ client: new HttpClient(connection), nodeName, annotationPrefix, netConfig, log })
}

/** The same with a memory: an agent that starts while the store is away works from what it knew of it before. */
export async function openCachedSource(options: AgentOptions, log: ClusterLog): Promise<ClusterSource> {
  const { nodeName: node, stateDir } = options
  const source = await openSource(options, log)
  return new CachedSource({
    source,
    file: `${stateDir}/cluster-view`,
    identity: { node, store: storeOf(options) },
    log,
  })
}

/** What makes two runs of an agent use one store. Holds no secret. */
function storeOf({ store, etcd, annotationPrefix, kubeApiUrl, kubeconfig, netConfig }: AgentOptions): string {
  if (store === 'etcd') return `etcd ${[...etcd.endpoints].sort().join()} ${etcd.prefix}`
  return `kubernetes ${kubeApiUrl ?? kubeconfig ?? 'in-cluster'} ${annotationPrefix} ${Object.values(netConfig).join('/')}`
}
