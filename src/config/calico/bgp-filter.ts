/**
 * Calico's BGPFilter: four lists of rules, of which the first that matches a route decides. Nothing matches: what holds
 * without filters (`compile.ts`).
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/bgpfilter.go (keys, rules, bounds), confd/pkg/resource/template/
 * template_funcs.go (lengths outside the cidr's own are cut to them).
 */
import type { BgpFilter, BgpFilterOperation, BgpFilterRule } from '../../model/calico-bgp.ts'
import { bitsOf, type Family } from '../../net/ip.ts'
import { checkDeviceGlob, communityOf, readAsns } from './bgp-fields.ts'
import { Fields, isObject, readHead, shown } from './fields.ts'

/** Keys of a spec, and of a rule. All are honoured. */
export const bgpFilterKeys = ['exportV4', 'exportV6', 'importV4', 'importV6'] as const
export const bgpFilterRuleKeys = [
  'action',
  'asPathPrefix',
  'cidr',
  'communities',
  'interface',
  'matchOperator',
  'operations',
  'peerType',
  'prefixLength',
  'priority',
  'source',
] as const
export const bgpFilterOperationKeys = ['addCommunity', 'prependASPath', 'setPriority'] as const

const MAX_RULES = 1000
const MAX_AS_PATH_PREFIX = 100
const MAX_OPERATIONS = 10
const MAX_PRIORITY = 2 ** 31 - 2

/** Throws ConfigError naming the object and the key: `spec.exportV4[2].cidr`. */
export function parseBgpFilter(object: unknown): { readonly filter: BgpFilter; readonly warnings: readonly string[] } {
  const { root, name } = readHead(object, 'BGPFilter')
  const spec = root.inner('spec')
  const warnings = [...spec.unknown(bgpFilterKeys)]
  const rules = (key: string, family: Family) =>
    (spec.list(key, MAX_RULES) ?? []).map((item, index) => {
      const fields = new Fields(item, spec.object, `${spec.path}${key}[${index}].`)
      warnings.push(...fields.unknown(bgpFilterRuleKeys))
      return readRule(fields, family)
    })
  const filter: BgpFilter = {
    name,
    exportV4: rules('exportV4', 4),
    importV4: rules('importV4', 4),
    exportV6: rules('exportV6', 6),
    importV6: rules('importV6', 6),
  }
  return { filter, warnings }
}

function readRule(fields: Fields, family: Family): BgpFilterRule {
  const action = fields.oneOf('action', ['Accept', 'Reject'])
  if (!action) throw fields.error('action', 'is missing: Accept or Reject')
  const prefixes = readPrefixes(fields, family)
  const source = fields.oneOf('source', ['RemotePeers'])
  const device = fields.text('interface', 15)
  const peerType = fields.oneOf('peerType', ['eBGP', 'iBGP'])
  const community = readCommunity(fields)
  const priority = fields.integer('priority', 1, MAX_PRIORITY)
  const operations = (fields.list('operations', MAX_OPERATIONS) ?? []).map((item, index) =>
    readOperation(new Fields(item, fields.object, `${fields.path}operations[${index}].`)),
  )
  if (operations.length > 0 && action === 'Reject')
    throw fields.error('operations', 'go with the action Accept: of a route that is rejected nothing is left to change')
  return {
    ...(prefixes && { prefixes }),
    ...(source && { source }),
    ...(device !== undefined && { device: checkDeviceGlob(fields, 'interface', device) }),
    ...(peerType && { peerType }),
    ...(community !== undefined && { community }),
    asPathPrefix: readAsns(fields, 'asPathPrefix', MAX_AS_PATH_PREFIX) ?? [],
    ...(priority !== undefined && { priority }),
    action,
    operations,
  }
}

function readPrefixes(fields: Fields, family: Family): BgpFilterRule['prefixes'] {
  const cidr = fields.cidr('cidr')
  const operator = fields.oneOf('matchOperator', ['Equal', 'NotEqual', 'In', 'NotIn'])
  const hasLengths = fields.get('prefixLength') !== undefined
  if (!cidr) {
    if (operator) throw fields.error('matchOperator', 'needs a cidr to compare with')
    if (hasLengths) throw fields.error('prefixLength', 'needs a cidr')
    return undefined
  }
  if (!operator) throw fields.error('matchOperator', 'is missing: how is the prefix compared with the cidr?')
  if (cidr.family !== family) throw fields.error('cidr', `${cidr} must be of IPv${family} in this list`)
  const lengths = fields.inner('prefixLength')
  const minLength = lengths.integer('min', 0, bitsOf(family))
  const maxLength = lengths.integer('max', 0, bitsOf(family))
  if (minLength !== undefined && maxLength !== undefined && minLength > maxLength)
    throw lengths.error('min', `${minLength} is more than max, ${maxLength}: no prefix is both`)
  return {
    cidr,
    operator,
    ...(minLength !== undefined && { minLength }),
    ...(maxLength !== undefined && { maxLength }),
  }
}

function readCommunity(fields: Fields): string | undefined {
  if (fields.get('communities') === undefined) return undefined
  const communities = fields.inner('communities')
  const values = communities.list('values', 1)
  if (values?.length !== 1) throw communities.error('values', 'must be one community')
  return communityOf(communities, 'values[0]', values[0])
}

function readOperation(fields: Fields): BgpFilterOperation {
  const [key, further] = fields.keys().filter((each) => fields.get(each) !== undefined)
  if (key === undefined || further !== undefined || !(bgpFilterOperationKeys as readonly string[]).includes(key))
    throw fields.error(key ?? '', `must be one of ${bgpFilterOperationKeys.join(', ')}, and one alone`)
  const value = fields.get(key)
  if (!isObject(value)) throw fields.error(key, `must be an object, not ${shown(value)}`)
  const inner = fields.inner(key)
  if (key === 'addCommunity') return { kind: key, community: communityOf(inner, 'value', inner.get('value')) }
  if (key === 'prependASPath') {
    const asns = readAsns(inner, 'prefix', 10)
    if (!asns?.length) throw inner.error('prefix', 'must be one to ten AS numbers')
    return { kind: key, asns }
  }
  const priority = inner.integer('value', 1, MAX_PRIORITY)
  if (priority === undefined) throw inner.error('value', 'is missing')
  return { kind: 'setPriority', priority }
}
