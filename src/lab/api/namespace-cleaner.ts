/**
 * Gives every namespace its default service account, and empties namespaces that are being deleted; when
 * nothing is left in one, its finalizer goes and with it the namespace.
 * Sources: Kubernetes documentation, "Namespaces", "Service Accounts".
 */
import type { StoreEvent, StoreWatch } from '../../cluster/embedded/store.ts'
import type { KubeObject } from './interfaces.ts'
import type { Resources } from './resources.ts'

export class NamespaceCleaner {
  readonly #resources: Resources
  readonly #watch: StoreWatch
  /** Namespaces under deletion. */
  readonly #leaving = new Set<string>()
  #scheduled = false
  #closed = false

  constructor(resources: Resources) {
    this.#resources = resources
    const { store } = resources
    for (const object of store.list('namespaces')) this.#welcome(object as KubeObject)
    this.#watch = store.watch('*', store.resourceVersion, (event) => this.#onEvent(event))
    if (this.#leaving.size) this.#schedule()
  }

  close(): void {
    this.#closed = true
    this.#watch.close()
  }

  #onEvent(event: StoreEvent): void {
    if (event.resource === 'namespaces') {
      if (event.type === 'DELETED') this.#leaving.delete(event.name)
      else this.#welcome(event.object as KubeObject)
    }
    const touched = event.resource === 'namespaces' ? event.name : event.namespace
    if (this.#leaving.has(touched)) this.#schedule()
  }

  #welcome(namespace: KubeObject): void {
    const name = namespace.metadata.name!
    if (namespace.metadata.deletionTimestamp) {
      this.#leaving.add(name)
      return
    }
    const { catalog, store } = this.#resources
    if (store.get('serviceaccounts', name, 'default')) return
    this.#resources.create(catalog.named('serviceaccounts')!, name, { metadata: { name: 'default', namespace: name } })
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#closed) for (const name of [...this.#leaving]) this.#empty(name)
    })
  }

  #empty(namespace: string): void {
    const { catalog, store } = this.#resources
    let left = 0
    for (const kind of catalog.stored()) {
      if (!kind.namespaced) continue
      for (const object of store.list(kind.storage, namespace) as KubeObject[]) {
        const { name, deletionTimestamp } = object.metadata
        if (deletionTimestamp) left++
        else if (!this.#resources.delete(kind, namespace, name!).gone) left++
      }
    }
    if (left > 0) return
    const kind = catalog.named('namespaces')!
    const object = store.get('namespaces', '', namespace) as KubeObject | undefined
    if (!object) return
    const { finalizers, ...spec } = object.spec ?? {}
    this.#resources.update(kind, undefined, namespace, { ...object, spec }, {}, 'finalize')
  }
}
