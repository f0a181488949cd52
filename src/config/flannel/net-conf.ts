/**
 * flannel's net-conf.json, key by key, with flannel's defaults and checks.
 *
 * Where flannel's page and its code differ, the code counts, because a weft node has to do what the flannel node beside it
 * does with the same file: without a Backend the page says vxlan and the code takes udp, so udp it is, with a warning.
 *
 * Sources: flannel pkg/subnet/config.go, Documentation/configuration.md.
 */
import type { BackendConfig } from '../../model/backend.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr, parsePrefixed } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import type { Checked, FamilyNetwork, NetworkConfig } from '../config.ts'
import { readBackend } from './backend.ts'
import { JsonObject } from './json-object.ts'

const MAX_CHARACTERS = 65536

const KEYS = [
  'Network',
  'SubnetLen',
  'SubnetMin',
  'SubnetMax',
  'IPv6Network',
  'IPv6SubnetLen',
  'IPv6SubnetMin',
  'IPv6SubnetMax',
  'EnableIPv4',
  'EnableIPv6',
  'EnableNFTables',
  'Backend',
] as const

/**
 * Reads net-conf.json. `object` names its place for messages; `given` is a backend that stands in place of the text's own.
 * Throws ConfigError naming the key.
 */
export function parseNetConf(text: string, object = 'net-conf.json', given?: BackendConfig): Checked<NetworkConfig> {
  if (text.length > MAX_CHARACTERS)
    throw new ConfigError(object, '(whole)', `is longer than ${MAX_CHARACTERS} characters`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    const comment = /^\s*(#|\/\/)/m.test(text) ? '; JSON has no comments' : ''
    throw new ConfigError(object, '(whole)', `is not JSON: ${(cause as Error).message}${comment}`, { cause })
  }
  const warnings: string[] = []
  const root = new JsonObject(value, object, '', warnings)
  root.refuseOthers(KEYS, 'net-conf.json')
  const v4 = (root.flag('EnableIPv4') ?? true) ? readFamily(root, 4) : undefined
  const v6 = (root.flag('EnableIPv6') ?? false) ? readFamily(root, 6) : undefined
  if (!v4 && !v6) throw root.error('EnableIPv4', 'IPv4 and IPv6 are both off: there is no network left')
  if (!v6 && root.get('IPv6Network') !== undefined)
    root.warn('IPv6Network', 'is not used, because EnableIPv6 is not true')
  const backend = given ?? readBackendOf(root, object, warnings)
  if (v6 && backend.type === 'ipip') throw root.error('EnableIPv6', 'the backend ipip carries IPv4 alone')
  return {
    config: {
      ...(v4 && { v4 }),
      ...(v6 && { v6 }),
      backend,
      enableNftables: root.flag('EnableNFTables') ?? false,
    },
    warnings,
  }
}

function readBackendOf(root: JsonObject, object: string, warnings: string[]) {
  const value = root.get('Backend')
  if (value === undefined) {
    root.warn('Backend', "is missing: udp is taken, as flannel's code does (its page says vxlan); name one")
    return { type: 'udp', port: 8285 } as const
  }
  return readBackend(new JsonObject(value, object, 'Backend.', warnings))
}

/** What flannel knows of each family: names of keys, the usual subnet length, and how small a network may be. */
const families = {
  4: { prefix: '', usualLength: 24, longestLength: 30, longestNetwork: 28 },
  6: { prefix: 'IPv6', usualLength: 64, longestLength: 126, longestNetwork: 124 },
} as const

function readFamily(root: JsonObject, family: Family): FamilyNetwork {
  const { prefix, usualLength, longestLength, longestNetwork } = families[family]
  const network = readNetwork(root, `${prefix}Network`, family)
  const lengthKey = `${prefix}SubnetLen`
  let subnetLength = root.integer(lengthKey, 0, family === 4 ? 32 : 128) || undefined
  if (subnetLength === undefined) {
    if (network.length > longestNetwork)
      throw root.error(
        `${prefix}Network`,
        `${network} is too small; the smallest useful network is a /${longestNetwork}`,
      )
    subnetLength = network.length <= usualLength - 2 ? usualLength : network.length + 2
  } else if (subnetLength > longestLength) {
    throw root.error(lengthKey, `${subnetLength} leaves no room for pods; the longest is ${longestLength}`)
  } else if (subnetLength < network.length + 2) {
    throw root.error(lengthKey, `${network} must hold at least four subnets, so it is ${network.length + 2} or longer`)
  }
  const size = 1n << BigInt((family === 4 ? 32 : 128) - subnetLength)
  // The first subnet is left out by default: its base would be the address of the network itself.
  const subnetMin = readSubnet(root, `${prefix}SubnetMin`, network, subnetLength) ?? network.base.plus(size)
  const subnetMax = readSubnet(root, `${prefix}SubnetMax`, network, subnetLength) ?? network.last.plus(1n - size)
  if (subnetMin.compare(subnetMax) > 0)
    throw root.error(`${prefix}SubnetMin`, `${subnetMin} is behind ${prefix}SubnetMax ${subnetMax}`)
  return { network, subnetLength, subnetMin, subnetMax }
}

function readNetwork(root: JsonObject, key: string, family: Family): Cidr {
  const text = root.text(key)
  if (text === undefined) throw root.error(key, `is missing; it is the block of all IPv${family} pod addresses`)
  let prefixed: { ip: Ip; length: number }
  try {
    prefixed = parsePrefixed(text)
  } catch (cause) {
    throw root.error(key, (cause as Error).message, cause)
  }
  if (prefixed.ip.family !== family) throw root.error(key, `${text} is not an IPv${family} network`)
  const network = Cidr.of(prefixed.ip, prefixed.length)
  if (network.base.isMulticast || network.base.isLoopback || (network.base.isAny && network.length < 8))
    throw root.error(key, `${text} is no network for pods`)
  if (!network.base.equals(prefixed.ip)) root.warn(key, `${text} has host bits set; the network is ${network}`)
  return network
}

function readSubnet(root: JsonObject, key: string, network: Cidr, length: number): Ip | undefined {
  const text = root.text(key)
  if (text === undefined || text === '') return undefined
  const ip = Ip.tryParse(text)
  if (!ip) throw root.error(key, `${JSON.stringify(text)} is not an IP address`)
  if (!network.contains(ip)) throw root.error(key, `${ip} is outside the network ${network}`)
  if (!ip.masked(length).equals(ip)) throw root.error(key, `${ip} is not the beginning of a /${length} subnet`)
  return ip
}
