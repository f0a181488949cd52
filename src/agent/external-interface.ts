/**
 * Which interface leads to the other nodes, and by which address they reach this one: flannel's rules, over one reading
 * of links, addresses and routes. Pure: detected again whenever one of them changes.
 *
 *   --iface (each in order) → --iface-regex (each in order) → --iface-can-reach → node-public-ip annotation
 *   → the default route's device (IPv4's, else IPv6's) → the device that has the node's InternalIP
 *
 * Sources: flannel Documentation/configuration.md ("iface", "iface-regex", "iface-can-reach"), pkg/ipmatch (order).
 */
import type { NodeWishes } from '../cluster/cluster.ts'
import type { NodeContext } from '../model/cluster.ts'
import { ConfigError } from '../model/errors.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Address, ForeignLink, Link } from '../model/link.ts'
import type { Route } from '../model/route.ts'
import { type Family, Ip } from '../net/ip.ts'
import type { NodeAddresses } from './calico-addresses.ts'
import type { InterfaceOptions } from './options.ts'

/** What one dump of the kernel said. */
export interface InterfaceReading {
  readonly links: readonly (Link | ForeignLink)[]
  readonly addresses: readonly Address[]
  readonly routes: readonly Route[]
}

export interface Detected {
  readonly external: NodeContext['external']
  readonly publicIp?: Ip
  readonly publicIpv6?: Ip
  /** In Calico's words: the node's own addresses, and the device that has them. */
  readonly node?: NodeAddresses
  /** Which rule decided, for the log: `--iface eth1`, `default route`, … */
  readonly reason: string
}

/** Sorts what was read. Devices of weft's own may have the node's address as well, and lead nowhere without it. */
export function readingOf(objects: readonly KernelObject[]): InterfaceReading {
  const links = objects.filter((object) => object.kind === 'link')
  const own = new Set(links.flatMap(({ name, alias }) => (alias?.startsWith('weft:') ? name : [])))
  return {
    links,
    addresses: objects.filter((object) => object.kind === 'address' && !own.has(object.device)) as Address[],
    routes: objects.filter((object) => object.kind === 'route'),
  }
}

const MAIN_TABLE = 254
const DEFAULT_MTU = 1500

/** Throws ConfigError when a flag matches nothing, or when there is nothing to go by. */
export function detectExternal(
  reading: InterfaceReading,
  options: InterfaceOptions,
  node: { readonly addresses: readonly Ip[]; readonly wishes: NodeWishes },
): Detected {
  const chosen = chooseDevice(reading, options, node)
  const addresses = usable(reading, chosen.device)
  const { wishes } = node
  const pick = (family: Family): Ip | undefined => {
    const own = addresses.filter(({ ip }) => ip.family === family)
    if (chosen.address?.family === family) return chosen.address
    return (own.find(({ ip }) => node.addresses.some((internal) => internal.equals(ip))) ?? own[0])?.ip
  }
  const publicIp = wishes.publicIpOverwrite ?? options.publicIp ?? pick(4)
  const publicIpv6 = wishes.publicIpv6Overwrite ?? options.publicIpv6 ?? pick(6)
  return {
    external: externalOf(reading, chosen.device),
    ...(publicIp ? { publicIp } : {}),
    ...(publicIpv6 ? { publicIpv6 } : {}),
    reason: chosen.reason,
  }
}

/** A device as the one that packets to other nodes leave by. Throws ConfigError when there is no such device. */
export function externalOf(reading: InterfaceReading, device: string): NodeContext['external'] {
  const link = reading.links.find(({ name }) => name === device)
  if (!link) throw new ConfigError('--iface', device, 'there is no such device')
  return {
    device,
    mtuBytes: link.mtuBytes ?? DEFAULT_MTU,
    ...(link.mac ? { mac: link.mac } : {}),
    addresses: usable(reading, device).map(({ ip, prefixLength }) => ({ ip, prefixLength })),
  }
}

interface Choice {
  readonly device: string
  /** The address that led to the device. */
  readonly address?: Ip
  readonly reason: string
}

