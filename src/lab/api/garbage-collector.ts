/**
 * Deletes what no living object owns any more (background), what a dying owner waits for (foreground), and takes
 * the owner off what is to be kept (orphan).
 * Sources: Kubernetes documentation, "Garbage Collection", "Owners and Dependents".
 */
import type { Logger } from 'pino'
import type { StoreEvent, StoreWatch } from '../../cluster/embedded/store.ts'
import { ApiError } from './api-error.ts'
import type { KubeObject } from './interfaces.ts'
import type { Kind } from './kinds/kind.ts'
import type { Resources } from './resources.ts'

interface Place {
  readonly resource: string
  readonly namespace: string
  readonly name: string
}

const keyOf = ({ resource, namespace, name }: Place): string => `${resource}/${namespace}/${name}`

export class GarbageCollector {
  readonly #resources: Resources
  readonly #log: Logger | undefined
  readonly #watch: StoreWatch
  /** Owner's uid → what it owns. */
  readonly #dependents = new Map<string, Map<string, Place>>()
  /** Uids of everything that exists. */
  readonly #living = new Set<string>()
  readonly #queue = new Map<string, Place>()
  #scheduled = false
  #closed = false

  constructor(resources: Resources, log?: Logger) {
    this.#resources = resources
    this.#log = log
    const { store } = resources
    for (const resource of store.resources())
      for (const object of store.list(resource) as KubeObject[]) {
        const { namespace = '', name } = object.metadata
        this.#learn({ resource, namespace, name: name! }, object)
      }
    // What was orphaned while nobody looked.
    for (const owned of this.#dependents.values()) for (const place of owned.values()) this.#enqueue(place)
    this.#watch = store.watch('*', store.resourceVersion, (event) => this.#onEvent(event))
  }

  close(): void {
    this.#closed = true
    this.#watch.close()
  }

  #learn(place: Place, object: KubeObject): void {
    this.#living.add(object.metadata.uid!)
    for (const { uid } of object.metadata.ownerReferences ?? []) {
      let owned = this.#dependents.get(uid)
      if (!owned) {
        owned = new Map()
        this.#dependents.set(uid, owned)
      }
      owned.set(keyOf(place), place)
    }
    const { deletionTimestamp, finalizers } = object.metadata
    if (deletionTimestamp && finalizers?.some((f) => f === 'foregroundDeletion' || f === 'orphan')) this.#enqueue(place)
  }

  #onEvent(event: StoreEvent): void {
    const place: Place = { resource: event.resource, namespace: event.namespace, name: event.name }
    const object = event.object as KubeObject
    const previous = event.previous as KubeObject | undefined
    for (const { uid } of previous?.metadata.ownerReferences ?? []) this.#dependents.get(uid)?.delete(keyOf(place))
    if (event.type !== 'DELETED') {
      this.#learn(place, object)
      if (event.type === 'ADDED' && object.metadata.ownerReferences?.length) this.#enqueue(place)
      return
    }
    const { uid, ownerReferences } = object.metadata
    this.#living.delete(uid!)
    for (const owned of this.#dependents.get(uid!)?.values() ?? []) this.#enqueue(owned)
    this.#dependents.delete(uid!)
    // Owners that wait for their dependents look again.
    for (const owner of ownerReferences ?? []) {
      const kind = this.#resources.catalog.findKind(owner.apiVersion, owner.kind)
      if (kind)
        this.#enqueue({ resource: kind.storage, namespace: kind.namespaced ? event.namespace : '', name: owner.name })
    }
  }

  #enqueue(place: Place): void {
    this.#queue.set(keyOf(place), place)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      const places = [...this.#queue.values()]
      this.#queue.clear()
      if (!this.#closed) for (const place of places) this.#settle(place)
    })
  }

  #settle(place: Place): void {
    const kind = this.#resources.catalog.named(place.resource)
    const object = this.#resources.store.get(place.resource, place.namespace, place.name) as KubeObject | undefined
    if (!kind || !object) return
    try {
      this.#settleOwner(kind, object)
      this.#settleDependent(kind, object)
    } catch (error) {
      if (!(error instanceof ApiError && error.code === 404)) this.#log?.error({ err: error, place }, 'cannot collect')
    }
  }

  /** An object under foreground or orphan deletion. */
  #settleOwner(kind: Kind, object: KubeObject): void {
    const { deletionTimestamp, finalizers = [], uid } = object.metadata
    if (!deletionTimestamp) return
    const owned = [...(this.#dependents.get(uid!)?.values() ?? [])]
    if (finalizers.includes('orphan')) {
      for (const place of owned) this.#dropOwner(place, uid!)
      this.#dropFinalizer(kind, object, 'orphan')
    } else if (finalizers.includes('foregroundDeletion')) {
      let left = 0
      for (const place of owned) {
        const dependentKind = this.#resources.catalog.named(place.resource)
        const dependent = this.#resources.store.get(place.resource, place.namespace, place.name) as
          | KubeObject
          | undefined
        if (!dependentKind || !dependent) continue
        left++
        if (!dependent.metadata.deletionTimestamp)
          this.#resources.delete(dependentKind, place.namespace, place.name, { propagationPolicy: 'Foreground' })
      }
      if (left === 0) this.#dropFinalizer(kind, object, 'foregroundDeletion')
    }
  }

  #settleDependent(kind: Kind, object: KubeObject): void {
    const { ownerReferences, namespace, name, deletionTimestamp, uid } = object.metadata
    if (!ownerReferences?.length || deletionTimestamp) return
    if (ownerReferences.some((owner) => this.#living.has(owner.uid))) return
    this.#resources.delete(kind, namespace, name!, { preconditions: { uid: uid! } })
  }

  #dropOwner(place: Place, uid: string): void {
    const kind = this.#resources.catalog.named(place.resource)
    const object = this.#resources.store.get(place.resource, place.namespace, place.name) as KubeObject | undefined
    if (!kind || !object) return
    const ownerReferences = (object.metadata.ownerReferences ?? []).filter((owner) => owner.uid !== uid)
    this.#resources.patch(kind, place.namespace, place.name, 'merge', { metadata: { ownerReferences } })
  }

  #dropFinalizer(kind: Kind, object: KubeObject, finalizer: string): void {
    const { namespace, name } = object.metadata
    const current = this.#resources.store.get(kind.storage, kind.namespaced ? namespace! : '', name!) as
      | KubeObject
      | undefined
    const finalizers = (current?.metadata.finalizers ?? []).filter((f) => f !== finalizer)
    if (current) this.#resources.patch(kind, namespace, name!, 'merge', { metadata: { finalizers } })
  }
}
