/**
 * Whose the cluster's pod addresses are, and the policy that refuses a route of them from elsewhere: a node that tells of
 * another node's block, by mistake or not, would draw that node's traffic to itself.
 *
 *   10.244.1.0/26 of node a ─► next hops of a      10.244.1.7/32, which b borrowed ─► next hops of b
 *
 * What belongs to a node that nobody knows is not guarded.
 */
import { MISPLACED_RULE, type PolicyConfig, type PrefixOwner } from '../../model/bgp.ts'
import type { BgpNode } from '../../model/bgp-cluster.ts'
import type { BlockRoutes } from '../../model/calico.ts'
import { Cidr } from '../../net/cidr.ts'

export const leakGuard: PolicyConfig = {
  name: 'leak-guard',
  rules: [{ name: MISPLACED_RULE, match: { misplaced: true }, changes: [], verdict: 'reject' }],
}

/** By prefix. */
export function ownershipOf(
  blocks: Iterable<BlockRoutes>,
  nodes: ReadonlyMap<string, BgpNode>,
): readonly PrefixOwner[] {
  const owned = new Map<string, { readonly cidr: Cidr; readonly owner: BgpNode }>()
  const own = (cidr: Cidr, name: string | undefined) => {
    const owner = name === undefined ? undefined : nodes.get(name)
    if (owner && (owner.ipv4 || owner.ipv6)) owned.set(`${cidr}`, { cidr, owner })
  }
  const borrowed: [Cidr, string][] = []
  for (const block of blocks) {
    own(block.cidr, block.node)
    for (const { ip, node } of block.borrowed) borrowed.push([Cidr.host(ip), node])
  }
  for (const [cidr, node] of borrowed) own(cidr, node)
  return [...owned.values()]
    .sort((a, b) => a.cidr.compare(b.cidr))
    .map(({ cidr, owner }) => ({
      prefix: `${cidr}`,
      nextHops: [owner.ipv4, owner.ipv6].flatMap((address) => (address ? [`${address.ip}`] : [])),
      owner: owner.name,
    }))
}
