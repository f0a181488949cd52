/**
 * Discovery: which groups, versions and resources are served, one by one and aggregated.
 * Sources: Kubernetes documentation, "The Kubernetes API", "Discovery API"; apidiscovery.k8s.io/v2.
 */
import type { Catalog } from '../catalog.ts'
import type { Kind, Verb } from '../kinds/kind.ts'
import { reviews } from '../reviews.ts'

interface Subresource {
  readonly name: string
  readonly kind: string
  readonly group: string
  readonly version: string
  readonly verbs: readonly (Verb | 'create')[]
}

const modify: readonly Verb[] = ['get', 'patch', 'update']

export function subresourcesOf(kind: Kind): Subresource[] {
  const own = { kind: kind.kind, group: kind.group, version: kind.version }
  const found: Subresource[] = []
  if (kind.status) found.push({ ...own, name: 'status', verbs: modify })
  if (kind.scale) found.push({ name: 'scale', kind: 'Scale', group: 'autoscaling', version: 'v1', verbs: modify })
  if (kind.storage === 'namespaces') found.push({ ...own, name: 'finalize', verbs: ['update'] })
  if (kind.storage === 'serviceaccounts')
    found.push({
      name: 'token',
      kind: 'TokenRequest',
      group: 'authentication.k8s.io',
      version: 'v1',
      verbs: ['create'],
    })
  if (kind.storage === 'pods')
    found.push(
      { name: 'attach', kind: 'PodAttachOptions', group: '', version: 'v1', verbs: ['create', 'get'] },
      { name: 'binding', kind: 'Binding', group: '', version: 'v1', verbs: ['create'] },
      { name: 'eviction', kind: 'Eviction', group: 'policy', version: 'v1', verbs: ['create'] },
      { name: 'exec', kind: 'PodExecOptions', group: '', version: 'v1', verbs: ['create', 'get'] },
      { name: 'log', kind: 'Pod', group: '', version: 'v1', verbs: ['get'] },
      { name: 'portforward', kind: 'PodPortForwardOptions', group: '', version: 'v1', verbs: ['create', 'get'] },
    )
  return found
}

const groupVersion = (group: string, version: string): string => (group ? `${group}/${version}` : version)

/** Groups with their versions, reviews and the empty policy group (kubectl drain looks for it) included. */
export function servedGroups(catalog: Catalog): Map<string, string[]> {
  const groups = catalog.groups()
  for (const { group, version } of reviews) {
    const versions = groups.get(group) ?? []
    if (!versions.includes(version)) versions.push(version)
    groups.set(group, versions)
  }
  groups.set('policy', ['v1'])
  return groups
}

export function apiVersions(address: string): unknown {
  return {
    kind: 'APIVersions',
    versions: ['v1'],
    serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: address }],
  }
}

export function apiGroup(group: string, versions: readonly string[]): Record<string, unknown> {
  const listed = versions.map((version) => ({ groupVersion: groupVersion(group, version), version }))
  return { name: group, versions: listed, preferredVersion: listed[0] }
}

export function apiGroupList(catalog: Catalog): unknown {
  const groups = [...servedGroups(catalog)].filter(([group]) => group !== '')
  return {
    kind: 'APIGroupList',
    apiVersion: 'v1',
    groups: groups.map(([group, versions]) => apiGroup(group, versions)),
  }
}

const optional = (kind: Kind) => ({
  ...(kind.shortNames.length && { shortNames: kind.shortNames }),
  ...(kind.categories.length && { categories: kind.categories }),
})

export function apiResourceList(catalog: Catalog, group: string, version: string): unknown | undefined {
  if (!servedGroups(catalog).get(group)?.includes(version)) return undefined
  const resources: unknown[] = []
  for (const kind of catalog.all()) {
    if (kind.group !== group || kind.version !== version) continue
    resources.push({
      name: kind.plural,
      singularName: kind.singular,
      namespaced: kind.namespaced,
      kind: kind.kind,
      verbs: kind.verbs,
      ...optional(kind),
      storageVersionHash: Buffer.from(`${kind.storage}/${kind.kind}`).toString('base64').slice(0, 12),
    })
    for (const sub of subresourcesOf(kind))
      resources.push({
        name: `${kind.plural}/${sub.name}`,
        singularName: '',
        namespaced: kind.namespaced,
        ...((sub.group !== group || sub.version !== version) && { group: sub.group, version: sub.version }),
        kind: sub.kind,
        verbs: sub.verbs,
      })
  }
  for (const review of reviews)
    if (review.group === group && review.version === version)
      resources.push({
        name: review.plural,
        singularName: review.kind.toLowerCase(),
        namespaced: review.namespaced,
        kind: review.kind,
        verbs: ['create'],
      })
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion: groupVersion(group, version), resources }
}

const scopeOf = (namespaced: boolean): string => (namespaced ? 'Namespaced' : 'Cluster')

function aggregatedResources(catalog: Catalog, group: string, version: string): unknown[] {
  const resources: unknown[] = []
  for (const kind of catalog.all()) {
    if (kind.group !== group || kind.version !== version) continue
    const subresources = subresourcesOf(kind).map((sub) => ({
      subresource: sub.name,
      responseKind: { group: sub.group, version: sub.version, kind: sub.kind },
      verbs: sub.verbs,
    }))
    resources.push({
      resource: kind.plural,
      responseKind: { group, version, kind: kind.kind },
      scope: scopeOf(kind.namespaced),
      singularResource: kind.singular,
      verbs: kind.verbs,
      ...optional(kind),
      ...(subresources.length && { subresources }),
    })
  }
  for (const review of reviews)
    if (review.group === group && review.version === version)
      resources.push({
        resource: review.plural,
        responseKind: { group, version, kind: review.kind },
        scope: scopeOf(review.namespaced),
        singularResource: review.kind.toLowerCase(),
        verbs: ['create'],
      })
  return resources
}

/** `core`: of /api, else of /apis. `version`: of apidiscovery.k8s.io, `v2` or `v2beta1`. */
export function aggregatedDiscovery(catalog: Catalog, core: boolean, version: string): unknown {
  const groups = [...servedGroups(catalog)].filter(([group]) => (group === '') === core)
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: `apidiscovery.k8s.io/${version}`,
    metadata: {},
    items: groups.map(([group, versions]) => ({
      metadata: { ...(group && { name: group }), creationTimestamp: null },
      versions: versions.map((v) => ({
        version: v,
        resources: aggregatedResources(catalog, group, v),
        freshness: 'Current',
      })),
    })),
  }
}
