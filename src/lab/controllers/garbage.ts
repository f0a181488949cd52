/**
 * Removes what lost its owner: an object whose every owner reference names an object that is gone goes too, and so on down.
 *
 * Sources: Kubernetes documentation, "Garbage Collection" (owners and dependents).
 */
import type { KubeObject } from '../api/interfaces.ts'
import { type Informer, isNotFound, keyOfObject } from '../informer.ts'
import { isTerminating, remove, type Shared } from './shared.ts'

/** Kinds that are looked at, dependents before owners does not matter. */
const RESOURCES = [
  'pods',
  'replicasets.apps',
  'deployments.apps',
  'daemonsets.apps',
  'services',
  'endpointslices.discovery.k8s.io',
] as const

const RESOURCE_OF_KIND: Readonly<Record<string, string>> = {
  Pod: 'pods',
  ReplicaSet: 'replicasets.apps',
  Deployment: 'deployments.apps',
  DaemonSet: 'daemonsets.apps',
  Service: 'services',
  Node: 'nodes',
}

export function startGarbage(shared: Shared): void {
  const { client } = shared
  const informers = new Map<string, Informer>(
    RESOURCES.map((resource) => [
      resource,
      resource === 'pods' ? (shared.pods as unknown as Informer) : shared.informer(resource),
    ]),
  )

  const queue = shared.queue('garbage', async (key) => {
    const at = key.indexOf(' ')
    const resource = key.slice(0, at)
    const object = informers.get(resource)?.get(key.slice(at + 1))
    const owners = object?.metadata.ownerReferences ?? []
    if (!object || owners.length === 0 || isTerminating(object)) return
    for (const owner of owners) {
      const ownerResource = RESOURCE_OF_KIND[owner.kind]
      // An owner of a kind that this does not know is taken to exist.
      if (!ownerResource || (await exists(ownerResource, object, owner.name, owner.uid))) return
    }
    await remove(client, resource, object)
  })

  async function exists(resource: string, dependent: KubeObject, name: string, uid: string): Promise<boolean> {
    const { namespace } = dependent.metadata
    try {
      const place = resource === 'nodes' || !namespace ? { name } : { namespace, name }
      return (await client.get(resource, place)).metadata.uid === uid
    } catch (error) {
      if (isNotFound(error)) return false
      throw error
    }
  }

  for (const [resource, informer] of informers)
    informer.onChange((object, gone) => {
      if (!gone) {
        if (object.metadata.ownerReferences?.length) queue.add(`${resource} ${keyOfObject(object)}`)
        return
      }
      for (const [other, candidates] of informers)
        for (const candidate of candidates.values())
          if (candidate.metadata.ownerReferences?.some(({ uid }) => uid === object.metadata.uid))
            queue.add(`${other} ${keyOfObject(candidate)}`)
    })
}
