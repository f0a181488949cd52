/**
 * Takes weft out of a cluster: the controller first, which would tell of agents that are gone, then the agents, what they
 * left on every node, what both wrote in Node objects and beside, and the objects of the installation. Only what bears weft's
 * label goes.
 *
 *   delete controller ─► delete agents ─► cleanup on every node, wait ─► delete it
 *     ─► annotations, condition ─► Lease, ledger ─► rights, ConfigMap, namespace
 *
 * May run again when it was interrupted: each step finds what is left of it.
 */
import { announcedKeys, STATUS_ANNOTATION } from '../cluster/kubernetes/annotations.ts'
import { conditionReasons } from '../cluster/kubernetes/network-condition.ts'
import type { ClusterClient } from './cluster-client.ts'
import { isOurs } from './cluster-client.ts'
import { controllerDeployment } from './controller-workload.ts'
import { removeDefinitions } from './definitions.ts'
import { type KubeObject, nameOf, pathOf } from './kube-object.ts'
import { everyObject } from './manifest.ts'
import type { InstallValues } from './values.ts'
import { agentDaemonSet, cleanupDaemonSet } from './workloads.ts'

export interface UninstallOptions {
  readonly annotationPrefix: string
  /** How long to wait for the nodes. */
  readonly waitSeconds: number
  /** The nodes are left as they are: only objects of the cluster go. */
  readonly keepNodes: boolean
  /** The definitions of Calico's objects go too, and with them every pool and block. */
  readonly definitions: boolean
  /** The server keeps no change, and there is nothing to wait for. */
  readonly dryRun: boolean
  readonly print: (line: string) => void
}

/** Rejects when a node does not get clean in time, and leaves the rights and the account for the next attempt. */
export async function uninstall(
  client: ClusterClient,
  values: InstallValues,
  options: UninstallOptions,
): Promise<void> {
  const { print, waitSeconds, keepNodes, dryRun, annotationPrefix } = options
  for (const workload of [controllerDeployment(values), agentDaemonSet(values)]) {
    const wasThere = await removeOurs(client, workload, print)
    if (wasThere && !dryRun) await client.waitUntilGone(workload, waitSeconds)
  }
  if (!keepNodes && !dryRun && (await client.read(pathOf(namespaceOf(values))))) {
    const cleaners = cleanupDaemonSet(values)
    await client.apply(cleaners)
    print(`${nameOf(cleaners)}: cleaning every node`)
    await client.waitForDaemonSet(cleaners, waitSeconds)
    await client.delete(cleaners)
    await client.waitUntilGone(cleaners, waitSeconds)
    print(`${nameOf(cleaners)}: every node is clean`)
  }
  await clearNodes(client, annotationPrefix, print)
  await removeWritten(client, values.namespace, print)
  for (const object of everyObject(values).reverse())
    if (object.kind !== 'Namespace') await removeOurs(client, object, print)
  await removeDefinitions(client, options.definitions, print)
  const namespace = namespaceOf(values)
  const removed = await removeNamespace(client, namespace, print)
  // Until then nothing can be installed there again.
  if (removed && !dryRun) await client.waitUntilGone(namespace, waitSeconds)
}

const namespaceOf = ({ namespace }: InstallValues): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: namespace },
})

/** False when it was not there, or is another's. */
async function removeOurs(client: ClusterClient, object: KubeObject, print: (line: string) => void): Promise<boolean> {
  const held = (await client.read(pathOf(object))) as KubeObject | undefined
  if (!held) return false
  if (!isOurs(held)) {
    print(`${nameOf(object)}: not weft's, stays`)
    return false
  }
  await client.delete(object)
  print(`${nameOf(object)}: deleted`)
  return true
}

/** What the controller made itself: the Lease of its election and the ledger of pod CIDRs, whatever they are called. */
async function removeWritten(client: ClusterClient, namespace: string, print: (line: string) => void): Promise<void> {
  const lists = [
    ['/apis/coordination.k8s.io/v1', 'coordination.k8s.io/v1', 'Lease', 'leases'],
    ['/api/v1', 'v1', 'ConfigMap', 'configmaps'],
  ] as const
  for (const [root, apiVersion, kind, list] of lists)
    for (const object of await client.ours(
      `${root}/namespaces/${encodeURIComponent(namespace)}/${list}`,
      apiVersion,
      kind,
    )) {
      await client.delete(object)
      print(`${nameOf(object)}: deleted`)
    }
}

const ownReasons: readonly string[] = Object.values(conditionReasons)

interface NodeObject {
  readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> }
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly reason?: string }[] }
}

/** A node without weft's own annotation is another's, also where flannel's are on it. */
async function clearNodes(client: ClusterClient, prefix: string, print: (line: string) => void): Promise<void> {
  const { items } = (await client.read('/api/v1/nodes')) as { items: readonly NodeObject[] }
  const annotations = Object.fromEntries(announcedKeys(prefix).map((key) => [key, null]))
  for (const { metadata, status } of items) {
    const path = `/api/v1/nodes/${encodeURIComponent(metadata.name)}`
    const held = metadata.annotations ?? {}
    if (held[STATUS_ANNOTATION] !== undefined) {
      await client.patch(path, 'application/merge-patch+json', { metadata: { annotations } })
      print(`Node ${metadata.name}: annotations removed`)
    }
    const condition = status?.conditions?.find(({ type }) => type === 'NetworkUnavailable')
    if (!ownReasons.includes(condition?.reason ?? '')) continue
    await client.patch(`${path}/status`, 'application/strategic-merge-patch+json', {
      status: { conditions: [{ type: 'NetworkUnavailable', $patch: 'delete' }] },
    })
    print(`Node ${metadata.name}: condition NetworkUnavailable removed`)
  }
}

/** What is in every namespace by itself. */
const ambient = new Set(['kube-root-ca.crt', 'default'])
const mayHold = [
  'api/v1/pods',
  'api/v1/configmaps',
  'api/v1/secrets',
  'api/v1/serviceaccounts',
  'api/v1/services',
].concat(['apis/apps/v1/daemonsets', 'apis/apps/v1/deployments'])

/** Deletes the namespace when weft made it and nobody else uses it; false when it stays. */
async function removeNamespace(
  client: ClusterClient,
  namespace: KubeObject,
  print: (line: string) => void,
): Promise<boolean> {
  const held = (await client.read(pathOf(namespace))) as KubeObject | undefined
  if (!held || !isOurs(held)) return false
  for (const place of mayHold) {
    const at = place.lastIndexOf('/')
    const path = `/${place.slice(0, at)}/namespaces/${namespace.metadata.name}${place.slice(at)}`
    const { items = [] } = ((await client.read(path)) ?? {}) as { items?: readonly KubeObject[] }
    const others = items.filter((item) => !ambient.has(item.metadata.name) && !isOurs(item))
    if (others.length > 0) {
      print(`${nameOf(namespace)}: others use it (${others.map(({ metadata }) => metadata.name).join(', ')}), stays`)
      return false
    }
  }
  await client.delete(namespace)
  print(`${nameOf(namespace)}: deleted`)
  return true
}
