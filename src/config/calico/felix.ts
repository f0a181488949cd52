/**
 * Calico's FelixConfiguration: `default` for every node, `node.NAME` for one, key by key. What is wrong in one key leaves
 * the other keys alone: the other object's value, or the default, holds, and the key is named.
 *
 * Sources: Calico api/pkg/apis/projectcalico/v3/felixconfig.go (keys), felix/config/config_params.go (defaults, ranges).
 */
import type { FelixSettings } from '../../model/calico.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { parseFeatureOverride } from './feature-override.ts'
import { felixKeysNotApplying } from './felix-keys.ts'
import { Fields, isObject, shown } from './fields.ts'

/** Values as Calico decides them when nobody says anything. */
export const defaultFelixSettings: FelixSettings = {
  ipv6Support: true,
  interfacePrefix: 'cali',
  vxlanPort: 4789,
  vxlanVni: 4096,
  natOutgoingExclusions: 'IPPoolsOnly',
  workloadSourceSpoofing: 'Disabled',
  allowVxlanPacketsFromWorkloads: false,
  allowIpipPacketsFromWorkloads: false,
  externalNodes: [],
  ipv4NormalRoutePriority: 1024,
  ipv6NormalRoutePriority: 1024,
  ipForwarding: true,
}

const MAX_MTU = 65535
const MAX_PRIORITY = 2 ** 31 - 2
const MAX_EXTERNAL_NODES = 1000

type Row<K extends keyof FelixSettings> = readonly [
  key: string,
  read: (fields: Fields, key: string) => FelixSettings[K] | undefined,
]

const flag = (fields: Fields, key: string) => fields.flag(key)
/** 0 says: find out. */
const mtu = (fields: Fields, key: string) => fields.integer(key, 0, MAX_MTU) || undefined
const priority = (fields: Fields, key: string) => fields.integer(key, 1, MAX_PRIORITY)
const address = (family: Family) => (fields: Fields, key: string) => {
  const text = fields.text(key)
  if (text === undefined) return undefined
  const ip = Ip.tryParse(text)
  if (ip?.family !== family) throw fields.error(key, `must be an IPv${family} address, not ${shown(text)}`)
  return ip
}

/** One of these words, whatever the case. */
const anyCase =
  <const T extends string>(words: readonly T[]) =>
  (fields: Fields, key: string): T | undefined => {
    const text = fields.text(key)
    if (text === undefined) return undefined
    const word = words.find((each) => each.toLowerCase() === text.toLowerCase())
    if (word === undefined) throw fields.error(key, `must be one of ${words.join(', ')}, not ${shown(text)}`)
    return word
  }

const rows: { readonly [K in keyof FelixSettings]-?: Row<K> } = {
  ipv6Support: ['ipv6Support', flag],
  interfacePrefix: ['interfacePrefix', readInterfacePrefix],
  ipipMtuBytes: ['ipipMTU', mtu],
  vxlanMtuBytes: ['vxlanMTU', mtu],
  vxlanMtuV6Bytes: ['vxlanMTUV6', mtu],
  vxlanPort: ['vxlanPort', (fields, key) => fields.integer(key, 1, 65535)],
  vxlanVni: ['vxlanVNI', (fields, key) => fields.integer(key, 1, 2 ** 24 - 1)],
  ipipEnabled: ['ipipEnabled', flag],
  vxlanEnabled: ['vxlanEnabled', flag],
  checksumOffloadBroken: ['featureDetectOverride', readFeatureOverride],
  natOutgoingExclusions: ['natOutgoingExclusions', anyCase(['IPPoolsOnly', 'IPPoolsAndHostIPs'])],
  natOutgoingAddress: ['natOutgoingAddress', address(4)],
  natPortRange: ['natPortRange', readPortRange],
  natOutgoingInterfaceFilter: ['iptablesNATOutgoingInterfaceFilter', readInterfaceFilter],
  workloadSourceSpoofing: ['workloadSourceSpoofing', anyCase(['Disabled', 'Any'])],
  allowVxlanPacketsFromWorkloads: ['allowVXLANPacketsFromWorkloads', flag],
  allowIpipPacketsFromWorkloads: ['allowIPIPPacketsFromWorkloads', flag],
  externalNodes: ['externalNodesList', readExternalNodes],
  deviceRouteSourceAddress: ['deviceRouteSourceAddress', address(4)],
  deviceRouteSourceAddressV6: ['deviceRouteSourceAddressIPv6', address(6)],
  ipv4NormalRoutePriority: ['ipv4NormalRoutePriority', priority],
  ipv6NormalRoutePriority: ['ipv6NormalRoutePriority', priority],
  ipForwarding: ['ipForwarding', readIpForwarding],
}

