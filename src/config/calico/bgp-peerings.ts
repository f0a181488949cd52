/**
 * Who speaks with whom, by Calico's objects, as one node sees it: every session that this node has, and which object says so.
 *
 *   1  BGPPeers of every node         address, or every node that peerSelector selects
 *   2  BGPPeers of this node          the same, for nodes by name or by nodeSelector
 *   3  the same from the other end    a node that is selected as a peer, or whose address is peerIP (reversePeering Auto)
 *   4  the mesh                       every node that is no reflector, unless this one is
 *
 * Of several that say the same address and port the first counts; within a group the first object by name. IPv4 and IPv6 are
 * sessions of their own, each for its family, as with Calico: a mesh may have nodes of both programs.
 *
 * Sources: Calico confd/pkg/backends/calico/client.go (updatePeersV1, nodeAsBGPPeers, nodesWithIPPortAndAS) and
 * bgp_processor.go (processMeshPeers).
 */
import { DEFAULT_BGP_PORT } from '../../model/bgp.ts'
import { type BgpNode, nodeAddressOf } from '../../model/bgp-cluster.ts'
import type { BgpPeer } from '../../model/calico-bgp.ts'
import type { Family, Ip } from '../../net/ip.ts'
import { parseSelector } from './selector.ts'

/** One session of this node. */
export interface Peering {
  readonly address: Ip
  readonly port: number
  readonly asn: number
  /** The object; undefined: the mesh. */
  readonly object: BgpPeer | undefined
  /** The node that has the address; undefined: a router outside. */
  readonly node: BgpNode | undefined
}

/** Numbers and ports that nodes have, by what the objects say together. */
export interface NodeNumbers {
  asnOf(node: BgpNode): number
  portOf(node: BgpNode): number
  readonly defaultAsn: number
}

const FAMILIES = [4, 6] as const

export function peeringsOf(
  self: BgpNode,
  nodes: ReadonlyMap<string, BgpNode>,
  peers: readonly BgpPeer[],
  hasMesh: boolean,
  numbers: NodeNumbers,
): readonly Peering[] {
  const found = new Map<string, Peering>()
  const byAddress = nodesByAddress(nodes)
  const add = (peering: Peering) => {
    const own = nodeAddressOf(self, peering.address.family)
    const key = `${peering.address} ${peering.port}`
    if (own && !own.ip.equals(peering.address) && !found.has(key)) found.set(key, peering)
  }
  const addNode = (node: BgpNode, families: readonly Family[], object: BgpPeer | undefined) => {
    for (const family of families) {
      const address = nodeAddressOf(node, family)?.ip
      if (address && node.name !== self.name)
        add({ address, port: numbers.portOf(node), asn: numbers.asnOf(node), object, node })
    }
  }
  const sorted = [...peers]
    .filter(({ localWorkloadSelector }) => localWorkloadSelector === undefined)
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const all = [...nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  const isEverybodys = ({ node, nodeSelector }: BgpPeer) => node === undefined && nodeSelector === undefined
  for (const everybodys of [true, false])
    for (const object of sorted) {
      if (isEverybodys(object) !== everybodys || !isOf(object, self)) continue
      if (object.peer) add(endpointOf(object, object.peer, byAddress, numbers))
      else for (const node of all) if (isPeer(object, node)) addNode(node, FAMILIES, object)
    }
  for (const object of sorted) {
    if (object.reversePeering === 'Manual') continue
    const families = reverseFamilies(object, self, numbers)
    if (families.length > 0) for (const node of all) if (isOf(object, node)) addNode(node, families, object)
  }
  if (hasMesh && self.reflectorClusterId === undefined)
    for (const node of all) if (node.reflectorClusterId === undefined) addNode(node, FAMILIES, undefined)
  return [...found.values()]
}

/** Is the object a peer of this node's? */
function isOf({ node, nodeSelector }: BgpPeer, self: BgpNode): boolean {
  if (node !== undefined) return node === self.name
  return nodeSelector === undefined || parseSelector(nodeSelector)(self.labels)
}

const isPeer = ({ peerSelector }: BgpPeer, node: BgpNode): boolean =>
  peerSelector !== undefined && parseSelector(peerSelector)(node.labels)

function endpointOf(
  object: BgpPeer,
  { address, port }: NonNullable<BgpPeer['peer']>,
  byAddress: ReadonlyMap<string, BgpNode>,
  numbers: NodeNumbers,
): Peering {
  const node = byAddress.get(`${address}`)
  return {
    address,
    port: port ?? (node ? numbers.portOf(node) : DEFAULT_BGP_PORT),
    asn: object.asn ?? (node ? numbers.asnOf(node) : numbers.defaultAsn),
    object,
    node,
  }
}

/** Families in which an object names this node as the peer of others. */
function reverseFamilies(object: BgpPeer, self: BgpNode, numbers: NodeNumbers): readonly Family[] {
  const { peer, asn } = object
  if (!peer) return isPeer(object, self) ? FAMILIES : []
  const { family } = peer.address
  const isOwn =
    nodeAddressOf(self, family)?.ip.equals(peer.address) &&
    (asn ?? numbers.defaultAsn) === numbers.asnOf(self) &&
    (peer.port === undefined || peer.port === numbers.portOf(self))
  return isOwn ? [family] : []
}

function nodesByAddress(nodes: ReadonlyMap<string, BgpNode>): ReadonlyMap<string, BgpNode> {
  const found = new Map<string, BgpNode>()
  for (const node of nodes.values())
    for (const family of FAMILIES) {
      const address = nodeAddressOf(node, family)
      if (address) found.set(`${address.ip}`, node)
    }
  return found
}
