/**
 * What an attachment wants in the node's shared nft tables, as one fragment that the applier owns: an element for each
 * host port, for a gateway other than cni0 its name, for `macspoofchk` the check of its port, and for `ipMasq` a chain that
 * masquerades its subnet. Attachments of one subnet want the same chain; it goes with the last of them. Pods of the node's
 * own pool need none: the node's pod network is masqueraded as a whole.
 */
import { planSourceCheck } from '../datapath/bridge/source-check.ts'
import { planHostPorts, planPodDevice } from '../datapath/firewall/firewall.ts'
import type { KernelObject } from '../model/kernel-object.ts'
import type { Fragment } from '../model/kernel-state.ts'
import type { NftChain } from '../model/nft.ts'
import { Cidr } from '../net/cidr.ts'
import { Mac } from '../net/mac.ts'
import type { Attachment, HeldAddress } from './journal.ts'
import { nodePool } from './pools.ts'

export const fragmentSource = ({ role, containerId, ifname }: Attachment): string =>
  `cni/${containerId}/${ifname}${role === 'chained' ? '/chained' : ''}`

/** The attachment's fragment; undefined when it wants nothing there. */
export function attachmentFragment(attachment: Attachment): Fragment | undefined {
  const { portMappings, ips, ipMasq, pool, hostDevice, mac, macSpoofCheck } = attachment
  const entrance = attachment.gatewayDevice ?? attachment.bridge
  const objects: KernelObject[] = []
  // The table lets pod addresses in by cni0 only: a device of a configuration's own must be named to it.
  if (entrance !== undefined && entrance !== 'cni0') objects.push(planPodDevice(entrance))
  if (portMappings?.length)
    objects.push(...planHostPorts({ ips: ips.map(({ ip }) => ip) }, portMappings, entrance ? { bridge: entrance } : {}))
  if (macSpoofCheck && mac) objects.push(...planSourceCheck(hostDevice, Mac.parse(mac)))
  if (ipMasq && pool !== nodePool) objects.push(...ips.map(planMasquerade))
  return objects.length ? { source: fragmentSource(attachment), objects } : undefined
}

/** Everything from the subnet to elsewhere, but for multicast. */
function planMasquerade({ ip, prefixLength }: HeldAddress): NftChain {
  const subnet = `${Cidr.of(ip, prefixLength)}`
  const [saddr, daddr, multicast] =
    ip.family === 4
      ? (['ip saddr', 'ip daddr', '224.0.0.0/4'] as const)
      : (['ip6 saddr', 'ip6 daddr', 'ff00::/8'] as const)
  const from = { match: [saddr], right: subnet }
  return {
    kind: 'nft-chain',
    family: 'inet',
    table: 'weft',
    name: `ipmasq-${subnet.replaceAll(':', '_').replace('/', '-')}`,
    base: { type: 'nat', hook: 'postrouting', priority: 100 },
    rules: [
      { statements: [from, { match: [daddr], right: subnet }, { verdict: 'return' }] },
      { statements: [from, { match: [daddr], op: '!=', right: multicast }, { masquerade: {} }] },
    ],
  }
}
