/**
 * The cluster source that the options ask for. etcd's is loaded only when it is.
 */
import type { ClusterLog, ClusterSource } from '../cluster/cluster.ts'
import { HttpClient } from '../cluster/http-client.ts'
import { inClusterConnection, readKubeconfig } from '../cluster/kubernetes/kubeconfig.ts'
import { KubernetesSource } from '../cluster/kubernetes/source.ts'
import type { AgentOptions } from './options.ts'

/** Throws ConfigError for a kubeconfig or certificate that cannot be read. */
export function openSource(options: AgentOptions, log: ClusterLog): ClusterSource {
  const { kubeconfig, kubeApiUrl, nodeName, annotationPrefix, netConfig } = options
  const connection = kubeconfig ? readKubeconfig(kubeconfig, kubeApiUrl) : inClusterConnection()
  return new KubernetesSource({ client: new HttpClient(connection), nodeName, annotationPrefix, netConfig, log })
}
