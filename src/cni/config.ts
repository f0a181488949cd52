/**
 * The network configuration that a runtime hands to the plugin, with the reference bridge plugin's names and
 * meanings. Without `ipam` the addresses come from the node's pod network, and the bridge is the pods' gateway.
 *
 * Sources: CNI SPEC.md "Section 1: Network configuration format", CONVENTIONS.md; documentation of the reference
 * plugins bridge, host-local, static, portmap and bandwidth.
 */
import { type PortVlans, vlanDeviceOf } from '../datapath/bridge/vlan.ts'
import { checkRangeSets, type RangeSet, rangeOf } from '../ipam/range.ts'
import { ConfigError } from '../model/errors.ts'
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import { type CalicoKeys, parseCalicoKeys, usesPodCidr } from './calico-keys.ts'
import { CniCode, CniError } from './error.ts'
import { FieldReader } from './fields.ts'
import { parsePortVlans } from './port-vlans.ts'
import { type CniResult, decodeDns, decodeResult, decodeRoute, type ResultDns, type ResultRoute } from './result.ts'
import type { CniVersion } from './version.ts'

export interface StaticAddress {
  readonly ip: Ip
  readonly prefixLength: number
  readonly gateway?: Ip
}

export type IpamConfig =
  /** The node's own: its pools, where it has any, else its pod CIDRs; or, by `usePodCidr`, these in any case. */
  | { readonly type: 'node'; readonly podCidrsOnly?: boolean }
  | { readonly type: 'host-local'; readonly sets: readonly RangeSet[]; readonly routes: readonly ResultRoute[] }
  | { readonly type: 'static'; readonly addresses: readonly StaticAddress[]; readonly routes: readonly ResultRoute[] }
  /** A port on the bridge without addresses. */
  | { readonly type: 'none' }

export const protocols = ['tcp', 'udp', 'sctp'] as const
export type PortProtocol = (typeof protocols)[number]

export interface PortMapping {
  readonly protocol: PortProtocol
  readonly hostPort: number
  readonly containerPort: number
  /** The one host address that listens; every address when left out. */
  readonly hostIp?: Ip
}

/** Rates in bits a second, bursts in bits; a rate of 0 is no limit. "Ingress" is towards the container. */
export interface Bandwidth {
  readonly ingressRate: number
  readonly ingressBurst: number
  readonly egressRate: number
  readonly egressBurst: number
}

export interface RuntimeConfig {
  readonly ips: readonly { readonly ip: Ip; readonly prefixLength?: number }[]
  readonly mac?: Mac
  readonly portMappings: readonly PortMapping[]
  readonly bandwidth?: Bandwidth
}

export interface NetworkConfig {
  readonly cniVersion: CniVersion
  readonly name: string
  /** The node network's bridge when left out. */
  readonly bridge?: string
  readonly isGateway: boolean
  readonly isDefaultGateway: boolean
  readonly ipMasq: boolean
  readonly forceAddress: boolean
  /** The node network's when left out. */
  readonly hairpin?: boolean
  readonly mtuBytes?: number
  readonly portIsolation: boolean
  /** Frames of the pod under another hardware address than its own are dropped. */
  readonly macSpoofCheck: boolean
  /** The bridge takes frames to every address. */
  readonly promiscuous: boolean
  readonly disableContainerInterface: boolean
  /** Leave duplicate address detection on for IPv6 addresses of pods. */
  readonly enableDad: boolean
  /** VLANs of the pod's port; left out: the bridge's default one. */
  readonly vlans?: PortVlans
  readonly ipam: IpamConfig
  readonly dns: ResultDns
  readonly runtime: RuntimeConfig
  /** Present for a configuration in Calico's words. */
  readonly calico?: CalicoKeys
  readonly prevResult?: CniResult
}

