/**
 * Writes the rules of ClusterRoles that are put together from others, whenever one of them changes.
 * Sources: Kubernetes documentation, "Using RBAC Authorization", "Aggregated ClusterRoles".
 */
import { isDeepStrictEqual } from 'node:util'
import type { StoreWatch } from '../../../cluster/embedded/store.ts'
import type { KubeObject } from '../interfaces.ts'
import type { Resources } from '../resources.ts'
import { aggregatedRules } from './rbac.ts'

const storage = 'clusterroles.rbac.authorization.k8s.io'

export class RoleAggregator {
  readonly #resources: Resources
  readonly #watch: StoreWatch
  #scheduled = false
  #closed = false

  constructor(resources: Resources) {
    this.#resources = resources
    this.#aggregate()
    this.#watch = resources.store.watch(storage, resources.store.resourceVersion, () => this.#schedule())
  }

  close(): void {
    this.#closed = true
    this.#watch.close()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#closed) this.#aggregate()
    })
  }

  /** A role may be part of another that is itself put together: each write comes here again until nothing changes. */
  #aggregate(): void {
    const { store, catalog } = this.#resources
    const kind = catalog.named(storage)!
    const roles = store.list(storage) as KubeObject[]
    for (const role of roles) {
      const rules = aggregatedRules(role, roles)
      if (!rules || isDeepStrictEqual(rules, role.rules ?? [])) continue
      this.#resources.patch(kind, undefined, role.metadata.name!, 'merge', { rules })
    }
  }
}