/** Keys that are honoured, as FelixConfiguration spells them. */
export const felixKeys: readonly string[] = Object.values(rows).map(([key]) => key)

export interface FelixReading {
  readonly settings: FelixSettings
  /** Sentences that name object and keys: what does not apply, what nobody knows. */
  readonly warnings: readonly string[]
  /** Keys whose value cannot be used. */
  readonly problems: readonly ConfigError[]
}

/** `specs` are the specs of `FelixConfiguration default` and of `node.<this node>`; missing ones are left out. Never throws. */
export function parseFelix(specs: { readonly default?: unknown; readonly node?: unknown }): FelixReading {
  const problems: ConfigError[] = []
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      problems.push(error)
      return undefined
    }
  }
  const fieldsOf = (spec: unknown, object: string) =>
    spec === undefined || spec === null ? undefined : attempt(() => new Fields(spec, object, 'spec.'))
  const objects = [
    fieldsOf(specs.node, 'FelixConfiguration of this node'),
    fieldsOf(specs.default, 'FelixConfiguration default'),
  ].filter((fields) => fields !== undefined)
  const said: Record<string, unknown> = {}
  for (const [setting, [key, read]] of Object.entries(rows))
    for (const fields of objects) said[setting] ??= attempt(() => read(fields, key))
  for (const setting of Object.keys(said)) if (said[setting] === undefined) delete said[setting]
  return {
    settings: { ...defaultFelixSettings, ...said },
    warnings: objects.flatMap(warningsOf),
    problems,
  }
}

/** One sentence for each reason why keys do not apply, and one for keys that nobody knows. */
function warningsOf(fields: Fields): readonly string[] {
  const given = new Set(fields.keys().filter((key) => isSaid(fields.get(key))))
  const warnings: string[] = []
  for (const key of felixKeys) given.delete(key)
  for (const { reason, keys } of felixKeysNotApplying) {
    const present = keys.filter((key) => given.delete(key))
    if (present.length > 0) warnings.push(`${fields.object}: ${present.join(', ')}: does not apply: ${reason}`)
  }
  if (given.size > 0)
    warnings.push(
      `${fields.object}: ${shown([...given].join(', ')).slice(1, -1)}: is not known to weft and has no effect`,
    )
  return warnings
}

const isSaid = (value: unknown): boolean =>
  value !== undefined && value !== '' && !(isObject(value) && Object.keys(value).length === 0)

/** Names of devices have 15 characters, 11 of which tell pods apart. Of a list the first counts. */
function readInterfacePrefix(fields: Fields, key: string): string | undefined {
  const text = fields.text(key)?.split(',')[0]
  if (text !== undefined && !/^[a-zA-Z0-9_.-]{1,4}$/.test(text))
    throw fields.error(key, `must begin with a prefix of one to four characters, not ${shown(text)}`)
  return text
}

/** A port or `first:last`, as text or as a number. */
function readPortRange(fields: Fields, key: string): { readonly first: number; readonly last: number } | undefined {
  const value = fields.get(key)
  if (value === undefined || value === '' || value === 0) return undefined
  const parts = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(String(value))
  const first = Number(parts?.[1])
  const last = Number(parts?.[2] ?? parts?.[1])
  if (!parts || first < 1 || last < first || last > 65535)
    throw fields.error(key, `must be a port or first:last, not ${shown(value)}`)
  return { first, last }
}

function readInterfaceFilter(fields: Fields, key: string): string | undefined {
  const text = fields.text(key)
  if (text !== undefined && !/^[a-zA-Z0-9:._-]{1,15}\+?$/.test(text))
    throw fields.error(key, `must be the name of a device, or the beginning of one and a +, not ${shown(text)}`)
  return text
}

function readExternalNodes(fields: Fields, key: string): readonly Cidr[] | undefined {
  return fields.texts(key, MAX_EXTERNAL_NODES)?.map((text, index) => {
    const ip = Ip.tryParse(text)
    return ip ? Cidr.host(ip) : fields.cidrOf(`${key}[${index}]`, text)
  })
}

function readFeatureOverride(fields: Fields, key: string): boolean | undefined {
  try {
    return parseFeatureOverride(fields.text(key) ?? '')
  } catch (error) {
    if (error instanceof ConfigError) throw error
    throw fields.error(key, (error as Error).message)
  }
}

function readIpForwarding(fields: Fields, key: string): boolean | undefined {
  const word = anyCase(['Enabled', 'Disabled'])(fields, key)
  return word === undefined ? undefined : word === 'Enabled'
}
