/**
 * How pods hang on a node: one bridge that is the pods' gateway, and a veth pair for each pod.
 *
 *      pod namespace                      node namespace
 *   ┌────────────────┐
 *   │ eth0 10.1.2.7  ├──────── veth5a3e0f91 ─┐
 *   └────────────────┘      (hairpin port)   ├─ cni0 10.1.2.1 ─── node's routes
 *   ┌────────────────┐                       │
 *   │ eth0 10.1.2.8  ├──────── veth77c0a9d2 ─┘
 *   └────────────────┘
 *
 * Devices have addresses made from what they carry: `0a:58` and the IPv4 address in use on them. A pod that gets an
 * address used before has the MAC of before, so that no neighbour's cache is ever wrong.
 *
 * Sources: bridge(8), veth(4); the packet walks of the flannel guides (cni0, pod routes).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Address, Link } from '../../model/link.ts'
import type { Route } from '../../model/route.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'
import { planVlanDevice, vlanDeviceOf } from './vlan.ts'

export interface PrefixedIp {
  readonly ip: Ip
  readonly prefixLength: number
}

/** Alias of the bridge of the node's pod network, and of bridges that only a CNI configuration names. */
export const nodeBridgeAlias = 'weft:bridge'
export const configuredBridgeAlias = 'weft-cni:bridge'

/** The MAC of a device that has this address: locally administered, `0a:58` and 32 bits of it. */
export function macOf(ip: Ip): Mac {
  const bytes = ip.toBytes()
  if (ip.family === 4) return new Mac(Uint8Array.of(0x0a, 0x58, ...bytes))
  const folded = [0, 1, 2, 3].map((i) => bytes[i]! ^ bytes[i + 4]! ^ bytes[i + 8]! ^ bytes[i + 12]!)
  return new Mac(Uint8Array.of(0x0a, 0x58, ...folded))
}

/** The first IPv4 address, else the first. */
const leading = (ips: readonly PrefixedIp[]): Ip | undefined => (ips.find(({ ip }) => ip.family === 4) ?? ips[0])?.ip

export interface BridgePlan {
  readonly name: string
  readonly alias: string
  readonly mtuBytes?: number
  /** The bridge takes frames to every address. */
  readonly promiscuous?: boolean
  /** The bridge keeps VLANs apart. */
  readonly vlanFiltering?: boolean
  /** The MAC of a bridge that is made for this, where none follows from its addresses. */
  readonly newMac?: Mac
  /** The VLAN in which the bridge's addresses are; left out: untagged, on the bridge itself. */
  readonly gatewayVlan?: number
  /** Addresses of the gateway; none for a bridge that is no gateway. */
  readonly gateways: readonly PrefixedIp[]
}

/** The device that has the gateway's addresses. */
export const gatewayDeviceOf = ({ name, gatewayVlan }: Pick<BridgePlan, 'name' | 'gatewayVlan'>): string =>
  gatewayVlan === undefined ? name : vlanDeviceOf(name, gatewayVlan)

/** The bridge, the device of its VLAN, its addresses, and forwarding for their families. */
export function planBridge(plan: BridgePlan): KernelObject[] {
  const { name, alias, mtuBytes, gatewayVlan } = plan
  const gateway = gatewayVlan === undefined ? leading(plan.gateways) : undefined
  const mac = gateway ? macOf(gateway) : plan.newMac
  return [
    {
      kind: 'link',
      name,
      type: 'bridge',
      alias,
      up: true,
      ...(plan.promiscuous ? { promiscuous: true } : {}),
      ...(mtuBytes ? { mtuBytes } : {}),
      ...(mac ? { mac } : {}),
      ...(plan.vlanFiltering ? { settings: { vlanFiltering: true } } : {}),
    },
    ...(gatewayVlan === undefined ? [] : planVlanDevice(name, gatewayVlan, alias, mtuBytes)),
    ...plan.gateways.map((address) => planAddress(gatewayDeviceOf(plan), address, true)),
    ...([4, 6] as const)
      .filter((family) => plan.gateways.some(({ ip }) => ip.family === family))
      .map((family) => ({ kind: 'sysctl', path: forwardingPath(family), value: '1' }) as const),
  ]
}

