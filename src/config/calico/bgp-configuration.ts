/**
 * Calico's BGPConfiguration: `default` for every node, `node.NAME` for one. Of a node's own object AS number, port, log
 * severity and prefix advertisements count; the rest is the cluster's, and `default` says it.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/bgpconfig.go (keys, rules, defaults), confd/pkg/backends/calico/client.go
 * (which keys count in a node's object; an empty cidr is nothing; names of communities go before values).
 */
import type { BgpConfiguration, PrefixAdvertisement } from '../../model/calico-bgp.ts'
import type { Cidr } from '../../net/cidr.ts'
import { checkDeviceGlob, communityOf, readAsn, readPassword, readSeconds } from './bgp-fields.ts'
import { bgpKeysNotApplying, notApplyingWarnings } from './bgp-keys.ts'
import { Fields, readHead, shown } from './fields.ts'

/** What holds where there is no object. */
export const defaultBgpConfiguration: BgpConfiguration = {
  name: 'default',
  nodeToNodeMesh: true,
  clusterIps: [],
  externalIps: [],
  loadBalancerIps: [],
  aggregateLoadBalancerIps: true,
  bindMode: 'None',
  ignoredInterfaces: [],
  ipv4NormalRoutePriority: 1024,
  ipv6NormalRoutePriority: 1024,
}

/** Keys that are honoured. */
export const bgpConfigurationKeys = [
  'asNumber',
  'bindMode',
  'communities',
  'ignoredInterfaces',
  'ipv4NormalRoutePriority',
  'ipv6NormalRoutePriority',
  'listenPort',
  'logSeverityScreen',
  'nodeMeshMaxRestartTime',
  'nodeMeshPassword',
  'nodeToNodeMeshEnabled',
  'prefixAdvertisements',
  'serviceClusterIPs',
  'serviceExternalIPs',
  'serviceLoadBalancerAggregation',
  'serviceLoadBalancerIPs',
] as const

/** Those of a node's own object. */
export const nodeBgpConfigurationKeys: readonly string[] = [
  'asNumber',
  'communities',
  'listenPort',
  'logSeverityScreen',
  'prefixAdvertisements',
]

export const MAX_RESTART_SECONDS = 4095
const MAX_PRIORITY = 2 ** 31 - 2
const MAX_BLOCKS = 1000
const MAX_LISTED = 500

export interface BgpConfigurationReading {
  readonly configuration: BgpConfiguration
  readonly warnings: readonly string[]
}

/** Throws ConfigError naming the object and the key. */
export function parseBgpConfiguration(object: unknown): BgpConfigurationReading {
  const { root, name } = readHead(object, 'BGPConfiguration')
  const spec = root.inner('spec')
  const isNodes = name.startsWith('node.')
  if (name !== 'default' && !isNodes)
    throw root.error('metadata.name', 'must be default, or node. and the name of a node; others have no effect')
  const asn = readAsn(spec, 'asNumber')
  const listenPort = spec.integer('listenPort', 0, 65535) || undefined
  const logSeverity = readSeverity(spec)
  const advertisements = readAdvertisements(spec)
  const own = {
    name,
    ...(asn !== undefined && { asn }),
    ...(listenPort !== undefined && { listenPort }),
    ...(logSeverity !== undefined && { logSeverity }),
    ...(advertisements && { prefixAdvertisements: advertisements }),
  }
  const known = [...bgpConfigurationKeys, ...bgpKeysNotApplying.BGPConfiguration.flatMap(({ keys }) => keys)]
  const warnings = [...spec.unknown(known), ...notApplyingWarnings('BGPConfiguration', spec)]
  if (!isNodes) return { configuration: { ...defaultBgpConfiguration, ...own, ...readCluster(spec) }, warnings }
  const others = spec.keys().filter((key) => known.includes(key) && !nodeBgpConfigurationKeys.includes(key))
  return {
    configuration: { ...defaultBgpConfiguration, ...own },
    warnings: [...warnings, ...others.map((key) => `${root.object}: spec.${key}: counts in the object default alone`)],
  }
}