export function parseNetworkConfig(fields: FieldReader, cniVersion: CniVersion): NetworkConfig {
  const name = fields.text('name', 256)
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name))
    throw fields.problem('name', 'must be letters, digits, "_", "." and "-", beginning with a letter or digit')
  const bridge = fields.optionalText('bridge', 15)
  if (bridge && (!/^[\x21-\x7e]+$/.test(bridge) || /[/:%]|^\.\.?$/.test(bridge)))
    throw fields.problem('bridge', `${JSON.stringify(bridge)} is not a device name`)
  const calico = parseCalicoKeys(fields)
  const disableContainerInterface = fields.flag('disableContainerInterface')
  const ipam = parseIpam(
    fields.optionalObject('ipam'),
    fields.optionalObject('runtimeConfig'),
    disableContainerInterface,
  )
  const ofNode = ipam.type === 'node'
  const isDefaultGateway = fields.flag('isDefaultGateway', ofNode)
  const isGateway = isDefaultGateway || fields.flag('isGateway', ofNode)
  const vlans = parsePortVlans(fields)
  if (ofNode && vlans && (vlans.access !== undefined || !vlans.keepDefault))
    throw fields.problem('vlan', "needs addresses of its own (ipam): the node's gateway is in the default VLAN")
  if (isGateway && vlans?.access !== undefined && vlanDeviceOf(bridge ?? 'cni0', vlans.access).length > 15)
    throw fields.problem('bridge', `is too long: its gateway in VLAN ${vlans.access} has both in its name`)
  const mtuBytes = fields.optionalInteger('mtu', 0, 65535)
  const promiscuous = fields.flag('promiscMode')
  const hairpin = parseHairpin(fields, promiscuous)
  const prevResult = fields.has('prevResult')
    ? decodeResult(fields.optionalObject('prevResult')!.raw, cniVersion)
    : undefined
  return {
    cniVersion,
    name,
    ...(bridge ? { bridge } : {}),
    isGateway,
    isDefaultGateway,
    ipMasq: fields.flag('ipMasq'),
    forceAddress: fields.flag('forceAddress'),
    ...(hairpin === undefined ? {} : { hairpin }),
    ...(mtuBytes ? { mtuBytes } : {}),
    portIsolation: fields.flag('portIsolation'),
    macSpoofCheck: fields.flag('macspoofchk'),
    promiscuous,
    disableContainerInterface,
    enableDad: fields.flag('enabledad'),
    ...(vlans ? { vlans } : {}),
    ipam,
    dns: decodeDns(fields.optionalObject('dns')),
    runtime: parseRuntime(fields.optionalObject('runtimeConfig'), fields.optionalObject('args')?.optionalObject('cni')),
    ...(calico ? { calico } : {}),
    ...(prevResult ? { prevResult } : {}),
  }
}

/** A promiscuous bridge sees its ports' frames itself: with hairpin as well they would come twice. */
function parseHairpin(fields: FieldReader, promiscuous: boolean): boolean | undefined {
  const hairpin = fields.optionalFlag('hairpinMode')
  if (promiscuous && hairpin) throw fields.problem('hairpinMode', 'cannot stand beside promiscMode')
  return promiscuous ? false : hairpin
}

/** Runs a reader of ranges; what it finds wrong becomes a CNI error. */
function asCniError<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof ConfigError)) throw cause
    throw new CniError(CniCode.invalidConfig, cause.message, '', { cause })
  }
}

function parseIpam(ipam: FieldReader | undefined, runtime: FieldReader | undefined, noInterface: boolean): IpamConfig {
  const type = ipam?.optionalText('type', 64)
  const empty = ipam === undefined || (type === undefined && ipam.keys().length === 0)
  if (noInterface && !empty)
    throw new CniError(CniCode.invalidConfig, 'ipam: must be empty with disableContainerInterface')
  if (noInterface) return { type: 'none' }
  if (empty || type === 'weft' || type === 'calico-ipam') return { type: 'node' }
  if (type === 'none') return { type: 'none' }
  if (type === 'host-local' && usesPodCidr(ipam)) return { type: 'node', podCidrsOnly: true }
  const routes = ipam.objects('routes', 1024).map(decodeRoute)
  if (type === 'host-local') return { type, sets: asCniError(() => parseRangeSets(ipam, runtime)), routes }
  if (type === 'static') return { type, addresses: parseStatic(ipam), routes }
  throw ipam.problem('type', `${JSON.stringify(type ?? '')} is not supported; there are host-local, static and none`)
}

