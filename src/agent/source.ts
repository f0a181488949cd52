/**
 * The cluster source that the options ask for. etcd's is loaded only when it is.
 */
import { CachedSource } from '../cluster/cache/cached-source.ts'
import type { ClusterLog, ClusterObserver, ClusterSource } from '../cluster/cluster.ts'
import { HttpClient, type RequestObserver } from '../cluster/http-client.ts'
import type { AgentOptions } from './options.ts'

/** Counts what following the store costs. */
export interface SourceObserver extends ClusterObserver {
  readonly request: RequestObserver
}

/** Throws ConfigError for a kubeconfig or certificate that cannot be read. */
export async function openSource(
  options: AgentOptions,
  log: ClusterLog,
  observer?: SourceObserver,
): Promise<ClusterSource> {
  const source = await openNodes(options, log, observer)
  const { calico, nodeName } = options
  if (calico.store !== 'etcd') return source
  // Calico's nodes say there what they say on Node objects elsewhere.
  const [{ EtcdClient }, { EtcdNodesSource }] = await Promise.all([
    import('../cluster/etcd/client.ts'),
    import('../cluster/calico/etcd-nodes-source.ts'),
  ])
  const client = new EtcdClient({ ...calico.etcd, ...(observer ? { observe: observer.request } : {}) })
  return new EtcdNodesSource({ source, client, nodeName, log, ...(observer ? { observer } : {}) })
}

async function openNodes(options: AgentOptions, log: ClusterLog, observer?: SourceObserver): Promise<ClusterSource> {
  const { kubeconfig, kubeApiUrl, apiLimit, nodeName, annotationPrefix, netConfig, etcd } = options
  if (options.store === 'etcd') {
    const [{ EtcdClient }, { EtcdSource }] = await Promise.all([
      import('../cluster/etcd/client.ts'),
      import('../cluster/etcd/source.ts'),
    ])
    const { prefix, renewMarginMinutes } = etcd
    const client = new EtcdClient({ ...etcd, ...(observer ? { observe: observer.request } : {}) })
    return new EtcdSource({ client, prefix, nodeName, renewMarginMinutes, log, ...(observer ? { observer } : {}) })
  }
  const [{ followConnection }, { KubernetesSource }] = await Promise.all([
    import('../cluster/kubernetes/kubeconfig.ts'),
    import('../cluster/kubernetes/source.ts'),
  ])
  const client = new HttpClient(followConnection(kubeconfig, kubeApiUrl, log), observer?.request, undefined, apiLimit)
  return new KubernetesSource({
    client,
    nodeName,
    annotationPrefix,
    netConfig,
    log,
    ...(observer ? { observer } : {}),
  })
}

/** The same with a memory: an agent that starts while the store is away works from what it knew of it before. */
export async function openCachedSource(
  options: AgentOptions,
  log: ClusterLog,
  observer: SourceObserver,
): Promise<ClusterSource> {
  const { nodeName: node, stateDir } = options
  const source = await openSource(options, log, observer)
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
