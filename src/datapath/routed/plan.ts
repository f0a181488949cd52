/**
 * How routed pods hang on a node: each has an address alone and a device of its own on the node, and no bridge. A gateway that
 * is nobody's address stands for the node on every such link; its hardware address is the same everywhere, so the pod is told
 * it once and asks nobody.
 *
 *      pod namespace                                    node namespace
 *   ┌───────────────────────────────────┐
 *   │ eth0 172.26.0.5/32                ├── calie64b9fa939d   172.26.0.5 dev calie64b9fa939d scope link
 *   │ default via 169.254.1.1           │   ee:ee:ee:ee:ee:ee
 *   │ 169.254.1.1 lladdr ee:ee:… perm.  │   answers ARP for 169.254.1.1, ND for fe80::ecee:eeff:feee:eeee
 *   └───────────────────────────────────┘
 *
 * Who flushes the entry, or came by a checkpoint without it, asks by ARP. The kernel answers for others (proxy_arp) only where
 * it has a route to what is asked for, by another device; a node without a default route would stay silent. So there is a
 * route to the gateway, to `lo`. The IPv6 gateway is an address of each device.
 *
 * Sources: Calico cni-plugin dataplane_linux.go and felix endpoint_mgr.go (addresses, MAC, kernel variables); the second seed's
 * captures; net/ipv4/arp.c (arp_process), Documentation/networking/ip-sysctl.rst; calico#3270 (no answer without a route).
 */
import type { KernelObject } from '../../model/kernel-object.ts'
import type { Link } from '../../model/link.ts'
import { type Route, type Rule, WEFT_ROUTE_PROTOCOL } from '../../model/route.ts'
import { Cidr } from '../../net/cidr.ts'
import { type Family, Ip } from '../../net/ip.ts'
import { Mac } from '../../net/mac.ts'

/** Of the node's end of every pair. */
export const nodeMac = Mac.parse('ee:ee:ee:ee:ee:ee')

/** What pods send everything to. The IPv6 one is the link-local address that follows from the MAC. */
export const gatewayOf = (family: Family): Ip => (family === 4 ? gateway4 : gateway6)
const gateway4 = Ip.parse('169.254.1.1')
const gateway6 = Ip.parse('fe80::ecee:eeff:feee:eeee')

/** Of the node's route to the IPv4 gateway: any other route to it wins. */
const gatewayMetric = 0x77656674

export const defaultInterfacePrefix = 'cali'

export interface RoutedPodPlan {
  readonly hostDevice: string
  readonly alias: string
  readonly mtuBytes: number
  readonly podDevice: string
  readonly netnsPath: string
  readonly mac: Mac
}

const familiesOf = (ips: readonly Ip[]): readonly Family[] =>
  ([4, 6] as const).filter((family) => ips.some((ip) => ip.family === family))

/** The pair, made from the node's side with the pod's end in its namespace. Needs no address. */
export function planRoutedPair(plan: RoutedPodPlan): Link {
  return {
    kind: 'link',
    name: plan.hostDevice,
    type: 'veth',
    alias: plan.alias,
    up: true,
    mac: nodeMac,
    mtuBytes: plan.mtuBytes,
    // The one link-local address that it needs is planned.
    addressGeneration: 'none',
    settings: {
      queues: 1,
      peer: { name: plan.podDevice, netnsPath: plan.netnsPath, mac: plan.mac, mtuBytes: plan.mtuBytes },
    },
  }
}

export interface InsideOptions {
  /** Wait for duplicate address detection on IPv6 addresses. */
  readonly enableDad?: boolean
  /** Whether the pod forwards packets between its interfaces; as its namespace has it when left out. */
  readonly forwards?: boolean | undefined
}