/** `runtimeConfig.ipRanges`, then the single range of old configurations (`subnet` beside `type`), then `ranges`. */
function parseRangeSets(ipam: FieldReader, runtime: FieldReader | undefined): RangeSet[] {
  const sets = [
    ...rangeLists(runtime, 'ipRanges'),
    ...(ipam.has('subnet') ? [[parseRange(ipam)]] : []),
    ...rangeLists(ipam, 'ranges'),
  ]
  if (sets.length === 0) throw ipam.problem('ranges', 'is missing')
  checkRangeSets('ipam', sets)
  return sets
}

const rangeLists = (fields: FieldReader | undefined, key: string): RangeSet[] =>
  fields?.list(key, 16, (value, name) => FieldReader.of({ set: value }, name).objects('set', 64).map(parseRange)) ?? []

function parseRange(field: FieldReader) {
  const { ip, length } = field.parsed('subnet', parsePrefixed)
  return rangeOf(field.path, Cidr.of(ip, length), {
    first: field.optionalParsed('rangeStart', Ip.parse),
    last: field.optionalParsed('rangeEnd', Ip.parse),
    gateway: field.optionalParsed('gateway', Ip.parse),
  })
}

function parseStatic(ipam: FieldReader): StaticAddress[] {
  return ipam.objects('addresses', 64).map((field) => {
    const { ip, length } = field.parsed('address', parsePrefixed)
    const gateway = field.optionalParsed('gateway', Ip.parse)
    return { ip, prefixLength: length, ...(gateway ? { gateway } : {}) }
  })
}

/** An address of a single device, not a group's. */
export function parsePodMac(text: string): Mac {
  const mac = Mac.parse(text)
  if (mac.isMulticast || mac.isZero) throw new Error(`${text} is no single device's address`)
  return mac
}

function parseRuntime(runtime: FieldReader | undefined, args: FieldReader | undefined): RuntimeConfig {
  const mac = runtime?.optionalParsed('mac', parsePodMac) ?? args?.optionalParsed('mac', parsePodMac)
  const source = runtime?.has('ips') ? runtime : args
  const ips = (source?.texts('ips', 64, 64) ?? []).map((text, index) => {
    try {
      if (!text.includes('/')) return { ip: Ip.parse(text) }
      const { ip, length } = parsePrefixed(text)
      return { ip, prefixLength: length }
    } catch (cause) {
      throw source!.problem(`ips[${index}]`, (cause as Error).message)
    }
  })
  const bandwidth = parseBandwidth(runtime?.optionalObject('bandwidth'))
  return {
    ips,
    ...(mac ? { mac } : {}),
    portMappings: (runtime?.objects('portMappings', 1024) ?? []).flatMap(parsePortMapping),
    ...(bandwidth ? { bandwidth } : {}),
  }
}

/** Entries without a host port ask for nothing: runtimes pass every port of the pod. */
function parsePortMapping(field: FieldReader): PortMapping[] {
  const hostPort = field.optionalInteger('hostPort', 0, 65535) ?? 0
  if (hostPort === 0) return []
  const containerPort = field.optionalInteger('containerPort', 1, 65535)
  if (containerPort === undefined) throw field.problem('containerPort', 'is missing')
  const protocol = (field.optionalText('protocol', 16) ?? 'tcp').toLowerCase() as PortProtocol
  if (!protocols.includes(protocol)) throw field.problem('protocol', `must be ${protocols.join(', ')}`)
  const hostIp = field.optionalParsed('hostIP', Ip.parse)
  return [{ protocol, hostPort, containerPort, ...(hostIp && !hostIp.isAny ? { hostIp } : {}) }]
}

function parseBandwidth(field: FieldReader | undefined): Bandwidth | undefined {
  if (!field) return undefined
  const number = (key: string) => field.optionalInteger(key, 0, 2 ** 64) ?? 0
  const [ingressRate, egressRate] = [number('ingressRate'), number('egressRate')]
  for (const [key, rate] of [
    ['ingressRate', ingressRate],
    ['egressRate', egressRate],
  ] as const)
    if (rate > 0 && rate < 8) throw field.problem(key, 'is less than a byte a second')
  if (ingressRate === 0 && egressRate === 0) return undefined
  return { ingressRate, ingressBurst: number('ingressBurst'), egressRate, egressBurst: number('egressBurst') }
}
