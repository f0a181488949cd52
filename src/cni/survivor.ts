/**
 * What the kernel tells of attachments whose records are lost. A port's alias has the container, its addresses and its
 * network; the rest is read from the port, its bridge and the node's packet rules. Of an interface that another plugin made,
 * host ports are told by the comments of their elements, a limit by the alias of its ifb device or by the bucket on a port of ours.
 *
 * Not told, and so not recovered: the path of the namespace, an MTU of the configuration's own, and a limit towards the
 * container alone on another plugin's device. All of them end with the container's namespace.
 */
import { configuredBridgeAlias, nodeBridgeAlias } from '../datapath/bridge/plan.ts'
import { sourceAddressOf } from '../datapath/bridge/source-check.ts'
import { type PortVlans, vlanDeviceOf } from '../datapath/bridge/vlan.ts'
import { allowedPrefixesOf } from '../datapath/routed/source-check.ts'
import type { Kernel } from '../kernel/kernel.ts'
import type { Address, BridgeVlan, Link } from '../model/link.ts'
import type { NftChain, NftElement } from '../model/nft.ts'
import type { Qdisc } from '../model/traffic.ts'
import { Cidr } from '../net/cidr.ts'
import { bitsOf, type Ip } from '../net/ip.ts'
import { masqueradedSubnet } from './attachment-fragment.ts'
import type { Bandwidth } from './config.ts'
import { handleOf, type PodIdentity, parsePodAlias, type RoutedFrom } from './identity.ts'
import type { Attachment } from './journal.ts'
import { ifbName } from './limits.ts'
import { nodePool } from './pools.ts'
import { hostPortsOf, targetsOf } from './shared-rules.ts'
import { isOurs, type Links } from './wiring.ts'

export interface Survivors {
  readonly links: Links
  readonly addresses: readonly Address[]
  readonly vlans: readonly BridgeVlan[]
  readonly elements: readonly NftElement[]
  readonly chains: readonly NftChain[]
  readonly buckets: readonly Qdisc[]
}

export async function readSurvivors(kernel: Kernel, links: Links): Promise<Survivors> {
  return {
    links,
    addresses: await kernel.read('address'),
    vlans: await kernel.read('bridge-vlan'),
    elements: await kernel.read('nft-element'),
    chains: await kernel.read('nft-chain'),
    buckets: (await kernel.read('qdisc')).filter(({ type }) => type === 'tbf'),
  }
}

/** The attachment of a routed pod's device of ours. */
function describeRouted(
  link: Link,
  routed: RoutedFrom,
  { containerId, ifname, ips, network }: PodIdentity,
  seen: Survivors,
): Omit<Attachment, 'id'> {
  const portMappings = hostPortsOf(seen.elements, ips)
  const limits = limitsOf(link.name, { containerId, ifname, ips, network }, seen)
  const allowedSources = allowedPrefixesOf(link.name, seen.elements)
  return {
    role: 'routed',
    network,
    containerId,
    ifname,
    netnsPath: '',
    pool: routed === 'node' ? nodePool : routed === 'configuration' ? network : '',
    ips: ips.map((ip) => ({ ip, prefixLength: bitsOf(ip.family) })),
    ...(routed === 'pool' ? { handle: handleOf(network, containerId, ifname) } : {}),
    hostDevice: link.name,
    ...(allowedSources.length ? { allowedSources } : {}),
    ...(portMappings.length ? { portMappings } : {}),
    ...(limits ? { bandwidth: limits } : {}),
  }
}

/** The attachment of a device of ours. */
export function describePort(link: Link, identity: PodIdentity, seen: Survivors): Omit<Attachment, 'id'> {
  if (identity.routed) return describeRouted(link, identity.routed, identity, seen)
  const { containerId, ifname, ips, network } = identity
  const vlans = vlansOf(link.name, seen.vlans)
  const entrance = entranceOf(link, vlans, seen)
  const subnets = subnetsOf(entrance, seen)
  const subnetOf = (ip: Ip) => subnets.find((subnet) => subnet.contains(ip))
  const masqueraded = ips.some((ip) => seen.chains.some((chain) => masqueradedSubnet(chain)?.contains(ip)))
  const portMappings = hostPortsOf(seen.elements, ips)
  const mac = sourceAddressOf(link.name, seen.elements)
  const limits = limitsOf(link.name, identity, seen)
  return {
    role: 'bridge',
    network,
    containerId,
    ifname,
    netnsPath: '',
    pool: isOfNode(link, entrance, ips, subnets, seen) ? nodePool : network,
    ips: ips.map((ip) => ({ ip, prefixLength: subnetOf(ip)?.length ?? bitsOf(ip.family) })),
    hostDevice: link.name,
    ...(link.master ? { bridge: link.master } : {}),
    ...(link.port?.hairpin === undefined ? {} : { hairpin: link.port.hairpin }),
    ...(link.port?.isolated ? { isolated: true } : {}),
    ...(mac === undefined ? {} : { mac, macSpoofCheck: true }),
    ...(vlans ? { vlans } : {}),
    ...(entrance !== undefined && entrance !== link.master ? { gatewayDevice: entrance } : {}),
    ...(masqueraded ? { ipMasq: true } : {}),
    ...(portMappings.length ? { portMappings } : {}),
    ...(limits ? { bandwidth: limits } : {}),
  }
}

