/**
 * Puts weft into a cluster: applies the manifest, object by object. May run again at any time; an upgrade is the same with
 * another image or other values, and what those do not want any more goes. What was there before weft stays another's: a
 * namespace, and flannel's net-conf.json, which weft then uses.
 */
import type { Applied, ClusterClient } from './cluster-client.ts'
import { isOurs } from './cluster-client.ts'
import { controllerDeployment } from './controller-workload.ts'
import { installDefinitions } from './definitions.ts'
import { type KubeObject, nameOf, pathOf } from './kube-object.ts'
import { everyObject, manifestObjects } from './manifest.ts'
import type { InstallValues } from './values.ts'
import { agentDaemonSet } from './workloads.ts'

export interface InstallOptions {
  /** The network configuration was asked for: it is written also when there is one. */
  readonly netConfGiven: boolean
  /** Also the definitions of Calico's objects. */
  readonly definitions: boolean
  /** How long to wait for agents on every node; 0 for not at all. */
  readonly waitSeconds: number
  readonly print: (line: string) => void
}

const outcomes: Readonly<Record<Applied, string>> = {
  applied: 'applied',
  'no kind': 'left out, this API server does not know the kind',
  'no namespace': 'not checked, its namespace is not there yet',
}

const flannelDaemonSets = ['kube-flannel-ds', 'kube-flannel-ds-amd64']

/** Rejects with the server's words. */
export async function install(client: ClusterClient, values: InstallValues, options: InstallOptions): Promise<void> {
  const { print, waitSeconds } = options
  await warnOfFlannel(client, values.namespace, print)
  const wanted = manifestObjects(values)
  await removeUnwanted(client, values, new Set(wanted.map(pathOf)), print)
  if (options.definitions) await installDefinitions(client, print)
  for (const object of wanted) {
    const kept = await keepsExisting(client, object, options)
    if (kept !== undefined) print(`${nameOf(object)}: ${kept}`)
    else print(`${nameOf(object)}: ${outcomes[await client.apply(object)]}`)
  }
  if (waitSeconds === 0) return
  const agents = agentDaemonSet(values)
  await client.waitForDaemonSet(agents, waitSeconds)
  print(`${nameOf(agents)}: ready on every node`)
  if (!values.controller.enabled || values.controller.replicas === 0) return
  const controller = controllerDeployment(values)
  await client.waitForDeployment(controller, waitSeconds)
  print(`${nameOf(controller)}: ready`)
}

/** What an earlier installation with other values put there, the last one first: what uses a right goes before the right. */
async function removeUnwanted(
  client: ClusterClient,
  values: InstallValues,
  wanted: ReadonlySet<string>,
  print: (line: string) => void,
): Promise<void> {
  for (const object of everyObject(values).reverse()) {
    const path = pathOf(object)
    const held = wanted.has(path) ? undefined : ((await client.read(path)) as KubeObject | undefined)
    if (!held || !isOurs(held)) continue
    await client.delete(object)
    print(`${nameOf(object)}: deleted, the values do not ask for it`)
  }
}

/** Why an object that is there is not touched; undefined when it is to be applied. */
async function keepsExisting(
  client: ClusterClient,
  object: KubeObject,
  { netConfGiven }: InstallOptions,
): Promise<string | undefined> {
  if (object.kind !== 'Namespace' && object.kind !== 'ConfigMap') return undefined
  const held = (await client.read(pathOf(object))) as KubeObject | undefined
  if (!held) return undefined
  if (object.kind === 'Namespace') return isOurs(held) ? undefined : "there already, and not weft's"
  if (netConfGiven) return undefined
  return isOurs(held) ? 'kept as it is' : 'there already: its net-conf.json is used'
}

async function warnOfFlannel(client: ClusterClient, namespace: string, print: (line: string) => void): Promise<void> {
  for (const name of flannelDaemonSets) {
    const object: KubeObject = { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name, namespace } }
    if (await client.read(pathOf(object)))
      print(`${nameOf(object)} runs flannel: a node needs one of the two; see docs/install.md on how to move`)
  }
}