/** What is inside the pod but for its routes, in the order in which the kernel takes it. */
export function planRoutedPod(
  device: string,
  ips: readonly Ip[],
  { enableDad = false, forwards }: InsideOptions = {},
): KernelObject[] {
  return [
    { kind: 'link', name: device, type: 'veth', up: true },
    ...(ips.some(({ family }) => family === 6)
      ? [{ kind: 'sysctl', path: `net/ipv6/conf/${device}/disable_ipv6`, value: '0' } as const]
      : []),
    ...ips.map(
      (ip) =>
        ({
          kind: 'address',
          device,
          ip,
          prefixLength: Cidr.host(ip).length,
          ...(ip.family === 6 && !enableDad ? { noDad: true } : {}),
        }) as const,
    ),
    ...familiesOf(ips).map((family) => planGatewayNeighbour(device, family)),
    ...(forwards === undefined ? [] : familiesOf(ips).map((family) => planForwarding(family, forwards))),
  ]
}

const planForwarding = (family: Family, on: boolean) =>
  ({
    kind: 'sysctl',
    path: family === 4 ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding',
    value: on ? '1' : '0',
  }) as const

/** The gateway's hardware address, for good. */
export const planGatewayNeighbour = (device: string, family: Family) =>
  ({ kind: 'neighbour', device, ip: gatewayOf(family), mac: nodeMac, state: 'permanent' }) as const

/** For each family: the way to the gateway, then everything by it. */
export const planPodRoutes = (device: string, ips: readonly Ip[]): Route[] =>
  familiesOf(ips).flatMap((family) => planGatewayRoutes(device, family))

const planGatewayRoutes = (device: string, family: Family, table?: number): Route[] => {
  const via = gatewayOf(family)
  const inTable = table === undefined ? {} : { table }
  return [
    {
      kind: 'route',
      ...inTable,
      destination: Cidr.host(via),
      hops: [{ device }],
      ...(family === 4 ? { scope: 'link' } : {}),
    },
    { kind: 'route', ...inTable, destination: Cidr.all(family), hops: [{ device, via }] },
  ]
}

/**
 * For an interface of a pod that has its default route elsewhere: what is sent from its address goes out by it, through a table
 * of its own. Else answers would leave by the other interface, from an address that the node does not let in there.
 */
export const planSourceRouting = (device: string, ips: readonly Ip[], table: number): (Route | Rule)[] =>
  ips.flatMap((ip) => [
    ...planGatewayRoutes(device, ip.family, table),
    { kind: 'rule', family: ip.family, priority: 1000 + (table % 1000), from: Cidr.host(ip), table } as const,
  ])

/**
 * What the node has for one pod besides the device itself: routes to it, answers to its questions, forwarding. With other
 * sources the pod may send under addresses that the kernel's own check cannot know; undefined: that check stays as it is.
 */
export function planHostSide(device: string, ips: readonly Ip[], otherSources: boolean | undefined): KernelObject[] {
  return familiesOf(ips).flatMap((family) => [
    ...(family === 4 ? planSettings4(device, otherSources) : planSettings6(device)),
    ...ips.filter((ip) => ip.family === family).map((ip) => planPodRoute(device, ip)),
  ])
}

export const planPodRoute = (device: string, ip: Ip): Route => ({
  kind: 'route',
  destination: Cidr.host(ip),
  hops: [{ device }],
  ...(ip.family === 4 ? { scope: 'link' } : {}),
  protocol: WEFT_ROUTE_PROTOCOL,
})

function planSettings4(device: string, otherSources: boolean | undefined): KernelObject[] {
  const variable = (path: string, value: string) => ({ kind: 'sysctl', path: `net/ipv4/${path}`, value }) as const
  return [
    planForwarding(4, true),
    // The larger of this and `all` counts: only 2 takes a strict check back that the node has for all devices.
    ...(otherSources === undefined ? [] : [variable(`conf/${device}/rp_filter`, otherSources ? '2' : '1')]),
    variable(`conf/${device}/proxy_arp`, '1'),
    variable(`neigh/${device}/proxy_delay`, '0'),
    {
      kind: 'route',
      destination: Cidr.host(gateway4),
      hops: [{ device: 'lo' }],
      scope: 'link',
      metric: gatewayMetric,
      protocol: WEFT_ROUTE_PROTOCOL,
    },
  ]
}

const planSettings6 = (device: string): KernelObject[] => [
  planForwarding(6, true),
  { kind: 'address', device, ip: gateway6, prefixLength: 64, noDad: true },
]
