/**
 * Calico's words for a lab: address pools by the short names of their modes or from a user's own manifests, and what they
 * ask of the nodes.
 *
 * Sources: Calico manifests/calico.yaml and node/pkg/lifecycle/startup (names and defaults of the first pools).
 */
import { parseAllDocuments } from 'yaml'
import { defaultFelixSettings } from '../config/calico/felix.ts'
import { parsePool } from '../config/calico/pool.ts'
import { modeOf, pathsOfMode } from '../datapath/pools/pool-mode.ts'
import { ConfigError } from '../model/errors.ts'
import type { KubeObject } from './api/interfaces.ts'

export const POOLS = 'ippools.crd.projectcalico.org'
const API_VERSION = 'crd.projectcalico.org/v1'
/** calicoctl's manifests have the same spec under another version. */
const API_VERSIONS: readonly unknown[] = [API_VERSION, 'projectcalico.org/v3']
const MAX_POOLS = 64

const POOL_CIDRS = { v4: '172.26.0.0/16', v6: 'fd00:172:26::/64' } as const

type Mode = 'Always' | 'CrossSubnet'

/** The short names that `up` and `switch` take, and what the pools have under each. */
export const POOL_BACKENDS: Readonly<Record<string, { readonly ipipMode?: Mode; readonly vxlanMode?: Mode }>> = {
  'calico-ipip': { ipipMode: 'Always' },
  'calico-ipip-cross': { ipipMode: 'CrossSubnet' },
  'calico-vxlan': { vxlanMode: 'Always' },
  'calico-vxlan-cross': { vxlanMode: 'CrossSubnet' },
  'calico-plain': {},
}

const poolObject = (name: string, spec: object): KubeObject => ({
  apiVersion: API_VERSION,
  kind: 'IPPool',
  metadata: { name },
  spec,
})

/**
 * The pools of a short name. IPv6 has no IPIP: beside an IPIP pool its packets go as they are, where there are several
 * subnets in VXLAN across them.
 */
export function poolsFor(backend: string, lab: { readonly ipv6: boolean; readonly subnets: number }): KubeObject[] {
  const { ipipMode = 'Never', vxlanMode = 'Never' } = POOL_BACKENDS[backend]!
  const usual = { natOutgoing: true, nodeSelector: 'all()', disabled: false }
  const v4 = { cidr: POOL_CIDRS.v4, blockSize: 26, ipipMode, vxlanMode, ...usual }
  const vxlanModeV6 = ipipMode !== 'Never' && lab.subnets > 1 ? 'CrossSubnet' : vxlanMode
  const v6 = { cidr: POOL_CIDRS.v6, blockSize: 122, ipipMode: 'Never', vxlanMode: vxlanModeV6, ...usual }
  const pool = poolObject('default-ipv4-ippool', v4)
  return lab.ipv6 ? [pool, poolObject('default-ipv6-ippool', v6)] : [pool]
}

/** Pools of a manifest, YAML or JSON, of Kubernetes' or of calicoctl's version. Throws ConfigError naming the object and the key. */
export function readPools(text: string, source: string): KubeObject[] {
  const documents = parseAllDocuments(text)
  const out: KubeObject[] = []
  for (const document of Array.isArray(documents) ? documents : []) {
    const [problem] = document.errors
    if (problem) throw new ConfigError(source, '(whole)', `is no YAML: ${problem.message}`, { cause: problem })
    const object = document.toJS({ maxAliasCount: 100 }) as KubeObject | null
    if (object === null) continue
    const items = object.kind?.endsWith('List') ? ((object as { items?: KubeObject[] }).items ?? []) : [object]
    for (const each of items) out.push(checked(each, source))
  }
  if (out.length === 0) throw new ConfigError(source, '(whole)', 'has no IPPool')
  if (out.length > MAX_POOLS) throw new ConfigError(source, '(whole)', `has more than ${MAX_POOLS} objects`)
  return out
}

function checked(object: KubeObject, source: string): KubeObject {
  if (object?.kind !== 'IPPool' || !API_VERSIONS.includes(object.apiVersion))
    throw new ConfigError(
      source,
      'kind',
      `${JSON.stringify(object?.kind)} of ${JSON.stringify(object?.apiVersion)} is no IPPool of ${API_VERSIONS.join(' or ')}`,
    )
  parsePool(object)
  return { ...object, apiVersion: API_VERSION }
}

/** A pool as a user would write it: without what the API server adds. */
export const poolWords = ({ metadata, spec }: KubeObject): KubeObject => {
  const { name, labels, annotations } = metadata
  const own = { ...(name ? { name } : {}), ...(labels ? { labels } : {}), ...(annotations ? { annotations } : {}) }
  return { apiVersion: API_VERSION, kind: 'IPPool', metadata: own, spec }
}

const isUsed = (pool: KubeObject): boolean => {
  const { disabled, allowedUses } = (pool.spec ?? {}) as { disabled?: boolean; allowedUses?: string[] }
  return !disabled && (allowedUses ?? ['Workload']).includes('Workload')
}

/** The short name of what the pools give new pods; undefined where they give none. */
export function nameOfPools(pools: readonly KubeObject[]): string | undefined {
  const used = pools.filter(isUsed)
  const first = used.find(({ spec }) => !String(spec?.cidr).includes(':')) ?? used[0]
  if (!first) return undefined
  const { ipipMode = 'Never', vxlanMode = 'Never' } = first.spec as { ipipMode?: string; vxlanMode?: string }
  const names = Object.entries(POOL_BACKENDS)
  return names.find(
    ([, each]) => (each.ipipMode ?? 'Never') === ipipMode && (each.vxlanMode ?? 'Never') === vxlanMode,
  )?.[0]
}

/** Ids of the paths by which nodes reach the pools' addresses once they have arrived. */
export function pathsOfPools(pools: readonly KubeObject[]): readonly string[] {
  return [...new Set(pools.flatMap((pool) => pathsOfMode(modeOf(parsePool(pool).pool, defaultFelixSettings))))]
}
