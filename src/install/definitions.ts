/**
 * The definitions of Calico's objects in a cluster: put there unless Calico's own are, and left there when weft goes, because
 * with a definition goes every object of its kind.
 */
import { HttpError } from '../cluster/http-client.ts'
import { ownLabels } from '../cluster/kubernetes/own-labels.ts'
import { calicoDefinitions } from '../config/calico/definitions/index.ts'
import { type ClusterClient, isOurs } from './cluster-client.ts'
import { type KubeObject, nameOf, pathOf } from './kube-object.ts'

type Print = (line: string) => void

export const definitionObjects = (): KubeObject[] =>
  calicoDefinitions.map((definition) => ({
    ...definition,
    metadata: { ...definition.metadata, labels: ownLabels },
  }))

/** A server that refuses one, or that its definitions may not be written on, is no reason not to install the rest. */
export async function installDefinitions(client: ClusterClient, print: Print): Promise<void> {
  for (const object of definitionObjects()) {
    try {
      print(`${nameOf(object)}: ${await installDefinition(client, object)}`)
    } catch (error) {
      if (!(error instanceof HttpError)) throw error
      print(`${nameOf(object)}: left out, pools cannot be used: ${error.message}`)
    }
  }
}

async function installDefinition(client: ClusterClient, object: KubeObject): Promise<string> {
  const held = (await client.read(pathOf(object))) as KubeObject | undefined
  if (held && !isOurs(held)) return "there already, and not weft's: used as it is"
  await client.apply(object)
  return 'applied'
}

/** `remove`: with all that is in them. */
export async function removeDefinitions(client: ClusterClient, remove: boolean, print: Print): Promise<void> {
  for (const object of definitionObjects().reverse()) {
    const held = (await client.read(pathOf(object))) as KubeObject | undefined
    if (!held) continue
    if (!isOurs(held)) print(`${nameOf(object)}: not weft's, stays`)
    else if (!remove) print(`${nameOf(object)}: stays, with its objects; --crds removes it`)
    else {
      await client.delete(object)
      print(`${nameOf(object)}: deleted, with its objects`)
    }
  }
}
