/**
 * flannel's keys and values in etcd: one key a node, named by its subnet.
 *
 *   <prefix>/config                                       net-conf.json
 *   <prefix>/subnets/10.5.52.0-24                         {"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{…}}
 *   <prefix>/subnets/10.5.52.0-24&fd00:10:5::-64          dual stack
 *
 * weft adds the keys WeftNode and WeftStatus to the value; flannel's reader passes over keys that it does not know.
 *
 * Sources: flannel pkg/subnet/subnet.go (key), pkg/lease/lease.go (value), Documentation/reservations.md.
 */
import type { FlannelLease, NodeInfo, WeftNodeStatus } from '../../model/cluster.ts'
import { ConfigError } from '../../model/errors.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import type { LeaseAnnouncement } from '../cluster.ts'
import { parseStatus } from '../kubernetes/annotations.ts'

const MAX_VALUE = 16_384

export const formatSubnetKey = (subnets: readonly Cidr[]): string =>
  [...subnets]
    .sort((a, b) => a.compare(b))
    .map(({ base, length }) => `${base}-${length}`)
    .join('&')

/** Undefined for what is no subnet key. Older keys write the groups of IPv6 with dashes. */
export function parseSubnetKey(text: string): Cidr[] | undefined {
  if (text.length > 128) return undefined
  const subnets = text.split('&').map((part) => {
    const dash = part.lastIndexOf('-')
    const address = part.slice(0, dash).includes('.') ? part.slice(0, dash) : part.slice(0, dash).replaceAll('-', ':')
    return Cidr.tryParse(`${address}/${part.slice(dash + 1)}`)
  })
  const known = subnets.filter((cidr) => cidr !== undefined)
  if (known.length !== subnets.length || known.length > 2) return undefined
  return known.length === 2 && known[0]!.family === known[1]!.family ? undefined : known
}

/** A node whose name is the store's key where it does not say one itself. */
export interface ParsedLease {
  readonly node: NodeInfo
  readonly problems: readonly ConfigError[]
  /** Whose the subnet is, also where nothing is announced yet: a reservation. */
  readonly publicIp?: Ip
}

/** Reads one pair. A value that cannot be understood leaves a node without a lease, and its reason. */
export function parseLeaseValue(key: string, podCidrs: readonly Cidr[], text: string): ParsedLease {
  let name = key
  try {
    if (text.length > MAX_VALUE) throw new Error(`the value is longer than ${MAX_VALUE} characters`)
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new Error('the value is not an object')
    const fields = value as Record<string, unknown>
    if (typeof fields.WeftNode === 'string' && /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(fields.WeftNode))
      name = fields.WeftNode
    const publicIp = readAddress(fields, 'PublicIP', 4)
    // flannel's udp backend alone does not say its name; a lease of flannel's always has PublicIPv6, a reservation has not.
    if (fields.BackendType === undefined && 'PublicIPv6' in fields) fields.BackendType = 'udp'
    if (fields.BackendType === undefined)
      return { node: { name, addresses: [], podCidrs }, problems: [], ...(publicIp ? { publicIp } : {}) }
    const lease = readLease(fields, publicIp)
    const weft = fields.WeftStatus === undefined ? undefined : parseStatus(JSON.stringify(fields.WeftStatus))
    return {
      node: { name, addresses: [], podCidrs, lease, ...(weft ? { weft } : {}) },
      problems: [],
      ...(publicIp ? { publicIp } : {}),
    }
  } catch (cause) {
    const problem = new ConfigError(`etcd ${key}`, 'value', (cause as Error).message, { cause })
    return { node: { name, addresses: [], podCidrs }, problems: [problem] }
  }
}

function readLease(fields: Record<string, unknown>, publicIp: Ip | undefined): FlannelLease {
  const { BackendType: backendType, BackendData: backendData, BackendV6Data: backendV6Data } = fields
  if (typeof backendType !== 'string' || !/^[a-z0-9-]{1,32}$/.test(backendType))
    throw new Error('BackendType is not the name of a backend')
  const publicIpv6 = readAddress(fields, 'PublicIPv6', 6)
  return {
    backendType,
    ...(publicIp ? { publicIp } : {}),
    ...(publicIpv6 ? { publicIpv6 } : {}),
    ...(backendData === undefined || backendData === null ? {} : { backendData }),
    ...(backendV6Data === undefined || backendV6Data === null ? {} : { backendV6Data }),
  }
}

function readAddress(fields: Record<string, unknown>, key: string, family: Family): Ip | undefined {
  const text = fields[key]
  if (text === undefined || text === null || text === '') return undefined
  const ip = typeof text === 'string' ? Ip.tryParse(text) : undefined
  if (ip?.family !== family || ip.isMulticast || ip.isLoopback)
    throw new Error(`${key} is not an IPv${family} address of a node`)
  return ip.isAny ? undefined : ip
}

/** The value as flannel writes it, and weft's two keys behind. */
export function formatLeaseValue({ lease, weft }: LeaseAnnouncement, nodeName: string): string {
  return JSON.stringify({
    PublicIP: `${lease.publicIp ?? '0.0.0.0'}`,
    PublicIPv6: lease.publicIpv6 ? `${lease.publicIpv6}` : null,
    BackendType: lease.backendType,
    ...(lease.backendData === undefined ? {} : { BackendData: lease.backendData }),
    ...(lease.backendV6Data === undefined ? {} : { BackendV6Data: lease.backendV6Data }),
    WeftNode: nodeName,
    WeftStatus: weft satisfies WeftNodeStatus,
  })
}
