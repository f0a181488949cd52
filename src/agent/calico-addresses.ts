/**
 * This node's address of each family with the prefix length of its subnet, as calico/node finds them: by the choices of
 * address-methods.ts, over one reading of links, addresses and routes. Pure; again whenever one of them changes.
 *
 * Interfaces are looked through from the newest to the oldest, as Calico does, and of one the first address that is
 * neither loopback, link-local nor multicast counts. An address that cannot be found leaves what the store has.
 *
 * Sources: Calico node/pkg/lifecycle/startup/autodetection (filtered.go, interfaces.go, reachaddr.go; the names that
 * first-found leaves out: autodetection_linux.go).
 */
import type { CalicoNode } from '../model/calico.ts'
import type { NodeContext } from '../model/cluster.ts'
import type { Address } from '../model/link.ts'
import { type Family, Ip } from '../net/ip.ts'
import type { AddressChoice, AddressMethod } from './address-methods.ts'
import { type Detected, externalOf, type InterfaceReading, routeTo } from './external-interface.ts'

export interface NodeAddress {
  readonly ip: Ip
  /** Of its subnet on the underlay: whoever is inside is reached without a router. */
  readonly prefixLength: number
  /** Undefined for an address that no device has: behind a translation, or another's until the device comes. */
  readonly device?: string
}

export interface NodeAddresses {
  readonly v4?: NodeAddress
  readonly v6?: NodeAddress
  /** The device that has them: where encapsulated packets leave. */
  readonly external: NodeContext['external']
  /** What was asked for and not found, a sentence each. */
  readonly problems: readonly string[]
}

export interface AddressOptions {
  readonly v4: AddressChoice
  readonly v6: AddressChoice
}

/** What is known of the node besides its kernel. */
export interface NodeKnown {
  /** InternalIPs, in order. */
  readonly addresses: readonly Ip[]
  /** What the store says of it in Calico's words. */
  readonly calico?: CalicoNode
  /** Names of `can-reach=`, looked up. */
  readonly resolved?: ReadonlyMap<string, readonly Ip[]>
}

/** Devices that no node is reached by: those of pods and of networks' own making. */
const NOT_UNDERLAY = new RegExp(
  '^(docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan\\.calico|vxlan-v6\\.calico|' +
    'wireguard\\.cali|wg-v6\\.cali|nodelocaldns|geneve\\.weft|tun-)',
)

/** Those that networks like this one make: their addresses come out of pools, which `cidr=` may well cover. */
const OWN_MAKING =
  /^(cali|tunl|flannel|cni|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali|geneve\.weft|tun-)/

/** True for a device whose addresses say nothing of the underlay. */
export const isOverlayDevice = (name: string): boolean => NOT_UNDERLAY.test(name)

export function detectAddresses(
  reading: InterfaceReading,
  options: AddressOptions,
  detected: Detected,
  node: NodeKnown,
): NodeAddresses {
  const problems: string[] = []
  const find = (family: Family): NodeAddress | undefined => {
    const choice = family === 4 ? options.v4 : options.v6
    const stored = family === 4 ? node.calico?.ipv4 : node.calico?.ipv6
    if (choice.type === 'none') return stored && { ...stored, ...deviceOf(reading, stored.ip) }
    if (choice.type === 'given') return given(reading, choice)
    const found = byMethod(reading, choice.method, family, detected, node)
    if (found) return found
    if (choice.method.type !== 'external')
      problems.push(`${flagOf(family)} ${formatMethod(choice.method)} finds no IPv${family} address on this node`)
    return stored && { ...stored, ...deviceOf(reading, stored.ip) }
  }
  const [v4, v6] = [find(4), find(6)]
  const device = v4?.device ?? v6?.device ?? detected.external.device
  return {
    ...(v4 ? { v4 } : {}),
    ...(v6 ? { v6 } : {}),
    external: device === detected.external.device ? detected.external : externalOf(reading, device),
    problems,
  }
}