const forwardingPath = (family: Family): string =>
  family === 4 ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding'

function planAddress(device: string, { ip, prefixLength }: PrefixedIp, noDad: boolean): Address {
  const broadcast = ip.family === 4 && prefixLength < 31 ? Cidr.of(ip, prefixLength).last : undefined
  return {
    kind: 'address',
    device,
    ip,
    prefixLength,
    ...(broadcast ? { broadcast } : {}),
    ...(ip.family === 6 && noDad ? { noDad } : {}),
  }
}

export interface PodPlan {
  readonly hostDevice: string
  readonly alias: string
  /** Of the node's end; starts with `fe`, so that no bridge takes it for its own. */
  readonly hostMac: Mac
  readonly bridge: string
  readonly mtuBytes: number
  readonly hairpin: boolean
  readonly isolated: boolean
  readonly podDevice: string
  readonly netnsPath: string
  readonly mac: Mac
  readonly ips: readonly PrefixedIp[]
  readonly routes: readonly {
    readonly destination: Cidr
    readonly via?: Ip
    readonly mtuBytes?: number
    readonly table?: number
    readonly metric?: number
    readonly advertisedMssBytes?: number
  }[]
  /** Wait for duplicate address detection on IPv6 addresses. */
  readonly enableDad: boolean
  /** Leave the pod's device down. */
  readonly podDown: boolean
}

/** A pod's MAC: from its address, else from a digest of who it is. */
export function podMac(ips: readonly PrefixedIp[], digest: Uint8Array): Mac {
  const ip = leading(ips)
  return ip ? macOf(ip) : Mac.local(digest)
}

/** The MAC of the node's end of a pair. */
export function hostMac(digest: Uint8Array): Mac {
  return new Mac(Uint8Array.of(0xfe, ...digest.subarray(0, 5)))
}

/** The pair, made from the node's side with the pod's end in its namespace. */
export function planPair(plan: PodPlan): Link {
  return {
    kind: 'link',
    name: plan.hostDevice,
    type: 'veth',
    alias: plan.alias,
    up: true,
    mac: plan.hostMac,
    master: plan.bridge,
    mtuBytes: plan.mtuBytes,
    // A port of a bridge speaks no IPv6 of its own.
    addressGeneration: 'none',
    port: { hairpin: plan.hairpin, ...(plan.isolated ? { isolated: true } : {}) },
    // A queue for each CPU costs sysfs entries and memory by the hundred, and a veth's queues need no lock.
    settings: {
      queues: 1,
      peer: { name: plan.podDevice, netnsPath: plan.netnsPath, mac: plan.mac, mtuBytes: plan.mtuBytes },
    },
  }
}

/** What is inside the pod, in the order in which the kernel takes it. */
export function planPod(plan: PodPlan): KernelObject[] {
  const device = plan.podDevice
  const routes = plan.routes.map(
    ({ destination, via, table, metric, mtuBytes, advertisedMssBytes }): Route => ({
      kind: 'route',
      destination,
      hops: [via ? { device, via } : { device }],
      ...(table === undefined ? {} : { table }),
      ...(metric === undefined ? {} : { metric }),
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(advertisedMssBytes === undefined ? {} : { advertisedMssBytes }),
    }),
  )
  if (plan.podDown) return []
  return [
    { kind: 'link', name: device, type: 'veth', up: true },
    ...plan.ips.map((address) => planAddress(device, address, !plan.enableDad)),
    ...routes,
  ]
}

/** Default route and the cluster's networks through the gateway of each family. */
export function planPodRoutes(
  gateways: readonly Ip[],
  clusterNetworks: readonly Cidr[],
  defaultRoute: boolean,
): { destination: Cidr; via: Ip }[] {
  return gateways.flatMap((via) => [
    ...(defaultRoute ? [{ destination: Cidr.of(Ip.any(via.family), 0), via }] : []),
    ...clusterNetworks.filter(({ family }) => family === via.family).map((destination) => ({ destination, via })),
  ])
}