function chooseDevice(
  reading: InterfaceReading,
  options: InterfaceOptions,
  node: { readonly addresses: readonly Ip[]; readonly wishes: NodeWishes },
): Choice {
  for (const name of options.names) {
    const found = byName(reading, name)
    if (found) return { ...found, reason: `--iface ${name}` }
  }
  for (const pattern of options.patterns) {
    const found = byPattern(reading, pattern)
    if (found) return { ...found, reason: `--iface-regex ${pattern.source}` }
  }
  if (options.canReach) {
    const device = routeTo(reading, options.canReach)?.hops[0]?.device
    if (device) return { device, reason: `--iface-can-reach ${options.canReach}` }
    throw new ConfigError('--iface-can-reach', `${options.canReach}`, 'no route leads there')
  }
  if (options.names.length > 0)
    throw new ConfigError('--iface', options.names.join(', '), 'no such device or address here')
  if (options.patterns.length > 0)
    throw new ConfigError(
      '--iface-regex',
      options.patterns.map((p) => p.source).join(', '),
      'no device or address matches',
    )
  const wished = node.wishes.publicIp ?? node.wishes.publicIpv6
  const wishedAt = wished && byAddress(reading, wished)
  if (wishedAt) return { ...wishedAt, reason: `node-public-ip ${wished}` }
  for (const family of [4, 6] as const) {
    const device = defaultDevice(reading, family)
    if (device) return { device, reason: 'default route' }
  }
  for (const ip of node.addresses) {
    const found = byAddress(reading, ip)
    if (found) return { ...found, reason: `InternalIP ${ip}` }
  }
  throw new ConfigError(
    '--iface',
    'not given',
    "there is no default route, and no device has one of the node's addresses",
  )
}

/** Addresses that another node could send to, in the kernel's order. */
function usable(reading: InterfaceReading, device: string): Address[] {
  return reading.addresses.filter(
    (address) =>
      address.device === device && !address.ip.isLinkLocal && !address.ip.isLoopback && address.scope !== 'host',
  )
}

function byName(reading: InterfaceReading, name: string): Pick<Choice, 'device' | 'address'> | undefined {
  const ip = Ip.tryParse(name)
  if (ip) return byAddress(reading, ip)
  return reading.links.some((link) => link.name === name) ? { device: name } : undefined
}

function byAddress(reading: InterfaceReading, ip: Ip): { device: string; address: Ip } | undefined {
  const found = reading.addresses.find((address) => address.ip.equals(ip))
  return found && { device: found.device, address: ip }
}

/** Names come before addresses, as the user reads `ip link` first. */
function byPattern(reading: InterfaceReading, pattern: RegExp): Pick<Choice, 'device' | 'address'> | undefined {
  const link = reading.links.find(({ name }) => name !== 'lo' && pattern.test(name))
  if (link) return { device: link.name }
  const address = reading.addresses.find(({ ip, device }) => device !== 'lo' && pattern.test(ip.toString()))
  return address && { device: address.device, address: address.ip }
}

/** The best route of the main table (longest prefix, then lowest metric) with a device. Policy rules are not followed. */
export function routeTo(reading: InterfaceReading, ip: Ip): Route | undefined {
  return best(reading.routes.filter((route) => isMain(route) && route.destination.contains(ip)))
}

function defaultDevice(reading: InterfaceReading, family: Family): string | undefined {
  return best(
    reading.routes.filter(
      (route) => isMain(route) && route.destination.length === 0 && route.destination.family === family,
    ),
  )?.hops[0]?.device
}

const isMain = (route: Route): boolean =>
  (route.table ?? MAIN_TABLE) === MAIN_TABLE && (route.type ?? 'unicast') === 'unicast'

function best(routes: readonly Route[]): Route | undefined {
  const withDevice = routes.filter((route) => route.hops[0]?.device !== undefined)
  withDevice.sort((a, b) => b.destination.length - a.destination.length || (a.metric ?? 0) - (b.metric ?? 0))
  return withDevice[0]
}