const flagOf = (family: Family): string => (family === 4 ? '--ip-autodetection-method' : '--ip6-autodetection-method')

function formatMethod(method: AddressMethod): string {
  switch (method.type) {
    case 'can-reach':
      return `can-reach=${method.host}`
    case 'interface':
    case 'skip-interface':
      return `${method.type}=${method.patterns.map(({ source }) => source).join()}`
    case 'cidr':
      return `cidr=${method.cidrs.join()}`
    default:
      return method.type
  }
}

function given(reading: InterfaceReading, { ip, prefixLength }: { ip: Ip; prefixLength?: number }): NodeAddress {
  const found = reading.addresses.find((address) => address.ip.equals(ip))
  const length = prefixLength ?? found?.prefixLength ?? (ip.family === 4 ? 32 : 128)
  return { ip, prefixLength: length, ...(found ? { device: found.device } : {}) }
}

function deviceOf(reading: InterfaceReading, ip: Ip): { device?: string } {
  const found = reading.addresses.find((address) => address.ip.equals(ip))
  return found ? { device: found.device } : {}
}

function byMethod(
  reading: InterfaceReading,
  method: AddressMethod,
  family: Family,
  detected: Detected,
  node: NodeKnown,
): NodeAddress | undefined {
  switch (method.type) {
    case 'external': {
      const ip = family === 4 ? detected.publicIp : detected.publicIpv6
      return ip && local(reading, ip)
    }
    case 'kubernetes-internal-ip': {
      const ip = node.addresses.find((address) => address.family === family)
      return ip && local(reading, ip)
    }
    case 'can-reach': {
      const literal = Ip.tryParse(method.host)
      const targets = literal ? [literal] : (node.resolved?.get(method.host) ?? [])
      const target = targets.find((ip) => ip.family === family)
      return target && bySourceTo(reading, target)
    }
    case 'interface':
      return firstOf(reading, family, ({ device }) => method.patterns.some((pattern) => pattern.test(device)))
    case 'cidr':
      return firstOf(
        reading,
        family,
        ({ device, ip }) => !OWN_MAKING.test(device) && method.cidrs.some((cidr) => cidr.contains(ip)),
      )
    case 'skip-interface':
      return firstOf(
        reading,
        family,
        ({ device }) => !isOverlayDevice(device) && !method.patterns.some((pattern) => pattern.test(device)),
      )
    case 'first-found':
      return firstOf(reading, family, ({ device }) => !isOverlayDevice(device))
  }
}

/** An address that should be on a device here; where it is on none, it is a subnet of its own. */
const local = (reading: InterfaceReading, ip: Ip): NodeAddress => given(reading, { ip })

function bySourceTo(reading: InterfaceReading, target: Ip): NodeAddress | undefined {
  const route = routeTo(reading, target)
  const device = route?.hops[0]?.device
  if (!device) return undefined
  if (route.source) return local(reading, route.source)
  const own = usable(reading, target.family).filter((address) => address.device === device)
  const near = route.hops[0]?.via ?? target
  const found = own.find(({ ip, prefixLength }) => ip.masked(prefixLength).equals(near.masked(prefixLength))) ?? own[0]
  return found && nodeAddress(found)
}

function firstOf(
  reading: InterfaceReading,
  family: Family,
  matches: (address: Address) => boolean,
): NodeAddress | undefined {
  const addresses = usable(reading, family)
  for (const { name } of [...reading.links].reverse()) {
    const found = addresses.find((address) => address.device === name && matches(address))
    if (found) return nodeAddress(found)
  }
  return undefined
}

const nodeAddress = ({ ip, prefixLength, device }: Address): NodeAddress => ({ ip, prefixLength, device })

const usable = (reading: InterfaceReading, family: Family): Address[] =>
  reading.addresses.filter(
    ({ ip }) => ip.family === family && !ip.isLinkLocal && !ip.isLoopback && !ip.isMulticast && !ip.isAny,
  )
