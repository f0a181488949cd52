/**
 * Gateways of pod CIDRs that the node had before. A node that is made anew in the cluster may get another pod CIDR while its
 * pods run: they keep the gateway they know. Once the last of them is gone the address has to go as well, as another node may
 * be given the CIDR, and what is sent there would end on this node's bridge.
 */
import type { Kernel } from '../kernel/kernel.ts'
import type { Address } from '../model/link.ts'
import { Cidr } from '../net/cidr.ts'
import { nodeBridgePlan } from './attachment-plan.ts'
import type { Attachment } from './journal.ts'
import type { NodeNetwork } from './network.ts'
import { readLinks, remove, throwFirst } from './wiring.ts'

export interface FormerGateways {
  /** Nobody needs these any more. */
  readonly unused: readonly Address[]
  /** Pods still have these for their gateway. */
  readonly used: readonly Address[]
}

/** Looks at the node's own bridge. An address is a former gateway when it is the first of a subnet of the cluster's network. */
export async function readFormerGateways(
  kernel: Kernel,
  network: NodeNetwork,
  attachments: () => Iterable<Attachment>,
): Promise<FormerGateways> {
  const { name, alias, gateways } = nodeBridgePlan(network)
  if ((await readLinks(kernel)).get(name)?.alias !== alias) return { unused: [], used: [] }
  const isFormer = ({ device, ip, prefixLength }: Address) => {
    const subnet = Cidr.of(ip, prefixLength)
    return (
      device === name &&
      ip.equals(subnet.base.plus(1)) &&
      network.clusterNetworks.some((cluster) => cluster.covers(subnet)) &&
      !gateways.some((wanted) => wanted.ip.equals(ip))
    )
  }
  const former = (await kernel.read('address')).filter(isFormer)
  const living = [...attachments()].filter(({ bridge }) => bridge === name).flatMap(({ ips }) => ips)
  const isUsed = ({ ip, prefixLength }: Address) => living.some((held) => Cidr.of(ip, prefixLength).contains(held.ip))
  return { unused: former.filter((one) => !isUsed(one)), used: former.filter(isUsed) }
}

/** Throws CniError 102. */
export async function removeGateways(kernel: Kernel, addresses: readonly Address[]): Promise<void> {
  const results = await kernel.execute(addresses.map(remove))
  throwFirst(results.filter((result) => result?.code !== 'EADDRNOTAVAIL'))
}