function readCluster(spec: Fields): Omit<BgpConfiguration, 'name' | 'asn' | 'listenPort' | 'logSeverity'> {
  const nodeToNodeMesh = spec.flag('nodeToNodeMeshEnabled') ?? true
  const meshPassword = readPassword(spec, 'nodeMeshPassword')
  const meshRestartSeconds = readSeconds(spec, 'nodeMeshMaxRestartTime', 0, MAX_RESTART_SECONDS)
  if (!nodeToNodeMesh && meshPassword)
    throw spec.error('nodeMeshPassword', 'cannot be set where nodeToNodeMeshEnabled is false')
  if (!nodeToNodeMesh && meshRestartSeconds !== undefined)
    throw spec.error('nodeMeshMaxRestartTime', 'cannot be set where nodeToNodeMeshEnabled is false')
  return {
    nodeToNodeMesh,
    ...(meshPassword && { meshPassword }),
    ...(meshRestartSeconds !== undefined && { meshRestartSeconds }),
    clusterIps: readBlocks(spec, 'serviceClusterIPs'),
    externalIps: readBlocks(spec, 'serviceExternalIPs'),
    loadBalancerIps: readBlocks(spec, 'serviceLoadBalancerIPs'),
    aggregateLoadBalancerIps: spec.oneOf('serviceLoadBalancerAggregation', ['Enabled', 'Disabled']) !== 'Disabled',
    bindMode: spec.oneOf('bindMode', ['None', 'NodeIP']) ?? 'None',
    ignoredInterfaces: (spec.texts('ignoredInterfaces', MAX_LISTED) ?? []).map((text, index) =>
      checkDeviceGlob(spec, `ignoredInterfaces[${index}]`, text),
    ),
    ipv4NormalRoutePriority: spec.integer('ipv4NormalRoutePriority', 1, MAX_PRIORITY) ?? 1024,
    ipv6NormalRoutePriority: spec.integer('ipv6NormalRoutePriority', 1, MAX_PRIORITY) ?? 1024,
  }
}

function readSeverity(spec: Fields): string | undefined {
  const text = spec.text('logSeverityScreen', 16)
  if (text === undefined) return undefined
  const known = ['trace', 'debug', 'info', 'warning', 'error', 'fatal']
  if (!known.includes(text.toLowerCase()))
    throw spec.error('logSeverityScreen', `must be one of ${known.join(', ')}, not ${shown(text)}`)
  return text.toLowerCase()
}

/** `[{cidr}]`, without those that are empty. */
function readBlocks(spec: Fields, key: string): readonly Cidr[] {
  return (spec.list(key, MAX_BLOCKS) ?? []).flatMap((item, index) => {
    const cidr = new Fields(item, spec.object, `${spec.path}${key}[${index}].`).cidr('cidr')
    return cidr ? [cidr] : []
  })
}

function readAdvertisements(spec: Fields): readonly PrefixAdvertisement[] | undefined {
  const named = new Map<string, string>()
  for (const [index, item] of (spec.list('communities', MAX_LISTED) ?? []).entries()) {
    const fields = new Fields(item, spec.object, `${spec.path}communities[${index}].`)
    const name = fields.text('name', 253)
    if (name === undefined) throw fields.error('name', 'is missing')
    named.set(name, communityOf(fields, 'value', fields.get('value')))
  }
  const advertisements = spec.list('prefixAdvertisements', MAX_LISTED)
  if (named.size > 0 && !advertisements?.length)
    throw spec.error('communities', 'are defined, but prefixAdvertisements uses none of them')
  return advertisements?.map((item, index) => {
    const fields = new Fields(item, spec.object, `${spec.path}prefixAdvertisements[${index}].`)
    const cidr = fields.cidr('cidr')
    if (!cidr) throw fields.error('cidr', 'is missing')
    const communities = (fields.texts('communities', 50) ?? []).map((text, place) => {
      const key = `communities[${place}]`
      const value = named.get(text)
      if (value === undefined && !/^\d+(:\d+)+$/.test(text))
        throw fields.error(key, `${shown(text)} is not one of communities by its name, and no community itself`)
      return value ?? communityOf(fields, key, text)
    })
    return { cidr, communities: [...new Set(communities)].sort() }
  })
}