/** The VLANs of a port that is in others than the default one. */
function vlansOf(port: string, all: readonly BridgeVlan[]): PortVlans | undefined {
  const own = all.filter(({ device }) => device === port)
  const access = own.find(({ vlan, pvid }) => pvid && vlan !== 1)?.vlan
  const trunk = own.filter(({ untagged }) => !untagged).map(({ vlan }) => [vlan, vlan] as const)
  if (access === undefined && trunk.length === 0) return undefined
  return { ...(access === undefined ? {} : { access }), trunk, keepDefault: own.some(({ vlan }) => vlan === 1) }
}

/** The node's device that is the port's gateway: its bridge, or a device of ours in its VLAN. */
function entranceOf(link: Link, vlans: PortVlans | undefined, { links }: Survivors): string | undefined {
  if (!link.master || vlans?.access === undefined) return link.master ?? undefined
  const inVlan = vlanDeviceOf(link.master, vlans.access)
  return links.get(inVlan)?.alias === configuredBridgeAlias ? inVlan : link.master
}

/** Subnets that are known around the port: of its gateway, and of the rules that masquerade them. */
function subnetsOf(entrance: string | undefined, { addresses, chains }: Survivors): Cidr[] {
  const own = addresses.filter(({ device, ip }) => device === entrance && !ip.isLinkLocal)
  return [
    ...own.map(({ ip, prefixLength }) => Cidr.of(ip, prefixLength)),
    ...chains.flatMap((chain) => masqueradedSubnet(chain) ?? []),
  ]
}

/** Whether the addresses are of the node's own pool: on its bridge, and not outside of what that one has. */
function isOfNode(
  { master }: Link,
  entrance: string | undefined,
  ips: readonly Ip[],
  subnets: readonly Cidr[],
  { links }: Survivors,
): boolean {
  if (master && (links.get(master)?.alias !== nodeBridgeAlias || entrance !== master)) return false
  return subnets.length === 0 || ips.every((ip) => subnets.some((subnet) => subnet.contains(ip)))
}

/**
 * The limits of a container. From it: told by a device of its own, without a bucket too, as that must go with the pod. To it: a
 * bucket beside that device, or on a port that is ours; nothing tells of a bucket alone on another's port whose it is.
 */
function limitsOf(port: string, { containerId, ifname }: PodIdentity, seen: Survivors): Bandwidth | undefined {
  const ours = (name: string) => {
    const link = seen.links.get(name)
    return link && isOurs(link, containerId, ifname) ? link : undefined
  }
  const bucketOf = (name: string) => seen.buckets.find(({ device }) => device === name)?.tbf
  const ifb = ours(ifbName(port))
  const ingress = ifb || ours(port) ? bucketOf(port) : undefined
  if (!ifb && !ingress) return undefined
  const egress = ifb && bucketOf(ifb.name)
  return {
    ingressRate: ingress?.rateBitsPerSecond ?? 0,
    ingressBurst: (ingress?.burstBytes ?? 0) * 8,
    egressRate: ifb ? (egress?.rateBitsPerSecond ?? 8) : 0,
    egressBurst: (egress?.burstBytes ?? 0) * 8,
  }
}

/** Attachments to interfaces that other plugins made, by the marks on their elements and ifb devices. */
export function describeChained(seen: Survivors): Omit<Attachment, 'id'>[] {
  const found = new Map<string, PodIdentity>()
  const note = (mark: string | undefined) => {
    const identity = mark === undefined ? undefined : parsePodAlias(mark)
    if (identity) found.set(`${identity.containerId}/${identity.ifname}`, identity)
  }
  for (const { comment } of seen.elements) note(comment)
  const ports = [...seen.links.values()].filter(({ type, alias }) => type === 'veth' && !parsePodAlias(alias ?? ''))
  const limited = (identity: PodIdentity) => ports.find(({ name }) => limitsOf(name, identity, seen) !== undefined)
  for (const { type, alias } of seen.links.values()) if (type === 'ifb') note(alias)
  return [...found.values()].flatMap((identity) => {
    const { containerId, ifname, network } = identity
    const own = seen.elements.filter(({ comment }) => {
      const owner = comment === undefined ? undefined : parsePodAlias(comment)
      return owner?.containerId === containerId && owner.ifname === ifname
    })
    const ips = targetsOf(own)
    const portMappings = hostPortsOf(own, ips)
    const port = limited(identity)
    const bandwidth = port && limitsOf(port.name, identity, seen)
    if (portMappings.length === 0 && !bandwidth) return []
    return {
      role: 'chained' as const,
      network,
      containerId,
      ifname,
      netnsPath: '',
      pool: '',
      ips: ips.map((ip) => ({ ip, prefixLength: bitsOf(ip.family) })),
      hostDevice: port?.name ?? '',
      ...(portMappings.length ? { portMappings } : {}),
      ...(bandwidth ? { bandwidth } : {}),
    }
  })
}
