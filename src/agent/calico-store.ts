/**
 * Where address pools and blocks are, as the options say: followed by one client, written by another, so that a pod's address
 * never waits behind the limit of the watches.
 */
import type { CalicoSource } from '../cluster/calico/calico-source.ts'
import type { ClusterLog } from '../cluster/cluster.ts'
import { HttpClient } from '../cluster/http-client.ts'
import type { IpamStore } from '../ipam/stores/ipam-store.ts'
import type { AgentOptions } from './options.ts'
import type { SourceObserver } from './source.ts'

export interface CalicoAccess {
  readonly source: CalicoSource
  readonly store: IpamStore
  close(): Promise<void>
}

/** Undefined where there are to be none. Throws ConfigError for a kubeconfig or certificate that cannot be read. */
export async function openCalico(
  options: AgentOptions,
  log: ClusterLog,
  observer?: SourceObserver,
): Promise<CalicoAccess | undefined> {
  const { kubeconfig, kubeApiUrl, apiLimit, nodeName, calico } = options
  if (calico.store === 'none') return undefined
  const [{ followConnection }, { KubernetesCalicoSource }, { KubernetesStore }] = await Promise.all([
    import('../cluster/kubernetes/kubeconfig.ts'),
    import('../cluster/calico/kubernetes-source.ts'),
    import('../cluster/calico/kubernetes-store.ts'),
  ])
  const connection = followConnection(kubeconfig, kubeApiUrl, log)
  const watching = new HttpClient(connection, observer?.request, undefined, apiLimit)
  const writing = new HttpClient(connection, observer?.request)
  const source = new KubernetesCalicoSource({ client: watching, nodeName, log, ...(observer ? { observer } : {}) })
  const store = new KubernetesStore({ client: writing, group: () => source.group })
  return {
    source: {
      start: (listener) => source.start(listener),
      pods: source.pods,
      reconnect: () => {
        source.reconnect()
        writing.close()
      },
      close: () => source.close(),
    },
    store,
    close: async () => {
      await Promise.all([source.close(), store.close()])
      watching.close()
      writing.close()
    },
  }
}
