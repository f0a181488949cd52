/**
 * Every kind that is served: the built-in ones and those that CustomResourceDefinitions add and take away.
 */
import type { KubeObject } from './interfaces.ts'
import { coreKinds } from './kinds/core.ts'
import { customKinds, definitionKinds } from './kinds/custom.ts'
import { eventKinds } from './kinds/events.ts'
import { apiVersionOf, type Kind, resourceName } from './kinds/kind.ts'
import { networkKinds } from './kinds/network.ts'
import { podKinds } from './kinds/pods.ts'
import { rbacKinds } from './kinds/rbac.ts'
import { workloadKinds } from './kinds/workloads.ts'
import { ModelSchemas } from './schema/models.ts'

/** Stable versions first, then betas, then alphas; within them the newer first. */
function versionOrder(version: string): number {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version)
  if (!match) return -1
  const stage = match[2] === undefined ? 2 : match[2] === 'beta' ? 1 : 0
  return stage * 1e6 + Number(match[1]) * 1e3 + Number(match[3] ?? 0)
}

export class Catalog {
  readonly schemas = new ModelSchemas()
  /** Grows with each change of the served kinds: caches of discovery and OpenAPI hang on it. */
  revision = 0
  readonly #byPath = new Map<string, Kind>()
  readonly #preferred = new Map<string, Kind>()
  readonly #custom = new Map<string, readonly Kind[]>()

  constructor() {
    const model = (name: string) => this.schemas.root(name)
    for (const kinds of [coreKinds, podKinds, eventKinds, networkKinds, workloadKinds, rbacKinds, definitionKinds])
      for (const kind of kinds(model)) this.#add(kind)
  }

  /** The kind at a path's group, version and plural. */
  find(group: string, version: string, plural: string): Kind | undefined {
    return this.#byPath.get(`${group}/${version}/${plural}`)
  }

  /** By kubectl's name for it: `pods`, `deployments.apps`. The preferred version. */
  named(resource: string): Kind | undefined {
    return this.#preferred.get(resource)
  }

  findKind(apiVersion: string, kind: string): Kind | undefined {
    for (const candidate of this.#byPath.values())
      if (candidate.kind === kind && apiVersionOf(candidate) === apiVersion) return candidate
    return undefined
  }

  all(): Kind[] {
    return [...this.#byPath.values()]
  }

  /** One kind per storage name. */
  stored(): Kind[] {
    const found = new Map<string, Kind>()
    for (const kind of this.#preferred.values()) if (!found.has(kind.storage)) found.set(kind.storage, kind)
    return [...found.values()]
  }

  /** Group → its versions, preferred first; the core group is the empty string. */
  groups(): Map<string, string[]> {
    const groups = new Map<string, string[]>()
    for (const { group, version } of this.#byPath.values()) {
      const versions = groups.get(group) ?? []
      if (!versions.includes(version)) versions.push(version)
      groups.set(group, versions)
    }
    for (const versions of groups.values()) versions.sort((a, b) => versionOrder(b) - versionOrder(a))
    return groups
  }

  /** Serves what a definition describes, in place of what it described before. */
  define(definition: KubeObject): void {
    const name = definition.metadata.name!
    this.undefine(name)
    const metadata = this.schemas.root('V1ObjectMeta')
    const kinds = customKinds(definition, metadata).filter((kind) => !this.find(kind.group, kind.version, kind.plural))
    this.#custom.set(name, kinds)
    for (const kind of kinds) this.#add(kind)
  }

  undefine(name: string): void {
    for (const kind of this.#custom.get(name) ?? []) {
      this.#byPath.delete(`${kind.group}/${kind.version}/${kind.plural}`)
      this.#preferred.delete(resourceName(kind.plural, kind.group))
    }
    this.#custom.delete(name)
    this.revision++
  }

  #add(kind: Kind): void {
    this.#byPath.set(`${kind.group}/${kind.version}/${kind.plural}`, kind)
    const name = resourceName(kind.plural, kind.group)
    const other = this.#preferred.get(name)
    if (!other || versionOrder(kind.version) > versionOrder(other.version)) this.#preferred.set(name, kind)
    this.revision++
  }
}
