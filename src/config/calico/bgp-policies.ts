/**
 * Calico's filters as policies, and what Calico tells peers where no filter decides:
 *
 *   told      never: pools with disableBGPExport. Else: this node's blocks and addresses, what it tells of Services, and
 *             whatever lies in a pool; from a reflector also others' Service addresses. Nothing else.
 *   taken     everything, less what the leak guard refuses.
 *
 * Sources: Calico confd/pkg/backends/calico/bgp_processor.go (buildImportFilter, buildExportFilter, processIPPool),
 * node/filesystem/etc/calico/confd/templates/bird_ipam.cfg.template (calico_export_to_bgp_peers).
 */
import type {
  PolicyConfig,
  PolicyRule,
  PrefixRange,
  PrefixSetConfig,
  RouteChange,
  RouteMatch,
} from '../../model/bgp.ts'
import type { IpPool } from '../../model/calico.ts'
import type { BgpConfiguration, BgpFilter, BgpFilterOperation, BgpFilterRule } from '../../model/calico-bgp.ts'
import type { Cidr } from '../../net/cidr.ts'
import type { Family } from '../../net/ip.ts'

export const EXPORT_POLICY = 'calico-export'
const POOLS = 'pools'
const POOLS_NOT_TOLD = 'pools-not-told'
const SERVICES = 'service-addresses'

export type Direction = 'import' | 'export'

export const filterPolicyName = (name: string, direction: Direction, family: Family): string =>
  `filter ${name} ${direction}V${family}`

const listOf = (filter: BgpFilter, direction: Direction, family: Family) => filter[`${direction}V${family}`]

/** Only lists that say something. */
export function filterPolicies(filters: Iterable<BgpFilter>): readonly PolicyConfig[] {
  const policies: PolicyConfig[] = []
  for (const filter of filters)
    for (const direction of ['import', 'export'] as const)
      for (const family of [4, 6] as const) {
        const rules = listOf(filter, direction, family)
        if (rules.length === 0) continue
        policies.push({
          name: filterPolicyName(filter.name, direction, family),
          rules: rules.map((rule, index) =>
            policyRule(rule, `BGPFilter ${filter.name} ${direction}V${family}[${index}]`),
          ),
        })
      }
  return policies
}

function policyRule(rule: BgpFilterRule, name: string): PolicyRule {
  const { prefixes, source, device, peerType, community, asPathPrefix, priority, action, operations } = rule
  const match: RouteMatch = {
    ...(prefixes && { prefixes: prefixMatch(prefixes) }),
    ...(source && { source: 'peers' as const }),
    ...(device !== undefined && { device }),
    ...(peerType && { peerType: peerType === 'eBGP' ? ('ebgp' as const) : ('ibgp' as const) }),
    ...(community !== undefined && { communities: [community] }),
    ...(asPathPrefix.length > 0 && { asPathPrefix }),
    ...(priority !== undefined && { priority }),
  }
  return { name, match, changes: operations.map(changeOf), verdict: action === 'Accept' ? 'accept' : 'reject' }
}

/** `Equal` is the prefix itself; its length must be within prefixLength all the same. */
function prefixMatch({ cidr, operator, minLength, maxLength }: NonNullable<BgpFilterRule['prefixes']>) {
  const isExact = operator === 'Equal' || operator === 'NotEqual'
  const least = Math.max(cidr.length, minLength ?? 0)
  const most = Math.min(isExact ? cidr.length : 128, maxLength ?? 128)
  const range: PrefixRange = {
    prefix: `${cidr}`,
    ...(least > cidr.length && { minLength: least }),
    ...(most < 128 && { maxLength: most }),
  }
  const isNegated = operator === 'NotEqual' || operator === 'NotIn'
  return { set: [range], ...(isNegated && { negated: true as const }) }
}

function changeOf(operation: BgpFilterOperation): RouteChange {
  switch (operation.kind) {
    case 'addCommunity':
      return { kind: 'add-communities', communities: [operation.community] }
    case 'prependASPath':
      return { kind: 'prepend-as-path', asns: operation.asns }
    case 'setPriority':
      return { kind: 'set-priority', priority: operation.priority }
  }
}

const within = (cidrs: Iterable<Cidr>): readonly PrefixRange[] =>
  [...cidrs].sort((a, b) => a.compare(b)).map((cidr) => ({ prefix: `${cidr}` }))

export function exportSets(pools: readonly IpPool[], configuration: BgpConfiguration): readonly PrefixSetConfig[] {
  const cidrs = (told: boolean) =>
    pools.filter(({ disableBgpExport }) => disableBgpExport !== told).map(({ cidr }) => cidr)
  return [
    { name: POOLS, ranges: within(cidrs(true)) },
    { name: POOLS_NOT_TOLD, ranges: within(cidrs(false)) },
    { name: SERVICES, ranges: within([...configuration.loadBalancerIps, ...configuration.externalIps]) },
  ]
}

/** The sets are apart, by their names: pools come and go. */
export function exportPolicy(configuration: BgpConfiguration, isReflector: boolean): PolicyConfig {
  const rule = (
    name: string,
    match: RouteMatch,
    verdict: PolicyRule['verdict'],
    changes: readonly RouteChange[] = [],
  ) => ({
    name,
    match,
    changes,
    verdict,
  })
  const communities = (configuration.prefixAdvertisements ?? []).map(({ cidr, communities: added }, index) =>
    rule(`prefixAdvertisements[${index}]`, { prefixes: { set: within([cidr]) } }, 'next', [
      { kind: 'add-communities', communities: added },
    ]),
  )
  return {
    name: EXPORT_POLICY,
    rules: [
      rule('a pool with disableBGPExport', { prefixes: { set: POOLS_NOT_TOLD } }, 'reject'),
      ...communities,
      rule('our own', { source: 'local' }, 'accept'),
      ...(isReflector ? [rule('Service addresses of others', { prefixes: { set: SERVICES } }, 'accept')] : []),
      rule('a pool', { prefixes: { set: POOLS } }, 'accept'),
      rule('neither our own nor of a pool', {}, 'reject'),
    ],
  }
}
