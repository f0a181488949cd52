/** What every cluster has from its first moment: the system namespaces, the Service of the API itself, the default roles. */
import { defaultClusterRoleBindings, defaultClusterRoles } from './access/default-roles.ts'
import type { KubeObject } from './interfaces.ts'
import type { Resources } from './resources.ts'

const namespaces = ['default', 'kube-node-lease', 'kube-public', 'kube-system']

const apiService = (clusterIP: string): KubeObject => ({
  metadata: {
    name: 'kubernetes',
    namespace: 'default',
    labels: { component: 'apiserver', provider: 'kubernetes' },
  },
  spec: { clusterIP, ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: 6443 }] },
})

/** Makes what is missing. */
export function bootstrap(resources: Resources, apiAddress: string): void {
  const { catalog } = resources
  const ensure = (resource: string, object: KubeObject): void => {
    const kind = catalog.named(resource)!
    const { name, namespace } = object.metadata
    if (resources.store.get(kind.storage, kind.namespaced ? namespace! : '', name!)) return
    resources.create(kind, namespace, object)
  }
  for (const name of namespaces) ensure('namespaces', { metadata: { name } })
  ensure('services', apiService(apiAddress))
  for (const role of defaultClusterRoles) ensure('clusterroles.rbac.authorization.k8s.io', role)
  for (const binding of defaultClusterRoleBindings) ensure('clusterrolebindings.rbac.authorization.k8s.io', binding)
}
