/**
 * What an attachment wants of the node besides its device, as one fragment that the applier owns and keeps: an element for each
 * host port, for a gateway other than cni0 its name, for `macspoofchk` the check of its port, and for `ipMasq` a chain that
 * masquerades its subnet. Attachments of one subnet want the same chain; it goes with the last of them. Pods of the node's
 * own pool need none: the node's pod network is masqueraded as a whole. A routed pod wants its routes, the answers that its
 * device gives, and the check of its sources.
 */
import { planSourceCheck } from '../datapath/bridge/source-check.ts'
import { planHostPortRules, planHostPorts, planPodDevice } from '../datapath/firewall/firewall.ts'
import { planHostSide } from '../datapath/routed/plan.ts'
import {
  hairpinChain,
  planClosedDevice,
  planOwnSubnetDevice,
  planSourceCheck as planRoutedSourceCheck,
} from '../datapath/routed/source-check.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { NftChain } from '../model/nft.ts'
import { Cidr } from '../net/cidr.ts'
import { Ip } from '../net/ip.ts'
import { Mac } from '../net/mac.ts'
import type { PortMapping } from './config.ts'
import { podAlias } from './identity.ts'
import type { Attachment, HeldAddress } from './journal.ts'
import { nodePool } from './pools.ts'

/** Of a comment of an nft element (NFTNL_UDATA_COMMENT_MAXLEN). */
const maxCommentBytes = 127

export const fragmentSource = ({ role, containerId, ifname }: Attachment): string =>
  `cni/${containerId}/${ifname}${role === 'chained' ? '/chained' : ''}`

/** What the node says of pods' sources: whether allowedSourcePrefixes count. Undefined: nobody has said yet. */
export type SourceSpoofing = 'Any' | 'Disabled' | undefined

/** The attachment's fragment; undefined when it wants nothing there. */
export function attachmentFragment(attachment: Attachment, spoofing?: SourceSpoofing): Fragment | undefined {
  if (attachment.role === 'routed')
    return { source: fragmentSource(attachment), objects: planRouted(attachment, spoofing) }
  const { portMappings, ips, ipMasq, pool, hostDevice, mac, macSpoofCheck } = attachment
  const entrance = attachment.gatewayDevice ?? attachment.bridge
  const objects: KernelObject[] = []
  // The table lets pod addresses in by cni0 only: a device of a configuration's own must be named to it.
  if (entrance !== undefined && entrance !== 'cni0') objects.push(planPodDevice(entrance))
  if (portMappings?.length) objects.push(...planPorts(attachment, portMappings, entrance))
  if (macSpoofCheck && mac) objects.push(...planSourceCheck(hostDevice, Mac.parse(mac)))
  if (ipMasq && pool !== nodePool) objects.push(...ips.map(planMasquerade))
  return objects.length ? { source: fragmentSource(attachment), objects } : undefined
}

function planRouted(
  { hostDevice, ips, pool, portMappings, allowedSources = [] }: Attachment,
  spoofing: SourceSpoofing,
) {
  const own = ips.map(({ ip }) => ip)
  const allowed = spoofing === 'Any' ? allowedSources : []
  const otherSources = allowedSources.length > 0 && spoofing === undefined ? undefined : allowed.length > 0
  return [
    ...planRoutedSourceCheck(hostDevice, own, allowed),
    ...planHostSide(hostDevice, own, otherSources),
    ...(pool === nodePool ? planOwnSubnetDevice(hostDevice) : []),
    ...(portMappings?.length
      ? [...planHostPortRules(), hairpinChain, ...planHostPorts({ ips: own }, portMappings, { bridge: hostDevice })]
      : []),
  ]
}

/** A routed pod that is going: nothing leads there, and nothing is let in from there. Undefined for others. */
export const partingFragment = (attachment: Attachment): Fragment | undefined =>
  attachment.role === 'routed'
    ? { source: fragmentSource(attachment), objects: planClosedDevice(attachment.hostDevice) }
    : undefined

/** Nothing but a comment tells whose the host ports of another plugin's interface are. */
function planPorts(
  { role, containerId, ifname, network, ips }: Attachment,
  portMappings: readonly PortMapping[],
  bridge: string | undefined,
): KernelObject[] {
  const objects = planHostPorts({ ips: ips.map(({ ip }) => ip) }, portMappings, bridge ? { bridge } : {})
  const comment = podAlias(containerId, ifname, [], network)
  if (role !== 'chained' || comment.length > maxCommentBytes) return objects
  return objects.map((object) => (object.kind === 'nft-element' ? { ...object, comment } : object))
}

const chainName = (subnet: Cidr): string => `ipmasq-${subnet}`.replaceAll(':', '_').replace('/', '-')

/** The subnet that a chain of `ipMasq` masquerades; undefined for other chains. */
export function masqueradedSubnet({ family, table, name }: NftChain): Cidr | undefined {
  const match = /^ipmasq-([0-9a-f._]+)-(\d+)$/.exec(name)
  const ip = match && family === 'inet' && table === 'weft' ? Ip.tryParse(match[1]!.replaceAll('_', ':')) : undefined
  return ip && Cidr.of(ip, Number(match![2]))
}

/** Everything from the subnet to elsewhere, but for multicast. */
function planMasquerade({ ip, prefixLength }: HeldAddress): NftChain {
  const cidr = Cidr.of(ip, prefixLength)
  const subnet = `${cidr}`
  const [saddr, daddr, multicast] =
    ip.family === 4
      ? (['ip saddr', 'ip daddr', '224.0.0.0/4'] as const)
      : (['ip6 saddr', 'ip6 daddr', 'ff00::/8'] as const)
  const from = { match: [saddr], right: subnet }
  return {
    kind: 'nft-chain',
    family: 'inet',
    table: 'weft',
    name: chainName(cidr),
    base: { type: 'nat', hook: 'postrouting', priority: 100 },
    rules: [
      { statements: [from, { match: [daddr], right: subnet }, { verdict: 'return' }] },
      { statements: [from, { match: [daddr], op: '!=', right: multicast }, { masquerade: {} }] },
    ],
  }
}
