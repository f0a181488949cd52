/**
 * From a request, the node's network and the addresses given to what is to be made, recorded and answered. No effects.
 */
import {
  type BridgePlan,
  configuredBridgeAlias,
  gatewayDeviceOf,
  hostMac,
  nodeBridgeAlias,
  type PodPlan,
  type PrefixedIp,
  planPodRoutes,
  podMac,
} from '../datapath/bridge/plan.ts'
import { Cidr, parsePrefixed } from '../net/cidr.ts'
import type { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import type { NetworkConfig } from './config.ts'
import { CniCode, CniError } from './error.ts'
import { digestOf, hostDeviceOf, podAlias } from './identity.ts'
import type { Attachment } from './journal.ts'
import type { NodeNetwork } from './network.ts'
import type { AttachmentRequest } from './request.ts'
import type { CniResult, ResultRoute } from './result.ts'
import type { AddressRule } from './wiring.ts'

/** What an attachment gets besides a device: its addresses and routes. */
export interface Share {
  readonly pool: string
  readonly ips: readonly (PrefixedIp & { readonly gateway?: Ip; readonly set?: number })[]
  readonly routes: readonly ResultRoute[]
}

export const nodeBridgeOf = (network: NodeNetwork): string => network.bridge ?? 'cni0'

/** Routes that the configuration names; those of the node's pool lead to the cluster's networks. */
export function routesOf({ ipam }: NetworkConfig, network: NodeNetwork): readonly ResultRoute[] {
  if (ipam.type === 'node') return network.clusterNetworks.map((cidr) => ({ destination: `${cidr}` }))
  return ipam.type === 'none' ? [] : ipam.routes
}

/** Addresses asked for by the runtime, of a network that gives none itself. Throws CniError 7. */
export const staticAddresses = (wanted: readonly { ip: Ip; prefixLength?: number }[]): PrefixedIp[] =>
  wanted.map(({ ip, prefixLength }) => {
    if (prefixLength === undefined)
      throw new CniError(CniCode.invalidConfig, `${ip}: a static address needs its prefix length`)
    return { ip, prefixLength }
  })

export function podPlanOf(request: AttachmentRequest, network: NodeNetwork, { ips, routes }: Share): PodPlan {
  const { config, containerId, ifname } = request
  const digest = digestOf(containerId, ifname)
  const gateways = ips.flatMap(({ gateway }) => (gateway ? [gateway] : []))
  const defaults = planPodRoutes(gateways, [], config.isDefaultGateway)
  const others = routes
    .map((route) => planRoute(route, gateways))
    .filter(({ destination }) => !(config.isDefaultGateway && destination.length === 0))
  return {
    hostDevice: hostDeviceOf(digest),
    alias: podAlias(containerId, ifname, ips, config.name),
    hostMac: hostMac(digest),
    bridge: config.bridge ?? nodeBridgeOf(network),
    mtuBytes: config.mtuBytes ?? network.mtuBytes,
    hairpin: config.hairpin ?? network.hairpin ?? true,
    isolated: config.portIsolation,
    podDevice: ifname,
    netnsPath: request.netnsFile ?? request.netnsPath,
    mac: config.runtime.mac ?? request.args.mac ?? podMac(ips, digest),
    ips,
    routes: [...defaults, ...others],
    enableDad: config.enableDad,
    podDown: config.disableContainerInterface,
  }
}

function planRoute(route: ResultRoute, gateways: readonly Ip[]): PodPlan['routes'][number] {
  const { ip, length } = parsePrefixed(route.destination)
  const destination = Cidr.of(ip, length)
  const via = route.via ?? gateways.find(({ family }) => family === destination.family)
  return {
    destination,
    ...(via ? { via } : {}),
    ...(route.mtuBytes ? { mtuBytes: route.mtuBytes } : {}),
    ...(route.advertisedMssBytes ? { advertisedMssBytes: route.advertisedMssBytes } : {}),
    ...(route.priority ? { metric: route.priority } : {}),
    ...(route.table ? { table: route.table } : {}),
  }
}

export interface WantedBridge {
  readonly plan: BridgePlan
  readonly rule: AddressRule
}

export function bridgePlanOf(config: NetworkConfig, network: NodeNetwork, { ips }: Share): WantedBridge {
  const ofNode = config.ipam.type === 'node'
  const gateways = ips.flatMap(({ gateway, prefixLength }) => (gateway ? [{ ip: gateway, prefixLength }] : []))
  const name = config.bridge ?? nodeBridgeOf(network)
  const plan = {
    name,
    alias: name === nodeBridgeOf(network) ? nodeBridgeAlias : configuredBridgeAlias,
    ...(ofNode ? { mtuBytes: network.mtuBytes } : config.mtuBytes ? { mtuBytes: config.mtuBytes } : {}),
    ...(config.promiscuous ? { promiscuous: true } : {}),
    ...(config.vlans ? { vlanFiltering: true } : {}),
    ...vlanGatewayOf(config, name),
    gateways: config.isGateway ? gateways : [],
  }
  return { plan, rule: ofNode ? 'keep others' : config.forceAddress ? 'remove others' : 'refuse others' }
}

/** Where the gateway is inside a VLAN; the bridge's own MAC must then not follow its ports'. */
const vlanGatewayOf = ({ isGateway, vlans }: NetworkConfig, bridge: string) =>
  isGateway && vlans?.access !== undefined
    ? { gatewayVlan: vlans.access, newMac: Mac.local(digestOf('bridge', bridge)) }
    : {}

/** The bridge of the node's own pool, as every ADD from it wants it. */
export const nodeBridgePlan = (network: NodeNetwork): BridgePlan => ({
  name: nodeBridgeOf(network),
  alias: nodeBridgeAlias,
  mtuBytes: network.mtuBytes,
  gateways: network.podCidrs.map((cidr) => ({ ip: cidr.base.plus(1), prefixLength: cidr.length })),
})

/** The node's device inside the pod's VLAN, where the gateway is there. */
function gatewayDevice(config: NetworkConfig, bridge: string): { gatewayDevice?: string } {
  const { gatewayVlan } = vlanGatewayOf(config, bridge)
  return gatewayVlan === undefined ? {} : { gatewayDevice: gatewayDeviceOf({ name: bridge, gatewayVlan }) }
}

/** Whose the container is, for people. */
export const podOf = ({ args }: AttachmentRequest): { pod?: string } =>
  args.podName ? { pod: `${args.podNamespace ?? ''}/${args.podName}` } : {}

/** What the journal keeps. */
export function recordOf(request: AttachmentRequest, share: Share, plan: PodPlan): Omit<Attachment, 'id'> {
  const { config, containerId, ifname, netnsPath } = request
  const { portMappings, bandwidth } = config.runtime
  return {
    role: 'bridge',
    network: config.name,
    containerId,
    ifname,
    ...podOf(request),
    netnsPath,
    ...(request.netnsFile ? { netnsOfCaller: true } : {}),
    pool: share.pool,
    ips: share.ips.map(({ ip, prefixLength, set }) => ({ ip, prefixLength, ...(set === undefined ? {} : { set }) })),
    hostDevice: plan.hostDevice,
    bridge: plan.bridge,
    mac: `${plan.mac}`,
    ...(config.mtuBytes ? { fixedMtu: true } : {}),
    hairpin: plan.hairpin,
    ...(plan.isolated ? { isolated: true } : {}),
    ...(config.macSpoofCheck ? { macSpoofCheck: true } : {}),
    ...(config.vlans ? { vlans: config.vlans } : {}),
    ...gatewayDevice(config, plan.bridge),
    ...(config.ipMasq ? { ipMasq: true } : {}),
    ...(portMappings.length ? { portMappings } : {}),
    ...(bandwidth ? { bandwidth } : {}),
  }
}

/** A network's own DNS settings go before those of an earlier plugin. */
export const withDns = (result: CniResult, { dns }: NetworkConfig): CniResult =>
  Object.keys(dns).length ? { ...result, dns } : result

export function resultOf(
  plan: PodPlan,
  share: Share,
  bridgeMac: string,
  { config, netnsPath }: AttachmentRequest,
): CniResult {
  const { mtuBytes } = plan
  const inVlan = gatewayDevice(config, plan.bridge).gatewayDevice
  return {
    interfaces: [
      { name: plan.bridge, mac: bridgeMac },
      { name: plan.hostDevice, mac: `${plan.hostMac}`, mtuBytes },
      { name: plan.podDevice, mac: `${plan.mac}`, sandbox: netnsPath, mtuBytes },
      ...(inVlan === undefined ? [] : [{ name: inVlan, mac: bridgeMac }]),
    ],
    ips: share.ips.map(({ ip, prefixLength, gateway }) => ({
      ip,
      prefixLength,
      ...(gateway ? { gateway } : {}),
      interface: 2,
    })),
    routes: plan.routes.map(({ destination, via, mtuBytes: mtu, metric, table, advertisedMssBytes }) => ({
      destination: `${destination}`,
      ...(via ? { via } : {}),
      ...(mtu ? { mtuBytes: mtu } : {}),
      ...(advertisedMssBytes ? { advertisedMssBytes } : {}),
      ...(metric ? { priority: metric } : {}),
      ...(table ? { table } : {}),
    })),
    dns: config.dns,
  }
}
